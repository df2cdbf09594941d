"""The scales of the study: data, width of the networks, and size of the sets.

The settings of each step at each scale lie with its experiment, in `study.py`.
"""

from typing import NamedTuple

from experiments.lab.steps import ScaleName


class Scale(NamedTuple):
    """The size of a study."""

    dataset: str
    ready: bool  # whether the sets are those of `experiments/artefacts` by default
    width: int  # of the network that sets are made with
    ipc: int  # images a class
    single_ipc: int  # images a class of the sets whose single images are left out


METHODS = ("tm", "bptt", "gm", "dm")
SCALES: dict[ScaleName, Scale] = {
    "laptop": Scale("embedded", ready=True, width=32, ipc=10, single_ipc=1),
    "night": Scale("cifar10", ready=True, width=32, ipc=10, single_ipc=1),
    "paper": Scale("cifar10", ready=False, width=128, ipc=10, single_ipc=10),
}
