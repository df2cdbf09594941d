"""Verdicts of made-up records: what supports a claim, contradicts it, or neither."""

import copy
import math
import re

import numpy as np
import pytest
from scipy import stats

from distilljax.analysis.statistics import Interval, student, wilson
from distilljax.types import InputError
from experiments.lab.claims import (
    NO_RECORD,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    Every,
    Reading,
    Some,
    deciding_reading,
    judge_node,
    spelt,
    spelt_interval,
)
from experiments.lab.paper import (
    MIXING,
    REAL_PER_CLASS,
    STANDARD,
    TRACE,
    TRACE_ITERATIONS,
    TRAINING,
    TRAINING_ITERATIONS,
)
from experiments.report import verdicts as report_verdicts
from tests.experiments.attributes.test_report import attributes
from tests.experiments.dynamics.test_report import dynamics  # noqa: F401
from tests.experiments.lab.made_up import (
    DATASET,  # noqa: F401
    METHODS,
    NETWORK,
    path,
    random_row,
    record,
    rows,
    spread,
)
from tests.experiments.recognition.test_report import recognition  # noqa: F401


def distill(gain, method="tm", ipc=10, width=0.01, folder=None, num=5):
    random = spread(0.27, 0.02, num)
    values = np.array(random["values"]) + np.array(spread(gain, width, num)["values"])
    distilled = {**spread(float(values.mean())), "values": values.tolist(), "seeds": num}
    config = {"method": method, "ipc": ipc, "model": "convnet", "convnet": {"width": 32}}
    summary = {
        "accuracy": {"distilled": distilled, "random": random},
        "protocol": {"name": "study"},
    }
    return record("distill", summary, config, folder or f"sets/{method}_ipc{ipc}")


def distilled(gain, **changes):
    return [distill(gain, method, **changes) for method in METHODS]


def mixing(changes, random_changes=(0.02, 0.05), width=0.01, num=5, methods=METHODS):
    """Each set with +0, +2 and +10 real images a class."""
    all_rows = {**rows(methods), **random_row()}
    accuracy = {}
    for label, row in all_rows.items():
        alone = spread(0.4, 0.02, num)
        accuracy[label] = {"0": alone}
        of_row = changes if row["path"] else random_changes
        for added, change in zip((2, 10), of_row, strict=True):
            values = np.array(alone["values"]) + spread(change, width, num)["values"][::-1]
            held = {**spread(float(values.mean()), num=num), "values": values.tolist()}
            accuracy[label][str(added)] = held
    return record("mixing", {"accuracy": accuracy, "rows": all_rows})


def agreement(difference, half=0.01, methods=METHODS):
    def pool(value):
        ends = [value - 0.01, value + 0.01]
        return {
            "value": value,
            "standard_error": 0.005,
            "interval": ends,
            "num_members": 40,
            "half_width": 0.01,
            "mean_gap": 0.001,
            "kappa": 0.3,
        }

    entry = {
        "accuracy": spread(0.4),
        "subset": pool(0.5),
        "early_stopped": {**pool(0.5 + difference), "iteration": 44.0},
        "difference": {
            "value": difference,
            "standard_error": half / 2,
            "interval": [difference - half, difference + half],
            "cohen_d": 1.0,
            "freedom": 4.0,
        },
    }
    all_rows = rows(methods)
    return record(
        "agreement",
        {
            "agreement": {label: copy.deepcopy(entry) for label in all_rows},
            "rows": all_rows,
            "model": NETWORK,
            "test_images": 1000,
        },
        {"model": "own"},
    )


