"""The table of readings: which of them are drawn beside their number."""

import math
import types

import pytest

from distilljax.analysis.statistics import Interval
from experiments.lab.claims import Reading
from experiments.report.verdicts import readings_table


@pytest.mark.parametrize("unit", ["points", "percent", "ratio", "correlation", "p"])
def test_all_but_p_values_are_drawn(unit):
    interval = None if unit == "p" else Interval(0.1, 0.3, math.inf)
    known = Reading("tm", unit, 0.05, True, value=0.2, interval=interval, folder="here")
    absent = known._replace(value=None, interval=None, method="dm")
    page = str(readings_table(types.SimpleNamespace(readings=[known, absent])))
    assert page.count("<svg") == (unit != "p")


def test_no_readings_are_no_table():
    assert readings_table(types.SimpleNamespace(readings=[])) is None
