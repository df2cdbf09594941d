"""Analyses of distilled sets and of the networks trained on them, one module each."""

from distilljax import lazy

__getattr__, __dir__ = lazy.submodules(
    __name__,
    (
        "agreement",
        "connectivity",
        "coresets",
        "datamodels",
        "leave_one_out",
        "pools",
        "spectrum",
        "statistics",
    ),
)
