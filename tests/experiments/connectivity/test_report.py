"""Claims and table of lines between networks, of made-up records."""

import numpy as np
import pytest

from distilljax.analysis.statistics import spread_interval
from experiments.connectivity.record import REAL, Summary
from experiments.connectivity.report import CLAIMS, EXPERIMENT
from experiments.lab.claims import UNDECIDED
from tests.experiments import made_up

NOISE = np.array([0.001, -0.001, 0.0])


def lines(barrier=0.01, real_barrier=0.05, sharp=50.0, methods=made_up.METHODS):
    """Barriers and sharpness of sets, and of all real images: 0.05 and 100."""
    (about,) = made_up.random_row().values()
    rows = {
        **made_up.rows(methods),
        **made_up.random_row(),
        REAL: {**about, "method": "real"},
    }

    def line(height, turn):
        values = height + turn * NOISE
        return {
            "error": [[0.4, 0.4 + value, 0.4] for value in values],
            "barrier": spread_interval(values),
        }

    orders = {
        label: line(real_barrier, 1) if label == REAL else line(barrier, -2)
        for label in rows
    }
    summary = {
        "shares": [0.0, 0.5, 1.0],
        "orders": orders,
        "to_real": {label: line(0.1, 1) for label in rows if label != REAL},
        "accuracy": {label: spread_interval(0.6 + NOISE) for label in rows},
        "sharpness": {
            label: spread_interval(
                100.0 + 1000 * NOISE if label == REAL else sharp - 1000 * NOISE
            )
            for label in rows
        },
        "sharpness_error": {label: [3.0, 3.0, 3.0] for label in rows},
        "rows": rows,
        "steps": 300,
        "batch": 50,
        "test_images": 1000,
    }
    return made_up.record("connectivity", summary)


CASES = {
    "connectivity_stable": (
        lambda: lines(0.01),
        lambda: lines(0.04),
        lambda: lines(0.021),
    ),
    "connectivity_better": (
        lambda: lines(0.01),
        lambda: lines(0.09),
        lambda: lines(0.051),
    ),
    "connectivity_flatter": (
        lambda: lines(sharp=50.0),
        lambda: lines(sharp=150.0),
        lambda: lines(sharp=100.02),
    ),
}


def judge(name, *records):
    return made_up.judge(CLAIMS, Summary, name, records)


def test_every_claim_has_a_case():
    assert [claim.id for claim in CLAIMS] == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_records_decide_a_claim(name):
    made_up.assert_decides(judge, name, CASES[name])


def test_sharpness_is_compared_by_ratio():
    first = judge("connectivity_flatter", lines(sharp=50.0)).readings[0]
    assert first.unit == "ratio"
    assert first.value == pytest.approx(np.mean((50 - 1000 * NOISE) / (100 + 1000 * NOISE)))


def test_a_set_that_was_not_looked_at_leaves_it_undecided():
    verdict = judge("connectivity_better", lines(methods=("bptt", "dm")))
    assert verdict.outcome == UNDECIDED
    assert verdict.absent() == ["TM", "GM"]


def test_the_table_has_a_row_a_set():
    ((_, contents),) = EXPERIMENT.contents
    (table,) = contents([lines()])
    assert table.count("<tr>") == 1 + 6
    assert "50 ± 1 (3)" in table
    assert EXPERIMENT.title(lines()).endswith("3 initialisations; 300 steps of 50 images")
