"""TODO."""

import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax.analysis import agreement, pools
from distilljax.analysis.agreement import Match
from distilljax.analysis.pools import MeanError
from distilljax.analysis.statistics import satterthwaite, spread
from distilljax.types import (
    Array,
    Estimate,
    InputError,
)
from experiments.agreement.options import EARLY, NAMES, SUBSET, Config
from experiments.agreement.train import Group


class Pool(NamedTuple):
    """Predictions of a pool, and the runs that they come from."""

    classes: np.ndarray  # u8[m, n]
    accuracy: np.ndarray  # f64[m]
    run: np.ndarray  # i[m]
    iteration: np.ndarray | None  # i[m]
    least: int  # members wanted in a window
    least_runs: int
    about: Mapping[str, Any]


class Compared(NamedTuple):
    """The networks of a row beside one pool."""

    cloud: np.ndarray  # f32[m], agreement with each member, mean over the networks
    matches: list[Match]
    summary: dict[str, Any]


def subset_pool(
    config: Config,
    group: Group,
    classes: np.ndarray,
    seconds: float,
    subsets: pools.Subsets,
    labels: np.ndarray,
) -> Pool:
    accuracy = (classes == labels).mean(axis=1)
    about = {
        "networks": config.subset_networks,
        "shares": [config.subset_low, config.subset_high],
        "images": [int(subsets.sizes.min()), int(subsets.sizes.max())],
        "epochs": config.subset_epochs,
        **_about(config, accuracy, seconds, group),
    }
    run = np.arange(len(accuracy))
    return Pool(classes, accuracy, run, None, config.least, 1, about)


def early_pool(
    config: Config, group: Group, classes: np.ndarray, seconds: float, labels: np.ndarray
) -> Pool:
    num_runs, num_looks, num_test = classes.shape
    classes = classes.reshape(-1, num_test)
    accuracy = (classes == labels).mean(axis=1)
    iterations = config.early_every * np.arange(1, num_looks + 1)
    last = accuracy.reshape(num_runs, num_looks)[:, -1]
    about = {
        "runs": num_runs,
        "networks": len(accuracy),
        "iterations": config.early_iterations,
        "every": config.early_every,
        "last_accuracy": spread(last),
        **_about(config, accuracy, seconds, group),
    }
    return Pool(
        classes,
        accuracy,
        np.repeat(np.arange(num_runs), num_looks),
        np.tile(iterations, num_runs),
        config.early_least or 2 * num_runs,
        math.ceil(num_runs * 2 / 3),
        about,
    )


def _about(
    config: Config, accuracy: np.ndarray, seconds: float, group: Group
) -> dict[str, Any]:
    """What `summary.json` says of either pool."""
    return {
        "batch": config.batch,
        "lr": config.lr,
        "momentum": config.momentum,
        "accuracy": {
            "lowest": float(accuracy.min()),
            "median": float(np.median(accuracy)),
            "highest": float(accuracy.max()),
        },
        "seconds": seconds,
        "files": [f"networks/{p.path(pathlib.Path()).name}" for p in group.pieces],
    }


@functools.partial(jax.jit, static_argnums=3)
def _measure(
    targets: Array, members: Array, truth: Array, num_classes: int
) -> tuple[Array, Array, Array]:
    """Agreement, Cohen's kappa and error consistency of all with all, f32[s, m]."""
    return (
        agreement.agreement(targets, members),
        agreement.cohen_kappa(targets, members, num_classes),
        agreement.error_consistency(targets, members, truth),
    )


