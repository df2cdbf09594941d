"""distilljax: dataset distillation in JAX.

Submodules are imported when they are first used: `distilljax.methods.bptt`,
`distilljax.core.inner`.

    types       arrays, models, distilled sets
    config      frozen options with help text and limits
    data        data sets and their preprocessing
    models      networks
    core        the differentiable engine: inner loops, meta-gradients, outer steps
    methods     distillation methods
    training    evaluation protocols, expert trajectories
    analysis    agreement, leave-one-out, pools of networks, coresets, statistics
    curvature   Hessian, Gauss-Newton, NTK, influence functions
    probes      measurements along a training run
    disk        atomic files, archives of strangers
    io          artefacts, checkpoints, records
    loop        the outer loop, with checkpoints and resume
    flags       a configuration as command-line flags
    launch      a command: its process, its errors
    memory      of the machine, and what cannot fit
"""

from typing import TYPE_CHECKING

from distilljax import lazy
from distilljax.types import (
    Batch,
    DistilledSet,
    InputError,
    Model,
    RealSet,
)

if TYPE_CHECKING:
    from distilljax import (
        analysis,
        config,
        core,
        curvature,
        data,
        disk,
        flags,
        io,
        launch,
        loop,
        memory,
        methods,
        models,
        probes,
        training,
        types,
    )

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "DistilledSet",
    "InputError",
    "Model",
    "RealSet",
    "analysis",
    "config",
    "core",
    "curvature",
    "data",
    "devices",
    "disk",
    "exported",
    "flags",
    "io",
    "launch",
    "loop",
    "memory",
    "methods",
    "models",
    "probes",
    "training",
    "types",
    "varying",
]

__getattr__, __dir__ = lazy.submodules(
    __name__, [name for name in __all__ if name.islower()]
)
