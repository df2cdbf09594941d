"""The record of `experiments.agreement`."""

from typing import Any, NotRequired, TypedDict, final

from distilljax.analysis.statistics import Spread, SpreadInterval
from experiments.lab.records import Common, RowRecord


class Target(TypedDict):
    """A network of a row beside the members of a pool that have its accuracy."""

    accuracy: float
    value: float  # agreement
    standard_error: float | None
    num_members: int
    half_width: float  # of the window of accuracies
    mean_gap: float  # accuracy of the members, less that of the network
    iteration: NotRequired[float]  # median of early-stopped members


@final
class Matched(TypedDict):
    """Agreement of a row with a pool at equal accuracy, mean over networks."""

    value: float
    standard_error: float | None
    interval: list[float | None]  # low, high
    freedom: float | None
    num_members: int
    num_runs: int
    half_width: float
    mean_gap: float
    kappa: float | None  # Cohen's
    error_consistency: float | None
    pool_error: float | None
    between_networks_error: float
    networks: list[Target]
    iteration: NotRequired[float]  # median of early-stopped members


@final
class Difference(TypedDict):
    """Agreement with early-stopped networks less that with subset-trained ones."""

    value: float
    standard_error: float | None
    interval: list[float | None]  # low, high
    freedom: float | None
    cohen_d: float | None
    pool_error: float | None
    values: list[float]  # network by network


@final
class Unmatched(TypedDict):
    """No member of a pool has the accuracy of some network."""

    unmatched: str  # why


class Agreed(TypedDict):
    """A row beside both pools."""

    accuracy: SpreadInterval
    subset: Matched | Unmatched
    early_stopped: Matched | Unmatched
    difference: Difference | Unmatched


class AccuracyRange(TypedDict):
    """Accuracies of the members of a pool."""

    lowest: float
    median: float
    highest: float


class PoolRecord(TypedDict):
    """How a pool was trained."""

    networks: int
    batch: int
    lr: float
    momentum: float
    accuracy: AccuracyRange
    seconds: float
    files: list[str]  # relative to the working directory


class SubsetPool(PoolRecord):
    """Networks trained on random subsets of the real images."""

    shares: list[float]  # lowest, highest share of each class
    images: list[int]  # in the smallest and the largest subset
    epochs: int


class EarlyPool(PoolRecord):
    """Networks stopped early on all real images."""

    runs: int
    iterations: int
    every: int  # iterations between predictions
    last_accuracy: Spread


class Pools(TypedDict):
    """Both pools."""

    subset: SubsetPool
    early_stopped: EarlyPool


class PerPool(TypedDict):
    """A number for each pool."""

    subset: int
    early_stopped: int


class Matching(TypedDict):
    """The rules by which members of equal accuracy are chosen."""

    least: PerPool  # members wanted in a window
    least_runs: PerPool
    tolerance: float


class Summary(Common):
    """The contents of `summary.json`."""

    agreement: dict[str, Agreed]  # row
    rows: dict[str, RowRecord]
    pools: Pools
    model: dict[str, Any]  # settings of the network, and its number of parameters
    protocol: str
    matching: Matching
    test_images: int
    command: str
    seconds: float
