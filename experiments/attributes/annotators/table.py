"""The table of attributes that an annotator makes of images."""

from typing import Literal, NamedTuple, Protocol

import numpy as np

Kind = Literal["boolean", "continuous"]


class Annotations(NamedTuple):
    """Attributes of n images, a table with one column an attribute."""

    names: tuple[str, ...]  # a of them, each once
    kinds: tuple[Kind, ...]
    descriptions: tuple[str, ...]  # a sentence each
    values: np.ndarray  # f32[n, a], finite; 0 or 1 where boolean


class Annotator(Protocol):
    """Names attributes of images, from their pixels alone."""

    name: str
    identity: str  # annotators of the same identity make the same tables

    def __call__(self, images: np.ndarray) -> Annotations:
        """Returns the table of u8[n, h, w, c], or f[n, h, w, c] in 0..1; c is 1 or 3."""


def unit_range(images: np.ndarray) -> np.ndarray:
    """Scales u8[n, h, w, c], or f[n, h, w, c] in 0..1, to f32[n, h, w, c] in 0..1.

    Raises:
      ValueError: another shape, n = 0, c neither 1 nor 3, or values outside.
    """
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] not in (1, 3):
        raise ValueError(f"images {list(images.shape)}: expected [n, h, w, 1] or [.., 3]")
    scaled = images / np.float32(255) if images.dtype == np.uint8 else images
    if not (scaled.min() >= 0 and scaled.max() <= 1):
        raise ValueError(f"{images.dtype} images: expected u8, or floats in 0..1")
    return np.asarray(scaled, np.float32)
