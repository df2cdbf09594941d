"""The images themselves."""

import dataclasses

from distilljax.config import Config as Base
from distilljax.core.parametrisations.base import DIRECT, Parametrisation


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Images are stored as they are."""


def make(
    config: Config, image_shape: tuple[int, int, int], num_classes: int, ipc: int
) -> Parametrisation:
    """Nothing is decoded; a set has `ipc` images a class."""
    return DIRECT._replace(images_per_class=ipc)
