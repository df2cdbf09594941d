"""A convolution that is fast for values, gradients and second derivatives.

XLA's CPU convolution computes its kernel gradient, and everything inside a `scan` body, on
a slow path; one matrix product over shifted slices avoids it. Memory traffic is then the
bottleneck, so slices are shifted along the rows alone where the product stays wide enough,
and results are separated by `split`, whose transpose is one concatenation, not by
indexing, whose transpose is a sum of padded arrays. On accelerators the library
convolution is the fastest. `benchmarks.convolutions` compares the implementations.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from distilljax.types import Array

Formulation = Literal["auto", "library", "im2col", "rows"]

NARROW = 8  # number of channels below which the products of `rows` are too narrow


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
        results are shifted vertically and added. `auto` takes the library on accelerators;
        on CPU im2col for few channels or a vertical stride, else rows.

    Returns:
      f32[b, (h + 2 padding - kh) // strides[0] + 1, likewise for the width, d].
    """
    kh, kw, c, d = kernel.shape
    if formulation == "auto":
        if jax.default_backend() != "cpu":
            formulation = "library"
        else:
            formulation = "im2col" if c < NARROW or strides[0] > 1 else "rows"
    if formulation == "library":
        dtype = jnp.promote_types(images.dtype, kernel.dtype)
        images, kernel = images.astype(dtype), kernel.astype(dtype)
        return jax.lax.conv_general_dilated(
            images,
            kernel,
            strides,
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    b, h, w, _ = images.shape
    out_h = (h + 2 * padding - kh) // strides[0] + 1
    out_w = (w + 2 * padding - kw) // strides[1] + 1
    stop_h, stop_w = (out_h - 1) * strides[0] + 1, (out_w - 1) * strides[1] + 1
    border = padding if formulation == "im2col" else 0
    images = jnp.pad(images, ((0, 0), (border, border), (padding, padding), (0, 0)))
    columns = jnp.concatenate(
        [images[:, :, j : j + stop_w : strides[1]] for j in range(kw)], axis=-1
    )
    if formulation == "im2col":
        columns = jnp.concatenate(
            [columns[:, i : i + stop_h : strides[0]] for i in range(kh)], axis=-1
        )
        flat = columns.reshape(-1, kh * kw * c) @ kernel.reshape(-1, d)
        return flat.reshape(b, out_h, out_w, d)
    taps = kernel.transpose(1, 2, 0, 3).reshape(kw * c, kh * d)
    each = (columns.reshape(-1, kw * c) @ taps).reshape(b, h, out_w, kh * d)
    zero = jnp.zeros((), each.dtype)

    def shifted(part: Array, i: int) -> Array:
        low = padding - i
        sizes = [(0, 0, 0), (low, stop_h - h - low, 0), (0, 0, 0), (0, 0, 0)]
        return jax.lax.pad(part, zero, sizes)[:, :: strides[0]]

    parts = jax.lax.split(each, [d] * kh, axis=3)
    return functools.reduce(jnp.add, map(shifted, parts, range(kh)))
