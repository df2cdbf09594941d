"""Made-up records of `experiments.distill`, for tests of the report."""

import numpy as np

from experiments.distill.record import Summary
from experiments.lab.claims import Record
from experiments.lab.records import checked
from tests.experiments.made_up import COMMON

METHODS = ("tm", "bptt", "gm", "dm")
PROTOCOL = {
    "name": "study",
    "steps": 300,
    "epochs": None,
    "batch": None,
    "lr": 0.01,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "decay_at": None,
    "augment": "",
}


def spread(values):
    values = np.asarray(values, float)
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    mean = float(values.mean())
    return {"mean": mean, "std": std, "seeds": len(values), "values": values.tolist()}


def distill(gain, method="tm", ipc=10, width=0.01, folder=None, num=5, more=()):
    """A set that is better than random images by `gain` ± `width`, network by network."""
    random = 0.27 + np.linspace(-0.02, 0.02, num)
    accuracy = {
        "distilled": spread(random + gain + np.linspace(-width, width, num)),
        "random": spread(random),
        **{name: spread([0.5, 0.6]) for name in more},
    }
    summary = {
        "accuracy": accuracy,
        "protocol": PROTOCOL,
        "best_step": 100,
        "held_out_accuracy": 0.4,
        "steps": 200,
        "seconds": {"compile": 1.0, "distil": 40.0, "test": 20.0, "total": 60.0},
        **COMMON,
    }
    folder = folder or f"sets/{method}_ipc{ipc}"
    config = {"method": method, "ipc": ipc, "model": "convnet", "convnet": {"width": 32}}
    return Record(
        "distill",
        folder,
        {"seed": 0, **config},
        "python -m experiments.distill --seed=0",
        checked(Summary, summary, folder, "distill"),
    )


def distilled(gain, **changes):
    """A set of each method."""
    return [distill(gain, method, **changes) for method in METHODS]
