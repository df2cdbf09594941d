"""A convolution that is fast for values, gradients and second derivatives.

XLA's CPU convolution computes its kernel gradient, and everything inside a `scan` body, on
a slow path; one matrix product over shifted slices avoids it. Memory traffic is then the
bottleneck, so slices are shifted along the rows alone where the product stays wide enough,
and results are separated by `split`, whose transpose is one concatenation, not by
indexing, whose transpose is a sum of padded arrays. With many channels the products
dominate, and Winograd's formulation has fewer. On accelerators the library convolution is
the fastest. `benchmarks.convolutions` compares the implementations.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from distilljax import platforms
from distilljax.models import winograd
from distilljax.types import Array

Formulation = Literal["auto", "library", "im2col", "rows", "winograd"]

NARROW = 8  # number of channels below which the products of `rows` are too narrow
WIDE = 32  # number of channels from which Winograd's fewer products outweigh its passes


def conv2d(
    images: Array,
    kernel: Array,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: int = 1,
    formulation: Formulation = "auto",
) -> Array:
    """Computes a two-dimensional convolution (cross-correlation, as usual for networks).

    Args:
      images: f32[b, h, w, c].
      kernel: f32[kh, kw, c, d].
      strides: vertical and horizontal stride.
      padding: number of zeros added on every side.
      formulation: `library` is XLA's convolution; `im2col` one matrix product over all
        kh kw shifts of the image; `rows` one over its kw horizontal shifts, whose kh
        results are shifted vertically and added; `winograd` is `winograd.conv3x3` where it
        is possible, else rows, and im2col for few channels or a vertical stride. `auto` is
        decided for the platform for which the program is lowered: the library on
        accelerators; on a CPU `winograd` for many channels, else the same without it.

    Returns:
      f32[b, (h + 2 padding - kh) // strides[0] + 1, likewise for the width, d].
    """
    return _FORMULATIONS[formulation](images, kernel, strides=strides, padding=padding)


def _auto(images: Array, kernel: Array, **settings: Any) -> Array:
    cpu = functools.partial(_on_cpu, **settings, wide=WIDE)
    library: Callable[..., Array] = functools.partial(_library, **settings)
    if platform := platforms.targeted():
        chosen = cpu if platform == "cpu" else library
        return chosen(images, kernel)
    return jax.lax.platform_dependent(images, kernel, cpu=cpu, default=library)


def _on_cpu(images: Array, kernel: Array, *, wide: int, **settings: Any) -> Array:
    """Takes Winograd's tiles from `wide` channels on."""
    c, d = kernel.shape[2:]
    if c < NARROW or settings["strides"][0] > 1:
        return _im2col(images, kernel, **settings)
    if min(c, d) >= wide and _tiles(images, kernel, **settings):
        return winograd.conv3x3(images, kernel)
    return _rows(images, kernel, **settings)


def _library(
    images: Array, kernel: Array, *, strides: tuple[int, int], padding: int
) -> Array:
    dtype = jnp.promote_types(images.dtype, kernel.dtype)
    return jax.lax.conv_general_dilated(
        images.astype(dtype),
        kernel.astype(dtype),
        strides,
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _tiles(images: Array, kernel: Array, *, strides: tuple[int, int], padding: int) -> bool:
    """Returns whether Winograd's tiles suit: of a 3x3 convolution, hardly filled up."""
    _, h, w, _ = images.shape
    same = kernel.shape[:2] == (3, 3) and strides == (1, 1) and padding == 1
    return same and (min(h, w) >= winograd.LARGE or (h % 2 == 0 and w % 2 == 0))


def _columns(images: Array, kw: int, stride: int, out_w: int) -> Array:
    """Returns the horizontal shifts of padded images, f32[b, h, out_w, kw c]."""
    stop = (out_w - 1) * stride + 1
    return jnp.concatenate(
        [images[:, :, j : j + stop : stride] for j in range(kw)], axis=-1
    )


def _im2col(
    images: Array, kernel: Array, *, strides: tuple[int, int], padding: int
) -> Array:
    kh, kw, c, d = kernel.shape
    b, out_h, out_w = _output_shape(images, kernel, strides, padding)
    images = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    columns = _columns(images, kw, strides[1], out_w)
    stop = (out_h - 1) * strides[0] + 1
    columns = jnp.concatenate(
        [columns[:, i : i + stop : strides[0]] for i in range(kh)], axis=-1
    )
    flat = columns.reshape(-1, kh * kw * c) @ kernel.reshape(-1, d)
    return flat.reshape(b, out_h, out_w, d)


def _rows(images: Array, kernel: Array, *, strides: tuple[int, int], padding: int) -> Array:
    kh, kw, c, d = kernel.shape
    b, out_h, out_w = _output_shape(images, kernel, strides, padding)
    h, stop = images.shape[1], (out_h - 1) * strides[0] + 1
    images = jnp.pad(images, ((0, 0), (0, 0), (padding, padding), (0, 0)))
    columns = _columns(images, kw, strides[1], out_w)
    taps = kernel.transpose(1, 2, 0, 3).reshape(kw * c, kh * d)
    each = (columns.reshape(-1, kw * c) @ taps).reshape(b, h, out_w, kh * d)
    zero = jnp.zeros((), each.dtype)

    def shifted(part: Array, i: int) -> Array:
        low = padding - i
        sizes = [(0, 0, 0), (low, stop - h - low, 0), (0, 0, 0), (0, 0, 0)]
        return jax.lax.pad(part, zero, sizes)[:, :: strides[0]]

    parts = jax.lax.split(each, [d] * kh, axis=3)
    return functools.reduce(jnp.add, map(shifted, parts, range(kh)))


def _output_shape(
    images: Array, kernel: Array, strides: tuple[int, int], padding: int
) -> tuple[int, int, int]:
    b, h, w, _ = images.shape
    kh, kw, *_ = kernel.shape
    out_h = (h + 2 * padding - kh) // strides[0] + 1
    out_w = (w + 2 * padding - kw) // strides[1] + 1
    return b, out_h, out_w


_FORMULATIONS: dict[str, Callable[..., Array]] = {
    "auto": _auto,
    "library": _library,
    "im2col": _im2col,
    "rows": _rows,
    "winograd": functools.partial(_on_cpu, wide=0),
}