class Look:
    """Compares networks with the members of one pool."""

    def __init__(self, pool: Pool, labels: np.ndarray, num_classes: int):
        self._pool, self._labels = pool, labels
        members = jnp.asarray(pool.classes)
        truth = jnp.asarray(labels.astype(pool.classes.dtype))
        self._measure = lambda targets: _measure(targets, members, truth, num_classes)

    def compare(self, targets: np.ndarray, tolerance: float) -> Compared:
        """The networks of a row, u8[s, n], at their accuracies."""
        agreements, kappas, consistencies = map(
            np.asarray, self._measure(jnp.asarray(targets))
        )
        cloud = agreements.mean(axis=0)
        pool, matches, unmatched = self._pool, list[Match](), dict[int, str]()
        for number, target in enumerate(targets):
            try:
                match = agreement.matched(
                    pool.classes,
                    self._labels,
                    target,
                    least=self._members_wanted(target),
                    tolerance=tolerance,
                    groups=pool.run,
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
        """In the window of a network, for `least` members and `least_runs` runs."""
        gaps = np.abs(self._pool.accuracy - (target == self._labels).mean())
        runs = np.unique(self._pool.run)
        nearest = np.sort([gaps[self._pool.run == run].min() for run in runs])
        enough = nearest[min(self._pool.least_runs, len(runs)) - 1]
        return max(self._pool.least, int((gaps <= enough).sum()))

    def _summary(
        self, matches: Sequence[Match], kappas: np.ndarray, consistencies: np.ndarray
    ) -> dict[str, Any]:
        pool = self._pool
        windows = [match.window for match in matches]
        each = np.array([float(match.estimate.value) for match in matches])
        pooled = pools.mean_error(matches, pool.run)
        known = satterthwaite(each.mean(), _parts(each, [pooled]))
        members = np.concatenate([window.members for window in windows])
        targets = [
            {
                "accuracy": match.accuracy,
                "value": float(match.estimate.value),
                "standard_error": _or_none(float(match.estimate.standard_error)),
                "num_members": len(match.agreements),
                "half_width": match.window.half_width,
                "mean_gap": match.window.mean_gap,
            }
            for match in matches
        ]
        summary = {
            "value": float(each.mean()),
            "standard_error": known.standard_error,
            "interval": [known.low, known.high],
            "freedom": known.freedom,
            "num_members": len(np.unique(members)),
            "num_runs": pooled.num_runs,
            "half_width": max(window.half_width for window in windows),
            "mean_gap": float(np.mean([window.mean_gap for window in windows])),
            "kappa": _level(matches, kappas),
            "error_consistency": _level(matches, consistencies),
            "pool_error": _or_none(pooled.error),
            "between_networks_error": float(each.std(ddof=1) / len(each) ** 0.5),
            "networks": targets,
        }
        if pool.iteration is not None:
            summary["iteration"] = float(np.median(pool.iteration[members]))
            for target, window in zip(targets, windows, strict=True):
                target["iteration"] = float(np.median(pool.iteration[window.members]))
        return summary


def _level(matches: Sequence[Match], values: np.ndarray) -> float | None:
    """Mean over networks of what f[s, m] comes to at their accuracies, if it is defined."""
    found = []
    for match, of_network in zip(matches, values, strict=True):
        inside = of_network[match.window.members]
        if not np.isfinite(inside).all():
            return None
        estimate = agreement.at_accuracy(match.accuracies, inside, match.accuracy)
        found.append(float(estimate.value))
    return float(np.mean(found))


def _parts(each: np.ndarray, pooled: Sequence[MeanError]) -> list[tuple[float, int]]:
    """Variances of a mean over networks and their degrees of freedom."""
    num = len(each)
    between = float(each.var(ddof=1)) / num
    return [(between, num - 1), *((one.error**2, one.num_runs - 1) for one in pooled)]


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def difference(of_row: Mapping[str, Compared]) -> dict[str, Any]:
    """Early-stopped less subset-trained, network by network."""
    for name, one in of_row.items():
        if why := one.summary.get("unmatched"):
            return {"unmatched": f"{NAMES[name]}: {why}"}
    both = [of_row[EARLY], of_row[SUBSET]]
    early, subset = (
        np.array([target["value"] for target in one.summary["networks"]]) for one in both
    )
    errors = [
        MeanError(
            math.nan if (error := one.summary["pool_error"]) is None else error,
            one.summary["num_runs"],
        )
        for one in both
    ]
    estimates = [
        Estimate(
            jnp.float32(one.summary["value"]),
            jnp.float32(pooled.error),
            jnp.int32(one.summary["num_members"]),
            "agreement",
        )
        for one, pooled in zip(both, errors, strict=True)
    ]
    values = [np.concatenate([m.agreements for m in one.matches]) for one in both]
    found = agreement.difference(estimates[0], estimates[1], (values[0], values[1]))
    value = both[0].summary["value"] - both[1].summary["value"]
    known = satterthwaite(value, _parts(early - subset, errors))
    return {
        "value": value,
        "standard_error": known.standard_error,
        "interval": [known.low, known.high],
        "freedom": known.freedom,
        "cohen_d": _or_none(float(found.cohen_d)),
        "pool_error": _or_none(float(found.standard_error)),
        "values": (early - subset).tolist(),
    }
