"""The identity parametrisation: images are learned directly."""

import dataclasses

from distilljax.config import Config as Base
from distilljax.core.parametrisations.base import DIRECT, Parametrisation


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Images are stored directly, without a code."""


def make(
    config: Config, image_shape: tuple[int, int, int], num_classes: int, ipc: int
) -> Parametrisation:
    """Returns the identity parametrisation; a set has `ipc` images per class.

    >>> direct.make(direct.Config(), (8, 8, 1), num_classes=2, ipc=1).images_per_class
    1
    """
    return DIRECT._replace(images_per_class=ipc)
