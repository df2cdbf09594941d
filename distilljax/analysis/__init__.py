"""Analyses of distilled sets: agreement, leave-one-out, pools of networks, coresets."""

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
