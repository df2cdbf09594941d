"""The record of `experiments.labels`."""

from typing import Any, TypedDict

from distilljax.analysis.statistics import SpreadInterval
from experiments.lab.records import Common, RowRecord

HARD, EARLY, LATE = "hard", "early", "late"


class ExpertRecord(TypedDict):
    """A network whose class probabilities are labels."""

    epochs: int
    accuracy: float  # of test images
    training_loss: float  # mean of the last epoch
    seconds: float


class Summary(Common):
    """The contents of `summary.json`; labels are `hard`, `early` or `late`."""

    accuracy: dict[str, dict[str, SpreadInterval]]  # row -> labels
    gain: dict[str, dict[str, SpreadInterval]]  # row -> labels, less that of hard ones
    experts: dict[str, ExpertRecord]  # early, late
    rows: dict[str, RowRecord]
    recipe: dict[str, Any]  # of the experts
    protocol: str
    seconds: float
