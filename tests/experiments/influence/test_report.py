"""Influence in the report: verdicts of made-up records, the table of committed ones."""

import numpy as np
import pytest
from scipy import stats

from distilljax.analysis.statistics import spread_interval
from distilljax.types import InputError
from experiments.influence.record import Summary
from experiments.influence.report import CLAIMS, EXPERIMENT
from experiments.lab.claims import (
    NO_RECORD,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
)
from experiments.lab.paper import BEYOND, SINGLE_IMAGES
from experiments.lab.records import checked
from tests.experiments import made_up
from tests.experiments.influence.records import record
from tests.experiments.studies import STUDIES, records_of

CLAIM = {claim.id: claim for claim in CLAIMS}


def read_back(found):
    return checked(Summary, found.summary, found.folder, found.experiment)


@pytest.mark.parametrize("scale", STUDIES)
def test_committed_records_are_read(scale):
    found = records_of(scale, "influence", Summary)
    assert len(found) == 4
    for claim in CLAIMS:
        verdict = claim.judge(found)
        assert verdict.outcome != NO_RECORD
        assert {reading.method for reading in verdict.readings} == {
            "tm",
            "bptt",
            "gm",
            "dm",
        }
    for one in found:
        (path,) = EXPERIMENT.sets(one)
        assert EXPERIMENT.subjects(one) == {path}
        assert EXPERIMENT.title(one) == path.split("/")[-2]
        assert list(EXPERIMENT.networks(one)) == []


CASES = [
    ("influence_above_noise", {"over": 3.0}, SUPPORTED),
    ("influence_above_noise", {"over": 0.5}, NOT_SUPPORTED),
    ("influence_above_noise", {"over": 1.0}, UNDECIDED),
    ("influence_reliable", {"correlation": 0.4}, SUPPORTED),
    ("influence_reliable", {"correlation": -0.4}, NOT_SUPPORTED),
    ("influence_reliable", {"correlation": 0.05}, UNDECIDED),
    ("influence_own_class", {"own": 0.9}, SUPPORTED),
    ("influence_own_class", {"own": 0.0}, NOT_SUPPORTED),
    ("influence_own_class", {"own": 0.12}, UNDECIDED),
    ("estimates_predict", {"told": 0.5}, SUPPORTED),
    ("estimates_predict", {"told": -0.5}, NOT_SUPPORTED),
    ("estimates_predict", {"told": 0.01}, UNDECIDED),
]


@pytest.mark.parametrize(("name", "given", "outcome"), CASES)
def test_records_decide_a_claim(name, given, outcome):
    found = record(**given)
    assert read_back(found) == found.summary
    assert CLAIM[name].judge([found]).outcome == outcome


def test_every_claim_has_cases_and_a_section():
    assert list(CLAIM) == list(dict.fromkeys(name for name, _, _ in CASES))
    sections = {name: claim.section for name, claim in CLAIM.items()}
    assert sections.pop("estimates_predict") is BEYOND
    assert set(sections.values()) == {SINGLE_IMAGES}


@pytest.mark.parametrize("name", CLAIM)
def test_without_a_record_there_is_no_verdict(name):
    verdict = CLAIM[name].judge([])
    assert verdict.outcome == NO_RECORD
    assert verdict.deciding is None
    other = record()._replace(experiment="attributes")
    assert CLAIM[name].judge([other]).outcome == NO_RECORD


def test_records_of_other_sets_are_read_together():
    both = [record(0.4, method="tm"), record(-0.4, method="dm")]
    assert CLAIM["influence_reliable"].judge(both[:1]).outcome == SUPPORTED
    verdict = CLAIM["influence_reliable"].judge(both)
    assert verdict.outcome == NOT_SUPPORTED
    assert verdict.deciding.reading.method == "dm"


def test_the_interval_of_reliability_is_the_jackknifes():
    (reading,) = CLAIM["influence_reliable"].judge([record(0.4, error=0.05)]).readings
    half = stats.t.ppf(0.975, 4) * 0.05
    np.testing.assert_allclose(reading.interval[:2], [0.4 - half, 0.4 + half])
    assert reading.interval.freedom == 4
    assert reading.label == "tm_ipc10"
    assert reading.scale == "24,714 parameters; 10 per class; 1,000 test images"


