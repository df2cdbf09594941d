"""Loss functions on logits and label distributions."""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from distilljax import checks
from distilljax.types import Array, Batch, LossFn, Params


def cross_entropy(apply: Callable[[Params, Array], Array]) -> LossFn:
    """Returns the mean of -sum_j labels_j log softmax(logits)_j over a batch.

    >>> from distilljax.types import Batch
    >>> loss_fn = losses.cross_entropy(lambda params, images: images @ params)
    >>> round(float(loss_fn(np.zeros((3, 2)), Batch(np.ones((4, 3)), np.eye(4, 2)))), 4)
    0.3466

    Raises:
      InputError: when called, labels that are not [b, k] beside logits [b, k].
    """

    def loss_fn(params: Params, batch: Batch) -> Array:
        logits = apply(params, batch.images)
        checks.label_rows(logits, batch.labels)
        return optax.losses.softmax_cross_entropy(logits, batch.labels).mean()

    return loss_fn


def squared_error(apply: Callable[[Params, Array], Array]) -> LossFn:
    """Returns half the squared error, summed over classes, the mean over a batch.

    >>> from distilljax.types import Batch
    >>> loss_fn = losses.squared_error(lambda params, images: images @ params)
    >>> float(loss_fn(np.zeros((3, 2)), Batch(np.ones((2, 3)), np.eye(2))))
    0.5
    """

    def loss_fn(params: Params, batch: Batch) -> Array:
        square = jnp.square(apply(params, batch.images) - batch.labels)
        return 0.5 * square.sum(axis=-1).mean()

    return loss_fn


def accuracy(logits: Array, labels: Array) -> Array:
    """Returns the fraction of rows whose largest logit is that of the label.

    >>> float(losses.accuracy(np.array([[2.0, 1.0], [2.0, 1.0]]), np.array([0, 1])))
    0.5

    Args:
      logits: f32[..., n, k].
      labels: i32[n].

    Returns:
      f32[...], in [0, 1].
    """
    return (jnp.argmax(logits, axis=-1) == labels).mean(axis=-1, dtype=jnp.float32)
