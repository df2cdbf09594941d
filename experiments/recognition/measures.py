"""Measures of pixels and features: shares outside 0..1, densities, two-dimensional maps."""

import importlib.metadata
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from distilljax import data
from experiments.lab.sets import Named, displayable
from experiments.recognition.record import REAL, Pixels, Umap

HALF_LEVEL = 0.5 / 255  # beyond 0..1 by more than this is outside

QUANTILES = (0.0, 0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0)

NEIGHBOURS, UMAP_SEED = 5, 42


def pixel_statistics(values: np.ndarray, counts: np.ndarray | None = None) -> Pixels:
    """Returns statistics of pixel values, and which share of them no image can show.

    Args:
      values: f[n], in 0..1 where they can be shown.
      counts: i[n], the number of times each occurs; 1 if absent.

    Returns:
      `mean`, `std` (population); `below` and `above`, the shares beyond 0 and 1 by more
      than half a grey level of 255, `outside` their sum; `quantiles`, share -> the least
      value that at least this share of the values does not exceed.
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
) -> tuple[dict[str, Pixels], dict[str, Curve]]:
    """Returns statistics and densities of all pixels of each set, and of real images."""
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
    explained: np.ndarray  # f64[m], share of the variance of each

    def project(self, points: np.ndarray) -> np.ndarray:
        """Returns coordinates f64[n, m] of points f[n, d]."""
        return (points - self.mean) @ self.axes


def principal_components(points: np.ndarray, num: int = 2) -> Components:
    """Returns the first components of f[n, d], n at least 2, by singular values.

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


def umap_points(points: np.ndarray) -> tuple[np.ndarray | None, Umap]:
    """Returns f32[n, 2], or None where umap-learn is not installed; and its record."""
    try:
        import umap
    except ImportError as error:
        why = f"umap-learn cannot be imported ({error}); pip install umap-learn"
        print(f"features.png is without UMAP: {why}")
        return None, {"left_out": why}
    version = importlib.metadata.version("umap-learn")
    about: Umap = {
        "version": version,
        "n_neighbors": NEIGHBOURS,
        "random_state": UMAP_SEED,
    }
    # A seed needs a single thread.
    reducer = umap.UMAP(n_neighbors=NEIGHBOURS, random_state=UMAP_SEED, n_jobs=1)
    return np.asarray(reducer.fit_transform(points)), about
