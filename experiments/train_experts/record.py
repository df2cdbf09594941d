"""The record of `experiments.train_experts`."""

from typing import TypedDict

from distilljax.analysis.statistics import Spread
from experiments.lab.records import Common


class Seconds(TypedDict):
    """Time of the training."""

    epoch: float  # of one expert, the median
    training: float  # of all experts and epochs
    since_last_start: float


class Summary(Common):
    """The contents of `summary.json`."""

    held_out_accuracy: Spread  # over experts, after the last epoch
    training_loss: Spread
    experts: int
    epochs: int
    num_params: int
    bytes: int  # of the trajectories on disk
    num_images: int  # trained on
    num_held_out: int
    seconds: Seconds
