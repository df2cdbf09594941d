"""Claims and table of labels, of made-up records."""

import numpy as np
import pytest

from distilljax.analysis.statistics import spread_interval
from distilljax.types import InputError
from experiments.lab import grid
from experiments.lab.claims import UNDECIDED
from experiments.lab.later import LATER
from experiments.labels.record import Summary
from experiments.labels.report import CLAIMS, EXPERIMENT
from tests.experiments import made_up

OWN = np.linspace(-0.02, 0.02, 5)  # of each network
NAMES = ("hard", "early", "late")
NOISE = np.array([0.01, -0.01, 0.0, 0.01, -0.01])


def labels(random=(0.3, 0.4, 0.35), sets=(0.5, 0.52, 0.51), methods=made_up.METHODS):
    """Mean accuracies by hard, early and late labels."""
    rows = {**made_up.rows(methods), **made_up.random_row()}
    (about,) = made_up.random_row().values()
    rows["herding, 10 per class"] = {**about, "method": "herding"}
    accuracy, gain = {}, {}
    for label, row in rows.items():
        means, side = (random, 1) if row["method"] == "random" else (sets, -1)
        accuracy[label] = {
            name: spread_interval(mean + OWN + turn * side * NOISE)
            for turn, (name, mean) in enumerate(zip(NAMES, means, strict=True))
        }
        gain[label] = {
            name: grid.difference(accuracy[label][name], accuracy[label]["hard"])
            for name in ("early", "late")
        }
    expert = {"epochs": 1, "accuracy": 0.6, "training_loss": 1.0, "seconds": 1.0}
    summary = {
        "accuracy": accuracy,
        "gain": gain,
        "experts": {"early": expert, "late": {**expert, "epochs": 9}},
        "rows": rows,
        "recipe": {"lr": 0.01},
        "protocol": "study",
    }
    return made_up.record("labels", summary)


CASES = {
    "labels_random_gain": (
        lambda: labels(),
        lambda: labels(random=(0.3, 0.2, 0.2)),
        lambda: labels(random=(0.3, 0.32, 0.31)),
    ),
    "labels_early": (
        lambda: labels(random=(0.3, 0.4, 0.35)),
        lambda: labels(random=(0.3, 0.35, 0.4)),
        lambda: labels(random=(0.3, 0.4, 0.4)),
    ),
    "labels_as_good": (
        lambda: labels(random=(0.3, 0.6, 0.35)),
        lambda: labels(random=(0.3, 0.4, 0.35)),
        lambda: labels(random=(0.3, 0.5, 0.35)),
    ),
}


def judge(name, *records):
    return made_up.judge(CLAIMS, Summary, name, records)


def test_every_claim_has_a_case_and_a_source():
    assert [claim.id for claim in CLAIMS] == list(CASES)
    for claim in CLAIMS:
        assert claim.section.place == LATER
        assert claim.stated().startswith("expected by arXiv ")


@pytest.mark.parametrize("name", CASES)
def test_records_decide_a_claim(name):
    made_up.assert_decides(judge, name, CASES[name])


def test_gains_are_compared_network_by_network():
    readings = judge("labels_random_gain", labels()).readings
    first = readings[0]
    assert first.value == pytest.approx((0.4 - 0.3) - (0.52 - 0.5))
    assert [reading.method for reading in readings[::2]] == [
        "bptt",
        "tm",
        "gm",
        "dm",
        "herding",
    ]


def test_a_set_that_was_not_looked_at_leaves_it_undecided():
    verdict = judge("labels_random_gain", labels(methods=("bptt", "dm")))
    assert verdict.outcome == UNDECIDED
    assert verdict.absent() == ["TM", "GM"]


def test_networks_that_cannot_be_paired_are_refused():
    record = labels()
    cell = record.summary["accuracy"]["random, 10 per class"]["early"]
    cell["values"] = cell["values"][:3]
    with pytest.raises(InputError, match="cannot be paired"):
        judge("labels_early", record)


def test_the_table_has_a_row_a_set():
    ((_, contents),) = EXPERIMENT.contents
    (table,) = contents([labels()])
    assert table.count("<tr>") == 1 + 6
    assert "late expert, 9 epochs, 60.0% of test images" in table
    assert EXPERIMENT.title(labels()) == "ConvNet, width 32 (paper: 128); 5 networks"
