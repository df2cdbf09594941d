"""Agreement of networks with the members of a pool that have their accuracy."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax.analysis import agreement, pools
from distilljax.analysis.agreement import Match
from distilljax.analysis.pools import MeanError
from distilljax.analysis.statistics import satterthwaite
from distilljax.types import Array, Estimate, InputError
from experiments.agreement.options import EARLY, NAMES, SUBSET, Config
from experiments.agreement.record import Difference, Matched, Target, Unmatched


class Pool(NamedTuple):
    """Predictions of a pool, and the runs that they come from."""

    classes: np.ndarray  # u8[m, n]
    accuracy: np.ndarray  # f64[m]
    run: np.ndarray  # i[m]
    iteration: np.ndarray | None  # i[m]; None of subset-trained networks
    least: int  # members wanted in a window
    least_runs: int


class Compared(NamedTuple):
    """The networks of a row beside one pool."""

    cloud: np.ndarray  # f32[m], agreement with each member, mean over the networks
    matches: list[Match]  # one for each network; none where one of them is unmatched
    summary: Matched | Unmatched


def subset_pool(config: Config, classes: np.ndarray, labels: np.ndarray) -> Pool:
    """Returns the pool of networks trained on subsets.

    Args:
      config: the options.
      classes: u8[m, n], predictions.
      labels: i[n], of the test images.
    """
    accuracy = (classes == labels).mean(axis=1)
    return Pool(classes, accuracy, np.arange(len(accuracy)), None, config.least, 1)


def early_pool(config: Config, classes: np.ndarray, labels: np.ndarray) -> Pool:
    """Returns the pool of networks stopped early.

    Args:
      config: the options.
      classes: u8[r, p, n], predictions of each run, in the order of iterations.
      labels: i[n], of the test images.
    """
    num_runs, num_points, num_test = classes.shape
    classes = classes.reshape(-1, num_test)
    return Pool(
        classes,
        (classes == labels).mean(axis=1),
        np.repeat(np.arange(num_runs), num_points),
        np.tile(config.early_every * np.arange(1, num_points + 1), num_runs),
        config.early_least or 2 * num_runs,
        math.ceil(num_runs * 2 / 3),
    )


@functools.partial(jax.jit, static_argnums=3)
def _measure(
    targets: Array, members: Array, truth: Array, num_classes: int
) -> tuple[Array, Array, Array]:
    """Returns agreement, Cohen's kappa and error consistency of all pairs, f32[s, m]."""
    return (
        agreement.agreement(targets, members),
        agreement.cohen_kappa(targets, members, num_classes),
        agreement.error_consistency(targets, members, truth),
    )


