"""Normalisation, ReLU and average pooling in as few passes over memory as they need.

On a CPU these passes cost as much as the convolutions between them. Each function states
its derivative in a form that automatic differentiation does not find by itself; a rule is
made of functions that are differentiated in turn, so all orders and both modes are exact.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from distilljax.types import Array


def relu(x: Array) -> Array:
    """Returns max(x, 0); its derivative at zero is zero, as PyTorch's. NaN stays NaN."""
    return jnp.where(x <= 0, jnp.zeros((), x.dtype), x)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Returns mean and variance over `axes`, which are kept with size one.

    The variance is that of the centred values, not E[x^2] - E[x]^2, which cancels.
    """
    mean = x.mean(axes, keepdims=True)
    return mean, jnp.square(x - mean).mean(axes, keepdims=True)


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

    Args:
      x: f32[...].
      axes: what mean and variance are taken over.
      scale: f32, broadcast against x.
      bias: likewise.
      eps: added to the variance.
    """
    mean, variance = moments(x, axes)
    factor = jax.lax.rsqrt(variance + eps) * scale
    return x * factor + (bias - mean * factor)


@jax.custom_jvp
def average_pool(x: Array) -> Array:
    """Returns means of 2x2 blocks, f32[b, h, w, c] -> f32[b, h / 2, w / 2, c]; even h, w.

    Values are sums of strided slices. The transpose of those would be a sum of padded
    arrays, so the derivative is stated as a mean, whose transpose is a broadcast.
    """
    corners = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return (corners[0] + corners[1] + (corners[2] + corners[3])) * 0.25


@average_pool.defjvp
def _average_pool_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    b, h, w, c = dx.shape
    blocks = dx.reshape(b, h // 2, 2, w // 2, 2, c)
    return average_pool(x), blocks.mean((2, 4))
