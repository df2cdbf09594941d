"""Numbers over outer seeds: means and intervals of several studies, and what is refused."""

import json

import numpy as np
import pytest
import scipy.stats

from distilljax import launch
from distilljax.analysis.statistics import Interval
from distilljax.types import InputError
from experiments.lab.claims import (
    NO_RECORD,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    Every,
    Reading,
    Some,
    all_readings,
    judge_node,
)
from experiments.report import run as run_module
from experiments.report.outer_seeds import joined, stouffer
from tests.experiments.mixing.test_report import mixing
from tests.experiments.recognition.test_report import recognition
from tests.experiments.report.test_page import write


def reading(method, value, *, where="", folder="runs/a", half=0.01, **more):
    interval = (
        None if value is None or half is None else Interval(value - half, value + half)
    )
    return Reading(
        method, "points", 0.0, True, value, interval, where=where, folder=folder, **more
    )


def test_a_number_is_the_mean_with_students_interval_over_studies():
    values = [0.02, 0.05, 0.03]
    node = joined([Every([Some([reading("tm", value)])]) for value in values])
    assert isinstance(node, Every)
    assert isinstance(node.parts[0], Some)
    (found,) = all_readings(node)
    assert found.value == pytest.approx(np.mean(values))
    expected = scipy.stats.t.interval(
        0.95, 2, np.mean(values), np.std(values, ddof=1) / np.sqrt(3)
    )
    assert (found.interval.low, found.interval.high) == pytest.approx(expected)
    assert found.interval.freedom == 2
    assert found.n == "3 outer seeds"
    assert found.note == "+2.0 points, +5.0 points, +3.0 points"
    # Each by itself is far from zero, all three together are not.
    assert judge_node(reading("tm", 0.02)) == SUPPORTED
    assert judge_node(node) == UNDECIDED


def test_one_study_is_as_it_was():
    node = Every([reading("tm", 0.1)])
    assert joined([node]) is node


def test_numbers_that_are_equal_keep_the_widest_interval_of_their_own():
    nodes = [Every([reading("tm", 0.5, half=half)]) for half in (0.01, 0.03, 0.02)]
    (found,) = all_readings(joined(nodes))
    assert (found.interval.low, found.interval.high) == (0.47, 0.53)
    nodes[1] = Every([reading("tm", 0.5, half=None)])
    assert all_readings(joined(nodes))[0].interval is None


def test_what_differs_in_place_alone_is_named_and_joined():
    nodes = [
        Every([reading("tm", 0.1, where=f"at {share} %"), reading("dm", 0.3)])
        for share in (40, 42)
    ]
    first, second = all_readings(joined(nodes))
    assert first.where == ""
    assert first.note.startswith("at 40 %; at 42 %; ")
    assert (first.value, second.value) == (pytest.approx(0.1), pytest.approx(0.3))


def test_what_a_study_lacks_has_no_value():
    whole = Every([reading("tm", 0.1), reading("dm", 0.3, where="a")])
    less = Every([reading("dm", 0.5, where="a")])
    first, second = all_readings(joined([whole, less]))
    assert first.value is None
    assert first.note == "a number in 1 of 2 studies alone"
    assert second.value == pytest.approx(0.4)
    assert judge_node(joined([whole, less])) == UNDECIDED
    third = all_readings(joined([less, whole]))
    assert [(one.method, one.value) for one in third] == [("dm", 0.4), ("tm", None)]
    assert judge_node(joined([less, whole])) == UNDECIDED
    absent = reading("tm", None, folder="")
    node = joined([Every([absent]), Every([absent])])
    assert judge_node(node) == NO_RECORD
    unknown = Every([reading("tm", None)])
    assert judge_node(joined([unknown, Every([reading("tm", 0.1)])])) == UNDECIDED


def test_two_that_cannot_be_told_apart_are_refused():
    twice = Every([reading("tm", 0.1), reading("tm", 0.2)])
    with pytest.raises(InputError, match="two sets of tm"):
        joined([twice, Every([reading("tm", 0.1)])])


