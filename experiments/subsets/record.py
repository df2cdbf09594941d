"""The record of `experiments.subsets`."""

from typing import TypedDict

from distilljax.analysis.statistics import SpreadInterval
from experiments.lab.records import Common, RowRecord


class Comparison(TypedDict):
    """A part of a set beside a set distilled at its size."""

    whole: str  # row of the set that the part is of
    distilled: str  # row of the set distilled at this size
    random: str  # row of the random images, of which a part is taken too
    per_class: str  # images of each class, in digits
    # Networks trained on the part, less those trained on the set distilled at its size.
    difference: SpreadInterval
    # The same of random images.
    above_random: SpreadInterval


class Summary(Common):
    """The contents of `summary.json`; `size` is images of each class, in digits."""

    accuracy: dict[str, dict[str, SpreadInterval]]  # row -> size
    comparisons: list[Comparison]
    rows: dict[str, RowRecord]
    protocol: str
    seconds: float