def influence(
    correlation=0.4,
    error=0.05,
    own=0.9,
    over=3.0,
    told=0.5,
    method="tm",
    seeds=5,
    width=0.05,
):
    of = "with_the_same_initialisation"
    summary = {
        "images": 100,
        "test_images": 1000,
        "networks": 505,
        "mean_absolute_influence": 0.9,
        "mean_noise_floor": 0.3,
        "reliability": {"value": correlation, "standard_error": error, "seeds": seeds},
        "same_class_among_top_nine": own,
        "influence_over_noise": spread(over, 0.1, seeds),
        "estimates": {
            name: {of: spread(told, width, seeds)} for name in ("gauss_newton", "ntk")
        },
        "artefact": {"path": path(method), "method": method},
        "parameters": 24_714,
    }
    return record("influence", summary, {}, f"records/influence_{method}")


# Claim -> records that support it, contradict it, and do neither.
CASES = {
    "beats_random": (
        lambda: distilled(0.1),
        lambda: distilled(-0.1),
        lambda: distilled(0.01, width=0.1),
    ),
    "mixing_lowers": (
        lambda: [mixing((0.05, -0.05))],
        lambda: [mixing((0.05, 0.05))],
        lambda: [mixing((0.05, 0.0))],
    ),
    "mixing_random": (
        lambda: [mixing((0.0, 0.0), (0.05, 0.05))],
        lambda: [mixing((0.0, 0.0), (0.05, -0.05))],
        lambda: [mixing((0.0, 0.0), (0.05, 0.0))],
    ),
    "agrees_with_early_stopped": (
        lambda: [agreement(0.05)],
        lambda: [agreement(-0.05)],
        lambda: [agreement(0.005)],
    ),
    "influence_above_noise": (
        lambda: [influence(over=3.0)],
        lambda: [influence(over=0.5)],
        lambda: [influence(over=1.0)],
    ),
    "influence_reliable": (
        lambda: [influence(0.4)],
        lambda: [influence(-0.4)],
        lambda: [influence(0.05)],
    ),
    "influence_own_class": (
        lambda: [influence(own=0.9)],
        lambda: [influence(own=0.0)],
        lambda: [influence(own=0.12)],
    ),
    "estimates_predict": (
        lambda: [influence(told=0.5)],
        lambda: [influence(told=-0.5)],
        lambda: [influence(told=0.01)],
    ),
}


def claim(name):
    (found,) = (c for c in report_verdicts.CLAIMS if c.id == name)
    return found


def test_every_claim_has_a_case_and_a_name_of_its_own():
    assert [c.id for c in report_verdicts.CLAIMS] == list(CASES)
    assert {c.section for c in report_verdicts.CLAIMS} == set(report_verdicts.HEADINGS)


@pytest.mark.parametrize("name", CASES)
def test_records_decide_a_claim(name):
    supports, contradicts, neither = CASES[name]
    assert claim(name).judge(supports()).outcome == SUPPORTED
    assert claim(name).judge(contradicts()).outcome == NOT_SUPPORTED
    if neither:
        assert claim(name).judge(neither()).outcome == UNDECIDED


@pytest.mark.parametrize("name", CASES)
def test_without_a_record_there_is_no_verdict(name):
    verdict = claim(name).judge([])
    assert verdict.outcome == NO_RECORD
    assert verdict.deciding is None
    other = [distill(0.1)] if claim(name).experiment != "distill" else [attributes()]
    assert claim(name).judge(other).outcome == NO_RECORD


EVERY_METHOD = {
    "beats_random": lambda methods: [distill(0.1, method) for method in methods],
    "mixing_lowers": lambda methods: [mixing((-0.05, -0.05), methods=methods)],
    "agrees_with_early_stopped": lambda methods: [agreement(0.05, methods=methods)],
}


@pytest.mark.parametrize("name", EVERY_METHOD)
def test_a_method_that_was_not_looked_at_leaves_the_claim_undecided(name):
    make = EVERY_METHOD[name]
    assert claim(name).judge(make(METHODS)).outcome == SUPPORTED
    fewer = claim(name).judge(make(("bptt", "dm")))
    assert fewer.outcome == UNDECIDED
    assert set(fewer.absent()) <= {"TM", "GM"}
    assert fewer.absent()


