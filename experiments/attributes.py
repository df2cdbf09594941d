r"""Ask what the real test images that a distilled image acts on have in common.

    python -m experiments.influence --artefact=runs/a/distilled.npz --workdir=runs/a/inf
    python -m experiments.attributes --influence=runs/a/inf
    python -m experiments.attributes --influence=runs/a/inf --annotators=measured,clip \
        --clip.path=clip-vit-base-patch32

Yang et al. 2024, sec. 5: for each distilled image a vision-language model names attributes
of the test images that leaving it out hurts most, and their rates are put beside base
rates; there is no code. The paper shows examples, no test.

Here the group of a distilled image is the `--top` test images of its own class with the
highest influence (mean over initialisations; none is trained again), and the base the
other test images of that class which the influences look at, so that to be a trouser is
no finding. Attributes come from annotators, see `experiments.annotators`: `measured`
(colour, light, background, edges, place and form of the object) and `clip`.

- Each attribute and distilled image is one two-sided test: Fisher's for a boolean one,
  Mann's and Whitney's else, with exact tails. The effect is the rank-biserial
  correlation, which for a boolean is the difference of the rates.
- p-values are corrected over all tests of the run, by Holm and by Benjamini and Hochberg.
- `--permutations` exchange the test images of each class, for all groups and attributes
  at once, which keeps what depends on what. They say how many findings chance makes, and
  how often as many as there are: the p of `attributes` in `summary.json`.
- `coherence`: the mean cosine of two members of a group, in the features of a network
  trained here on real images for `--epochs`, less that of random groups of the class; per
  image a permutation p, over images a 95 % interval of Student's t. Images of one class
  share their base, and all share the network: the interval is of distilled images, not of
  networks.

Expected, if images speak for visible groups: more findings than chance makes, and
coherence above 0. Found, one image a class by `tm`, 1,000 test images, two
initialisations: Fashion-MNIST 15 findings in 153 tests (0.01 by chance, p = 0.005, the
least of 200 permutations), coherence 0.092 (0.062 to 0.122), 9 of 10 images above chance;
CIFAR-10 10 in 296 (0.045, p = 0.005), 0.047 (0.024 to 0.070), 7 of 10. Airplanes in front
of a bright plain sky, frogs on a dark ground, tall dresses, sneakers that go up like
boots: the last are not typical but those that need a sneaker to be told from boots.

Limits: influence is a change of loss, large where another class is near, so a finding says
whom an image serves and not what it shows. A group is one network's width and a few
initialisations; attributes hang together, so findings are no list of separate causes.
Saliency takes the border for background. What CLIP sees in 32 pixels is guesswork.

`network.npz` and `annotations/` are kept, so that the same command resumes.
`attributes.npz` holds groups, values and all tests, `attributes.png` and `effects.png`
the pictures. CPU time, one core shared with other work: 48 s on Fashion-MNIST (8,000
training images), 3 min 21 s on CIFAR-10 (50,000), most of it training; 10 s once trained.
"""

import dataclasses
import functools
import json
import math
import pathlib
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from rich import box
from rich.console import Console
from rich.table import Table
from scipy import special, stats

from distilljax import data, launch
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.core.inner import InnerState
from distilljax.io.files import replacing, write_json
from distilljax.training import expert
from distilljax.training.expert import Recipe
from distilljax.types import InputError, Model, Params, Transform
from experiments import common, figures, runs
from experiments.annotators import ANNOTATORS, Annotations, Annotator, Clip, Measured
from experiments.annotators import clip as clip_annotator
from experiments.progress import SECONDS_BETWEEN_LINES, duration

