"""A distillation from its data to its artefact: start, outer loop, score, comparison."""

from distilljax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, ("start",))