class Comparison:
    """Compares networks with the members of one pool."""

    def __init__(self, pool: Pool, labels: np.ndarray, num_classes: int):
        self._pool, self._labels, self._num_classes = pool, labels, num_classes
        self._members = jnp.asarray(pool.classes)
        self._truth = jnp.asarray(labels.astype(pool.classes.dtype))

    def compare(self, targets: np.ndarray, tolerance: float) -> Compared:
        """Returns the networks of a row, u8[s, n], beside members of their accuracies."""
        measured = _measure(
            jnp.asarray(targets), self._members, self._truth, self._num_classes
        )
        agreements, kappas, consistencies = map(np.asarray, measured)
        cloud = agreements.mean(axis=0)
        matches, unmatched = list[Match](), dict[int, str]()
        for number, target in enumerate(targets):
            try:
                match = agreement.matched(
                    self._pool.classes,
                    self._labels,
                    target,
                    least=self._members_wanted(target),
                    tolerance=tolerance,
                    groups=self._pool.run,
                )
            except InputError as error:
                unmatched[number] = str(error)
            else:
                matches.append(match)
        if unmatched:
            number, why = next(iter(unmatched.items()))
            which = f"{len(unmatched)} of {len(targets)} networks, such as number {number}"
            return Compared(cloud, [], {"unmatched": f"{which}: {why}"})
        return Compared(cloud, matches, self._summary(matches, kappas, consistencies))

    def _members_wanted(self, target: np.ndarray) -> int:
        """Returns how many members hold `least` members of `least_runs` runs."""
        gaps = np.abs(self._pool.accuracy - (target == self._labels).mean())
        runs = np.unique(self._pool.run)
        nearest = np.sort([gaps[self._pool.run == run].min() for run in runs])
        enough = nearest[min(self._pool.least_runs, len(runs)) - 1]
        return max(self._pool.least, int((gaps <= enough).sum()))

    def _summary(
        self, matches: Sequence[Match], kappas: np.ndarray, consistencies: np.ndarray
    ) -> Matched:
        windows = [match.window for match in matches]
        each = np.array([float(match.estimate.value) for match in matches])
        pooled = pools.mean_error(matches, self._pool.run)
        known = satterthwaite(each.mean(), _parts(each, [pooled]))
        members = np.concatenate([window.members for window in windows])
        summary: Matched = {
            "value": float(each.mean()),
            "standard_error": known.standard_error,
            "interval": [known.low, known.high],
            "freedom": known.freedom,
            "num_members": len(np.unique(members)),
            "num_runs": pooled.num_runs,
            "half_width": max(window.half_width for window in windows),
            "mean_gap": float(np.mean([window.mean_gap for window in windows])),
            "kappa": _mean_at_accuracy(matches, kappas),
            "error_consistency": _mean_at_accuracy(matches, consistencies),
            "pool_error": _finite(pooled.error),
            "between_networks_error": float(each.std(ddof=1) / len(each) ** 0.5),
            "networks": [self._target(match) for match in matches],
        }
        if self._pool.iteration is not None:
            summary["iteration"] = float(np.median(self._pool.iteration[members]))
        return summary

    def _target(self, match: Match) -> Target:
        window = match.window
        target: Target = {
            "accuracy": match.accuracy,
            "value": float(match.estimate.value),
            "standard_error": _finite(float(match.estimate.standard_error)),
            "num_members": len(match.agreements),
            "half_width": window.half_width,
            "mean_gap": window.mean_gap,
        }
        if self._pool.iteration is not None:
            target["iteration"] = float(np.median(self._pool.iteration[window.members]))
        return target


def _mean_at_accuracy(matches: Sequence[Match], values: np.ndarray) -> float | None:
    """Returns the mean over networks of f[s, m] at their accuracies; None if undefined."""
    found = []
    for match, of_network in zip(matches, values, strict=True):
        inside = of_network[match.window.members]
        if not np.isfinite(inside).all():
            return None
        estimate = agreement.at_accuracy(match.accuracies, inside, match.accuracy)
        found.append(float(estimate.value))
    return float(np.mean(found))


def _parts(each: np.ndarray, pooled: Sequence[MeanError]) -> list[tuple[float, float]]:
    """Returns the variances of a mean over networks and their degrees of freedom."""
    num = len(each)
    between = float(each.var(ddof=1)) / num
    return [(between, num - 1), *((one.error**2, one.num_runs - 1) for one in pooled)]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def difference(of_row: Mapping[str, Compared]) -> Difference | Unmatched:
    """Returns early-stopped less subset-trained, network by network."""
    matched: dict[str, Matched] = {}
    for name, one in of_row.items():
        if "unmatched" in one.summary:
            return {"unmatched": f"{NAMES[name]}: {one.summary['unmatched']}"}
        matched[name] = one.summary
    both = [matched[EARLY], matched[SUBSET]]
    early, subset = (
        np.array([target["value"] for target in one["networks"]]) for one in both
    )
    errors = [
        MeanError(math.nan if (e := one["pool_error"]) is None else e, one["num_runs"])
        for one in both
    ]
    estimates = [
        Estimate(
            jnp.float32(one["value"]),
            jnp.float32(error.error),
            jnp.int32(one["num_members"]),
            "agreement",
        )
        for one, error in zip(both, errors, strict=True)
    ]
    values = [
        np.concatenate([match.agreements for match in of_row[name].matches])
        for name in (EARLY, SUBSET)
    ]
    found = agreement.difference(estimates[0], estimates[1], (values[0], values[1]))
    value = both[0]["value"] - both[1]["value"]
    known = satterthwaite(value, _parts(early - subset, errors))
    return {
        "value": value,
        "standard_error": known.standard_error,
        "interval": [known.low, known.high],
        "freedom": known.freedom,
        "cohen_d": _finite(float(found.cohen_d)),
        "pool_error": _finite(float(found.standard_error)),
        "values": (early - subset).tolist(),
    }
