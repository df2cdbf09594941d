"""Winograd's convolutions F(2x2, 3x3) and F(4x4, 3x3) (Lavin & Gray, arXiv 1509.09308).

Each tile of the output is A^T [(G g G^T) * (B^T d B)] A, with g the 3x3 kernel and d the
tile of the input, wider by two: 16 products for each pair of channels and 2x2 outputs in
place of 36, and 36 for 4x4 outputs in place of 144. The matrices evaluate and interpolate
polynomials, here at 0, 1, -1 and infinity, and at 0, +-5/8, +-3/2 and infinity: these have
half the rounding error of the customary 0, +-1, +-2 and infinity (arXiv 1803.10986 on the
choice).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from distilljax.types import Array, InputError

LARGE = 8  # side from which tiles of 4x4 are taken
A, B = 5 / 8, 3 / 2  # the points of F(4, 3); their squares are exact in float32


class _Tiles(NamedTuple):
    """The three transforms of one axis, for tiles of `side` outputs."""

    side: int
    taps: Callable[[Array], list[Array]]  # G g along the first axis
    inputs: Callable[[list[Array]], list[Array]]  # B^T d of side + 2 arrays
    outputs: Callable[[Array], list[Array]]  # A^T m along the first axis


def conv3x3(images: Array, kernel: Array, *, side: int | None = None) -> Array:
    """Computes a 3x3 convolution with stride 1 and padding 1.

    Args:
      images: f32[b, h, w, c].
      kernel: f32[3, 3, c, d].
      side: of the tiles of the output, 2 or 4; None: 4 from `LARGE` pixels on. Zeros fill
        up sides that it does not divide.

    Returns:
      f32[b, h, w, d]; its relative error in float32 is that of a direct convolution for 2,
      about three times that for 4.

    Raises:
      InputError: tiles of another side.
    """
    if side not in (None, *_TILES):
        raise InputError(f"side={side}: tiles have 2 or 4 outputs a side")
    b, h, w, c = images.shape
    d = kernel.shape[-1]
    tiles = _TILES[side or (4 if min(h, w) >= LARGE else 2)]
    n = tiles.side
    down, across = -(-h // n), -(-w // n)  # numbers of tiles
    dtype = jnp.promote_types(images.dtype, kernel.dtype)
    images, kernel = images.astype(dtype), kernel.astype(dtype)
    taps = jnp.stack(tiles.taps(jnp.stack(tiles.taps(kernel)).swapaxes(0, 1)))
    # One more tile, of which the last before it reads two pixels.
    below, right = ((1 + count) * n - 1 - size for count, size in ((down, h), (across, w)))
    padded = jnp.pad(images, ((0, 0), (1, below), (1, right), (0, 0)))
    read = _read(_read(padded, 1, tiles), 3, tiles).reshape((n + 2) ** 2, -1, c)
    each = jnp.matmul(read, taps.reshape(-1, c, d))
    each = each.reshape(n + 2, n + 2, b, down, across, d)
    columns = jnp.stack(tiles.outputs(each), axis=4)  # [n + 2, b, down, across, n, d]
    rows = jnp.stack(tiles.outputs(columns), axis=2)  # [b, down, n, across, n, d]
    # Without it XLA computes the last transform again for each use, such as a variance.
    rows = jax.lax.optimization_barrier(rows)
    return rows.reshape(b, down * n, across * n, d)[:, :h, :w]


def _read(x: Array, axis: int, tiles: _Tiles) -> Array:
    """Returns B^T x along an axis, [.., (m + 1) n, ..] -> [n + 2, .., m, ..]."""
    n = tiles.side
    count = x.shape[axis] // n - 1
    apart = x.reshape(*x.shape[:axis], count + 1, n, *x.shape[axis + 1 :])
    pixels = [part.squeeze(axis + 1) for part in jax.lax.split(apart, [1] * n, axis + 1)]

    def of_tiles(pixel: Array, first: int) -> Array:
        return jax.lax.slice_in_dim(pixel, first, first + count, axis=axis)

    own = [of_tiles(pixel, 0) for pixel in pixels]
    read = tiles.inputs([*own, *(of_tiles(pixel, 1) for pixel in pixels[:2])])
    # Without it XLA computes the transform of one axis again for each of the other's.
    return jax.lax.optimization_barrier(jnp.stack(read))


def _apart(x: Array) -> list[Array]:
    return [part.squeeze(0) for part in jax.lax.split(x, [1] * x.shape[0])]


def _taps2(g: Array) -> list[Array]:
    first, second, third = _apart(g)
    ends, middle = (first + third) / 2, second / 2
    return [first, ends + middle, ends - middle, third]


def _inputs2(d: list[Array]) -> list[Array]:
    first, second, third, fourth = d
    return [first - third, second + third, third - second, second - fourth]


def _outputs2(m: Array) -> list[Array]:
    first, second, third, fourth = _apart(m)
    return [first + second + third, second - third - fourth]


def _taps4(g: Array) -> list[Array]:
    first, second, third = _apart(g)

    def pair(point: float, other: float) -> list[Array]:
        scale = 1 / (2 * point**2 * (point**2 - other**2))
        even, odd = first * scale + third * (point**2 * scale), second * (point * scale)
        return [even + odd, even - odd]

    return [first / (A * B) ** 2, *pair(A, B), *pair(B, A), third]


def _inputs4(d: list[Array]) -> list[Array]:
    d0, d1, d2, d3, d4, d5 = d

    def pair(point: float, other: float) -> list[Array]:
        even, odd = d4 - other**2 * d2, point * d3 - point * other**2 * d1
        return [even + odd, even - odd]

    low, middle = (A * B) ** 2, A**2 + B**2
    zero, infinity = low * d0 - middle * d2 + d4, low * d1 - middle * d3 + d5
    return [zero, *pair(A, B), *pair(B, A), infinity]


def _outputs4(m: Array) -> list[Array]:
    zero, a_plus, a_minus, b_plus, b_minus, infinity = _apart(m)
    a_even, a_odd = a_plus + a_minus, a_plus - a_minus
    b_even, b_odd = b_plus + b_minus, b_plus - b_minus
    return [
        zero + a_even + b_even,
        A * a_odd + B * b_odd,
        A**2 * a_even + B**2 * b_even,
        A**3 * a_odd + B**3 * b_odd + infinity,
    ]


_TILES = {
    2: _Tiles(2, _taps2, _inputs2, _outputs2),
    4: _Tiles(4, _taps4, _inputs4, _outputs4),
}