def test_p_values_are_joined_by_stouffers_method():
    p_values = [0.04, 0.2, 0.6]
    expected = scipy.stats.combine_pvalues(p_values, method="stouffer").pvalue
    assert stouffer(p_values) == pytest.approx(expected, rel=1e-6)
    assert stouffer([0.0, 0.5]) < 1e-100
    assert stouffer([1.0, 1.0]) > 0.999
    nodes = [Reading("tm", "p", 0.025, False, p, p=p, folder="runs/a") for p in p_values]
    found = joined(nodes)
    assert (found.value, found.p) == (pytest.approx(expected), pytest.approx(expected))
    assert found.n == "3 outer seeds"
    assert found.p_other is None


def test_a_study_without_findings_does_not_refute_what_others_support():
    """Chance has none most of the time, so its p is 1, which is no evidence against."""
    strong, none = (
        Reading("tm", "p", 0.025, False, p, p=p, p_other=other, folder="runs/a")
        for p, other in ((0.005, 1.0), (1.0, 0.95))
    )
    assert judge_node(none) == UNDECIDED
    assert judge_node(joined([none] * 3)) == UNDECIDED
    assert judge_node(joined([strong, none])) == UNDECIDED
    assert judge_node(joined([strong] * 3)) == SUPPORTED
    fewer = strong._replace(p=1.0, p_other=0.01)
    expected = scipy.stats.combine_pvalues([0.01] * 3, method="stouffer").pvalue
    assert joined([fewer] * 3).p_other == pytest.approx(expected)
    assert judge_node(joined([fewer] * 3)) == NOT_SUPPORTED


@pytest.fixture
def studies(tmp_path):
    """Three folders of records with the seeds 1, 2 and 3."""
    for seed, gap in ((1, -0.05), (2, -0.06), (3, -0.055)):
        for record in (mixing((gap, gap)), recognition(0.1)):
            changed = record._replace(config={**record.config, "seed": seed})
            write(tmp_path / f"seed{seed}", changed)
    return [tmp_path / f"seed{seed}" for seed in (1, 2, 3)]


def make(first, *others, **more):
    flags = {"records": first, "outer_seeds": ",".join(map(str, others)), **more}
    argv = [f"--{name}={value}" for name, value in flags.items()]
    return run_module.run(launch.parse(run_module.Config, argv))


def test_the_page_says_what_its_intervals_hold(studies, tmp_path):
    out = tmp_path / "out" / "report.html"
    found = make(*studies, out=out)
    assert found["outer_seeds"] == [1, 2, 3]
    assert json.loads(out.with_name("verdicts.json").read_text()) == found
    (lowers,) = (one for one in found["claims"] if one["id"] == "mixing_lowers")
    assert {one["n"] for one in lowers["readings"]} == {"3 outer seeds"}
    text = out.read_text()
    assert "means over 3 studies (seeds 1, 2, 3)" in text
    assert "not that of distilling a set again" not in text
    alone = make(studies[0], out=out)
    assert alone["outer_seeds"] is None
    assert "not that of distilling a set again" in out.read_text()


def test_studies_that_do_not_differ_in_their_seed_alone_are_refused(studies, tmp_path):
    def seeded(folder, seed, **data):
        for name in ("config", "summary"):
            path = folder / "mixing" / f"{name}.json"
            found = json.loads(path.read_text())
            if name == "config":
                found["config"]["seed"] = seed
            else:
                found["dataset"] |= data
            path.write_text(json.dumps(found))

    out = tmp_path / "report.html"
    with pytest.raises(InputError, match=r"outer_seeds=.*absent.*there is no such folder"):
        make(studies[0], tmp_path / "absent", out=out)
    with pytest.raises(InputError, match="is named twice"):
        make(studies[0], studies[1], studies[1], out=out)
    with pytest.raises(InputError, match="have the seeds 1, 1, each must have its own"):
        make(studies[0], studies[0], out=out)
    seeded(studies[1], 1)
    with pytest.raises(InputError, match="its runs have the seeds 1, 2; name a study"):
        make(studies[0], studies[1], out=out)
    assert not out.exists()
