"""Fair comparison of distilled sets with real images, and the scores of DD-Ranking.

Soft labels and augmentation lift random real images too. So a set with soft labels is
compared with random images under labels of a network trained on the real ones, and
evaluated under hard labels besides; a protocol that augments is tried without.

Li et al. 2025, DD-Ranking (arXiv 2505.13300, sec. 3), accuracies in 0..1:

    HLR = acc(whole data, hard labels) - acc(set, hard labels)
    IOR = acc(set) - acc(random images under the same evaluation)
    LRS = 100 (e^a - e^-1) / (e - e^-1),  a = w IOR - (1 - w) HLR
    ARS = 100 (e^b - e^-1) / (e - e^-1),  b = w IOR + (1 - w) IOR without augmentation

with w = 1/2. LRS is 26.9 where HLR = IOR = 0, and so is ARS where both IOR are 0.

Departures: the labels of random images are those of one expert, trained as the whole
data are (`WHOLE`, a few epochs), where DD-Ranking takes a teacher trained to the end;
and HLR is against that accuracy. Records hold both accuracies. Networks learn at the
protocol's rate and with its augmentation, and are tested at its end; the code of DD-Ranking
takes the best of five rates for hard labels and random images, leaves augmentation out for
hard labels, and takes the best test accuracy along each training.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple, NotRequired, TypedDict

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from distilljax.analysis.statistics import Spread
from distilljax.comparison.accuracy import compare_accuracies, measure_accuracies
from distilljax.comparison.real import RANDOM, real_labels
from distilljax.core import losses
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol, Labels
from distilljax.types import Array, Batch, DistilledSet, Key, Model, RealSet

# Training on the whole set.
WHOLE = EvaluationProtocol(steps=None, epochs=1, batch=64, lr=0.02, decay_at=0.7)
WEIGHT = 0.5
SOFT = 1e-6  # a label whose largest probability is less than one by more is soft


class ExpertRecord(TypedDict):
    """The network whose labels random real images have."""

    epochs: int
    batch: int
    lr: float
    accuracy: float  # of test images


class Scores(TypedDict):
    """Scores of DD-Ranking; those are absent that need a network not trained."""

    weight: float
    ior: NotRequired[float]  # improvement over random
    hlr: NotRequired[float]  # hard label recovery; the smaller, the better
    lrs: NotRequired[float]  # label-robust score, 0..100
    ars: NotRequired[float]  # augmentation-robust score, 0..100
    expert: NotRequired[ExpertRecord]  # where the labels of the set are soft


class Wanted(NamedTuple):
    """Networks to train besides those on the set and on the baselines.

    Attributes:
      scores: those that the scores need.
      whole_epochs: on the whole training set; 0: none.
      whole_seeds: number of networks trained on the whole set.
      expert_epochs: epochs of the network that labels random images beside soft labels.
    """

    scores: bool
    whole_epochs: int
    whole_seeds: int
    expert_epochs: int


class Problem(NamedTuple):
    """A distilled set, real data, and how networks are trained on them.

    Attributes:
      key: root of the networks.
      expert_key: of the network that labels random images.
      seeds: number of networks on the set and on each baseline.
      model: the network.
      protocol: how networks are trained.
      distilled: the set, decoded.
      targets: f32[n, k], learned real-valued labels of the set; None where it has none.
      labels: the set's own labels, or hard ones.
      baselines: labels are distributions.
      train: the whole training set.
      test: the test set.
      validation: images that the protocol looks at; None where it looks at none.
      mesh: devices that share the networks; None for one.
    """

    key: Key
    expert_key: Key
    seeds: int
    model: Model
    protocol: EvaluationProtocol
    distilled: DistilledSet
    targets: Array | None
    labels: Labels
    baselines: Mapping[str, Batch]
    train: RealSet
    test: RealSet
    validation: RealSet | None
    mesh: Mesh | None = None


def is_soft(distilled: DistilledSet, targets: Array | None) -> bool:
    """Whether a set's own labels say more than a class each."""
    if targets is not None:
        return True
    largest = jax.nn.softmax(distilled.label_logits).max(axis=1)
    return bool((1 - largest).max() > SOFT)


