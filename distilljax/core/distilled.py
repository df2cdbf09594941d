"""Construction of distilled sets, and their use as training data."""

import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import checks
from distilljax.types import Array, Batch, DistilledSet, InputError

# softmax(0, -HARD, ..., -HARD) is exactly one-hot in float32.
HARD = 100.0


def create(
    images: Array,
    labels: Array,
    num_classes: int,
    *,
    learning_rate: float,
    confidence: float = 1.0,
) -> DistilledSet:
    """Creates a distilled set.

    >>> images, labels = jnp.zeros((4, 8, 8, 1)), np.array([0, 0, 1, 1])
    >>> made = distilled.create(images, labels, 2, learning_rate=0.1)
    >>> made.label_logits.shape
    (4, 2)

    Args:
      images: f32[n, h, w, c], preprocessed.
      labels: i32[n], in 0..num_classes-1, ordered by class, as many of each.
      num_classes: k.
      learning_rate: inner learning rate, positive.
      confidence: probability of the own class in a label; the remainder is uniform over
        the other classes. At 1 labels are hard: the gradient of their logits vanishes in
        float32, so labels that are learned must start lower.

    Raises:
      InputError: shapes that do not fit, images that are not preprocessed, labels out of
        range or order (checked where they are not traced), a learning rate that is not
        positive, a confidence that is not more than 1/k or exceeds 1.
    """
    images, labels = map(_array, (images, labels))
    shape, found = images.shape, labels.shape
    if len(shape) != 4 or found != shape[:1] or not shape[0]:
        raise InputError(f"images {shape}, labels {found}: expected [n, h, w, c] and [n]")
    if not jnp.issubdtype(jnp.result_type(images), jnp.floating):
        raise InputError(
            f"images are {jnp.result_type(images)}: a distilled set has preprocessed "
            "images; give transform(images), with the transform of the real data"
        )
    if (held := checks.concrete(images)) is not None and not np.isfinite(held).all():
        raise InputError("images hold NaN or infinity; give others")
    num_classes = checks.integer(num_classes, "num_classes")
    checks.class_ordered(labels, num_classes)
    rate, share = checks.concrete(learning_rate), checks.concrete(confidence)
    if rate is not None and not (_is_number(rate) and 0 < rate < np.inf):
        raise InputError(f"learning_rate={learning_rate!r}: must be positive, and finite")
    if share is None or not _is_number(share):
        raise InputError(f"confidence={confidence!r:.40}: give a number, not traced")
    if not 1 / num_classes < confidence <= 1:
        raise InputError(
            f"confidence={confidence}: must lie above 1/{num_classes} and not above 1"
        )
    one_hot = jax.nn.one_hot(jnp.asarray(labels), num_classes, dtype=jnp.float32)
    gap = HARD
    if confidence < 1:
        gap = math.log(confidence * (num_classes - 1) / (1 - confidence))
    return DistilledSet(
        jnp.asarray(images, jnp.float32),
        gap * (one_hot - 1.0),
        jnp.log(jnp.asarray(learning_rate, jnp.float32)),
    )


def _is_number(held: np.ndarray) -> bool:
    return not held.shape and held.dtype.kind in "iuf"


def _array(x: Any) -> Array:
    return x if hasattr(x, "shape") else cast(Array, np.asarray(x))


def as_batch(distilled: DistilledSet) -> Batch:
    """Returns the whole set as one batch with labels softmax(label_logits).

    >>> images, labels = jnp.zeros((2, 8, 8, 1)), np.array([0, 1])
    >>> made = distilled.create(images, labels, 2, learning_rate=0.1, confidence=0.75)
    >>> jnp.round(distilled.as_batch(made).labels, 3).tolist()
    [[0.7500000596046448, 0.25], [0.25, 0.7500000596046448]]
    """
    checks.fields_of_set(distilled)
    return Batch(distilled.images, jax.nn.softmax(distilled.label_logits))


def hard_labels(distilled: DistilledSet) -> Array:
    """Returns the most likely class of each image, i32[n].

    >>> images = jnp.zeros((2, 8, 8, 1))
    >>> made = distilled.create(images, np.array([0, 1]), 2, learning_rate=0.1)
    >>> distilled.hard_labels(made).tolist()
    [0, 1]
    """
    checks.fields_of_set(distilled)
    return jnp.argmax(distilled.label_logits, axis=-1).astype(jnp.int32)


def separate_targets(distilled: DistilledSet) -> tuple[DistilledSet, Array]:
    """Separates real-valued labels from a set that holds them in `label_logits`.

    Methods whose `LABELS` is "targets" learn such sets.

    >>> images = jnp.zeros((2, 8, 8, 1))
    >>> made = distilled.create(images, np.array([0, 1]), 2, learning_rate=0.1)
    >>> targets = jnp.array([[0.5, -0.5], [-0.25, 0.25]])
    >>> hard, found = distilled.separate_targets(made._replace(label_logits=targets))
    >>> found.tolist()
    [[0.5, -0.5], [-0.25, 0.25]]

    Returns:
      The set with hard labels, the largest entry's class of each image, and the real-valued
      labels, f32[n, k].
    """
    checks.fields_of_set(distilled)
    targets = distilled.label_logits
    k = targets.shape[1]
    one_hot = jax.nn.one_hot(hard_labels(distilled), k, dtype=targets.dtype)
    return distilled._replace(label_logits=HARD * (one_hot - 1)), targets
