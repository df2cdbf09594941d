"""Parts of made-up records that several experiments share."""

import copy
import re

import numpy as np

from experiments.lab.claims import (
    NO_RECORD,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    Record,
)
from experiments.lab.records import checked

DATASET = {
    "name": "cifar10",
    "source": "tfds",
    "fingerprint": "18d4b97e",
    "num_classes": 10,
}
COMMON = {
    "dataset": DATASET,
    "peak_memory_bytes": 2**30,
    "environment": {
        "distilljax": "0.1.0",
        "python": "3.11.7",
        "jax": "0.10.2",
        "jaxlib": "0.10.2",
        "flax": "0.12.8",
        "optax": "0.2.8",
        "numpy": "2.4.6",
        "device": "1 x cpu cpu",
        "machine": "x86_64, Linux",
        "finished": "2026-11-28",
    },
}
METHODS = ("tm", "bptt", "gm", "dm")
NETWORK = {"model": "convnet", "width": 32, "depth": 3}


def spread(mean, width=0.01, num=5):
    """A `Spread` of values evenly about the mean."""
    values = mean + np.linspace(-width, width, num)
    std = float(values.std(ddof=1)) if num > 1 else None
    return {
        "mean": float(values.mean()),
        "std": std,
        "seeds": num,
        "values": values.tolist(),
    }


def path(method, ipc=10):
    return f"sets/{method}_ipc{ipc}/distilled.npz"


def rows(methods=METHODS, ipc=10):
    return {
        f"{m}_ipc{ipc}": {
            "path": path(m, ipc),
            "method": m,
            "images_per_class": ipc,
            "num_images": 10 * ipc,
            "network": NETWORK,
        }
        for m in methods
    }


def random_row(ipc=10):
    about = {"path": None, "method": "random", "images_per_class": ipc}
    return {f"random, {ipc} per class": {**about, "num_images": 100, "network": NETWORK}}


def record(experiment, summary, config=None, folder=None):
    more = {**copy.deepcopy(COMMON), "seconds": 60.0}
    return Record(
        experiment,
        folder or f"records/{experiment}",
        {"seed": 0, **(config or {})},
        f"python -m experiments.{experiment} --seed=0",
        {**more, **summary},
    )


def judge(claims, summary, name, records):
    """The verdict of records that are checked as the report does."""
    (claim,) = (claim for claim in claims if claim.id == name)
    for one in records:
        checked(summary, one.summary, one.folder, one.experiment)
    return claim.judge(records)


def assert_decides(judge, name, cases):
    """Records that support a claim, contradict it, do neither, or are none, decide it.

    Args:
      judge: (name, *records) -> the verdict.
      name: of the claim.
      cases: three functions that make a record.
    """
    supports, contradicts, neither = cases
    assert judge(name, supports()).outcome == SUPPORTED
    assert judge(name, contradicts()).outcome == NOT_SUPPORTED
    assert judge(name, neither()).outcome == UNDECIDED
    nothing = judge(name)
    assert (nothing.outcome, nothing.deciding) == (NO_RECORD, None)


def delete(summary, folder, keys):
    """Deletes a field of a summary; returns a pattern of the error that names it."""
    for key in keys[:-1]:
        summary = summary[key]
    del summary[keys[-1]]
    return re.escape(f"{folder}/summary.json has no {'.'.join(keys)}, ")
