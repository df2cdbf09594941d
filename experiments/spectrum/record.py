"""The record of `experiments.spectrum`."""

from typing import TypedDict

from distilljax.analysis.statistics import SpreadInterval
from experiments.lab.records import Common, RowRecord

INITIAL, TRAINED = "initial", "trained"
STAGES = (INITIAL, TRAINED)
REAL = "all real images"


class Stage(TypedDict):
    """Networks at one stage; a value each."""

    strong: list[int]  # directions that hold the share of the variance
    dimensions: int  # of the features
    variance: list[float]  # share in each band, mean over networks; falling directions
    weak: dict[str, SpreadInterval]  # row -> share of its energy in weak directions
    # row -> energy in each band over that of all real images, a list a network
    response: dict[str, list[list[float]]]


class Summary(Common):
    """The contents of `summary.json`."""

    stages: dict[str, Stage]  # initial, trained
    bands: list[int]  # first direction of each band, from 0; then the number of directions
    share: float  # of real feature variance that strong directions hold
    rows: dict[str, RowRecord]
    real_images: int
    steps: int  # of training on real images
    seconds: float