MODULE = "experiments.attributes"
ALPHA = 0.05
MOST_ROWS = 200  # of `enrichment` in summary.json
COHERENCE_DRAWS = 9_999  # random groups that a group's coherence is compared with
MOST_WORK = 5e7  # additions to tabulate one exact distribution
PICTURED, NAMED = 8, 3  # test images and attributes beside a distilled image
CHUNK = 250  # images that the network looks at at a time
SECONDS_BETWEEN_SAVES = 30.0
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the experiment."""

    influence: str = option("", "A finished working directory of experiments.influence.")
    artefact: str | None = option(
        None, "Where the distilled set lies now; none: where that run found it."
    )
    dataset: str | None = option(None, "Where its data lie now; none: where they did.")
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    top: int = option(20, "Most influenced test images that make a group.", low=2)
    among: Literal["class", "all"] = option(
        "class",
        "Groups are the first --top of the image's class, or those of its class among the "
        "first --top of all.",
    )
    annotators: str = option(
        "measured", f"Who names attributes, with commas: {', '.join(ANNOTATORS)}."
    )
    clip: clip_annotator.Config = option(
        clip_annotator.Config(), "The annotator clip, where it is among --annotators."
    )
    permutations: int = option(
        200, "Random relabellings that say what chance finds.", low=19
    )
    model: str = option(
        common.OWN,
        "Whose features are compared, trained on real images: own, "
        f"{', '.join(common.ARCHITECTURES)}.",
    )
    width_scale: float = option(1.0, "Times the width of --model, if not own.", above=0)
    epochs: int = option(3, "Of its training.", low=1)
    recipe: Recipe = option(Recipe(momentum=0.9, augment=""), "How it is trained.")
    shown: int = option(10, "Distilled images in the picture.", low=1)
    seed: int = option(0, "Settles everything random.", low=0, high=2**31 - 1)
    workdir: str | None = option(
        None, "Where the results go; none: a folder under runs/ named by the settings."
    )


class Influences(NamedTuple):
    """What a run of experiments.influence left."""

    values: np.ndarray  # f[s, n, t]; positive where the image helped
    positions: np.ndarray  # i[t], in the test split
    noise_floor: np.ndarray  # f[t]
    artefact: str
    dataset: str | None  # its `--dataset`
    fingerprint: str  # of the data
    digest: str | None  # of data and set, where its pieces are still there


def read_influences(path: pathlib.Path) -> Influences:
    """Reads a working directory of experiments.influence.

    Raises:
      InputError: no such directory, one of something else, one of a run that is not
        finished, or damaged files.
    """
    if not path.is_dir():
        raise FieldError(
            "influence",
            str(path),
            "there is no such directory; give the --workdir of a finished python -m "
            "experiments.influence",
        )
    described = path / "config.json"
    try:
        held = json.loads(described.read_text(encoding="utf-8"))
        made_by, command = held["experiment"], held["command"]
        artefact, dataset = held["config"]["artefact"], held["config"]["dataset"]
        if made_by != "experiments.influence":
            raise ValueError(f"of {made_by}")
    except (OSError, ValueError, KeyError, TypeError):
        raise FieldError(
            "influence",
            str(path),
            "it is no working directory of experiments.influence, or its config.json is "
            "damaged; give one that is",
        ) from None
    again = f"run this again with its --workdir: {command}"
    for name in ("influence.npz", "summary.json"):
        if not (path / name).exists():
            reason = f"the run there is not finished, {name} is missing; {again}"
            raise FieldError("influence", str(path), reason)
    try:
        with np.load(path / "influence.npz", allow_pickle=False) as arrays:
            values, positions = arrays["influences"], arrays["test_positions"]
            floor = arrays["noise_floor"]
        num = positions.shape
        if values.ndim != 3 or not values.size or positions.ndim != 1:
            raise ValueError(f"influences are {list(values.shape)}")
        if values.shape[2:] != num or floor.shape != num:
            raise ValueError("its arrays do not belong together")
        if not np.isfinite(values).all() or len(np.unique(positions)) < num[0]:
            raise ValueError("influences are not finite, or images come twice")
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        fingerprint = str(summary["dataset"]["fingerprint"])
        digest, piece = None, path / "pieces" / "0.npz"
        if piece.exists():
            with np.load(piece, allow_pickle=False) as arrays:
                digest = str(arrays["digest"])
    except (*UNREADABLE, TypeError) as error:
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        reason = f"its files are damaged ({first}); delete it, then {again}"
        raise FieldError("influence", str(path), reason) from None
    return Influences(values, positions, floor, artefact, dataset, fingerprint, digest)


def holm(p: np.ndarray) -> np.ndarray:
    """P-values corrected for all of them by Holm's step-down procedure, f64[..., m].

    Holm 1979: with p_(1) <= .. <= p_(m), the i-th becomes max over j <= i of
    min(1, (m + 1 - j) p_(j)). Those at most alpha hold together with probability
    1 - alpha, whatever the dependence.
    """
    order = np.argsort(p, axis=-1, kind="stable")
    factors = np.arange(p.shape[-1], 0, -1)
    steps = np.minimum(1, np.take_along_axis(p, order, -1) * factors)
    found = np.empty(p.shape)
    np.put_along_axis(found, order, np.maximum.accumulate(steps, axis=-1), -1)
    return found


class RankTest(NamedTuple):
    """The rank-sum test of Mann and Whitney, with ties, for one population.

    Chance draws m of the N values without replacement. The statistic is the sum of the
    drawn mid-ranks; of a boolean attribute that is how many have it, and the test that of
    Fisher.
    """

    scores: np.ndarray  # i64[N], mid-ranks, shifted and scaled to the least integers
    step: float  # of a score, in ranks
    size: int  # m
    table: np.ndarray | None  # f64, two-sided p of every sum; None: normal distribution

    @classmethod
    def of(cls, values: np.ndarray, size: int) -> "RankTest":
        """Args: values f[N], not all equal; size m, 0 < m < N.

        Two-sided p is twice the smaller tail, at most 1. Tails are exact where that takes
        up to MOST_WORK additions, else those of the normal distribution with the variance
        under ties and the usual continuity correction.
        """
        doubled = np.rint(2 * stats.rankdata(values)).astype(np.int64)
        doubled -= doubled.min()
        unit = int(np.gcd.reduce(doubled))
        scores = doubled // unit
        return cls(scores, unit / 2, size, _two_sided(scores, size))

    def sums(self, groups: np.ndarray) -> np.ndarray:
        """i[..., m], positions in the population -> i64[...]."""
        return self.scores[groups].sum(axis=-1)

    def effects(self, sums: np.ndarray) -> np.ndarray:
        """The rank-biserial correlation, f64[...] in -1..1.

        P(drawn > other) - P(drawn < other); of a boolean attribute that is the difference
        of the rates.
        """
        beyond = self.step * (sums - self.size * self.scores.mean())
        return 2 * beyond / (self.size * (len(self.scores) - self.size))

    def p_values(self, sums: np.ndarray) -> np.ndarray:
        """Two-sided, f64[...]."""
        if self.table is not None:
            return self.table[sums]
        num, size = len(self.scores), self.size
        variance = size * (num - size) / (num - 1) * self.scores.var() * self.step**2
        beyond = np.abs(sums - size * self.scores.mean()) * self.step
        z = np.maximum(beyond - 0.5, 0) / math.sqrt(variance)
        return np.minimum(1, 2 * special.ndtr(-z))


def _two_sided(scores: np.ndarray, size: int) -> np.ndarray | None:
    """f64[largest sum + 1], by counting the subsets of each sum, equal scores at once."""
    largest = int(np.sort(scores)[-size:].sum())
    each, numbers = np.unique(scores, return_counts=True)
    if size * largest * np.minimum(numbers, size).sum() > MOST_WORK:
        return None
    ways = np.zeros((size + 1, largest + 1))  # of drawing so many with that sum
    ways[0, 0] = 1
    for score, number in zip(each.tolist(), numbers.tolist(), strict=True):
        before = ways.copy()
        for j in range(1, min(number, size) + 1):
            if j * score > largest:
                break
            kept = before[: size + 1 - j, : largest + 1 - j * score]
            ways[j:, j * score :] += special.comb(number, j) * kept
    chances = ways[size] / ways[size].sum()
    tails = np.minimum(chances.cumsum(), chances[::-1].cumsum()[::-1])
    return np.minimum(1, 2 * tails)


class Group(NamedTuple):
    """The test images that a distilled image acts on, and its class."""

    label: int
    members: np.ndarray  # i[m], among the class's test images; the most influenced first


def groups_of(
    influences: np.ndarray, labels: np.ndarray, classes: np.ndarray, top: int, among: str
) -> list[Group]:
    """The group of each distilled image.

    Args:
      influences: f[n, t].
      labels: i[n], of distilled images.
      classes: i[t], of test images.
      top: how many.
      among: `class` or `all`, see `Config.among`.
    """
    found = []
    for row, label in zip(influences, labels.tolist(), strict=True):
        order = np.argsort(-row, kind="stable")
        own = classes[order] == label
        chosen = order[own][:top] if among == "class" else order[:top][own[:top]]
        place = np.cumsum(classes == label) - 1
        found.append(Group(label, place[chosen]))
    return found


class Enrichment(NamedTuple):
    """Every test, and what chance makes of all of them."""

    images: np.ndarray  # i[m], of each test
    attributes: np.ndarray  # i[m]
    rates: np.ndarray  # f64[m], rate or mean within the group
    bases: np.ndarray  # f64[m], the same of the others of the class
    effects: np.ndarray  # f64[m]
    p: np.ndarray  # f64[m]
    p_holm: np.ndarray  # f64[m]
    q: np.ndarray  # f64[m], Benjamini and Hochberg
    chance_holm: np.ndarray  # i[r], tests with p_holm <= ALPHA in each permutation
    chance_q: np.ndarray  # i[r], the same of q


def enrichment(
    rng: np.random.Generator,
    values: np.ndarray,
    classes: np.ndarray,
    groups: Sequence[Group],
    num_permutations: int,
) -> Enrichment:
    """Compares every group with the other test images of its class, in every attribute.

    There is no test where an attribute is the same for the whole class, nor of a group
    that is empty or all of the class; that does not depend on who is in the group. A
    permutation exchanges attributes among the test images of a class, the same for all
    groups and attributes, so that groups overlap and attributes depend as they do.

    Args:
      rng: draws the permutations.
      values: f[t, a].
      classes: i[t].
      groups: one a distilled image.
      num_permutations: r.

    Returns:
      With m = 0 there are no tests.
    """
    members = {label: np.flatnonzero(classes == label) for label in {g[0] for g in groups}}
    orders = {
        # Row 0 is what was found.
        label: np.stack(
            [
                np.arange(len(where)),
                *(rng.permutation(len(where)) for _ in range(num_permutations)),
            ]
        )
        for label, where in sorted(members.items())
    }

    @functools.cache
    def test(label: int, size: int, attribute: int) -> RankTest:
        return RankTest.of(values[members[label], attribute], size)

    rows, p_values = [], []
    for image, (label, group) in enumerate(groups):
        of_class = values[members[label]].astype(np.float64)
        if not 0 < len(group) < len(of_class):
            continue
        others = np.delete(of_class, group, axis=0)
        for attribute in np.flatnonzero(np.ptp(of_class, axis=0) > 0).tolist():
            tested = test(label, len(group), attribute)
            sums = tested.sums(orders[label][:, group])
            p_values.append(tested.p_values(sums))
            rate = of_class[group, attribute].mean()
            base = others[:, attribute].mean()
            rows.append((image, attribute, rate, base, tested.effects(sums[0])))
    if not rows:
        whole, none = np.zeros(0, int), np.zeros(0)
        by_chance = np.zeros(num_permutations, int)
        return Enrichment(
            whole, whole, none, none, none, none, none, none, by_chance, by_chance
        )
    images, attributes, rates, bases, effects = map(np.array, zip(*rows, strict=True))
    p = np.stack(p_values, axis=1)  # [1 + r, m]
    corrected, q = holm(p), stats.false_discovery_control(p, axis=1)
    return Enrichment(
        images,
        attributes,
        rates,
        bases,
        effects,
        p[0],
        corrected[0],
        q[0],
        (corrected[1:] <= ALPHA).sum(axis=1),
        (q[1:] <= ALPHA).sum(axis=1),
    )


def chance_p(found: float, by_chance: np.ndarray) -> float:
    """One-sided p of a number that chance made so often: (1 + #{>= found}) / (1 + r)."""
    return float((1 + (by_chance >= found).sum()) / (1 + len(by_chance)))


class Coherence(NamedTuple):
    """How alike the members of each group are."""

    images: np.ndarray  # i[g], whose groups have two members or more
    similarity: np.ndarray  # f64[g], mean cosine of two members
    chance: np.ndarray  # f64[g], mean over random groups of the class
    chance_std: np.ndarray  # f64[g]
    p: np.ndarray  # f64[g], one-sided
    q: np.ndarray  # f64[g], Benjamini and Hochberg


def coherence(
    rng: np.random.Generator,
    features: np.ndarray,
    classes: np.ndarray,
    groups: Sequence[Group],
    num_draws: int = COHERENCE_DRAWS,
) -> Coherence:
    """Compares mean pairwise cosine similarity with random groups of the same class.

    Args:
      rng: draws the groups, `num_draws` for each class and size.
      features: f[t, d]; a row of zeros is like no other.
      classes: i[t].
      groups: one a distilled image.
      num_draws: random groups.
    """
    wide = features.astype(np.float64)
    unit = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-30)

    @functools.cache
    def cosines(label: int) -> np.ndarray:
        of_class = unit[classes == label]
        found = of_class @ of_class.T
        np.fill_diagonal(found, 0)
        return found

    def similarity(label: int, chosen: np.ndarray) -> np.ndarray:
        size = chosen.shape[-1]
        pairs = cosines(label)[chosen[..., :, None], chosen[..., None, :]]
        return pairs.sum(axis=(-1, -2)) / (size * (size - 1))

    @functools.cache
    def by_chance(label: int, size: int) -> np.ndarray:
        num, parts = len(cosines(label)), []
        for start in range(0, num_draws, 500):
            shuffled = rng.random((min(500, num_draws - start), num)).argsort(axis=1)
            parts.append(similarity(label, shuffled[:, :size]))
        return np.concatenate(parts)

    rows = []
    for image, (label, group) in enumerate(groups):
        if len(group) > 1:
            alike, drawn = float(similarity(label, group)), by_chance(label, len(group))
            # The whole class has one group: equal up to rounding.
            chance = chance_p(alike - 1e-12, drawn)
            rows.append((image, alike, drawn.mean(), drawn.std(), chance))
    images, found, means, stds, p = map(np.array, zip(*rows, strict=True))
    return Coherence(images, found, means, stds, p, stats.false_discovery_control(p))


