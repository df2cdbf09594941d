"""The differentiable engine: inner loops, meta-gradients, outer steps. No files."""

from distilljax import lazy

__getattr__, __dir__ = lazy.submodules(
    __name__,
    (
        "augment",
        "distances",
        "distilled",
        "inner",
        "losses",
        "outer",
        "parameters",
        "parametrisations",
        "regression",
        "sampling",
        "scan",
    ),
)
