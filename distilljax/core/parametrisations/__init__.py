"""Storage formats of distilled sets: a learned code that decodes to images.

Each entry of `PARAMETRISATIONS` is a module with `Config` and
`make(config, image_shape, num_classes, ipc) -> Parametrisation`. The code takes at most
the storage of `ipc` images per class; it may decode to more images.
"""

from distilljax.core.parametrisations import direct, memory, multi_formation
from distilljax.core.parametrisations.base import DIRECT, Parametrisation, stored_numbers

PARAMETRISATIONS = {"direct": direct, "memory": memory, "multi_formation": multi_formation}

__all__ = [
    "DIRECT",
    "PARAMETRISATIONS",
    "Parametrisation",
    "direct",
    "memory",
    "multi_formation",
    "stored_numbers",
]
