"""The record of `experiments.connectivity`."""

from typing import TypedDict

from distilljax.analysis.statistics import SpreadInterval
from experiments.lab.records import Common, RowRecord

REAL = "all real images"


class Line(TypedDict):
    """Lines between two networks, one for each initialisation."""

    error: list[list[float]]  # of test images; [initialisation][share]
    barrier: SpreadInterval  # of the test error, a value an initialisation


class Summary(Common):
    """The contents of `summary.json`; a value of each row is one initialisation's."""

    shares: list[float]  # points of a line, from 0 to 1
    orders: dict[str, Line]  # row -> between two random orders of its images
    to_real: dict[str, Line]  # row -> from it to all real images, first order
    accuracy: dict[str, SpreadInterval]  # row -> of the first order
    trace: dict[str, SpreadInterval]  # row -> Hessian trace on real images, first order
    trace_error: dict[str, list[float]]  # row -> standard error of each
    rows: dict[str, RowRecord]
    steps: int
    batch: int
    test_images: int
    seconds: float
