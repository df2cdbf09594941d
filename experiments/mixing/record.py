"""The record of `experiments.mixing`."""

from typing import TypedDict

from distilljax.analysis.statistics import SpreadInterval
from experiments.lab.records import Common, RowRecord


class Verdict(TypedDict):
    """Whether real images lower the accuracy of a set."""

    lowers: bool
    # Numbers of real images that do, by an interval widened for how many there are.
    lowered_by: list[int]
    lowest_at: int | None


class Summary(Common):
    """The contents of `summary.json`; `added` is a number of real images, in digits."""

    accuracy: dict[str, dict[str, SpreadInterval]]  # row -> added
    difference: dict[str, dict[str, SpreadInterval]]  # row -> added, less that of 0
    verdict: dict[str, Verdict]
    rows: dict[str, RowRecord]
    protocol: str
    seconds: float
