"""The record of `experiments.published`."""

from typing import Any, NotRequired, TypedDict

from distilljax.analysis.statistics import Spread
from experiments.lab.records import DatasetRecord, Origin, ProtocolRecord


class RowRecord(TypedDict):
    """A published set. Accuracies are shares, of test images."""

    file: str
    sha256: NotRequired[str]  # of the file that was read
    method: str
    dataset: str
    images_per_class: int
    preprocess: str
    protocol: str
    published: float
    source: str
    recorded: Spread | None  # in the file itself, by its authors
    ours: Spread | None  # None: the file is not there, or was not asked for
    settings: NotRequired[ProtocolRecord]
    network: NotRequired[dict[str, Any]]
    seconds: float


class Summary(Origin):
    """The contents of `summary.json`."""

    rows: dict[str, RowRecord]
    datasets: dict[str, DatasetRecord]
    seconds: float  # of training and testing networks