# --- the rule --------------------------------------------------------------------------


def reading(low, high, above=True, threshold=0.0, freedom=math.inf):
    return Reading(
        "tm",
        "points",
        threshold,
        above,
        value=(low + high) / 2,
        interval=Interval(low, high, freedom),
        folder="here",
    )


def test_a_reading_goes_by_its_interval_alone():
    assert reading(0.1, 0.3).outcome() == SUPPORTED
    assert reading(-0.3, -0.1).outcome() == NOT_SUPPORTED
    assert reading(-0.1, 0.3).outcome() == UNDECIDED
    assert reading(-0.3, -0.1, above=False).outcome() == SUPPORTED
    assert reading(0.1, 0.3, above=False).outcome() == NOT_SUPPORTED
    assert reading(0.1, 0.3, threshold=0.2).outcome() == UNDECIDED
    assert reading(0.1, 0.3)._replace(interval=None).outcome() == UNDECIDED
    assert reading(0.1, 0.3)._replace(value=None).outcome() == UNDECIDED
    assert Reading("tm", "points", 0.0, True).outcome() == NO_RECORD


def test_the_interval_is_students_and_widens_with_its_level():
    values = np.array([0.1, 0.3, 0.2, 0.5, 0.4])
    interval = student(values)
    expected = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    np.testing.assert_allclose(interval[:2], expected, rtol=1e-10)
    expected = stats.t.interval(1 - 0.05 / 3, 4, values.mean(), stats.sem(values))
    np.testing.assert_allclose(interval.at(values.mean(), 0.05 / 3), expected, rtol=1e-10)
    normal = Interval(0.0, 2.0).at(1.0, 0.01)
    z = stats.norm.ppf(0.995) / stats.norm.ppf(0.975)
    np.testing.assert_allclose(normal, (1 - z, 1 + z), rtol=1e-10)


def test_networks_that_agree_to_the_last_digit_have_no_spread():
    equal = np.full(3, 0.5)
    assert student(equal) is None
    assert student(np.array([0.5])) is None
    float32 = np.array([-0.018000006675720215, -0.018000006675720100])
    assert student(float32) is None
    # Shares of 100 images: rounding to whole images is the least that they may differ by.
    low, high, _ = student(equal, 1 / 100)
    half = stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(12) / math.sqrt(3)
    np.testing.assert_allclose([low, high], [0.5 - half, 0.5 + half], rtol=1e-10)


def test_wilsons_interval():
    for share, num in ((1.0, 10), (0.0, 7), (0.4, 25)):
        test = stats.binomtest(round(share * num), num)
        expected = test.proportion_ci(method="wilson")
        np.testing.assert_allclose(wilson(share, num)[:2], expected, atol=1e-12)


def test_every_needs_all_and_some_needs_one():
    good, bad, open_ = reading(0.1, 0.3), reading(-0.3, -0.1), reading(-0.1, 0.3)
    absent = Reading("dm", "points", 0.0, True)
    assert judge_node(Every([good, good])) == SUPPORTED
    assert judge_node(Every([good, open_])) == UNDECIDED
    assert judge_node(Every([good, reading(-9.3, -9.1)])) == NOT_SUPPORTED
    assert judge_node(Every([good, absent])) == UNDECIDED
    assert judge_node(Every([absent, absent])) == NO_RECORD
    assert judge_node(Every([])) == NO_RECORD
    far = reading(9.1, 9.3)
    assert judge_node(Some([far, bad])) == SUPPORTED
    assert judge_node(Some([bad, bad])) == NOT_SUPPORTED
    assert judge_node(Some([open_, bad])) == UNDECIDED
    assert judge_node(Some([far, absent])) == SUPPORTED
    assert judge_node(Some([absent])) == NO_RECORD


