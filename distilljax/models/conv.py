"""A 3x3-style convolution that is fast forwards, backwards and backwards again.

XLA's CPU convolution runs its kernel gradient, and everything inside a `scan` body,
on a slow path; the same sum written as one matrix product over shifted slices does not.
Memory traffic is then what costs, so the slices are shifted along the rows alone where
that leaves the product wide enough. On accelerators the library convolution is the fast
one. This file is the only place that chooses; `benchmarks.convolutions` compares.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from distilljax.types import Array

Formulation = Literal["auto", "library", "im2col", "rows"]

NARROW = 8  # channels below which the products of `rows` would be too narrow


def conv2d(
    images: Array,
    kernel: Array,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: int = 1,
    formulation: Formulation = "auto",
) -> Array:
    """Two-dimensional convolution (cross-correlation, as networks use the word).

    Args:
      images: f32[b, h, w, c].
      kernel: f32[kh, kw, c, d].
      strides: step of the window, vertical and horizontal.
      padding: zeros added on every side.
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
        return jax.lax.conv_general_dilated(
            images,
            kernel,
            strides,
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    if padding:
        images = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    b, h, w, _ = images.shape
    out_h, out_w = (h - kh) // strides[0] + 1, (w - kw) // strides[1] + 1
    stop_h, stop_w = (out_h - 1) * strides[0] + 1, (out_w - 1) * strides[1] + 1
    if formulation == "rows":
        shifted = [images[:, :, j : j + stop_w : strides[1]] for j in range(kw)]
        columns = jnp.concatenate(shifted, axis=-1).reshape(-1, kw * c)
        taps = kernel.transpose(1, 2, 0, 3).reshape(kw * c, kh * d)
        each = (columns @ taps).reshape(b, h, out_w, kh, d)
        parts = [each[:, i : i + stop_h : strides[0], :, i] for i in range(kh)]
        return functools.reduce(jnp.add, parts)
    columns = jnp.concatenate(
        [
            images[:, i : i + stop_h : strides[0], j : j + stop_w : strides[1]]
            for i in range(kh)
            for j in range(kw)
        ],
        axis=-1,
    )
    return (columns.reshape(-1, kh * kw * c) @ kernel.reshape(-1, d)).reshape(
        b, out_h, out_w, d
    )
