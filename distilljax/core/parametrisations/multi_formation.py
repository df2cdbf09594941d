"""Multi-formation (IDC; Kim et al. 2022, arXiv 2205.14959, section 3.2).

A stored image is a mosaic of f x f small images; each decodes to a full-size image by
bilinear interpolation (half-pixel centres), so that a set holds f^2 times as many images in
the same storage. All images decoded from one stored image share its label.

Departures: the initial images are given at full size and reduced by antialiased bilinear
interpolation; sides must be divisible by f.
"""

import dataclasses

import jax

from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.core.parametrisations.base import Parametrisation
from distilljax.types import Array, DistilledSet


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """A stored image is a mosaic of smaller images."""

    factor: int = option(
        2, "Number of small images along each side of a stored image.", low=2
    )


def make(
    config: Config, image_shape: tuple[int, int, int], num_classes: int, ipc: int
) -> Parametrisation:
    """Returns the parametrisation: `ipc` mosaics per class decode to ipc * factor^2 images.

    >>> config = multi_formation.Config(factor=2)
    >>> made = multi_formation.make(config, (8, 8, 1), num_classes=2, ipc=1)
    >>> made.images_per_class
    4

    Raises:
      FieldError: the sides are not divisible by `factor`.
    """
    h, w, c = image_shape
    f = config.factor
    if h % f or w % f:
        reason = f"{h}x{w} images cannot be divided into {f}x{f} equal parts"
        raise FieldError("factor", f, reason)

    def encode(distilled: DistilledSet) -> DistilledSet:
        num = distilled.images.shape[0] // (f * f)
        small = jax.image.resize(
            distilled.images, (num * f * f, h // f, w // f, c), "bilinear"
        )
        mosaic = small.reshape(num, f, f, h // f, w // f, c).transpose(0, 1, 3, 2, 4, 5)
        return distilled._replace(
            images=mosaic.reshape(num, h, w, c),
            label_logits=distilled.label_logits[:: f * f],
        )

    def decode(stored: DistilledSet) -> DistilledSet:
        num = stored.images.shape[0]
        parts = stored.images.reshape(num, f, h // f, f, w // f, c)
        small = parts.transpose(0, 1, 3, 2, 4, 5).reshape(num * f * f, h // f, w // f, c)
        images = jax.image.resize(small, (num * f * f, h, w, c), "bilinear")
        return stored._replace(images=images, label_logits=_repeat(stored.label_logits))

    def _repeat(logits: Array) -> Array:
        return jax.numpy.repeat(logits, f * f, axis=0)

    return Parametrisation(encode, decode, ipc * f * f)
