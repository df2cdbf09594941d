"""Distillation methods.

Each entry of `METHODS` is one module: a docstring with the equation and the departures
from it, `Config`, `make(config, model, parametrisation) -> Method`, `SOURCE`, the data of
its step (`real`, a `RealSet`, or `experts`, `Trajectories`), and `LOWER`, the settings to
lower when the outer loss diverges.
"""

from distilljax.methods import bptt, dm, gm, tm

METHODS = {"bptt": bptt, "gm": gm, "dm": dm, "tm": tm}

__all__ = ["METHODS", "bptt", "dm", "gm", "tm"]
