"""Loss functions on logits and label distributions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from distilljax import checks, varying
from distilljax.types import Array, Batch, Params


@dataclasses.dataclass(frozen=True)
class Mean:
    """A loss function, (params, batch) -> f32[]: the mean of the losses of the examples.

    `inner.terms` weights these where pieces do not divide a batch; of any other function
    it takes the value at each example alone, which costs up to twice the time.

    >>> loss_fn = losses.Mean(lambda params, batch: params * batch)
    >>> float(loss_fn(2.0, np.arange(3.0)))
    2.0

    Attributes:
      each: (params, batch) -> f32[b].
    """

    each: Callable[[Params, Any], Array]

    def __call__(self, params: Params, batch: Any) -> Array:
        """Returns the mean, f32[]."""
        return self.each(params, batch).mean()


@dataclasses.dataclass(frozen=True)
class SharedMean(Mean):
    """A mean over examples of which each device computes a share, inside `jax.shard_map`.

    So do `inner.value_and_grad` and with it every inner step. Called, it is the mean over
    all that is given.

    >>> losses.SharedMean(lambda params, batch: params * batch, "device").axis
    'device'

    Attributes:
      axis: name of the mesh axis.
    """

    axis: str


def shared_by(loss_fn: Mean, mesh: Mesh | None) -> Mean:
    """Returns the loss of which the devices of a mesh of one axis compute shares.

    >>> loss_fn = losses.Mean(lambda params, batch: params * batch)
    >>> losses.shared_by(loss_fn, None) is loss_fn
    True
    """
    return loss_fn if mesh is None else SharedMean(loss_fn.each, *mesh.axis_names)


def cross_entropy(apply: Callable[[Params, Array], Array]) -> Mean:
    """Returns the mean of -sum_j labels_j log softmax(logits)_j over a batch.

    >>> from distilljax.types import Batch
    >>> loss_fn = losses.cross_entropy(lambda params, images: images @ params)
    >>> round(float(loss_fn(np.zeros((3, 2)), Batch(np.ones((4, 3)), np.eye(4, 2)))), 4)
    0.3466

    Args:
      apply: (params, images f32[b, ...]) -> logits f32[b, k].

    Returns:
      (params, batch) -> f32[], for a `types.Batch` with labels f32[b, k].

    Raises:
      InputError: when called, labels that are not [b, k] beside logits [b, k].
    """

    def each(params: Params, batch: Batch) -> Array:
        logits = apply(params, batch.images)
        checks.label_rows(logits, batch.labels)
        return optax.losses.softmax_cross_entropy(logits, batch.labels)

    return Mean(each)


def squared_error(apply: Callable[[Params, Array], Array]) -> Mean:
    """Returns half the squared error, summed over classes, the mean over a batch.

    >>> from distilljax.types import Batch
    >>> loss_fn = losses.squared_error(lambda params, images: images @ params)
    >>> float(loss_fn(np.zeros((3, 2)), Batch(np.ones((2, 3)), np.eye(2))))
    0.5

    Args:
      apply: (params, images f32[b, ...]) -> outputs f32[b, k].

    Returns:
      (params, batch) -> f32[], for a `types.Batch` with labels f32[b, k].

    Raises:
      InputError: when called, labels that are not [b, k] beside outputs [b, k].
    """

    def each(params: Params, batch: Batch) -> Array:
        outputs = apply(params, batch.images)
        checks.label_rows(outputs, batch.labels)
        return 0.5 * jnp.square(outputs - batch.labels).sum(axis=-1)

    return Mean(each)


def tempered_cross_entropy(logits: Array, labels: Array) -> Array:
    """Returns the least cross-entropy of softmax(logits / temperature), f32[].

    The mean over rows, at the best of all temperatures above zero. The derivative is that
    at this temperature, where the derivative by the temperature itself is zero. Of logits
    that are no better than chance the best temperature is infinite, and the loss log k.

    >>> logits, labels = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), jnp.eye(2)[:1]
    >>> shares = jnp.repeat(labels, 3, axis=0)  # right for two of three rows
    >>> float(losses.tempered_cross_entropy(logits, shares)).__round__(3)
    0.637

    Args:
      logits: f32[b, k].
      labels: f32[b, k], distributions.

    Raises:
      InputError: labels that are not [b, k] beside logits [b, k].
    """
    checks.label_rows(logits, labels)
    constant = jax.lax.stop_gradient(logits)

    def newton(_: Any, log_factor: Array) -> Array:
        scaled = jnp.exp(log_factor) * constant
        shares = jax.nn.softmax(scaled)
        mean = (shares * scaled).sum(axis=1)
        slope = (mean - (labels * scaled).sum(axis=1)).mean()
        curvature = (shares * jnp.square(scaled - mean[:, None])).sum(axis=1).mean()
        return log_factor - jnp.clip(slope / (curvature + 1e-12), -1.0, 1.0)

    log_factor = varying.fori_loop(0, 30, newton, jnp.zeros((), logits.dtype))
    factor = jnp.exp(jax.lax.stop_gradient(log_factor))
    return optax.losses.softmax_cross_entropy(factor * logits, labels).mean()


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
