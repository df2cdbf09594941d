"""Agreement of the predictions of networks, corrected for chance and for accuracy.

Two accurate networks agree often, whatever else they share. So agreement is compared at
equal accuracy (`matched`), or with the agreement of independent networks of the same
accuracies (`expected_agreement`, `error_consistency`, `cohen_kappa`).

Functions of two sets of predictions, i[..., n] and i[..., n], compare each of the first
with each of the second: i[a, n] and i[b, n] give f32[a, b], i[n] and i[n] a scalar.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import exported
from distilljax.types import Array, Estimate, InputError

# The tricube kernel is zero at this multiple of the half-width of the window, so that the
# outermost members still have a weight, 0.015.
_REACH = 1.1


def agreement(p: Array, q: Array) -> Array:
    """Returns the fraction of images for which two networks predict the same class.

    Args:
      p: i[..., n], classes.
      q: i[..., n]; its leading axes may differ.

    Returns:
      f32, the leading axes of p, then those of q; in [0, 1]. Memory: q and the result.

    Raises:
      InputError: different numbers of images.
    """
    _same_images(p, q)
    rows = p.reshape(-1, p.shape[-1])
    shares = jax.lax.map(lambda row: (row == q).mean(axis=-1), rows)
    return shares.reshape(p.shape[:-1] + q.shape[:-1])


def expected_agreement(first: Array, second: Array, num_classes: int) -> Array:
    """Returns the agreement of independent networks with uniformly distributed errors.

    a1 a2 + (1 - a1) (1 - a2) / (k - 1). Networks that prefer the same wrong classes have a
    higher agreement by chance.

    Args:
      first: f32[...], accuracies, in [0, 1].
      second: f32[...], of a shape that broadcasts with the first.
      num_classes: k, at least 2.
    """
    return first * second + (1 - first) * (1 - second) / (num_classes - 1)


def corrected(observed: Array, expected: Array) -> Array:
    """Returns agreement beyond expectation, (observed - expected) / (1 - expected).

    One for perfect agreement, zero for the expected agreement, NaN or infinite if perfect
    agreement is expected. This is the form of Cohen's kappa (Cohen 1960) for any
    expectation.

    Args:
      observed: f32[...], in [0, 1].
      expected: f32[...], of a shape that broadcasts with the first.
    """
    return (observed - expected) / (1 - expected)


def error_consistency(p: Array, q: Array, labels: Array) -> Array:
    """Returns error consistency, Cohen's kappa of correctness of two networks.

    c_obs is the fraction of images on which both are right or both are wrong, whatever the
    wrong class, c_exp = a1 a2 + (1 - a1) (1 - a2), kappa = (c_obs - c_exp) / (1 - c_exp)
    (Geirhos et al. 2020, arXiv 2006.16736).

    Args:
      p: i[..., n], classes.
      q: i[..., n].
      labels: i[n].

    Returns:
      f32, the leading axes of p, then those of q; NaN where both are always right or both
      are always wrong.

    Raises:
      InputError: different numbers of images.
    """
    _same_images(p, labels)
    _same_images(q, labels)
    right_p, right_q = p == labels, q == labels
    first, second = right_p.mean(axis=-1), right_q.mean(axis=-1)
    first = first.reshape(first.shape + (1,) * second.ndim)
    return corrected(agreement(right_p, right_q), expected_agreement(first, second, 2))


def cohen_kappa(p: Array, q: Array, num_classes: int) -> Array:
    """Returns Cohen's kappa of two networks' predictions (Cohen 1960).

    The expected agreement is sum_c p_c q_c, with p_c and q_c the fractions of predictions
    of class c.

    Args:
      p: i[..., n], classes in 0..k-1.
      q: i[..., n].
      num_classes: k.

    Returns:
      f32, the leading axes of p, then those of q; NaN where both always predict the same
      single class.

    Raises:
      InputError: different numbers of images.
    """

    def shares(x: Array) -> Array:
        return jnp.stack([(x == c).mean(axis=-1) for c in range(num_classes)], axis=-1)

    precision = jax.lax.Precision.HIGHEST
    expected = jnp.tensordot(shares(p), shares(q), axes=(-1, -1), precision=precision)
    return corrected(agreement(p, q), expected)


def _same_images(p: Array, q: Array) -> None:
    if p.ndim == 0 or q.ndim == 0 or p.shape[-1] != q.shape[-1]:
        raise InputError(
            f"predictions {list(p.shape)} and {list(q.shape)}: expected the same number of "
            "images in the last axes"
        )


class Window(NamedTuple):
    """The members of a pool nearest to an accuracy, on the host.

    Attributes:
      members: i64[m'], positions in the pool, ascending.
      half_width: largest distance of a member's accuracy from the target.
      mean_gap: mean accuracy of the members minus the target.
    """

    members: np.ndarray
    half_width: float
    mean_gap: float


class Match(NamedTuple):
    """Agreement of a target with pool members of its accuracy, on the host.

    Attributes:
      accuracy: accuracy of the target.
      window: the window of networks compared.
      accuracies: f64[m'], accuracies of the members of the window.
      agreements: f64[m'], agreement of each with the target.
      estimate: agreement at the accuracy of the target.
    """

    accuracy: float
    window: Window
    accuracies: np.ndarray
    agreements: np.ndarray
    estimate: Estimate


@exported.named
class Difference(NamedTuple):
    """Difference of two independent estimates, first minus second.

    Attributes:
      value: f32[...].
      standard_error: f32[...].
      low: f32[...], lower bound of the normal 95 % interval.
      high: f32[...], upper bound.
      cohen_d: f32[...], difference in pooled standard deviations; NaN without values.
    """

    value: Array
    standard_error: Array
    low: Array
    high: Array
    cohen_d: Array


def nearest(
    accuracies: Array | np.ndarray,
    target: float,
    *,
    least: int = 10,
    tolerance: float = 0.02,
) -> Window:
    """Returns the smallest window around an accuracy with `least` members of a pool.

    Args:
      accuracies: f[m], accuracies of the pool.
      target: the accuracy to match.
      least: minimum number of members; ties can add more. A smaller pool gives all members.
      tolerance: maximum distance of the nearest member. The window may be wider, see
        `Window.half_width`.

    Raises:
      InputError: no member within the tolerance; a wrong shape; an accuracy that is not
        finite.
    """
    accuracies = np.asarray(accuracies, np.float64)
    if accuracies.ndim != 1 or not accuracies.size:
        raise InputError(f"accuracies {list(accuracies.shape)}: expected [m], m at least 1")
    if not (np.isfinite(accuracies).all() and np.isfinite(target)):
        raise InputError("an accuracy is NaN or infinite: such a network cannot be matched")
    if least < 1:
        raise InputError(f"least={least}: a window has at least one member")
    gaps = np.abs(accuracies - target)
    if gaps.min() > tolerance:
        raise InputError(
            f"no member of the pool comes within {tolerance:g} of accuracy {target:.4f}: "
            f"its {len(gaps)} members span {accuracies.min():.4f} to "
            f"{accuracies.max():.4f}; widen the pool or raise the tolerance"
        )
    half_width = np.sort(gaps)[min(least, len(gaps)) - 1]
    members = np.flatnonzero(gaps <= half_width)
    gap = accuracies[members].mean() - target
    return Window(members, float(half_width), float(gap))


def at_accuracy(
    accuracies: Array | np.ndarray,
    values: Array | np.ndarray,
    target: float,
    *,
    groups: Array | np.ndarray | None = None,
    of: str = "value",
) -> Estimate:
    """Estimates a quantity at one accuracy by local linear regression.

    The line minimises sum_i w_i (v_i - c - s (a_i - target))^2 and c is the estimate; w is
    the tricube kernel (1 - |u|^3)^3 of u = (a_i - target) / h (Cleveland 1979), h slightly
    more than the largest distance. If all accuracies are equal it is the mean. If all lie
    on one side of the target the line is extrapolated, with a larger standard error.

    The standard error is that of the jackknife over groups, sqrt((g - 1) / g sum_i (c_-i -
    mean c_-i)^2), c_-i without group i: members of one group may be dependent, groups must
    be independent. It does not cover the choice of the test images.

    Args:
      accuracies: f[m], such as those of a window.
      values: f[m].
      target: accuracy at which to evaluate the line.
      groups: i[m], the training run of each member; None if all are different.
      of: name of the quantity.

    Returns:
      The estimate, whose probes are the m members; standard error NaN for one group, and
      where without one of them no line can be fitted.

    Raises:
      InputError: incompatible shapes, values that are not finite.
    """
    x = np.asarray(accuracies, np.float64) - target
    y = np.asarray(values, np.float64)
    runs = np.arange(len(x)) if groups is None else np.asarray(groups)
    if x.ndim != 1 or not x.size or not x.shape == y.shape == runs.shape:
        raise InputError(
            f"accuracies {list(x.shape)}, values {list(y.shape)}, groups "
            f"{list(runs.shape)}: expected one [m], m at least 1"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("an accuracy or a value is NaN or infinite: no line can be fitted")
    reach = _REACH * np.abs(x).max()
    u = x / reach if reach > 0 else x
    weights = (1 - np.abs(u) ** 3) ** 3
    names, index = np.unique(runs, return_inverse=True)
    moments = np.stack(
        [weights, weights * u, weights * u * u, weights * y, weights * u * y]
    )
    each = np.stack([np.bincount(index, row, len(names)) for row in moments])
    total = each.sum(axis=1)
    value, level = _at_zero(total)
    error = np.nan
    if (num := len(names)) > 1:
        without, levels = _at_zero(total[:, None] - each)
        if level or not levels.any():
            error = np.sqrt((num - 1) * np.var(without))
    return Estimate(
        jnp.float32(value),
        jnp.float32(error),
        jnp.int32(len(x)),
        f"{of} at accuracy {target:.4f}",
    )


def _at_zero(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least-squares line at u = 0, and whether u is constant: then the mean.

    Args:
      moments: f64[5, ...], sums of w, w u, w u^2, w y, w u y.
    """
    w, wu, wuu, wy, wuy = moments
    mean_u, mean_y = wu / w, wy / w
    spread = wuu / w - mean_u**2
    level = spread <= 1e-9  # u lies in [-1, 1]
    slope = (wuy / w - mean_u * mean_y) / np.where(level, 1.0, spread)
    return mean_y - np.where(level, 0.0, slope) * mean_u, level


def matched(
    pool: Array | np.ndarray,
    labels: Array | np.ndarray,
    target: Array | np.ndarray,
    *,
    least: int = 10,
    tolerance: float = 0.02,
    groups: Array | np.ndarray | None = None,
) -> Match:
    """Returns the agreement of a network with pool members of the same accuracy.

    `nearest` selects the members, `at_accuracy` corrects for the remaining gap. Yang et al.
    2024 (arXiv 2406.04284, section 4.1) compare a network trained on a distilled set with
    networks trained on subsets and with networks stopped early.

    Departures: they match to one or two points of accuracy and choose the stopping
    iterations by hand.

    Args:
      pool: i[m, n], predicted classes.
      labels: i[n].
      target: i[n], predicted classes.
      least: see `nearest`.
      tolerance: see `nearest`.
      groups: i[m], the training run of each member of the pool, see `at_accuracy`.

    Raises:
      InputError: incompatible shapes; no member of that accuracy.
    """
    pool, labels, target = np.asarray(pool), np.asarray(labels), np.asarray(target)
    if pool.ndim != 2 or not pool.shape[1:] == labels.shape == target.shape:
        raise InputError(
            f"pool {list(pool.shape)}, labels {list(labels.shape)}, target "
            f"{list(target.shape)}: expected [m, n], [n] and [n]"
        )
    if groups is not None and np.shape(groups) != pool.shape[:1]:
        raise InputError(
            f"groups {list(np.shape(groups))}, pool {list(pool.shape)}: expected [m] and "
            "[m, n]"
        )
    own = float((target == labels).mean())
    accuracies = (pool == labels).mean(axis=1)
    window = nearest(accuracies, own, least=least, tolerance=tolerance)
    chosen = window.members
    agreements = (pool[chosen] == target).mean(axis=1)
    estimate = at_accuracy(
        accuracies[chosen],
        agreements,
        own,
        groups=None if groups is None else np.asarray(groups)[chosen],
        of="agreement",
    )
    return Match(own, window, accuracies[chosen], agreements, estimate)


def difference(
    first: Estimate,
    second: Estimate,
    values: tuple[Array | np.ndarray, Array | np.ndarray] | None = None,
) -> Difference:
    """Returns the difference of two independent estimates, with its uncertainty.

    Two pools compared with one target are independent conditional on that target.

    Args:
      first: an estimate.
      second: another, of the same shape.
      values: samples of each estimate, f[m, ...] and f[m', ...], for Cohen's d: the
        difference over s, s^2 = ((m - 1) s1^2 + (m' - 1) s2^2) / (m + m' - 2).

    Raises:
      InputError: estimates of different shapes.
    """
    if first.value.shape != second.value.shape:
        raise InputError(
            f"estimates {list(first.value.shape)} and {list(second.value.shape)}: expected "
            "the same shape"
        )
    value = first.value - second.value
    error = jnp.hypot(first.standard_error, second.standard_error)
    deviation = jnp.full_like(value, jnp.nan)
    if values is not None:
        a, b = (jnp.asarray(x) for x in values)
        num = len(a) + len(b) - 2
        square = (len(a) - 1) * a.var(axis=0, ddof=1) + (len(b) - 1) * b.var(axis=0, ddof=1)
        deviation = jnp.sqrt(square / num)
    half = 1.959964 * error
    return Difference(value, error, value - half, value + half, value / deviation)
