"""Intervals against scipy's own, and against a pooled closed form."""

import math

import numpy as np
import pytest
from scipy import stats

from distilljax.analysis.statistics import (
    Interval,
    from_error,
    from_relative_error,
    satterthwaite,
    spread,
    spread_interval,
    student,
    wilson,
)


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


@pytest.mark.parametrize("alpha", [0.05, 0.0125, 0.3])
@pytest.mark.parametrize(("right", "num"), [(10, 10), (0, 7), (3, 100), (10, 20), (19, 20)])
def test_wilsons_interval_of_another_level(right, num, alpha):
    expected = stats.binomtest(right, num).proportion_ci(1 - alpha, method="wilson")
    found = wilson(right / num, num).at(right / num, alpha)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.05, 0.0125, 0.3])
def test_an_interval_of_a_logarithm_stays_one_at_another_level(alpha):
    interval = from_relative_error(0.46, 0.094, 2)
    expected = np.exp(stats.t.interval(1 - alpha, 2, np.log(0.46), 0.094))
    np.testing.assert_allclose(interval.at(0.46, alpha), expected, rtol=1e-10)


def test_a_spread_has_its_values():
    values = np.array([0.1, 0.3, 0.2], np.float32)
    found = spread(values)
    assert found["seeds"] == 3
    assert found["values"] == values.astype(float).tolist()
    assert found["std"] == pytest.approx(values.astype(float).std(ddof=1))
    assert spread([0.5])["std"] is None
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values.astype(float)))
    np.testing.assert_allclose(spread_interval(values)["interval"], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        spread_interval([0.5])


def test_errors_add_up_with_satterthwaites_degrees():
    one = satterthwaite(1.0, [(0.04, 4)])
    expected = stats.t.interval(0.95, 4, 1.0, 0.2)
    np.testing.assert_allclose((one.low, one.high), expected, rtol=1e-10)
    assert one.freedom == pytest.approx(4)
    # Welch's test of two samples is the same sum.
    a, b = np.array([1.0, 2.0, 4.0, 3.5]), np.array([0.5, 0.1, 0.9])
    parts = [(x.var(ddof=1) / len(x), len(x) - 1) for x in (a, b)]
    found = satterthwaite(a.mean() - b.mean(), parts)
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), welch, rtol=1e-10)
    assert satterthwaite(1.0, [(math.nan, 4)]) == (None, None, None, None)
    assert satterthwaite(1.0, [(0.0, 4)]) == (0.0, 1.0, 1.0, None)


def test_an_error_with_its_degrees():
    found = from_error(2.0, 0.5, 7)
    assert found.freedom == 7
    np.testing.assert_allclose(found[:2], stats.t.interval(0.95, 7, 2.0, 0.5), rtol=1e-10)
    normal = from_error(2.0, 0.5, math.inf)
    np.testing.assert_allclose(normal[:2], stats.norm.interval(0.95, 2.0, 0.5), rtol=1e-10)
