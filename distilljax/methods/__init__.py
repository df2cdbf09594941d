"""Distillation methods.

Each entry of `METHODS` is one module: a docstring with the equation and the departures
from it, `Config`, `make(config, model, parametrisation) -> Method`, `SOURCE`, the data of
its step (`real`, a `RealSet`, or `experts`, `Trajectories`), and `LOWER`, the settings to
lower when the outer loss diverges. `LABELS = "targets"` says that the sets of a method hold
real-valued labels in `label_logits`.
"""

from distilljax.methods import bptt, dm, gm, kernel, tm

METHODS = {"bptt": bptt, "gm": gm, "dm": dm, "tm": tm, "kernel": kernel}

__all__ = ["METHODS", "bptt", "dm", "gm", "kernel", "tm"]
