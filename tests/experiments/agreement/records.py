"""Made-up records of `experiments.agreement`."""

import copy

import numpy as np

from distilljax.analysis.statistics import spread, spread_interval
from experiments.agreement.record import Agreed, Matched, Summary
from experiments.lab.claims import METHODS, Record
from experiments.lab.records import RowRecord
from tests.experiments.made_up import COMMON

NETWORK = {"model": "convnet", "width": 32, "depth": 3, "parameters": 24_714}


def label_of(method, ipc=10):
    return f"{method}_ipc{ipc}"


def pool(value) -> Matched:
    return {
        "value": value,
        "standard_error": 0.005,
        "interval": [value - 0.01, value + 0.01],
        "freedom": 4.0,
        "num_members": 40,
        "num_runs": 6,
        "half_width": 0.01,
        "mean_gap": 0.001,
        "kappa": 0.3,
        "error_consistency": 0.2,
        "pool_error": 0.004,
        "between_networks_error": 0.003,
        "networks": [],
    }


def agreed(difference, half=0.01) -> Agreed:
    return {
        "accuracy": spread_interval(0.4 + np.linspace(-0.01, 0.01, 5)),
        "subset": pool(0.5),
        "early_stopped": {**pool(0.5 + difference), "iteration": 44.0},
        "difference": {
            "value": difference,
            "standard_error": half / 2,
            "interval": [difference - half, difference + half],
            "freedom": 4.0,
            "cohen_d": 1.0,
            "pool_error": 0.004,
            "values": [difference] * 5,
        },
    }


def row(method, ipc) -> RowRecord:
    path = f"sets/{label_of(method, ipc)}/distilled.npz"
    return {"path": path, "method": method, "images_per_class": ipc, "network": NETWORK}


def record(difference, half=0.01, methods=METHODS, ipc=10, folder="records/agreement"):
    """A set of each method, closer to early-stopped networks by `difference`."""
    shared = {
        "batch": 256,
        "lr": 0.01,
        "momentum": 0.9,
        "accuracy": {"lowest": 0.2, "median": 0.4, "highest": 0.6},
        "seconds": 20.0,
        "files": ["networks/0123456789abcdef.npz"],
    }
    last = spread(np.full(6, 0.6))
    summary: Summary = {
        "agreement": {
            label_of(method, ipc): copy.deepcopy(agreed(difference, half))
            for method in methods
        },
        "rows": {label_of(method, ipc): row(method, ipc) for method in methods},
        "pools": {
            "subset": {
                **shared,
                "networks": 520,
                "shares": [0.005, 0.05],
                "images": [250, 2500],
                "epochs": 100,
            },
            "early_stopped": {
                **shared,
                "runs": 6,
                "networks": 240,
                "iterations": 40,
                "every": 1,
                "last_accuracy": last,
            },
        },
        "model": NETWORK,
        "protocol": "study",
        "matching": {
            "least": {"subset": 20, "early_stopped": 12},
            "least_runs": {"subset": 1, "early_stopped": 4},
            "tolerance": 0.02,
        },
        "test_images": 1000,
        "command": "python -m experiments.agreement --seed=0",
        "seconds": 60.0,
        **copy.deepcopy(COMMON),
    }
    config = {"seed": 0, "model": "own"}
    return Record("agreement", folder, config, summary["command"], summary)
