"""Normalisation, ReLU and average pooling in as few passes over memory as they need.

On a CPU these passes cost as much as the convolutions between them. Each function states
its derivative in a form that automatic differentiation does not find by itself; a rule is
made of functions that are differentiated in turn, so all orders and both modes are exact.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distilljax.types import Array


@jax.custom_jvp
def relu(x: Array) -> Array:
    """Returns max(x, 0); its derivative at zero is zero, as PyTorch's. NaN stays NaN.

    The derivative is stated as a product with 0 or 1. A choice between it and zero would
    have an array of zeros for each layer, which differentiation moves out of a scan as a
    constant, and each step then reads from memory.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    return relu(x), dx * jnp.asarray(x > 0, jnp.result_type(x))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Returns mean and variance over `axes`, which are kept with size one.

    On a CPU `centred_moments`, elsewhere `shifted_moments`, decided when the program is
    lowered.
    """
    return jax.lax.platform_dependent(
        x,
        cpu=functools.partial(centred_moments, axes=axes),
        default=functools.partial(shifted_moments, axes=axes),
    )


def centred_moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Returns mean and variance in two passes, the second over the centred values."""
    mean = x.mean(axes, keepdims=True)
    return mean, jnp.square(x - mean).mean(axes, keepdims=True)


def shifted_moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Returns mean and variance in one pass, with the first value a taken off from all.

    The variance is E[(x - a)^2] - E[x - a]^2 (Chan, Golub & LeVeque 1983). With a = 0 it
    would cancel where the mean is far from zero. Of n values none is further from the mean
    than sqrt(n - 1) deviations, so here the first term is at most n times the variance,
    wherever the mean: the relative error is of the order of n roundings at worst, 1e-4 for
    the 1,024 pixels of a channel in float32, and a few roundings for an ordinary a.
    """
    first = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))
    anchor = x[first]
    away = x - anchor
    mean, square = (
        away.mean(axes, keepdims=True),
        jnp.square(away).mean(axes, keepdims=True),
    )
    return mean + anchor, jnp.maximum(square - jnp.square(mean), 0)


@moments.defjvp
def _moments_jvp(axes: tuple[int, ...], primals: Any, tangents: Any) -> Any:
    """D var = 2 E[(x - mean) dx]: the derivative of the mean within it vanishes."""
    (x,), (dx,) = primals, tangents
    mean, variance = moments(x, axes)
    change = 2 * ((x - mean) * dx).mean(axes, keepdims=True)
    return (mean, variance), (dx.mean(axes, keepdims=True), change)


def normalise(
    x: Array, axes: tuple[int, ...], scale: Array, bias: Array, eps: float = 1e-5
) -> Array:
    """Returns (x - mean) / sqrt(variance + eps) * scale + bias.

    Mean and variance of x of half precision are float32; the result is of the dtype of x.

    Args:
      x: f32[...].
      axes: what mean and variance are taken over.
      scale: f32, broadcast against x.
      bias: likewise.
      eps: added to the variance.
    """
    dtype, x = x.dtype, widened(x)
    mean, variance = moments(x, axes)
    factor = jax.lax.rsqrt(variance + eps) * scale
    found = x * factor + (bias - mean * factor)
    return found.astype(dtype) if dtype.itemsize < 4 else found


def widened(x: Array) -> Array:
    """Returns x in float32 if it is of half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@jax.custom_jvp
def average_pool(x: Array) -> Array:
    """Returns means of 2x2 blocks, f32[b, h, w, c] -> f32[b, h / 2, w / 2, c]; even h, w.

    On a TPU `window_pool` and its own derivative. Elsewhere `corner_pool`; the transpose of
    its slices would be a sum of padded arrays, so the derivative is stated as `split_pool`
    on a CPU, else as `block_pool`.
    """
    return jax.lax.platform_dependent(x, tpu=window_pool, default=corner_pool)


def corner_pool(x: Array) -> Array:
    """Returns means of 2x2 blocks as sums of strided slices."""
    corners = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return (corners[0] + corners[1] + (corners[2] + corners[3])) * 0.25


def split_pool(x: Array) -> Array:
    """Returns means of 2x2 blocks as sums of halves; the transpose is a concatenation."""
    b, h, w, c = x.shape
    top, bottom = jax.lax.split(x.reshape(b, h // 2, 2, w, c), [1, 1], axis=2)
    rows = (top + bottom).reshape(b, h // 2, w // 2, 2, c)
    left, right = jax.lax.split(rows, [1, 1], axis=3)
    return (left + right).squeeze(3) * 0.25


def block_pool(x: Array) -> Array:
    """Returns means of 2x2 blocks of a reshaped array; the transpose is a broadcast."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def window_pool(x: Array) -> Array:
    """Returns means of 2x2 blocks by `reduce_window`; a TPU copies to slice."""
    window = (1, 2, 2, 1)
    zero = np.zeros((), x.dtype)  # a constant, or JAX does not take this for a sum
    return jax.lax.reduce_window(x, zero, jax.lax.add, window, window, "VALID") * 0.25


@average_pool.defjvp
def _average_pool_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    moved = jax.lax.platform_dependent(
        dx, cpu=split_pool, tpu=window_pool, default=block_pool
    )
    return average_pool(x), moved
