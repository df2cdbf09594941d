"""distilljax: dataset distillation in JAX.

The core (`distilljax.core`, `distilljax.methods`, `distilljax.models`) is made of
pure functions; `distilljax.data` reads data sets, `distilljax.io` writes files and
`distilljax.loop` runs the outer loop.
"""

from distilljax.types import (
    Batch,
    DistilledSet,
    InputError,
    Model,
    RealSet,
)

__version__ = "0.1.0"

__all__ = ["Batch", "DistilledSet", "InputError", "Model", "RealSet"]
