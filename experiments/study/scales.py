"""The scales of the study: data, width of the networks, and size of the sets.

The settings of each step at each scale lie with its experiment, in `study.py`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from experiments.lab.steps import ScaleName


class Scale(NamedTuple):
    """The size of a study."""

    dataset: str
    width: int  # of the network that sets are made with
    ipc: int  # images a class
    single_ipc: int  # images a class of the sets whose single images are left out
    # Label -> a set in `experiments/artefacts`; looked at, and those of which single images
    # are left out.
    sets: Mapping[str, str]
    single: Mapping[str, str]
    makes: bool  # whether it can distil sets of its own


METHODS = ("tm", "bptt", "gm", "dm")


def _of(dataset: str, ipc: int) -> dict[str, str]:
    return {method: f"{dataset}_{method}_ipc{ipc}" for method in METHODS}


# The strongest committed set of each method, most of them of width 128.
_STRONGEST = {
    "tm": "cifar10_tm_ipc10",
    "bptt": "cifar10_bptt_ipc1_width128",
    "gm": "cifar10_dc_ipc1_width128",
    "dm": "cifar10_dm_ipc10_width128_1000steps",
}
_STRONGEST_SINGLE = {
    "bptt": "cifar10_bptt_ipc1_width128",
    "gm": "cifar10_dc_ipc1_width128",
}
SCALES: dict[ScaleName, Scale] = {
    "laptop": Scale("embedded", 32, 10, 1, _of("embedded", 10), _of("embedded", 1), True),
    "night": Scale("cifar10", 32, 10, 1, _of("cifar10", 10), _of("cifar10", 1), True),
    "published": Scale("cifar10", 128, 10, 1, _STRONGEST, _STRONGEST_SINGLE, False),
    "paper": Scale("cifar10", 128, 10, 10, {}, {}, True),
}
