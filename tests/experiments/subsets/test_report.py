"""Claims, table and step of parts of sets, of made-up records."""

import numpy as np
import pytest

from distilljax.analysis.statistics import spread_interval
from experiments.lab import grid
from experiments.lab.claims import UNDECIDED
from experiments.subsets import study
from experiments.subsets.record import Summary
from experiments.subsets.report import CLAIMS, EXPERIMENT
from tests.experiments import made_up, studies

NOISE = np.array([0.01, -0.01, 0.0, 0.01, -0.01])
RANDOM = "random, 10 per class"


def subsets(part=0.3, distilled=0.6, random=0.25, methods=made_up.METHODS):
    """Each larger set with parts of one and two images of each class."""
    rows = {**made_up.rows(methods), **made_up.rows(methods, 1), **made_up.random_row()}
    accuracy = {}
    for label in rows:
        mean, turn = {"1": part, "2": part + 0.1}, 2
        if label == RANDOM:
            mean, turn = {"1": random, "2": random + 0.1}, 1
        if label.endswith("_ipc1"):
            mean, turn = {"1": distilled}, -1
        accuracy[label] = {
            size: spread_interval(value + turn * NOISE) for size, value in mean.items()
        }
    comparisons = []
    for m in methods:
        whole, small = f"{m}_ipc10", f"{m}_ipc1"
        part_of_it = accuracy[whole]["1"]
        comparisons.append(
            {
                "whole": whole,
                "distilled": small,
                "random": RANDOM,
                "per_class": "1",
                "difference": grid.difference(part_of_it, accuracy[small]["1"]),
                "above_random": grid.difference(part_of_it, accuracy[RANDOM]["1"]),
            }
        )
    summary = {
        "accuracy": accuracy,
        "comparisons": comparisons,
        "rows": rows,
        "protocol": "study",
    }
    return made_up.record("subsets", summary)


CASES = {
    "subsets_worse": (
        lambda: subsets(),
        lambda: subsets(part=0.7),
        lambda: subsets(part=0.6),
    ),
    "subsets_much_worse": (
        lambda: subsets(part=0.3),
        lambda: subsets(part=0.5),
        lambda: subsets(part=0.425),
    ),
}


def judge(name, *records):
    return made_up.judge(CLAIMS, Summary, name, records)


def test_every_claim_has_a_case():
    assert [claim.id for claim in CLAIMS] == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_records_decide_a_claim(name):
    made_up.assert_decides(judge, name, CASES[name])


def test_half_the_advantage_is_the_middle():
    first = judge("subsets_much_worse", subsets(0.3, 0.6, 0.2)).readings[0]
    assert first.value == pytest.approx(0.3 - 0.4)
    assert first.where == "1 of 10"


def test_a_set_that_was_not_looked_at_leaves_it_undecided():
    verdict = judge("subsets_worse", subsets(methods=("bptt", "dm")))
    assert verdict.outcome == UNDECIDED
    assert verdict.absent() == ["TM", "GM"]


def test_the_table_has_a_row_a_set():
    ((_, contents),) = EXPERIMENT.contents
    (table,) = contents([subsets()])
    assert table.count("<tr>") == 1 + 9
    assert len(EXPERIMENT.sets(subsets())) == 8


def test_there_is_a_step_where_sets_have_two_sizes(tmp_path):
    planned = studies.study("laptop", tmp_path)
    (step,) = study.steps(planned)
    assert len(step.inputs) == 8
    assert not [*study.steps(planned._replace(single=planned.sets))]
