"""distilljax: dataset distillation in JAX.

The names that a user writes are here: types (`Model`, `Batch`, `DistilledSet`, ...), data
from arrays (`dataset`), tables (`METHODS`, `MODELS`, `PROTOCOLS`), files (`load`, `save`).
They and the submodules are imported when they are first used: `distilljax.methods.bptt`,
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
    Array,
    Batch,
    DistilledSet,
    Estimate,
    InputError,
    Key,
    LossFn,
    Model,
    Params,
    RealSet,
    Transform,
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
    from distilljax.core.outer import Method
    from distilljax.data import Dataset, dataset
    from distilljax.io import Artefact, load, save
    from distilljax.methods import METHODS
    from distilljax.models import MODELS
    from distilljax.training.evaluation import PROTOCOLS, EvaluationProtocol

__version__ = "0.1.0"

# Name -> the submodule that defines it.
_OBJECTS = {
    "METHODS": "methods",
    "MODELS": "models",
    "PROTOCOLS": "training.evaluation",
    "Artefact": "io",
    "Dataset": "data",
    "EvaluationProtocol": "training.evaluation",
    "Method": "core.outer",
    "dataset": "data",
    "load": "io",
    "save": "io",
}
_SUBMODULES = (
    "analysis",
    "config",
    "core",
    "curvature",
    "data",
    "disk",
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
)

__all__ = [
    "METHODS",
    "MODELS",
    "PROTOCOLS",
    "Array",
    "Artefact",
    "Batch",
    "Dataset",
    "DistilledSet",
    "Estimate",
    "EvaluationProtocol",
    "InputError",
    "Key",
    "LossFn",
    "Method",
    "Model",
    "Params",
    "RealSet",
    "Transform",
    "analysis",
    "config",
    "core",
    "curvature",
    "data",
    "dataset",
    "disk",
    "flags",
    "io",
    "launch",
    "load",
    "loop",
    "memory",
    "methods",
    "models",
    "probes",
    "save",
    "training",
    "types",
]

__getattr__, __dir__ = lazy.submodules(__name__, _SUBMODULES, _OBJECTS)