class _Problem(NamedTuple):
    """What is looked at."""

    label: str
    named: common.Named
    loaded: data.Dataset
    influences: Influences
    images: np.ndarray  # u8[t, h, w, c]
    classes: np.ndarray  # i[t]
    labels: np.ndarray  # i[n], of the distilled images


def _prepare(config: Config) -> _Problem:
    if not config.influence:
        reason = "name a finished working directory of experiments.influence"
        raise FieldError("influence", "", reason)
    found = read_influences(pathlib.Path(config.influence).expanduser())
    path = config.artefact or found.artefact
    ((label, named),) = common.artefacts(path, "artefact").items()
    loaded = common.data_of(named, config.dataset or found.dataset, config.data_dir)
    num = named.artefact.distilled.label_logits.shape[0]
    if loaded.fingerprint != found.fingerprint:
        raise InputError(
            f"the influences in {config.influence} are of other data than {loaded.name} "
            "(the SHA-256 differs); give --dataset of those that they are of"
        )
    digest = common.digest(
        [loaded.fingerprint, common.transform_digest(named.artefact.transform)],
        named.artefact.distilled,
    )
    if found.values.shape[1] != num or found.digest not in (None, digest):
        raise InputError(
            f"the influences in {config.influence} are of another set than {path} holds; "
            "name theirs with --artefact, or run experiments.influence on this one"
        )
    if found.positions.min() < 0 or found.positions.max() >= len(loaded.test.labels):
        raise InputError(
            f"the influences in {config.influence} are damaged: their positions are "
            f"outside the test set of {loaded.name}; run experiments.influence again"
        )
    classes = loaded.test.labels[found.positions]
    labels = np.asarray(distilled_set.hard_labels(named.artefact.distilled))
    fewest = min(int((classes == j).sum()) for j in np.unique(labels))
    if config.among == "class" and config.top >= fewest:
        reason = (
            f"the influences look at {fewest} test images of the smallest class, which "
            "leaves none to compare with; choose fewer, or give experiments.influence more "
            "--test_images"
        )
        raise FieldError("top", config.top, reason)
    images = loaded.test.images[found.positions]
    return _Problem(label, named, loaded, found, images, classes, labels)


