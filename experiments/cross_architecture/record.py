"""The record of `experiments.cross_architecture`."""

from typing import Any

from distilljax.analysis.statistics import Spread
from experiments.lab.records import Common, RowRecord


class CellRecord(Spread):
    """Accuracies of one architecture on one set."""

    parameters: int  # of a network
    seconds: float


class Summary(Common):
    """The contents of `summary.json`."""

    accuracy: dict[str, dict[str, CellRecord]]  # row -> architecture
    rows: dict[str, RowRecord]
    architectures: dict[str, dict[str, Any]]  # settings of all but `own`
    protocol: str
    seconds: float
