"""The record of `experiments.import_set`."""

from typing import Any, NotRequired

from distilljax.analysis.statistics import Spread
from experiments.lab.records import Common, ProtocolRecord


class Summary(Common):
    """The contents of `summary.json`."""

    images: int
    images_per_class: int
    labels: str  # classes, logits, probabilities or targets
    learning_rate: float
    method: str
    preprocess: str
    protocol: ProtocolRecord
    network: dict[str, Any]
    imported: dict[str, Any]  # of the file: its name, SHA-256, layout and checks
    accuracy: NotRequired[Spread]  # of test images, with --check
