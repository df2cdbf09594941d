"""Memory addressing (Deng & Russakovsky 2022, arXiv 2206.02916, section 3.2).

All images of all classes share m bases B of lower resolution; image i is their linear
combination with coefficients A, upsampled by bilinear interpolation (half-pixel centres):

    x_i = enlarge( sum_j A_ij B_j )

Departures: the number of bases follows from the storage budget of `ipc` images per class,
which includes the coefficients; bases and coefficients are initialised to the best
approximation of given images (the leading singular vectors), not to noise.
"""

import dataclasses
import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from distilljax import exported
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.core.parametrisations.base import Parametrisation
from distilljax.types import Array, DistilledSet


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Images are linear combinations of a few bases shared by all classes."""

    images: int | None = option(
        None, "Decoded images per class; none: 5 times --ipc.", low=1
    )
    bases: int | None = option(
        None, "Number of bases; none: as many as the storage of --ipc images allows.", low=1
    )
    downsample: int = option(2, "Factor by which the sides of a basis are reduced.", low=1)


@exported.named
class Memory(NamedTuple):
    """The code of a distilled set.

    Attributes:
      bases: f32[m, h / downsample, w / downsample, c].
      coefficients: f32[n, m].
    """

    bases: Array
    coefficients: Array


def make(
    config: Config, image_shape: tuple[int, int, int], num_classes: int, ipc: int
) -> Parametrisation:
    """Returns the parametrisation: a `Memory` that decodes to `images` per class.

    >>> config = memory.Config(images=4, bases=2)
    >>> made = memory.make(config, (8, 8, 1), num_classes=2, ipc=1)
    >>> made.images_per_class
    4

    Raises:
      FieldError: more bases than images, or than the storage allows; sides not divisible
        by `downsample`.
    """
    h, w, c = image_shape
    f = config.downsample
    if h % f or w % f:
        reason = f"{h}x{w} images cannot be made {f} times smaller without a remainder"
        raise FieldError("downsample", f, reason)
    low = (h // f, w // f, c)
    per_class = config.images or 5 * ipc
    num = per_class * num_classes
    budget = ipc * num_classes * h * w * c // (h * w * c // (f * f) + num)
    most = min(num, math.prod(low))
    num_bases = config.bases or min(budget, most)
    if num_bases > budget:
        reason = (
            f"{num_bases} bases and their coefficients take more storage than {ipc} images "
            f"a class; at most {budget}"
        )
        raise FieldError("bases", config.bases, reason)
    if num_bases > most:
        reason = (
            f"{num} images of {math.prod(low)} numbers each are combinations of {most} "
            "bases; give no more"
        )
        raise FieldError("bases", config.bases, reason)
    if num_bases < 1:
        reason = f"the coefficients of {num} images leave no storage for a basis"
        raise FieldError("images", config.images, reason)

    def encode(distilled: DistilledSet) -> DistilledSet:
        small = jax.image.resize(distilled.images, (num, *low), "bilinear")
        u, s, vt = jnp.linalg.svd(small.reshape(num, -1), full_matrices=False)
        # Scaled so that bases have entries of order 1, like images.
        size = vt.shape[1] ** 0.5
        bases = (vt[:num_bases] * size).reshape(-1, *low)
        coefficients = u[:, :num_bases] * (s[:num_bases] / size)
        code: Any = Memory(bases, coefficients)
        return distilled._replace(images=code)

    def decode(stored: DistilledSet) -> DistilledSet:
        bases, coefficients = cast(Memory, stored.images)
        small = coefficients @ bases.reshape(num_bases, -1)
        images = jax.image.resize(small.reshape(num, *low), (num, h, w, c), "bilinear")
        return stored._replace(images=images)

    return Parametrisation(encode, decode, per_class)
