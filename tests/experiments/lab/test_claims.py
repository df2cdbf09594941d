"""The algebra of verdicts: what an interval decides, and how readings are joined."""

import math
import types

import pytest

from distilljax.analysis.statistics import Interval
from distilljax.types import InputError
from experiments.lab.claims import (
    NO_RECORD,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    Claim,
    Every,
    Reading,
    Some,
    absent_readings,
    bound,
    by_method,
    configured_network,
    deciding_reading,
    describe_network,
    in_order,
    judge_node,
    paired,
    paper_value,
    recorded_interval,
    set_name,
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


@pytest.mark.parametrize(
    "changed", [{"value": math.inf}, {"p": math.nan}, {"p_other": math.nan}]
)
def test_a_claim_that_comes_to_no_number_is_refused(changed):
    found = reading(0.1, 0.3)._replace(label="mine", where="after training", **changed)
    claim = Claim("steep", STANDARD, "", "", "", "mixing", "", lambda records: found)
    wanted = "here/summary.json: the claim 'steep' comes to .* for mine, after training"
    with pytest.raises(InputError, match=wanted):
        claim.judge([])


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
    absent = Reading("tm", "points", 0.0, True)
    assert deciding_reading(Every([absent])) is None
    assert deciding_reading(Some([absent])) is None


def test_a_nested_claim_divides_its_level_twice():
    two = Some([reading(0.02, 0.3), reading(-0.3, -0.1)])
    assert judge_node(two, 0.1) == SUPPORTED
    assert judge_node(Every([two, two]), 0.1) == SUPPORTED
    assert judge_node(two) == UNDECIDED


def test_numbers_are_spelt_with_their_units():
    assert spelt(-0.0123, "points") == "−1.2 points"
    assert spelt(0.0, "points") == "0.0 points"
    assert spelt(-0.0004, "points") == "−0.04 points"  # which side it is on
    assert spelt(0.5, "percent") == "50.0 %"
    assert spelt(0.4, "ratio") == "0.40×"
    assert spelt(0.0004, "p") == "p < 0.001"
    assert spelt(0.43, "correlation") == "+0.43"
    assert spelt_interval(-0.2, 1.3, "percent") == "0.0 to 100.0"
    assert spelt_interval(0.123, 0.4567, "percent") == "12.3 to 45.7"
    assert spelt_interval(0.123, -0.4, "ratio") == "0.12 to −0.40"
    assert spelt_interval(-0.02, 0.013, "points") == "−2.0 to +1.3"


def test_an_interval_of_a_record_is_two_rising_numbers():
    record = types.SimpleNamespace(folder="here", experiment="x")
    assert recorded_interval(record, "a", [0.25, 0.5], 4) == Interval(0.25, 0.5, 4)
    assert recorded_interval(record, "a", [0.5, 0.5]) == Interval(0.5, 0.5, math.inf)
    for wrong in ([0.5, 0.25], [0.5], [0.1, 0.2, 0.3], []):
        with pytest.raises(InputError, match="two rising numbers"):
            recorded_interval(record, "a", wrong)


def test_sets_and_readings_come_in_the_order_of_the_papers_methods():
    """BPTT, TM, GM, DM; others after them, in the order in which they were found."""
    found = ["random", "dm", "kernel", "tm", "bptt", "gm"]
    rows = {f"runs/{method}": {"method": method} for method in found}
    expected = ["bptt", "tm", "gm", "dm", "random", "kernel"]
    assert by_method(rows) == [(f"runs/{method}", method) for method in expected]
    readings = [Reading(method, "points", 0.0, True) for method in found]
    nodes = [readings[0], Every(readings[1:2]), *readings[2:]]
    assert [getattr(n, "method", "dm") for n in in_order(nodes)] == expected
    (absent,) = absent_readings(["dm", "mine", "tm"], nodes, unit="p", threshold=0, above=1)
    assert absent == Reading("mine", "p", 0, 1)


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"model": "convnet", "width": 128}, "ConvNet, width 128"),
        ({"model": "convnet", "width": 32}, "ConvNet, width 32 (paper: 128)"),
        ({"model": "mlp", "width": 32}, "MLP, width 32"),
        ({"model": "vgg"}, "VGG"),
        ({"model": "mine", "width": 2}, "mine, width 2"),
        ({}, "network"),
    ],
)
def test_a_network_is_described_beside_the_papers(described, words):
    assert describe_network(described) == words
    name = described.get("model")
    group = {key: value for key, value in described.items() if key != "model"}
    record = types.SimpleNamespace(config={"model": name, name: group})
    if name:
        assert configured_network(record) == words


def test_small_words():
    assert set_name("runs/mine/distilled.npz") == "mine"
    assert set_name("runs/mine/other.npz") == "other"
    assert set_name("distilled.npz") == "distilled"
    assert bound(Reading("tm", "points", 0.05, True)) == "at least +5.0 points"
    assert bound(Reading("tm", "points", 0.0, False)) == "at most 0"
    assert paper_value(0.5, 10) == 0.5  # the paper's sets have 10 images per class
    assert paper_value(0.5, 1) is None


def test_only_as_many_networks_can_be_paired():
    record = types.SimpleNamespace(folder="here")
    ours, others = paired(record, "a", [1, 2], [3, 4])
    assert (ours.tolist(), others.tolist()) == ([1.0, 2.0], [3.0, 4.0])
    with pytest.raises(InputError, match="a has 2 networks of one set and 1 of another"):
        paired(record, "a", [1, 2], [3])


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


def test_a_p_value_is_read_as_a_two_sided_interval_would_be():
    """An interval of level 1 - alpha leaves alpha / 2 on either side."""

    def at(p, p_other=None):
        return Reading("tm", "p", 0.025, False, p, p=p, p_other=p_other, folder="here")

    assert at(0.025).outcome() == SUPPORTED
    assert at(0.0251).outcome() == UNDECIDED
    assert at(0.99, 0.0251).outcome() == UNDECIDED
    assert at(0.99, 0.025).outcome() == NOT_SUPPORTED
    assert at(0.99, 0.025).outcome(0.02) == UNDECIDED
    assert at(1.0, 0.95).outcome() == at(1.0).outcome() == UNDECIDED
    assert at(0.02).outcome(0.02) == UNDECIDED
    assert at(0.01).outcome(0.02) == SUPPORTED


def test_the_margin_is_in_half_widths_on_the_claims_side():
    assert reading(0.1, 0.3).margin() == pytest.approx(2.0)
    assert reading(0.1, 0.3, above=False).margin() == pytest.approx(-2.0)
    assert reading(0.1, 0.3, threshold=0.3).margin() == pytest.approx(-1.0)
    assert reading(0.2, 0.2).margin() == math.inf
    assert reading(0.1, 0.3)._replace(interval=None).margin() == 0.0
