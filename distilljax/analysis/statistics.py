"""Spreads and confidence intervals of numbers over networks, runs and images.

Intervals are two-sided with level 95 % unless another level is given.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import ArrayLike

ALPHA = 0.05


class Spread(TypedDict):
    """Mean and standard deviation over seeds, with the values themselves."""

    mean: float
    std: float | None  # over seeds, with n - 1; None for a single seed
    seeds: int
    values: list[float]


class SpreadInterval(Spread):
    """A `Spread` with the 95 % confidence interval of its mean."""

    interval: list[float]  # low, high


class Interval(NamedTuple):
    """A confidence interval of level 95 %, convertible to other levels.

    Attributes:
      low: lower limit.
      high: upper limit.
      freedom: degrees of freedom; infinite for the normal distribution.
    """

    low: float
    high: float
    freedom: float = math.inf

    def at(self, centre: float, alpha: float) -> tuple[float, float]:
        """Returns the interval of level 1 - `alpha` about the same number."""
        factor = quantile(alpha, self.freedom) / quantile(ALPHA, self.freedom)
        return centre - (centre - self.low) * factor, centre + (self.high - centre) * factor


class LogInterval(Interval):
    """An interval of a positive number that is one of its logarithm."""

    def at(self, centre: float, alpha: float) -> tuple[float, float]:
        """Returns the interval of level 1 - `alpha` about the same number."""
        factor = quantile(alpha, self.freedom) / quantile(ALPHA, self.freedom)
        low, high = self.low / centre, self.high / centre
        return centre * low**factor, centre * high**factor


class WilsonInterval(Interval):
    """Wilson's score interval of a fraction."""

    def at(self, centre: float, alpha: float) -> tuple[float, float]:
        """Returns the interval of level 1 - `alpha` about the same fraction."""
        # Its ends are where the fraction lies z standard errors away, at any level.
        end = self.low if centre > 0.5 else self.high
        num = quantile(ALPHA) ** 2 * end * (1 - end) / (end - centre) ** 2
        return _wilson(centre, num, alpha)


class Combined(NamedTuple):
    """Standard error and interval of a value; None if one of its errors is unknown.

    Attributes:
      standard_error: standard error of the value.
      low: lower limit of the interval.
      high: upper limit.
      freedom: degrees of freedom; also None if the error is zero.
    """

    standard_error: float | None
    low: float | None
    high: float | None
    freedom: float | None


def quantile(alpha: float, freedom: float = math.inf) -> float:
    """Returns the quantile 1 - alpha / 2 of Student's t, or of the normal distribution."""
    from scipy.special import ndtri, stdtrit  # a tenth of what a command imports

    share = 1 - alpha / 2
    return float(ndtri(share) if math.isinf(freedom) else stdtrit(freedom, share))


def spread(values: ArrayLike) -> Spread:
    """Returns mean, standard deviation over seeds (n - 1), number of seeds and values."""
    array = np.asarray(values, np.float64)
    std = float(array.std(ddof=1)) if array.size > 1 else None
    return {
        "mean": float(array.mean()),
        "std": std,
        "seeds": int(array.size),
        "values": array.tolist(),
    }


def spread_interval(values: ArrayLike) -> SpreadInterval:
    """Returns `spread` with the Student interval of the mean, of at least two values.

    Mean -+ t std / sqrt(n), t the 97.5 % quantile of Student's distribution with n - 1
    degrees of freedom.
    """
    found = spread(values)
    num, std = found["seeds"], found["std"]
    if std is None:
        raise ValueError("an interval needs at least two values")
    half = quantile(ALPHA, num - 1) * std / num**0.5
    return {**found, "interval": [found["mean"] - half, found["mean"] + half]}


def std_bias(num: int) -> float:
    """Returns the mean of the standard deviation of `num` standard normal values, n - 1.

    >>> [round(std_bias(num), 3) for num in (2, 3, 5, 30)]
    [0.798, 0.886, 0.94, 0.991]
    """
    gammas = math.lgamma(num / 2) - math.lgamma((num - 1) / 2)
    return math.sqrt(2 / (num - 1)) * math.exp(gammas)


def student(values: np.ndarray, grain: float = 0.0) -> Interval | None:
    """Returns the Student interval of a mean over networks or runs; None without a spread.

    Args:
      values: f64[n].
      grain: resolution of the values, 1 / N for a fraction of N images. Its rounding error,
        grain / sqrt(12), is the minimum standard deviation assumed.
    """
    if len(values) < 2:
        return None
    std = max(float(values.std(ddof=1)), grain / math.sqrt(12))
    # Values that are equal up to float32 rounding.
    if std < 1e-7:
        return None
    half = quantile(ALPHA, len(values) - 1) * std / math.sqrt(len(values))
    mean = float(values.mean())
    return Interval(mean - half, mean + half, len(values) - 1)


def from_error(value: float, error: float, freedom: float) -> Interval:
    """Returns the Student interval of a value from its standard error."""
    half = quantile(ALPHA, freedom) * error
    return Interval(value - half, value + half, freedom)


def from_relative_error(value: float, error: float, freedom: float) -> LogInterval:
    """Returns the Student interval of a positive value, that of its logarithm.

    Args:
      value: the estimate.
      error: standard error of the logarithm.
      freedom: degrees of freedom.
    """
    factor = math.exp(quantile(ALPHA, freedom) * error)
    return LogInterval(value / factor, value * factor, freedom)


def wilson(share: float, num: int) -> WilsonInterval:
    """Returns Wilson's score interval of a fraction of `num` independent draws."""
    return WilsonInterval(*_wilson(share, num, ALPHA))


def _wilson(share: float, num: float, alpha: float) -> tuple[float, float]:
    z = quantile(alpha)
    centre = (share + z**2 / (2 * num)) / (1 + z**2 / num)
    half = z * math.sqrt(share * (1 - share) / num + z**2 / (4 * num**2)) / (1 + z**2 / num)
    # The interval contains the fraction in spite of rounding.
    return min(centre - half, share), max(centre + half, share)


def satterthwaite(value: float, parts: Sequence[tuple[float, float]]) -> Combined:
    """Returns the interval of a value with several independent errors.

    Student's t with (sum v)^2 / sum v^2 / f degrees of freedom (Satterthwaite 1946).

    Args:
      value: the estimate.
      parts: (variance v, degrees of freedom f) of each error.
    """
    total = sum(variance for variance, _ in parts)
    if not math.isfinite(total):
        return Combined(None, None, None, None)
    if total == 0:
        return Combined(0.0, float(value), float(value), None)
    freedom = total**2 / sum(variance**2 / f for variance, f in parts if variance)
    low, high, _ = from_error(float(value), math.sqrt(total), freedom)
    return Combined(math.sqrt(total), low, high, float(freedom))
