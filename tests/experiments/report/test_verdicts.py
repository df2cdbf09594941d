"""The table of readings: which are drawn beside their number; the overview of claims."""

import math
import types

import pytest

from distilljax.analysis.statistics import Interval
from experiments.lab.claims import (
    NOT_SUPPORTED,
    ONE_RUN,
    ONE_RUN_EXACT,
    SUPPORTED,
    UNDECIDED,
    Claim,
    Every,
    Reading,
    Some,
)
from experiments.lab.paper import Section
from experiments.report.verdicts import overview, readings_table, shared_note


@pytest.mark.parametrize("unit", ["points", "percent", "ratio", "correlation", "p"])
def test_all_but_p_values_are_drawn(unit):
    interval = None if unit == "p" else Interval(0.1, 0.3, math.inf)
    known = Reading("tm", unit, 0.05, True, value=0.2, interval=interval, folder="here")
    absent = known._replace(value=None, interval=None, method="dm")
    page = str(readings_table(types.SimpleNamespace(readings=[known, absent])))
    assert page.count("<svg") == (unit != "p")


def test_no_readings_are_no_table():
    assert readings_table(types.SimpleNamespace(readings=[])) is None


def in_overview(node):
    section = Section("growth", "Growth", "Growth", "", 0, "section 4")
    claim = Claim("c", section, "it grows", "", "20 there", "growth", "", lambda _: node)
    verdict = claim.judge([])
    return verdict.outcome, overview([verdict]).replace("\N{NO-BREAK SPACE}", " ")


FOUND = Reading("tm", "points", 0.0, True, 0.2, Interval(0.1, 0.3, math.inf), folder="here")


@pytest.mark.parametrize("note", ["", ONE_RUN, ONE_RUN_EXACT])
def test_the_overview_says_where_no_other_run_is_known(note):
    outcome, row = in_overview(FOUND._replace(note=note, n="5 networks"))
    assert outcome == SUPPORTED
    assert ("5 networks; no other run" in row) == bool(note)
    assert ("no other run" in row) == bool(note)
    assert "+20.0 points" in row
    assert "(+10.0 to +30.0)" in row


@pytest.mark.parametrize(
    ("node", "thresholds", "outcome", "picked"),
    [
        (Some, (0.0, 0.0), SUPPORTED, True),
        (Every, (0.0, 0.0), SUPPORTED, False),
        (Every, (0.0, 0.25), UNDECIDED, False),
        (Every, (0.0, 0.5), NOT_SUPPORTED, True),
    ],
)
def test_the_overview_names_the_level_of_an_interval_that_was_picked(
    node, thresholds, outcome, picked
):
    """Where either of two may decide, each is read at 97.5 %: 2.241 standard errors."""
    found, row = in_overview(node([FOUND._replace(threshold=t) for t in thresholds]))
    assert found == outcome
    assert ("; interval at 97.5 %, for it was picked" in row) == picked
    half = 10 * 2.2414 / 1.9600 if picked else 10
    assert f"(+{20 - half:.1f} to +{20 + half:.1f})" in row


def test_a_number_without_an_interval_has_no_level():
    certain = FOUND._replace(interval=Interval(0.2, 0.2, math.inf))
    _, row = in_overview(Some([certain, certain]))
    assert "interval" not in row


def test_a_note_that_all_readings_share_is_said_once():
    def shared(*notes):
        found = [FOUND._replace(note=note) for note in notes]
        return shared_note(types.SimpleNamespace(readings=found))

    assert shared("one", "one") == "one"
    assert shared("one", "two") is None
    assert shared("", "") is None
    assert shared() is None