def test_what_is_picked_among_several_is_read_in_a_wider_interval():
    barely = reading(0.01, 0.3, freedom=4)
    bad = reading(-0.3, -0.1, freedom=4)
    assert judge_node(Some([barely])) == SUPPORTED
    assert judge_node(Some([barely, bad])) == UNDECIDED
    barely_bad, good = reading(-0.3, -0.01, freedom=4), reading(0.1, 0.3, freedom=4)
    assert judge_node(Every([barely_bad])) == NOT_SUPPORTED
    assert judge_node(Every([barely_bad, good])) == UNDECIDED
    # All must hold, so none of them is picked.
    assert judge_node(Every([barely, barely, barely])) == SUPPORTED


def test_the_deciding_number_is_shown_at_its_level():
    weak, strong = reading(0.01, 0.3), reading(0.5, 0.6)
    found = deciding_reading(Every([strong, weak]))
    assert found.reading is weak
    assert found.interval() == pytest.approx((0.01, 0.3))
    found = deciding_reading(Some([strong, weak]))
    assert found.reading is strong
    assert found.alpha == 0.025
    low, high = found.interval()
    assert low < 0.5 < 0.6 < high
    bad = reading(-9.3, -9.1)
    found = deciding_reading(Every([bad, strong]))
    assert found.reading is bad
    assert found.alpha == 0.025
    assert deciding_reading(Every([Reading("tm", "points", 0.0, True)])) is None


def test_a_nested_claim_divides_its_level_twice():
    two = Some([reading(0.02, 0.3), reading(-0.3, -0.1)])
    assert judge_node(two, 0.1) == SUPPORTED
    assert judge_node(Every([two, two]), 0.1) == SUPPORTED
    assert judge_node(two) == UNDECIDED


# --- what the numbers are --------------------------------------------------------------


def test_differences_are_taken_network_by_network():
    # The networks' own spread, 0.02, is ten times that of their differences.
    verdict = claim("beats_random").judge(distilled(0.03, width=0.002))
    assert verdict.outcome == SUPPORTED
    first = verdict.readings[0]
    values = 0.03 + np.linspace(-0.002, 0.002, 5)
    expected = stats.t.interval(0.95, 4, 0.03, stats.sem(values))
    np.testing.assert_allclose(first.interval[:2], expected, rtol=1e-6)
    assert first.n == "5 networks"


def test_the_papers_numbers_stand_beside_sets_of_its_size():
    by_method = {
        r.method: r.paper for r in claim("beats_random").judge(distilled(0.1)).readings
    }
    assert by_method["tm"] == pytest.approx(0.5363 - 0.273)
    assert by_method["bptt"] == pytest.approx(0.589 - 0.273)
    one = claim("beats_random").judge([distill(0.1, "tm", ipc=1)]).readings[0]
    assert one.paper is None
    added = claim("mixing_lowers").judge([mixing((0.0, -0.05))]).readings
    papers = {(r.method, r.where): r.paper for r in added}
    assert papers["bptt", "+10 per class"] == pytest.approx(0.498 - 0.587)


def test_a_narrower_network_is_named():
    first = claim("beats_random").judge(distilled(0.1)).readings[0]
    assert first.scale == "ConvNet, width 32 (paper: 128)"


def test_sets_without_networks_of_equal_accuracy_are_undecided():
    found = agreement(0.05)
    entry = found.summary["agreement"]["tm_ipc10"]
    entry["difference"] = {"unmatched": "no member"}
    verdict = claim("agrees_with_early_stopped").judge([found])
    assert verdict.outcome == UNDECIDED
    assert not verdict.absent()
    (tm,) = (r for r in verdict.readings if r.method == "tm")
    assert "no member" in tm.note
    found.summary["agreement"]["tm_ipc10"] = {"unmatched": "nothing at all"}
    assert claim("agrees_with_early_stopped").judge([found]).outcome == UNDECIDED
    unknown = agreement(0.05)
    unknown.summary["agreement"]["tm_ipc10"]["difference"]["interval"] = [None, None]
    assert claim("agrees_with_early_stopped").judge([unknown]).outcome == UNDECIDED


