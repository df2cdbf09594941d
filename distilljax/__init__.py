"""distilljax: dataset distillation in JAX.

The names that a user writes are here: the main job (`dataset`, `distil`, `compare`), files
(`load`, `save`), types (`Model`, `Batch`, `DistilledSet`, ...) and tables (`METHODS`,
`MODELS`, `PROTOCOLS`). They and the submodules are imported when they are first used:
`distilljax.methods.bptt`, `distilljax.core.inner`.

    types         arrays, models, distilled sets
    config        frozen options with help text and limits
    data          data sets and their preprocessing
    models        networks
    core          the differentiable engine: inner loops, meta-gradients, outer steps
    methods       distillation methods
    training      evaluation protocols, expert trajectories
    distillation  a distillation in one call: `distil`
    comparison    accuracies beside real images, scores
    analysis      agreement, leave-one-out, pools of networks, coresets, statistics
    curvature     Hessian, Gauss-Newton, NTK, influence functions
    probes        measurements along a training run
    io            artefacts, checkpoints, records
    loop          the outer loop, with checkpoints and resume
    watching      progress, TensorBoard, hooks
    keys          random keys, one root for each purpose
    devices       work shared by several devices
    processes     several processes that work on one run
    platforms     the platform that programs are structured for
    varying       control flow and derivatives inside `jax.shard_map`
    exported      types that `jax.export` can write
    flags         a configuration as command-line flags
    launch        a command: its process, its errors
    terminal      the terminal of a run of several processes
    memory        the memory of the machine, and checks against it
    disk          atomic file writes, safe reading of archives
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
        comparison,
        config,
        core,
        curvature,
        data,
        devices,
        disk,
        distillation,
        exported,
        flags,
        io,
        keys,
        launch,
        loop,
        memory,
        methods,
        models,
        platforms,
        probes,
        processes,
        terminal,
        training,
        types,
        varying,
        watching,
    )
    from distilljax.core.outer import Method, Optimizers
    from distilljax.data import Dataset, dataset
    from distilljax.distillation.compare import Comparison, compare
    from distilljax.distillation.run import Distillation, distil
    from distilljax.io import Artefact, load, save
    from distilljax.loop import Stop
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
    "Comparison": "distillation.compare",
    "Dataset": "data",
    "Distillation": "distillation.run",
    "EvaluationProtocol": "training.evaluation",
    "Method": "core.outer",
    "Optimizers": "core.outer",
    "Stop": "loop",
    "compare": "distillation.compare",
    "dataset": "data",
    "distil": "distillation.run",
    "load": "io",
    "save": "io",
}
_SUBMODULES = (
    "analysis",
    "comparison",
    "config",
    "core",
    "curvature",
    "data",
    "devices",
    "disk",
    "distillation",
    "exported",
    "flags",
    "io",
    "keys",
    "launch",
    "loop",
    "memory",
    "methods",
    "models",
    "platforms",
    "probes",
    "processes",
    "terminal",
    "training",
    "types",
    "varying",
    "watching",
)

__all__ = [
    "METHODS",
    "MODELS",
    "PROTOCOLS",
    "Array",
    "Artefact",
    "Batch",
    "Comparison",
    "Dataset",
    "Distillation",
    "DistilledSet",
    "Estimate",
    "EvaluationProtocol",
    "InputError",
    "Key",
    "LossFn",
    "Method",
    "Model",
    "Optimizers",
    "Params",
    "RealSet",
    "Stop",
    "Transform",
    "analysis",
    "compare",
    "comparison",
    "config",
    "core",
    "curvature",
    "data",
    "dataset",
    "devices",
    "disk",
    "distil",
    "distillation",
    "exported",
    "flags",
    "io",
    "keys",
    "launch",
    "load",
    "loop",
    "memory",
    "methods",
    "models",
    "platforms",
    "probes",
    "processes",
    "save",
    "terminal",
    "training",
    "types",
    "varying",
    "watching",
]

__getattr__, __dir__ = lazy.submodules(__name__, _SUBMODULES, _OBJECTS)
