"""The rows of `experiments.reproduce`: published numbers, and the settings behind them.

Sources, table 1 of each: DC, Zhao et al. 2021 (arXiv 2006.05929); DSA, Zhao & Bilen 2021
(2102.08259); DM, Zhao & Bilen 2023 (2110.04181); MTT, Cazenavette et al. 2022 (2203.11932);
RaT-BPTT, Feng et al. 2023 (2310.04295); FRePo, Zhou et al. 2022 (2206.00719). All with
ConvNet-D3 of width 128, that of FRePo without norm and twice as wide from block to block;
the standard deviations are theirs, over the networks of an evaluation.

Departures: rows of grey images, and their committed sets, have the default `first_padding`
of 1; the published networks pad them by 3.
"""

from types import MappingProxyType
from typing import NamedTuple

from experiments.lab.steps import Flags


class Row(NamedTuple):
    """A published number, and what this project runs for it."""

    name: str  # also of its folder
    dataset: str
    ipc: int
    method: str
    preset: str
    protocol: str
    published: float  # test accuracy
    published_std: float | None
    source: str
    steps: int  # outer steps
    hours: float  # of one core, about
    flags: Flags = MappingProxyType({})  # besides the preset
    experts: Flags | None = None  # of `experiments.train_experts`, where they are needed
    note: str = ""  # how the row differs from what was published


_DC, _DSA = "DC, arXiv 2006.05929", "DSA, arXiv 2102.08259"
_DM, _MTT = "DM, arXiv 2110.04181", "MTT, arXiv 2203.11932"
_RAT, _FREPO = "RaT-BPTT, arXiv 2310.04295", "FRePo, arXiv 2206.00719"
_SCORES: Flags = MappingProxyType({"score_every": 250})


def _gm(
    dataset: str, variant: str, ipc: int, published: float, std: float, hours: float
) -> Row:
    prefix, source = ("dsa_", _DSA) if variant == "dsa" else ("", _DC)
    protocol, flags = variant, _SCORES
    if (dataset, variant) == ("mnist", "dc"):
        protocol = "dc_augmented"
        flags = {**_SCORES, "protocol": protocol}
    grey = dataset in ("mnist", "fashion_mnist")
    return Row(
        f"{dataset}_{variant}_ipc{ipc}",
        dataset,
        ipc,
        "gm",
        f"{prefix}cifar10_ipc{ipc}",
        protocol,
        published,
        std,
        source,
        1000 if ipc == 1 else 10_000,
        hours,
        flags,
        note="network pads by 1, not 3" if grey else "",
    )


ROWS = (
    _gm("mnist", "dc", 1, 0.917, 0.005, 1.2),
    _gm("fashion_mnist", "dc", 1, 0.705, 0.006, 1.2),
    _gm("mnist", "dsa", 1, 0.887, 0.006, 1.2),
    _gm("fashion_mnist", "dsa", 1, 0.706, 0.006, 1.2),
    _gm("cifar10", "dc", 1, 0.283, 0.005, 1.7),
    _gm("cifar10", "dsa", 1, 0.288, 0.007, 1.8),
    Row(
        "cifar10_dm_ipc10",
        "cifar10",
        10,
        "dm",
        "cifar10_ipc10",
        "dsa",
        0.489,
        0.006,
        _DM,
        20_000,
        10,
        {"score_every": 1000},
    ),
    Row(
        "cifar10_mtt_ipc1",
        "cifar10",
        1,
        "tm",
        "cifar10_ipc1",
        "mtt",
        0.462,
        0.008,
        _MTT,
        5000,
        6,
        {"score_every": 500},
        # The published store has 100 experts of 50 epochs; IPC 1 starts at epochs 0 and 1.
        {"experts": 10, "epochs": 3},
    ),
    Row(
        "cifar10_rat_ipc1",
        "cifar10",
        1,
        "bptt",
        "rat_cifar10_ipc1",
        "rat",
        0.532,
        0.007,
        _RAT,
        5000,
        30,
        {"score_every": 500, "steps": 5000, "bptt.real_batch": 500},
    ),
    Row(
        "cifar10_frepo_ipc1",
        "cifar10",
        1,
        "kernel",
        "frepo_cifar10_ipc1",
        "frepo_ipc1",
        0.468,
        0.007,
        _FREPO,
        2000,
        1.5,
        # Half the real images of a step, and rates for so few steps.
        {
            "steps": 2000,
            "score_every": 500,
            "score_seeds": 1,
            "kernel.real_batch": 512,
            "kernel.image_lr": 0.005,
            "kernel.label_lr": 0.005,
            "kernel.cosine_steps": 2000,
        },
    ),
    _gm("cifar10", "dc", 10, 0.449, 0.005, 14),
    Row(
        "cifar10_mtt_ipc10",
        "cifar10",
        10,
        "tm",
        "cifar10_ipc10",
        "mtt",
        0.654,
        0.007,
        _MTT,
        5000,
        120,
        {"score_every": 500},
        {"experts": 20, "epochs": 21},
    ),
    Row(
        "cifar10_rat_ipc10",
        "cifar10",
        10,
        "bptt",
        "rat_cifar10_ipc10",
        "rat",
        0.694,
        0.004,
        _RAT,
        50_000,
        300,
        {"score_every": 500, "bptt.real_batch": 500},
    ),
)
