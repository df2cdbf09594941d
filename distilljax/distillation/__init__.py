"""A distillation from its data to its artefact: start, outer loop, score, comparison."""

from typing import TYPE_CHECKING

from distilljax import lazy

if TYPE_CHECKING:
    from distilljax.distillation import choices, compare, run, start

__all__ = ["choices", "compare", "run", "start"]

__getattr__, __dir__ = lazy.submodules(__name__, __all__)