def _annotators(config: Config) -> list[Annotator]:
    names = common.names(config.annotators, "annotators")
    if not names or (unknown := [name for name in names if name not in ANNOTATORS]):
        what = f"there is no annotator {unknown[0]!r}" if names else "name at least one"
        known = ", ".join(ANNOTATORS)
        raise FieldError("annotators", config.annotators, f"{what}; known are {known}")
    if "clip" not in names and config.clip != clip_annotator.Config():
        reason = "--clip.* options have no meaning without clip, name it too"
        raise FieldError("annotators", config.annotators, reason)
    return [Measured() if name == "measured" else Clip(config.clip) for name in names]


def _kept(path: pathlib.Path, identity: str) -> dict[str, np.ndarray] | None:
    """What a file holds, if it holds that; one that cannot be read is made again."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        return arrays if str(arrays["identity"]) == identity else None
    except UNREADABLE as error:
        print(f"{path} cannot be read ({error}) and is made again", file=sys.stderr)
        return None


def _keep(path: pathlib.Path, identity: str, **arrays: Any) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, identity=np.array(identity), **arrays)


def _annotated(
    annotator: Annotator, images: np.ndarray, workdir: pathlib.Path
) -> Annotations:
    """Its table, kept in `annotations/`."""
    path = workdir / "annotations" / f"{annotator.name}.npz"
    path.parent.mkdir(exist_ok=True)
    identity = common.digest([annotator.identity, list(images.shape)], [images])
    held = _kept(path, identity)
    if held is None:
        print(f"annotating by {annotator.name}", file=sys.stderr, flush=True)
        table = annotator(images)
        _keep(path, identity, **table._asdict())
        return table
    names, kinds, descriptions = (
        tuple(held[name].tolist()) for name in ("names", "kinds", "descriptions")
    )
    return Annotations(names, kinds, descriptions, held["values"])


class _Trained(NamedTuple):
    """A network as its file holds it."""

    epoch: int  # that it has been through
    params: np.ndarray  # f32[p], see `parameters.flatten`
    optimizer: np.ndarray  # f32[q], empty once it is trained
    losses: np.ndarray  # f64[epoch], the mean training loss of each
    seconds: float  # of training


def _train(
    config: Config,
    network: common.Network,
    model: Model,
    problem: _Problem,
    workdir: pathlib.Path,
) -> _Trained:
    """The network whose features are compared, kept in `network.npz`.

    Raises:
      InputError: training that diverges.
    """
    loaded, transform = problem.loaded, problem.named.artefact.transform
    recipe, key, path = (
        config.recipe,
        common.fresh_key(config.seed),
        workdir / "network.npz",
    )
    identity = common.digest(
        [
            loaded.fingerprint,
            common.transform_digest(transform),
            network.described(),
            recipe.to_dict(),
            config.epochs,
            config.seed,
        ]
    )
    held = _kept(path, identity)
    kept = _Trained(0, np.zeros(0), np.zeros(0), np.zeros(0), 0.0)
    if held is not None:
        kept = _Trained(
            int(held["epoch"]),
            held["params"],
            held["optimizer"],
            held["losses"],
            float(held["seconds"]),
        )
    if kept.epoch == config.epochs:
        return kept
    real = data.on_device(loaded.train, transform, loaded.num_classes)

    @jax.jit
    def advance(key: Any, state: InnerState, real: Any) -> tuple[InnerState, jax.Array]:
        return expert.epoch(key, model, real, recipe, state)

    begin = jax.jit(lambda key: expert.init(key, model, recipe))
    state = begin(expert.epoch_key(key, 0, 0))
    if kept.epoch:
        print(f"{network.name} goes on after epoch {kept.epoch}")
        restore = ravel_pytree(state.opt_state)[1]
        state = InnerState(
            parameters.unflatten(model)(jnp.asarray(kept.params)),
            restore(jnp.asarray(kept.optimizer)),
        )
    losses, seconds, saved = kept.losses.tolist(), kept.seconds, time.monotonic()
    spoke = -math.inf
    for epoch in range(kept.epoch + 1, config.epochs + 1):
        began = time.perf_counter()
        state, loss = advance(expert.epoch_key(key, 0, epoch), state, real)
        losses.append(float(loss))
        seconds += time.perf_counter() - began
        if not np.isfinite(losses[-1]):
            raise InputError(
                f"{network.name} at epoch {epoch} has a training loss of {losses[-1]}; "
                "lower its learning rate, --recipe.lr"
            )
        last = epoch == config.epochs
        if last or time.monotonic() - spoke > SECONDS_BETWEEN_LINES:
            spoke = time.monotonic()
            left = duration(seconds / epoch * (config.epochs - epoch))
            print(
                f"epoch {epoch}/{config.epochs}  loss {losses[-1]:.3g}  about {left} left",
                file=sys.stderr,
                flush=True,
            )
        if last or time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
            saved = time.monotonic()
            optimizer = ravel_pytree(() if last else state.opt_state)[0]
            params = np.asarray(parameters.flatten(state.params))
            kept = _Trained(epoch, params, np.asarray(optimizer), np.array(losses), seconds)
            _keep(path, identity, **kept._asdict())
    return kept


def _look(
    model: Model, params: Params, images: np.ndarray, transform: Transform
) -> tuple[np.ndarray, np.ndarray]:
    """u8[t, h, w, c] -> input of the last layer f32[t, d], logits f32[t, k]."""

    @jax.jit
    def compute(params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = transform(images)
        return model.features(params, seen), model.apply(params, seen)

    found = []
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        padded = np.pad(part, ((0, CHUNK - len(part)), *((0, 0),) * 3))
        found.append([np.asarray(x)[: len(part)] for x in compute(params, padded)])
    features, logits = zip(*found, strict=True)
    return np.concatenate(features), np.concatenate(logits)


def run(config: Config) -> dict[str, Any]:
    """Annotates, trains, compares, draws; returns what `summary.json` holds.

    Raises:
      InputError: options, influences, an artefact, data, an annotator or a working
        directory that cannot be used; training that diverges.
    """
    common.architectures(config.model, "model")
    problem = _prepare(config)
    workdir = runs.directory(MODULE, config, problem.label)
    with runs.opened(workdir, MODULE, config):
        summary = _run(config, problem, workdir)
    _show(summary, workdir)
    return summary


def _network(config: Config, problem: _Problem) -> common.Network:
    if config.model == common.OWN:
        if config.width_scale != 1:
            reason = "own has the width that the set was made with; name another --model"
            raise FieldError("width_scale", config.width_scale, reason)
        return common.own_network(problem.label, problem.named.artefact, "model")
    return common.scaled(config.model, config.width_scale)


def _run(config: Config, problem: _Problem, workdir: pathlib.Path) -> dict[str, Any]:
    began = time.perf_counter()
    label, named, loaded, influences, images, classes, labels = problem
    network = _network(config, problem)
    model, num_parameters = common.sized_model(network, loaded, "model")
    annotators = _annotators(config)
    mean = influences.values.mean(axis=0, dtype=np.float64)
    groups = groups_of(mean, labels, classes, config.top, config.among)
    if sum(len(group.members) > 1 for group in groups) < 2:
        reason = (
            "fewer than two distilled images have two test images of their class among the "
            "first; give --among=class, or a larger --top"
        )
        raise FieldError("among", config.among, reason)
    tables = {one.name: _annotated(one, images, workdir) for one in annotators}
    columns = [
        (annotator, name, kind)
        for annotator, table in tables.items()
        for name, kind in zip(table.names, table.kinds, strict=True)
    ]
    values = np.concatenate([table.values for table in tables.values()], axis=1)
    trained = _train(config, network, model, problem, workdir)
    features, logits = _look(
        model,
        parameters.unflatten(model)(jnp.asarray(trained.params)),
        images,
        named.artefact.transform,
    )

    tests_rng, groups_rng = np.random.default_rng(config.seed).spawn(2)
    tested = enrichment(tests_rng, values, classes, groups, config.permutations)
    alike = coherence(groups_rng, features, classes, groups)
    found = int((tested.p_holm <= ALPHA).sum())
    found_q = int((tested.q <= ALPHA).sum())

    size = max(len(group.members) for group in groups)
    chosen = np.full((len(groups), size), -1)
    for row, (class_, members) in zip(chosen, groups, strict=True):
        row[: len(members)] = np.flatnonzero(classes == class_)[members]
    own = np.take_along_axis(mean, np.maximum(chosen, 0), axis=1)[chosen >= 0]
    of_all = classes[np.argsort(-mean, axis=1)[:, : config.top]] == labels[:, None]
    with replacing(workdir / "attributes.npz") as temporary, temporary.open("wb") as file:
        arrays = {f"test_{name}": x for name, x in tested._asdict().items()}
        arrays |= {f"coherence_{name}": x for name, x in alike._asdict().items()}
        positions = np.where(chosen >= 0, influences.positions[chosen], -1)
        np.savez(file, groups=positions, values=values, features=features, **arrays)

    order = np.lexsort((-np.abs(tested.effects), tested.p))
    rows = [
        _row(i, tested, columns, [loaded.class_names[j] for j in labels])
        for i in order[:MOST_ROWS].tolist()
    ]
    beyond = common.with_interval(alike.similarity - alike.chance)
    summary: dict[str, Any] = {
        "attributes": {
            "tests": len(tested.p),
            "significant": found,
            "expected_by_chance": float(tested.chance_holm.mean()),
            "p": chance_p(found, tested.chance_holm),
            "images_with_finding": len(np.unique(tested.images[tested.p_holm <= ALPHA])),
            "images": len(groups),
            "permutations": config.permutations,
            "false_discovery_rate": {
                "significant": found_q,
                "expected_by_chance": float(tested.chance_q.mean()),
                "p": chance_p(found_q, tested.chance_q),
            },
        },
        "coherence": {
            "mean": beyond["mean"],
            "interval": beyond["interval"],
            "images_above": int((alike.q < ALPHA).sum()),
            "p_values": alike.p.tolist(),
            "q_values": alike.q.tolist(),
            "images": alike.images.tolist(),
            "similarity": alike.similarity.tolist(),
            "chance": alike.chance.tolist(),
            "chance_std": alike.chance_std.tolist(),
            "draws": COHERENCE_DRAWS,
        },
        "enrichment": rows,
        "annotators": {
            annotator: {
                name: {"kind": kind, "description": description}
                for name, kind, description in zip(*table[:3], strict=True)
            }
            for annotator, table in tables.items()
        },
        "artefact": named.path,
        "method": named.artefact.method,
        "label": label,
        "influence": {
            "path": config.influence,
            "seeds": influences.values.shape[0],
            "test_images": len(classes),
            "smallest_class": int(np.bincount(classes)[np.unique(labels)].min()),
            "mean_of_groups": float(own.mean()),
            "positive_in_groups": float((own > 0).mean()),
            "noise_floor": float(influences.noise_floor.mean()),
            "own_class_among_top": float(of_all.mean()),
        },
        "top": config.top,
        "among": config.among,
        "network": {
            **network.described(),
            "parameters": num_parameters,
            "recipe": config.recipe.to_dict(),
            "epochs": config.epochs,
            "training_loss": float(trained.losses[-1]),
            "accuracy": float((logits.argmax(axis=1) == classes).mean()),
            "seconds": trained.seconds,
        },
        "dataset": common.about_dataset(loaded),
        "command": runs.command(MODULE, config),
        "seconds": time.perf_counter() - began,
        "peak_memory_bytes": runs.peak_memory_bytes(),
        "environment": runs.environment(),
    }
    _draw(config, problem, tested, [name for _, name, _ in columns], chosen, workdir)
    write_json(workdir / "summary.json", summary)
    return json.loads(json.dumps(summary))


def _row(
    i: int,
    tested: Enrichment,
    columns: Sequence[tuple[str, str, str]],
    names: Sequence[str],
) -> dict[str, Any]:
    """A test, for `enrichment` in summary.json."""
    image = int(tested.images[i])
    annotator, attribute, kind = columns[tested.attributes[i]]
    return {
        "image": image,
        "class": names[image],
        "attribute": attribute,
        "annotator": annotator,
        "rate" if kind == "boolean" else "mean": float(tested.rates[i]),
        "base": float(tested.bases[i]),
        "effect": float(tested.effects[i]),
        "p": float(tested.p[i]),
        "p_holm": float(tested.p_holm[i]),
        "q": float(tested.q[i]),
    }


def _draw(
    config: Config,
    problem: _Problem,
    tested: Enrichment,
    names: Sequence[str],
    chosen: np.ndarray,
    workdir: pathlib.Path,
) -> None:
    _, (_, artefact), loaded, _, images, _, labels = problem
    num = len(labels)
    shown = np.unique(np.linspace(0, num - 1, min(config.shown, num)).round().astype(int))
    pictures = common.displayable(artefact.transform, artefact.distilled.images)
    texts: list[list[tuple[str, bool]]] = []
    for image in shown:
        (of_image,) = np.nonzero(tested.images == image)
        strongest = of_image[np.argsort(tested.p[of_image], kind="stable")][:NAMED]
        texts.append(
            [
                (
                    f"{names[tested.attributes[i]]} {tested.rates[i]:.3g} against "
                    f"{tested.bases[i]:.3g}: {tested.effects[i]:+.2f}, "
                    f"p {tested.p_holm[i]:.2g}",
                    bool(tested.p_holm[i] <= ALPHA),
                )
                for i in strongest
            ]
        )
    of = f"({artefact.method}, {loaded.name})"
    figures.attributed(
        workdir / "attributes.png",
        pictures[shown],
        [images[row[row >= 0][:PICTURED]] / 255.0 for row in chosen[shown]],
        [loaded.class_names[j] for j in labels[shown]],
        texts,
        f"Test images that miss each image most, and what tells them from others {of}",
        header="mean or rate against the rest of the class: effect, p (Holm)",
    )
    effects = np.full((num, len(names)), np.nan)
    marks = np.zeros((num, len(names)), int)
    effects[tested.images, tested.attributes] = tested.effects
    marks[tested.images, tested.attributes] = (tested.q <= ALPHA).astype(int) + (
        tested.p_holm <= ALPHA
    )
    figures.effect_map(
        workdir / "effects.png",
        effects,
        marks,
        [loaded.class_names[j] for j in labels],
        names,
        f"Attributes of the {config.top} most influenced, against their class {of}",
        marked=(f"q at most {ALPHA:g}", f"p at most {ALPHA:g} (Holm)"),
        unknown="no test: the class is uniform",
    )


def _show(summary: Mapping[str, Any], workdir: pathlib.Path) -> None:
    found, alike = summary["attributes"], summary["coherence"]
    table = Table(
        title=f"What the most influenced images of {summary['label']} share",
        title_justify="left",
        caption="Effect: P(in the group > beside it) - P(<); of rates their difference.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in ("image", "attribute", "rate or mean", "base", "effect", "p (Holm)", "q"):
        left = column in ("image", "attribute")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for row in summary["enrichment"][:12]:
        numbers = (row.get("rate", row.get("mean")), row["base"])
        table.add_row(
            f"{row['image']} {row['class']}",
            row["attribute"],
            *(f"{x:.3g}" for x in numbers),
            f"{row['effect']:+.2f}",
            f"{row['p_holm']:.2g}",
            f"{row['q']:.2g}",
        )
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 110)
    console.print(table)
    print(
        f"{found['significant']} of {found['tests']} tests significant (Holm), chance "
        f"finds {found['expected_by_chance']:.2g}: p = {found['p']:.2g}; "
        f"{found['images_with_finding']} of {found['images']} images have a finding"
    )
    low, high = alike["interval"]
    print(
        f"Coherence beyond chance {alike['mean']:.3f} ({low:.3f} to {high:.3f}); "
        f"{alike['images_above']} of {len(alike['images'])} images above"
    )
    print(
        f"{duration(summary['seconds'])}. summary.json, attributes.npz, attributes.png and "
        f"effects.png lie in {workdir}"
    )


def main(config: Config) -> None:
    """Entry of the command line."""
    run(config)


if __name__ == "__main__":
    launch.main(Config, main)
