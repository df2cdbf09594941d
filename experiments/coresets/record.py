"""The record of `experiments.coresets`."""

from distilljax.analysis.statistics import Spread
from experiments.lab.records import Common, ProtocolRecord


class Summary(Common):
    """The contents of `summary.json`; `ipc` is images a class, in digits."""

    accuracy: dict[str, dict[str, Spread]]  # baseline -> ipc
    chosen_from: dict[str, int]  # baseline -> number of images
    protocol: ProtocolRecord
    seconds: float