def test_two_seeds_have_no_reliability_interval():
    found = record(0.4, error=None, seeds=2)
    read_back(found)
    verdict = CLAIM["influence_reliable"].judge([found])
    assert verdict.outcome == UNDECIDED
    assert "a jackknife over seeds needs three" in verdict.readings[0].note


def test_without_seed_by_seed_numbers_influence_over_noise_is_undecided():
    found = record()
    del found.summary["over_noise"]
    read_back(found)
    verdict = CLAIM["influence_above_noise"].judge([found])
    assert verdict.outcome == UNDECIDED
    assert verdict.readings[0].value == pytest.approx(3.0)


def test_an_older_record_has_no_error_of_its_noise_floor():
    """Its floor was that of three seeds, 0.886 of what it is."""
    found = record()
    del found.summary["over_noise"]
    found.summary["influence_over_noise"] = spread_interval([3.0, 3.1, 3.2])
    read_back(found)
    verdict = CLAIM["influence_above_noise"].judge([found])
    assert verdict.outcome == UNDECIDED
    assert verdict.readings[0].value == pytest.approx(3.1 * 0.8862, rel=1e-4)


def test_the_interval_of_influence_over_noise_is_the_jackknifes_of_its_logarithm():
    (reading,) = CLAIM["influence_above_noise"].judge([record(over=1.2)]).readings
    factor = np.exp(stats.t.ppf(0.975, 4) * 0.1 / 1.2)
    np.testing.assert_allclose(reading.interval[:2], [1.2 / factor, 1.2 * factor])
    factor = np.exp(stats.t.ppf(1 - 0.0125 / 2, 4) * 0.1 / 1.2)
    found = reading.interval.at(reading.value, 0.0125)
    np.testing.assert_allclose(found, [1.2 / factor, 1.2 * factor])


def test_a_noise_floor_of_zero_is_refused():
    found = record()
    found.summary["mean_noise_floor"] = 0.0
    with pytest.raises(InputError, match=r"mean_noise_floor is '0.0', expected a positive"):
        CLAIM["influence_above_noise"].judge([found])


def test_both_estimates_are_read():
    readings = CLAIM["estimates_predict"].judge([record(told=0.5)]).readings
    assert [reading.where for reading in readings] == ["influence functions", "NTK"]
    values = 0.5 + np.linspace(-0.05, 0.05, 5)
    expected = stats.t.interval(0.95, 4, 0.5, stats.sem(values))
    for reading in readings:
        np.testing.assert_allclose(reading.interval[:2], expected, rtol=1e-9)
    flat = CLAIM["estimates_predict"].judge([record(told=0.5, width=0.0)]).readings[0]
    assert flat.note == "no interval: all seeds agree to the last digit"


@pytest.mark.parametrize(
    "keys",
    [
        ("same_class_among_top_nine",),
        ("reliability", "seeds"),
        ("artefact", "path"),
        ("estimates", "ntk", "with_the_same_initialisation", "values"),
    ],
)
def test_a_missing_field_is_named_with_its_file(keys):
    found = record()
    missing = made_up.delete(found.summary, found.folder, keys)
    with pytest.raises(InputError, match=missing):
        read_back(found)


def test_data_without_a_number_of_classes_are_named():
    found = record()
    del found.summary["dataset"]["num_classes"]
    read_back(found)  # other experiments do without
    with pytest.raises(InputError, match=r"has no dataset\.num_classes, "):
        CLAIM["influence_own_class"].judge([found])


def test_the_table_has_a_row_for_each_run():
    sections = [section for section, _ in EXPERIMENT.contents]
    assert sections == [SINGLE_IMAGES]
    ((_, contents),) = EXPERIMENT.contents
    assert contents([]) == []
    both = [record(method="tm"), record(method="dm", told=0.25)]
    both[1].summary["estimates"].pop("ntk")
    text = "".join(map(str, contents(both))).replace("\xa0", " ")
    assert text.count("<tr>") == 3
    assert "influence functions 0.50; NTK 0.50" in text
    assert "influence functions 0.25<" in text
    assert "90 %" in text
    assert "505" in text
