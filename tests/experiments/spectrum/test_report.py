"""Claims and table of directions of feature space, of made-up records."""

import numpy as np
import pytest

from distilljax.analysis.statistics import spread_interval
from distilljax.types import InputError
from experiments.lab.claims import NO_RECORD, NOT_SUPPORTED, SUPPORTED, UNDECIDED
from experiments.spectrum.record import REAL, Summary
from experiments.spectrum.report import CLAIMS, EXPERIMENT
from tests.experiments import made_up

NOISE = np.array([0.002, -0.002, 0.0])


def spectra(low=0.1, high=0.4, random=0.2, methods=made_up.METHODS):
    """Weak energies of gm and dm, of tm and bptt, and of random images."""
    rows = {**made_up.rows(methods), **made_up.random_row()}
    means = {"random": (random, 1), "gm": (low, -2), "dm": (low, -2)}
    weak = {}
    for label, row in rows.items():
        mean, turn = means.get(row["method"], (high, -1))
        weak[label] = spread_interval(mean + turn * NOISE)
    weak[REAL] = spread_interval(0.05 + NOISE)
    stage = {
        "strong": [3, 4, 3],
        "dimensions": 6,
        "variance": [0.6, 0.3, 0.1],
        "weak": {label: spread_interval(0.1 + NOISE) for label in weak},
        "weak_energy": weak,
        "response": {label: [[1.0, 2.0, 3.0]] * 3 for label in rows},
    }
    summary = {
        "stages": {"initial": stage, "trained": stage},
        "bands": [0, 1, 2, 6],
        "share": 0.9,
        "rows": rows,
        "real_images": 1000,
        "steps": 300,
    }
    return made_up.record("spectrum", summary)


CASES = {
    "spectrum_low": (
        lambda: spectra(low=0.1),
        lambda: spectra(low=0.3),
        lambda: spectra(low=0.2),
    ),
    "spectrum_high": (
        lambda: spectra(high=0.4),
        lambda: spectra(high=0.1),
        lambda: spectra(high=0.2),
    ),
    "spectrum_order": (
        lambda: spectra(low=0.1, high=0.4),
        lambda: spectra(low=0.4, high=0.1),
        lambda: spectra(low=0.2, high=0.2),
    ),
}


def judge(name, *records):
    return made_up.judge(CLAIMS, Summary, name, records)


def test_every_claim_has_a_case():
    assert [claim.id for claim in CLAIMS] == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_records_decide_a_claim(name):
    made_up.assert_decides(judge, name, CASES[name])


def test_what_each_claim_reads():
    low, high, order = (judge(name, spectra()).readings for name in CASES)
    assert [reading.method for reading in low] == ["gm", "gm", "dm", "dm"]
    assert [reading.where for reading in high] == ["initial networks", "trained networks"]
    assert [reading.where for reading in order][::2] == [
        "over GM, initial networks",
        "over DM, initial networks",
    ]
    assert high[0].value == pytest.approx(np.mean((0.4 - NOISE) / (0.2 + NOISE)))


def test_a_set_that_was_not_looked_at_leaves_it_undecided():
    verdict = judge("spectrum_low", spectra(methods=("tm", "dm")))
    assert verdict.outcome == UNDECIDED
    assert verdict.absent() == ["GM"]
    verdict = judge("spectrum_order", spectra(methods=("tm", "dm")))
    assert (verdict.outcome, verdict.absent()) == (UNDECIDED, ["GM"])
    verdict = judge("spectrum_order", spectra(methods=("tm", "dm"), low=0.4, high=0.1))
    assert verdict.outcome == NOT_SUPPORTED
    assert judge("spectrum_order", spectra(methods=("gm", "dm"))).outcome == NO_RECORD


def test_a_set_of_another_method_decides_nothing_about_tm():
    for name in ("spectrum_high", "spectrum_order"):
        verdict = judge(name, spectra(methods=("kernel", "gm", "dm")))
        assert (verdict.outcome, verdict.absent()) == (NO_RECORD, ["TM"])
        both = spectra(methods=("tm", "kernel", "gm", "dm"))
        stage = both.summary["stages"]["initial"]["weak_energy"]
        stage["kernel_ipc10"] = spread_interval(0.05 + NOISE)
        assert judge(name, both).outcome == SUPPORTED


def test_an_energy_of_zero_is_named():
    """Nothing is divided by it, and no verdict is infinite."""
    damaged = spectra()
    random = next(iter(made_up.random_row()))
    damaged.summary["stages"]["initial"]["weak_energy"][random]["values"][0] = 0.0
    wanted = f"weak_energy.{random} is '0.0', expected energies above zero"
    with pytest.raises(InputError, match=wanted):
        judge("spectrum_low", damaged)


def test_random_images_that_are_missing_are_named():
    damaged = spectra()
    damaged.summary["rows"][next(iter(made_up.random_row()))]["images_per_class"] = 9
    with pytest.raises(InputError, match="rows has no random images beside"):
        judge("spectrum_low", damaged)


def test_the_table_has_a_row_a_set():
    ((_, contents),) = EXPERIMENT.contents
    (table,) = contents([spectra()])
    assert table.count("<tr>") == 1 + 6
    assert "3 networks; 90 % of the variance is strong" in table
