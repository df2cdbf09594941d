"""Probes: measurements along a training run.

Each entry of `PROBES` is one module: a docstring with what it measures and its source,
`Config`, and `make(config, model, mesh=None) -> Probe`. The devices of a mesh share the
images or the random vectors of a measurement; `distilljax.devices.jit` compiles for them.
"""

from distilljax.probes import (
    accuracy,
    hessian_eigenvalues,
    hessian_spectrum,
    hessian_trace,
    ntk,
)
from distilljax.probes.base import Point, Probe

PROBES = {
    "accuracy": accuracy,
    "hessian_trace": hessian_trace,
    "hessian_eigenvalues": hessian_eigenvalues,
    "hessian_spectrum": hessian_spectrum,
    "ntk": ntk,
}

__all__ = ["PROBES", "Point", "Probe"]