def test_records_of_other_sets_are_read_together():
    both = [influence(0.4, method="tm"), influence(-0.4, method="dm")]
    assert claim("influence_reliable").judge(both[:1]).outcome == SUPPORTED
    verdict = claim("influence_reliable").judge(both)
    assert verdict.outcome == NOT_SUPPORTED
    assert verdict.deciding.reading.method == "dm"


def test_two_seeds_have_no_reliability_interval():
    found = influence(0.4, error=None, seeds=2)
    assert claim("influence_reliable").judge([found]).outcome == UNDECIDED


def test_without_seed_by_seed_numbers_influence_over_noise_is_undecided():
    found = influence()
    del found.summary["influence_over_noise"]
    verdict = claim("influence_above_noise").judge([found])
    assert verdict.outcome == UNDECIDED
    assert verdict.readings[0].value == pytest.approx(3.0)


REQUIRED = [
    ("beats_random", lambda: distill(0.1), ("accuracy", "distilled", "values")),
    ("mixing_lowers", lambda: mixing((0.1, 0.1)), ("accuracy", "tm_ipc10", "0")),
    ("agrees_with_early_stopped", lambda: agreement(0.1), ("test_images",)),
    (
        "agrees_with_early_stopped",
        lambda: agreement(0.1),
        ("agreement", "tm_ipc10", "difference", "interval"),
    ),
    (
        "agrees_with_early_stopped",
        lambda: agreement(0.1),
        ("agreement", "tm_ipc10", "subset", "value"),
    ),
    ("influence_own_class", lambda: influence(), ("same_class_among_top_nine",)),
    ("influence_reliable", lambda: influence(), ("reliability", "seeds")),
]


@pytest.mark.parametrize(("name", "make", "keys"), REQUIRED)
def test_a_missing_field_is_named_with_its_file(name, make, keys):
    found = make()
    claim(name).judge([found])  # as it is, it can be read
    held = found.summary
    for key in keys[:-1]:
        held = held[key]
    del held[keys[-1]]
    missing = f"{found.folder}/summary.json has no {'.'.join(keys)}, "
    with pytest.raises(InputError, match=re.escape(missing)):
        claim(name).judge([found])


def test_numbers_that_contradict_each_other_are_refused():
    wrong_sign = agreement(0.05)
    wrong_sign.summary["agreement"]["tm_ipc10"]["difference"]["value"] = -0.05
    with pytest.raises(InputError, match="early-stopped less subset-trained"):
        claim("agrees_with_early_stopped").judge([wrong_sign])


def test_numbers_are_spelt_with_their_units():
    assert spelt(-0.0123, "points") == "−1.2 points"
    assert spelt(0.0, "points") == "0.0 points"
    assert spelt(-0.0004, "points") == "−0.04 points"  # which side it is on
    assert spelt(0.5, "percent") == "50.0 %"
    assert spelt(0.4, "ratio") == "0.40×"
    assert spelt(0.0004, "p") == "p < 0.001"
    assert spelt(0.43, "correlation") == "+0.43"
    assert spelt_interval(-0.2, 1.3, "percent") == "0.0 to 100.0"
    assert spelt_interval(-0.02, 0.013, "points") == "−2.0 to +1.3"


def test_the_papers_numbers_fit_each_other():
    for row in MIXING.values():
        assert len(row) == len(REAL_PER_CLASS)
    for row in TRAINING.values():
        assert len(row) == len(TRAINING_ITERATIONS)
    for row in TRACE.values():
        assert len(row) == len(TRACE_ITERATIONS)
    # What is read off the mixing figure is what is printed, within the reading.
    for method, printed in STANDARD.items():
        assert abs(MIXING[method][0] - printed) < 0.015
