"""The set before the first outer step, and the score that chooses the best after it."""

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from distilljax import data, memory
from distilljax.config import FieldError
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.core.parameters import Trajectories
from distilljax.loop import Score
from distilljax.methods import METHODS
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol, Labels
from distilljax.types import Array, Batch, DistilledSet, Key, Model, RealSet

CHUNK = 500  # images whose logits the experts compute at a time

# Images at the start: training images that are not held out; standard normal noise; the
# same with norm 1 for each image, as RaT-BPTT begins (arXiv 2310.04295). Noise is of the
# preprocessed space, which networks see.
Init = Literal["real", "noise", "unit_noise"]

ExpertLogits = Callable[[Array], Array]  # images f32[b, h, w, c] -> f32[b, k]
# Images that choose the set, and those that its networks look at in training, if any.
ScoredOn = tuple[RealSet, RealSet | None]


def initial_set(
    prepared: data.Prepared,
    key: Callable[[], Key],
    seed: int,
    per_class: int,
    *,
    learning_rate: float,
    init: Init = "real",
    confidence: float = 1.0,
    logits: ExpertLogits | None = None,
) -> DistilledSet:
    """Returns a set of random real images, or of noise, class-ordered.

    Args:
      prepared: the data.
      key: gives the key of the noise; called for noise alone.
      seed: of the choice of real images.
      per_class: images of each class.
      learning_rate: inner learning rate.
      init: see `Init`.
      confidence: probability of its own class in a label.
      logits: of experts, which become the label logits; real images are then chosen among
        those that they classify right (DATM). None: labels of one class each.

    Raises:
      FieldError: of `ipc`, `confidence` or `experts`: a class with too few images, a
        confidence that is no more than chance, experts that classify too few images right.
      InputError: a set that does not fit into memory.
    """
    k = prepared.data.num_classes
    if init == "real":
        images = _real_images(prepared, seed, per_class, logits)
    else:
        shape = (k * per_class, *prepared.data.image_shape)
        copies = 4  # the set, the best so far, the gradient, the state of the optimizer
        what = f"a distillation of {shape[0]:,} images"
        memory.require(copies * 4 * math.prod(shape), what, "lower ipc")
        images = jax.random.normal(key(), shape)
        if init == "unit_noise":
            norms = jnp.sqrt(jnp.square(images).sum(axis=(1, 2, 3), keepdims=True))
            images = images / norms
    if confidence * k <= 1:
        reason = f"must be more than chance, 1/{k}"
        raise FieldError("confidence", confidence, reason)
    start = distilled_set.create(
        images,
        jnp.repeat(jnp.arange(k), per_class),
        k,
        learning_rate=learning_rate,
        confidence=confidence,
    )
    return start if logits is None else start._replace(label_logits=logits(images))


@functools.partial(jax.jit, static_argnums=0)
def mean_logits(model: Model, experts: Trajectories, images: Array) -> Array:
    """Returns logits at the experts' last epoch, averaged over the experts, f32[b, k].

    Departures: the code of DATM averages those of the experts that classify an image right.
    """
    restore = parameters.unflatten(model)

    def logits(vector: Array) -> Array:
        return model.apply(restore(vector.astype(jnp.float32)), images)

    return jax.lax.map(logits, experts.params[:, -1]).mean(axis=0)


def learns_targets(method: str) -> bool:
    """Whether the sets of a method hold real-valued labels in place of label logits."""
    return getattr(METHODS.get(method), "LABELS", None) == "targets"


def labels_read(protocol: EvaluationProtocol, *, targets: bool) -> Labels:
    """Returns which labels of a set a protocol reads: cross-entropy reads no targets."""
    return "hard" if targets and protocol.loss == "cross_entropy" else "own"


def held_out_score(
    model: Model,
    protocol: EvaluationProtocol,
    networks: int,
    mesh: Mesh | None = None,
    *,
    targets: bool = False,
) -> Score:
    """Returns the held-out accuracy, the mean over fresh networks trained on the set.

    The source of the score is `ScoredOn`.

    Args:
      model: the network.
      protocol: how it is trained. Cross-entropy reads hard labels where there are targets.
      networks: number of networks.
      mesh: devices that share the networks; None for one.
      targets: whether sets hold real-valued labels in place of label logits.
    """

    def batch_of(distilled: DistilledSet) -> Batch:
        if not targets:
            return evaluation.as_batch(distilled, protocol)
        hard, values = distilled_set.separate_targets(distilled)
        labels = labels_read(protocol, targets=True)
        return evaluation.as_batch(hard, protocol, targets=values, labels=labels)

    def score(key: Key, distilled: DistilledSet, source: ScoredOn) -> Array:
        held_out, validation = source
        return evaluation.fresh_accuracy(
            jax.random.split(key, networks),
            model,
            batch_of(distilled),
            held_out,
            protocol,
            learning_rate=jnp.exp(distilled.log_lr),
            validation=validation,
            mesh=mesh,
        ).mean()

    return score


def _real_images(
    prepared: data.Prepared, seed: int, per_class: int, logits: ExpertLogits | None
) -> Array:
    """Returns random training images, class-ordered and preprocessed, f32[n, h, w, c]."""
    smallest = int(np.min(prepared.real.class_sizes))
    if per_class > smallest:
        reason = (
            f"{per_class} images of each class are wanted, the smallest has {smallest} "
            "training images besides those held out; lower ipc or held_out"
        )
        raise FieldError("ipc", per_class, reason)
    candidates = prepared.rest
    if logits is not None:
        candidates = _classified_right(prepared, per_class, logits)
    chosen = data.subset(candidates, per_class, seed)
    return prepared.transform(jnp.asarray(chosen.images))


def _classified_right(
    prepared: data.Prepared, per_class: int, logits: ExpertLogits
) -> data.Split:
    """Returns the images that the experts' mean logits classify right (DATM)."""
    rest = prepared.rest
    chunks = np.array_split(rest.images, -(-len(rest.images) // CHUNK))
    predicted = np.concatenate(
        [
            np.argmax(logits(prepared.transform(jnp.asarray(chunk))), axis=-1)
            for chunk in chunks
        ]
    )
    right = predicted == rest.labels
    fewest = min(
        int(right[rest.labels == j].sum()) for j in range(prepared.data.num_classes)
    )
    if fewest < per_class:
        reason = (
            f"the experts classify only {fewest} images of some class right, "
            f"{per_class} of each are wanted; train them longer, or start from noise"
        )
        raise FieldError("experts", None, reason)
    return data.Split(rest.images[right], rest.labels[right])
