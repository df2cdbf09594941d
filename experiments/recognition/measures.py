"""TODO."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from distilljax import data
from experiments.lab.sets import Named, displayable
from experiments.recognition.run import REAL

HALF_LEVEL = 0.5 / 255  # beyond 0..1 by more than this is outside

QUANTILES = (0.0, 0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0)

NEIGHBOURS, UMAP_SEED = 5, 42


def pixel_statistics(
    values: np.ndarray, counts: np.ndarray | None = None
) -> dict[str, Any]:
    """What pixel values are, and which share of them no image can show.

    Args:
      values: f[n], in 0..1 where they can be shown.
      counts: i[n], how often each comes; once if absent.

    Returns:
      `mean`, `std` (population); `below` and `above`, the shares beyond 0 and 1 by more
      than half of the 255 grey levels, `outside` their sum; `quantiles`, share -> the
      least value that at least that share does not exceed.
    """
    values = np.asarray(values, np.float64).ravel()
    weights = np.ones(len(values)) if counts is None else np.asarray(counts, np.float64)
    total = weights.sum()
    mean = (weights @ values) / total
    below = weights[values < -HALF_LEVEL].sum() / total
    above = weights[values > 1 + HALF_LEVEL].sum() / total
    quantiles = np.quantile(values, QUANTILES, weights=weights, method="inverted_cdf")
    return {
        "mean": float(mean),
        "std": float(np.sqrt(weights @ (values - mean) ** 2 / total)),
        "below": float(below),
        "above": float(above),
        "outside": float(below + above),
        "quantiles": {
            str(share): float(value)
            for share, value in zip(QUANTILES, quantiles, strict=True)
        },
    }


Curve = tuple[np.ndarray, np.ndarray]  # edges f64[b + 1], density f64[b]


def measure_pixels(
    artefacts: Mapping[str, Named], train: data.Split
) -> tuple[dict[str, Any], dict[str, Curve]]:
    """Statistics and densities of all pixel values of each set, and of real images."""
    levels, counts = np.arange(256) / 255, np.zeros(256, np.int64)
    for start in range(0, len(train.images), 2000):
        part = train.images[start : start + 2000]
        counts += np.bincount(part.ravel(), minlength=256)
    given: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        label: (displayable(made.transform, made.distilled.images).ravel(), None)
        for label, (_, made) in artefacts.items()
    }
    given[REAL] = levels, counts
    low = min(float(values.min()) for values, _ in given.values())
    high = max(float(values.max()) for values, _ in given.values())
    # Bins of ten grey levels; a level lies within a bin, not between two.
    width, shift = 10 / 255, HALF_LEVEL
    first, last = np.floor((low + shift) / width), np.floor((high + shift) / width) + 1
    edges = np.arange(first, last + 1) * width - shift
    curves = {
        label: (edges, np.histogram(values, edges, weights=number, density=True)[0])
        for label, (values, number) in given.items()
    }
    return {label: pixel_statistics(*one) for label, one in given.items()}, curves


class Components(NamedTuple):
    """Principal components of a cloud of points."""

    mean: np.ndarray  # f64[d]
    axes: np.ndarray  # f64[d, m], orthonormal, by falling variance
    explained: np.ndarray  # f64[m], each one's share of the variance

    def project(self, points: np.ndarray) -> np.ndarray:
        """f[n, d] -> f64[n, m]."""
        return (points - self.mean) @ self.axes


def principal_components(points: np.ndarray, num: int = 2) -> Components:
    """The first components of f[n, d], n at least 2, by a singular value decomposition.

    The sign of an axis is such that its largest entry is positive.
    """
    points = np.asarray(points, np.float64)
    mean = points.mean(axis=0)
    _, singular, rows = np.linalg.svd(points - mean, full_matrices=False)
    axes = rows[:num].T
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.where(axes[largest, np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    variance = singular**2
    total = variance.sum() or 1.0
    return Components(mean, axes, variance[:num] / total)


def umap_points(points: np.ndarray) -> tuple[np.ndarray | None, dict[str, Any]]:
    """f32[n, 2], or None where umap-learn is not there; and what to record."""
    try:
        import umap
    except ImportError as error:
        why = f"umap-learn cannot be imported ({error}); pip install 'distilljax[umap]'"
        print(f"features.png is without UMAP: {why}")
        return None, {"left_out": why}
    version = importlib.metadata.version("umap-learn")
    about = {"version": version, "n_neighbors": NEIGHBOURS, "random_state": UMAP_SEED}
    # A seed needs a single thread.
    reducer = umap.UMAP(n_neighbors=NEIGHBOURS, random_state=UMAP_SEED, n_jobs=1)
    return np.asarray(reducer.fit_transform(points)), about
