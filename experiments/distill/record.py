"""The record of `experiments.distill`."""

from typing import Any, NotRequired, TypedDict

from distilljax.analysis.statistics import Spread
from distilljax.comparison.fair import Scores
from experiments.lab.records import Common, ProtocolRecord


class Notes(TypedDict):
    """Numbers of the set itself; the artefact holds them too."""

    best_step: int  # outer steps that the set had taken
    held_out_accuracy: float | None
    inner_learning_rate: NotRequired[float]
    stored_numbers: NotRequired[int]  # that the set takes in its parametrisation
    experts: NotRequired[dict[str, Any] | None]  # description of those that were used


class Seconds(TypedDict):
    """Time of the run since it was last started."""

    compile: float
    distil: float  # with `compile`
    test: float
    total: float


class Summary(Common, Notes):
    """The contents of `summary.json`."""

    accuracy: dict[str, Spread]  # by the names of `accuracy.TRAINED_ON`
    scores: NotRequired[Scores]
    protocol: ProtocolRecord
    steps: int  # taken: fewer than asked for where a hook ended the run
    seconds: Seconds
