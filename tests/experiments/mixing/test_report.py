"""Claims and table of mixing, of made-up and of committed records."""

import copy

import numpy as np
import pytest

from distilljax.analysis.statistics import spread_interval
from distilljax.types import InputError
from experiments.lab.claims import NO_RECORD, NOT_SUPPORTED, SUPPORTED, UNDECIDED
from experiments.lab.records import checked
from experiments.mixing import study
from experiments.mixing.record import Summary
from experiments.mixing.report import CLAIMS, EXPERIMENT
from tests.experiments import made_up
from tests.experiments.made_up import METHODS, random_row, record, rows
from tests.experiments.studies import assert_same_steps, records_of


def mixing(changes, random_changes=(0.02, 0.05), width=0.01, num=5, methods=METHODS):
    """Each set with +0, +2 and +10 real images a class."""
    all_rows = {**rows(methods), **random_row()}
    accuracy, difference = {}, {}
    for label, row in all_rows.items():
        alone = 0.4 + np.linspace(-0.02, 0.02, num)
        accuracy[label] = {"0": spread_interval(alone)}
        difference[label] = {}
        of_row = changes if row["path"] else random_changes
        for added, change in zip(("2", "10"), of_row, strict=True):
            moved = change + np.linspace(-width, width, num)[::-1]
            accuracy[label][added] = spread_interval(alone + moved)
            difference[label][added] = spread_interval(moved)
    verdict = {"lowers": False, "lowered_by": [], "lowest_at": 2}
    summary = {
        "accuracy": accuracy,
        "difference": difference,
        "verdict": {label: copy.deepcopy(verdict) for label in all_rows},
        "rows": all_rows,
        "protocol": "study",
    }
    found = record("mixing", summary)
    checked(Summary, found.summary, found.folder, "mixing")
    return found


CASES = {
    "mixing_lowers": (
        lambda: mixing((0.05, -0.05)),
        lambda: mixing((0.05, 0.05)),
        lambda: mixing((0.05, 0.0)),
    ),
    "mixing_random": (
        lambda: mixing((0.0, 0.0), (0.05, 0.05)),
        lambda: mixing((0.0, 0.0), (0.05, -0.05)),
        lambda: mixing((0.0, 0.0), (0.05, 0.0)),
    ),
}


def claim(name):
    (found,) = (c for c in CLAIMS if c.id == name)
    return found


def test_every_claim_has_a_case():
    assert [c.id for c in CLAIMS] == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_records_decide_a_claim(name):
    supports, contradicts, neither = CASES[name]
    assert claim(name).judge([supports()]).outcome == SUPPORTED
    assert claim(name).judge([contradicts()]).outcome == NOT_SUPPORTED
    assert claim(name).judge([neither()]).outcome == UNDECIDED
    assert claim(name).judge([]).outcome == NO_RECORD


def test_a_method_that_was_not_looked_at_leaves_the_claim_undecided():
    lowers = claim("mixing_lowers")
    assert lowers.judge([mixing((-0.05, -0.05))]).outcome == SUPPORTED
    fewer = lowers.judge([mixing((-0.05, -0.05), methods=("bptt", "dm"))])
    assert fewer.outcome == UNDECIDED
    assert fewer.absent() == ["TM"]


def test_differences_are_taken_network_by_network():
    """Networks differ by four points, and each falls by exactly one."""
    even = mixing((-0.01, -0.01), width=1e-6)
    first = claim("mixing_lowers").judge([even]).readings[0]
    assert first.value == pytest.approx(-0.01)
    low, high, _ = first.interval
    assert high - low < 1e-4


def test_the_papers_numbers_stand_beside_sets_of_its_size():
    found = claim("mixing_lowers").judge([mixing((0.0, -0.05))]).readings
    papers = {(r.method, r.where): r.paper for r in found}
    assert papers["bptt", "+10 per class"] == pytest.approx(0.498 - 0.587)
    small = mixing((0.0, -0.05))
    for row in small.summary["rows"].values():
        row["images_per_class"] = 1
    found = claim("mixing_lowers").judge([small]).readings
    assert {r.paper for r in found} == {None}


def test_networks_that_cannot_be_paired_are_refused():
    unpaired = mixing((0.1, 0.1))
    cell = unpaired.summary["accuracy"]["tm_ipc10"]["2"]
    cell["values"] = cell["values"][:3]
    with pytest.raises(InputError, match="cannot be paired"):
        claim("mixing_lowers").judge([unpaired])


def test_a_missing_field_is_named_with_its_file():
    found = mixing((0.1, 0.1))
    keys = ("accuracy", "tm_ipc10", "0", "values")
    missing = made_up.delete(found.summary, found.folder, keys)
    with pytest.raises(InputError, match=missing):
        checked(Summary, found.summary, found.folder, "mixing")


@pytest.mark.parametrize("scale", ["laptop", "night"])
def test_committed_records_are_read_and_shown(scale):
    committed = records_of(scale, "mixing", Summary)
    assert committed
    for one in committed:
        assert len(EXPERIMENT.sets(one)) == 4
        assert EXPERIMENT.title(one).endswith(" networks")
        ((_, contents),) = EXPERIMENT.contents
        assert any("paper 58.7" in part for part in contents([one]))


def test_the_step_of_the_study(tmp_path):
    assert_same_steps(study.steps, tmp_path)
