"""Winograd's convolution F(2x2, 3x3) (Lavin & Gray 2016, arXiv 1509.09308, section 4.1).

Each 2x2 tile of the output is A^T [(G g G^T) * (B^T d B)] A, with g the 3x3 kernel and d
the 4x4 tile of the input: 16 products for each pair of channels in place of 36.
"""

import jax
import jax.numpy as jnp

from distilljax.types import Array


def conv3x3(images: Array, kernel: Array) -> Array:
    """Computes a 3x3 convolution with stride 1 and padding 1.

    Args:
      images: f32[b, h, w, c]; h and w are even.
      kernel: f32[3, 3, c, d].

    Returns:
      f32[b, h, w, d].
    """
    b, h, w, c = images.shape
    d = kernel.shape[-1]
    dtype = jnp.promote_types(images.dtype, kernel.dtype)
    images, kernel = images.astype(dtype), kernel.astype(dtype)
    taps = _taps(_taps(kernel).swapaxes(0, 1)).reshape(16, c, d)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    tiles = _tiled(_tiled(padded, 1), 3).reshape(16, -1, c)
    each = jnp.matmul(tiles, taps).reshape(4, 4, b, h // 2, w // 2, d)
    columns = jnp.stack(_outputs(each), axis=4)  # [4, b, h / 2, w / 2, 2, d]
    return jnp.stack(_outputs(columns), axis=2).reshape(b, h, w, d)


def _taps(g: Array) -> Array:
    """Returns G g along the first axis, [3, ..] -> [4, ..]."""
    first, second, third = (part.squeeze(0) for part in jax.lax.split(g, [1] * 3))
    ends, middle = (first + third) / 2, second / 2
    return jnp.stack([first, ends + middle, ends - middle, third])


def _tiled(x: Array, axis: int) -> Array:
    """Returns B^T x along an axis, [.., n + 2, ..] -> [4, .., n / 2, ..]."""
    half = x.shape[axis] // 2
    pairs = x.reshape(*x.shape[:axis], half, 2, *x.shape[axis + 1 :])
    even, odd = (part.squeeze(axis + 1) for part in jax.lax.split(pairs, [1, 1], axis + 1))
    first, third = (jax.lax.slice_in_dim(even, i, half - 1 + i, axis=axis) for i in (0, 1))
    second, fourth = (jax.lax.slice_in_dim(odd, i, half - 1 + i, axis=axis) for i in (0, 1))
    return jnp.stack([first - third, second + third, third - second, second - fourth])


def _outputs(x: Array) -> tuple[Array, Array]:
    """Returns A^T x along the first axis, [4, ..] -> two arrays [..]."""
    first, second, third, fourth = (part.squeeze(0) for part in jax.lax.split(x, [1] * 4))
    return first + second + third, second - third - fourth
