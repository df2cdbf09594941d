"""Agreement in the report: verdicts of made-up records, the table of committed ones."""

import numpy as np
import pytest
from scipy import stats

from distilljax.types import InputError
from experiments.agreement.record import Summary
from experiments.agreement.report import CLAIMS, EXPERIMENT
from experiments.lab.claims import (
    METHODS,
    NO_RECORD,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
)
from experiments.lab.paper import AGREEMENT, PREDICTIONS
from experiments.lab.records import checked
from tests.experiments import made_up
from tests.experiments.agreement.records import record
from tests.experiments.studies import STUDIES, records_of

(CLAIM,) = CLAIMS


def read_back(found):
    return checked(Summary, found.summary, found.folder, found.experiment)


@pytest.mark.parametrize("scale", STUDIES)
def test_committed_records_are_read(scale):
    (found,) = records_of(scale, "agreement", Summary)
    assert CLAIM.judge([found]).outcome != NO_RECORD
    assert len(EXPERIMENT.sets(found)) == 4
    assert EXPERIMENT.subjects(found) == set(EXPERIMENT.sets(found))
    (network,) = EXPERIMENT.networks(found)
    assert (network["model"], network["width"]) == ("convnet", 32)
    assert EXPERIMENT.title(found) == "own"


@pytest.mark.parametrize(
    ("difference", "outcome"),
    [(0.05, SUPPORTED), (-0.05, NOT_SUPPORTED), (0.005, UNDECIDED)],
)
def test_records_decide_the_claim(difference, outcome):
    found = record(difference)
    assert read_back(found) == found.summary
    assert CLAIM.section is PREDICTIONS
    assert CLAIM.judge([found]).outcome == outcome


def test_without_a_record_there_is_no_verdict():
    verdict = CLAIM.judge([])
    assert verdict.outcome == NO_RECORD
    assert verdict.deciding is None
    assert CLAIM.judge([record(0.1)._replace(experiment="mixing")]).outcome == NO_RECORD


def test_a_method_that_was_not_looked_at_leaves_the_claim_undecided():
    assert CLAIM.judge([record(0.05)]).outcome == SUPPORTED
    fewer = CLAIM.judge([record(0.05, methods=("bptt", "dm"))])
    assert fewer.outcome == UNDECIDED
    assert set(fewer.absent()) == {"TM", "GM"}


def test_readings_are_those_of_the_record():
    readings = CLAIM.judge([record(0.05, half=0.01)]).readings
    assert [reading.method for reading in readings] == list(METHODS)
    first = readings[0]
    assert first.value == 0.05
    np.testing.assert_allclose(first.interval[:2], [0.04, 0.06])
    # Widened with the degrees of freedom of the record.
    widened = first.interval.at(0.05, 0.01)
    factor = stats.t.ppf(0.995, 4) / stats.t.ppf(0.975, 4)
    np.testing.assert_allclose(widened, [0.05 - 0.01 * factor, 0.05 + 0.01 * factor])
    assert first.where == "at 40.0 % accuracy"
    assert first.n == "5 networks"
    assert first.scale == (
        "ConvNet, width 32 (paper: 128); 10 per class; 1,000 test images"
    )
    assert first.note == (
        "beside 40 early-stopped and 40 subset-trained networks of that accuracy"
    )


def test_the_papers_numbers_stand_beside_sets_of_its_size():
    paper = {r.method: r.paper for r in CLAIM.judge([record(0.05)]).readings}
    for method, modes in AGREEMENT.items():
        assert paper[method] == pytest.approx(modes.early_stopped - modes.subset)
    assert {r.paper for r in CLAIM.judge([record(0.05, ipc=1)]).readings} == {None}


def test_sets_without_networks_of_equal_accuracy_are_undecided():
    found = record(0.05)
    found.summary["agreement"]["tm_ipc10"]["difference"] = {"unmatched": "no member"}
    read_back(found)
    verdict = CLAIM.judge([found])
    assert verdict.outcome == UNDECIDED
    assert not verdict.absent()
    (tm,) = (r for r in verdict.readings if r.method == "tm")
    assert tm.note == "no network of equal accuracy: no member"


def test_a_difference_without_an_interval_is_undecided():
    for entry in ({"interval": [None, None], "freedom": None}, {"interval": [None, None]}):
        unknown = record(0.05)
        unknown.summary["agreement"]["tm_ipc10"]["difference"].update(entry)
        read_back(unknown)
        assert CLAIM.judge([unknown]).outcome == UNDECIDED


@pytest.mark.parametrize(
    "keys",
    [
        ("test_images",),
        ("agreement", "tm_ipc10", "difference", "interval"),
        ("agreement", "tm_ipc10", "subset", "value"),
        ("agreement", "tm_ipc10", "early_stopped", "num_members"),
        ("rows", "tm_ipc10", "images_per_class"),
        ("pools", "subset", "epochs"),
    ],
)
def test_a_missing_field_is_named_with_its_file(keys):
    found = record(0.1)
    missing = made_up.delete(found.summary, found.folder, keys)
    with pytest.raises(InputError, match=missing):
        read_back(found)


def test_numbers_that_contradict_each_other_are_refused():
    wrong_sign = record(0.05)
    wrong_sign.summary["agreement"]["tm_ipc10"]["difference"]["value"] = -0.05
    with pytest.raises(InputError, match="early-stopped less subset-trained"):
        CLAIM.judge([wrong_sign])
    turned = record(0.05)
    turned.summary["agreement"]["tm_ipc10"]["difference"]["interval"] = [0.3, 0.1]
    with pytest.raises(InputError, match=r"agreement\.tm_ipc10\.difference\.interval is"):
        CLAIM.judge([turned])
    half = record(0.05)
    half.summary["agreement"]["tm_ipc10"]["subset"] = {"unmatched": "no member"}
    with pytest.raises(InputError, match="has a difference, but a pool without members"):
        CLAIM.judge([half])


def tables(found):
    ((section, contents),) = EXPERIMENT.contents
    assert section is PREDICTIONS
    return "".join(map(str, contents([found]))).replace("\xa0", " ")


def test_the_table_has_both_pools_and_the_papers_numbers():
    text = tables(record(0.05))
    assert "50.0 %" in text
    assert "55.0 %" in text
    assert "κ 0.30; 40 networks" in text
    assert "+5.0 points" in text
    assert "d 1.0" in text
    assert "57.0 %" in text  # TM of the paper, subset-trained
    assert "ConvNet, width 32 (paper: 128)." in text
    assert "57.0 %" not in tables(record(0.05, ipc=1))


def test_the_table_says_what_is_not_matched():
    found = record(0.05)
    agreed = found.summary["agreement"]["tm_ipc10"]
    agreed["early_stopped"] = {"unmatched": "too good"}
    agreed["difference"] = {"unmatched": "early-stopped: too good"}
    text = tables(found)
    assert "not matched: too good" in text
    assert "not matched: early-stopped: too good" in text


def test_the_same_set_under_two_paths_is_one_subject():
    found, other = record(0.05), record(0.05)
    for row in other.summary["rows"].values():
        row["path"] = f"./here/../{row['path']}"
    assert EXPERIMENT.subjects(found) == EXPERIMENT.subjects(other)
