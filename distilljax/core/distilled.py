"""Construction of distilled sets, and their use as training data."""

import math

import jax
import jax.numpy as jnp

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

    Args:
      images: f32[n, h, w, c], preprocessed.
      labels: i32[n], in 0..num_classes-1.
      num_classes: k.
      learning_rate: inner learning rate, positive.
      confidence: probability of the own class in a label; the remainder is uniform over
        the other classes. At 1 labels are hard: the gradient of their logits vanishes in
        float32, so labels that are learned must start lower.

    Raises:
      InputError: incompatible shapes, a learning rate that is not positive, or a confidence
        outside (1/k, 1].
    """
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise InputError(
            f"images {images.shape}, labels {labels.shape}: expected [n, h, w, c] and [n]"
        )
    if not learning_rate > 0:
        raise InputError(f"learning_rate={learning_rate}: must be positive")
    if not 1 / num_classes < confidence <= 1:
        raise InputError(
            f"confidence={confidence}: must lie above 1/{num_classes} and not above 1"
        )
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    gap = HARD
    if confidence < 1:
        gap = math.log(confidence * (num_classes - 1) / (1 - confidence))
    return DistilledSet(
        jnp.asarray(images, jnp.float32),
        gap * (one_hot - 1.0),
        jnp.log(jnp.asarray(learning_rate, jnp.float32)),
    )


def as_batch(distilled: DistilledSet) -> Batch:
    """Returns the whole set as one batch with labels softmax(label_logits)."""
    return Batch(distilled.images, jax.nn.softmax(distilled.label_logits))


def hard_labels(distilled: DistilledSet) -> Array:
    """Returns the most likely class of each image, i32[n]."""
    return jnp.argmax(distilled.label_logits, axis=-1).astype(jnp.int32)
