"""Distillation methods.

Each entry of `METHODS` is one module: a docstring with the equation and where we
depart from it, `Config`, `make(config, model) -> Method`, and `LOWER`, the settings
to lower when the outer loss explodes.
"""

from distilljax.methods import bptt, dm

METHODS = {"bptt": bptt, "dm": dm}

__all__ = ["METHODS", "bptt", "dm"]