def measure_fairly(problem: Problem, wanted: Wanted) -> tuple[dict[str, Spread], Scores]:
    """Returns accuracies by the names of `accuracy.TRAINED_ON`, and the scores."""
    own = _compare(problem, problem.baselines)
    found = {name: own[name] for name in ("distilled", *problem.baselines)}
    soft = problem.labels == "own" and is_soft(problem.distilled, problem.targets)
    random = problem.baselines.get(RANDOM)
    expert: ExpertRecord | None = None
    if wanted.scores and soft:
        hard = problem._replace(labels="hard")
        found["distilled_hard"] = _compare(hard, {})["distilled"]
        if random is not None:
            random, expert = _expert_labels(problem, random, wanted.expert_epochs)
            found["random_expert"] = _on_real(problem, random)
    if wanted.scores and problem.protocol.augment:
        plain = problem._replace(
            protocol=dataclasses.replace(problem.protocol, augment="", augment_each=False)
        )
        found["distilled_plain"] = _compare(plain, {})["distilled"]
        if random is not None:
            found["random_plain"] = _on_real(plain, random)
    if wanted.whole_epochs:
        found["whole"] = measure_accuracies(
            problem.key,
            wanted.whole_seeds,
            problem.model,
            problem.train,
            problem.test,
            dataclasses.replace(WHOLE, epochs=wanted.whole_epochs),
            mesh=problem.mesh,
        )
    scores = scores_of({name: row["mean"] for name, row in found.items()}, soft)
    if expert is not None:
        scores["expert"] = expert
    return found, scores


def _compare(problem: Problem, baselines: Mapping[str, Batch]) -> dict[str, Spread]:
    return compare_accuracies(
        problem.key,
        problem.seeds,
        problem.model,
        problem.distilled,
        baselines,
        problem.test,
        problem.protocol,
        targets=problem.targets,
        labels=problem.labels,
        validation=problem.validation,
        mesh=problem.mesh,
    )


def _on_real(problem: Problem, real: Batch) -> Spread:
    """Returns the accuracy on stacked real images with distributions as labels."""
    return measure_accuracies(
        problem.key,
        problem.seeds,
        problem.model,
        real._replace(labels=real_labels(real.labels, problem.protocol)),
        problem.test,
        problem.protocol,
        learning_rate=jnp.exp(problem.distilled.log_lr),
        validation=problem.validation,
        mesh=problem.mesh,
    )


def _expert_labels(
    problem: Problem, random: Batch, epochs: int
) -> tuple[Batch, ExpertRecord]:
    """Returns the images with the probabilities of one network trained on real ones."""
    recipe, model = dataclasses.replace(WHOLE, epochs=epochs), problem.model

    @jax.jit
    def compute(
        key: Key, train: RealSet, test: RealSet, images: Array
    ) -> tuple[Array, ...]:
        params = evaluation.train(key, model, train, recipe)
        logits = jax.lax.map(lambda own: model.apply(params, own), images)
        predicted = evaluation.predict(model.apply, params, test)
        return jax.nn.softmax(logits), losses.accuracy(predicted, test.labels)

    labels, accuracy = compute(
        problem.expert_key, problem.train, problem.test, random.images
    )
    about: ExpertRecord = {
        "epochs": epochs,
        "batch": recipe.batch or 0,
        "lr": recipe.lr or 0.0,
        "accuracy": float(accuracy),
    }
    return random._replace(labels=labels), about


def scores_of(accuracy: Mapping[str, float], soft: bool, weight: float = WEIGHT) -> Scores:
    """Returns the scores that accuracies give.

    Args:
      accuracy: in 0..1, by the names of `accuracy.TRAINED_ON`.
      soft: whether the labels of the set are soft.
      weight: w of the module.
    """
    scores: Scores = {"weight": weight}
    random = accuracy.get("random_expert" if soft else RANDOM)
    hard = accuracy.get("distilled_hard" if soft else "distilled")
    whole = accuracy.get("whole")
    if random is not None:
        scores["ior"] = accuracy["distilled"] - random
    if whole is not None and hard is not None:
        scores["hlr"] = whole - hard
    if "ior" in scores and "hlr" in scores:
        scores["lrs"] = _normalised(weight * scores["ior"] - (1 - weight) * scores["hlr"])
    plain = [accuracy.get(f"{name}_plain") for name in ("distilled", "random")]
    if "ior" in scores and plain[0] is not None and plain[1] is not None:
        bare = plain[0] - plain[1]
        scores["ars"] = _normalised(weight * scores["ior"] + (1 - weight) * bare)
    return scores


def _normalised(x: float) -> float:
    """Returns -1..1 as 0..100."""
    return 100 * (math.exp(x) - math.exp(-1)) / (math.e - math.exp(-1))


def spelt_scores(scores: Scores) -> str:
    """Returns the scores in a line, such as `DD-Ranking: IOR 13.1 points, LRS 24.2`."""
    units = {"ior": " points", "hlr": " points", "lrs": "", "ars": ""}
    found = []
    for name, unit in units.items():
        value = scores.get(name)
        if isinstance(value, float):
            found.append(f"{name.upper()} {100 * value if unit else value:.1f}{unit}")
    if not found:
        return ""
    text = f"DD-Ranking: {', '.join(found)}"
    if "expert" in scores:
        expert = scores["expert"]
        text += (
            f". Random images have labels of a network trained for {expert['epochs']} "
            f"epochs on real ones ({100 * expert['accuracy']:.1f} % of test images)"
        )
    return text + "."
