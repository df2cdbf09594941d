"""The record of `experiments.dynamics`."""

from typing import NotRequired, TypedDict

from experiments.lab.records import Common


class Curve(TypedDict):
    """A quantity on a set along training; numbers that are not finite are null."""

    iterations: list[int]
    mean: list[float | None]  # over runs
    std: list[float | None] | None  # over runs, n - 1; None of a single one
    runs: int
    standard_error: list[float | None]  # that the probes leave in the mean
    num_probes: int
    of: str  # what the quantity is
    values: list[list[float | None]]  # of each run


class LookedAt(TypedDict):
    """A set that probes look at."""

    images: int
    method: str | None  # None of real images
    path: str | None


class Learner(TypedDict):
    """The network that is trained, with further settings of its model."""

    name: str
    width: NotRequired[int]


class Seconds(TypedDict):
    """Time taken."""

    measuring: float  # by all measurements, of this and of earlier commands
    this_command: float


class Summary(Common):
    """The contents of `summary.json`."""

    curves: dict[str, dict[str, Curve]]  # quantity -> set
    sets: dict[str, LookedAt]
    trained_on: str  # `real`, or the path of a distilled set
    runs: int
    model: Learner
    parameters: int
    seconds: Seconds
