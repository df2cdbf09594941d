"""Moments of images, and symmetric matrices to whiten with: computed, packed, checked.

d = h * w * c.
"""

import math
from collections.abc import Iterator

import numpy as np

from distilljax import memory
from distilljax.types import InputError

WHITENING = 4  # f64[d, d] at once: covariance, eigenvectors, their product, a sum
CHUNK = 2000  # images; 49 MB of float64 at 32 x 32 x 3


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of each channel of x / 255.

    >>> images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    >>> mean, std = matrices.channel_statistics(images)
    >>> mean.tolist(), std.tolist()
    ([0.5], [0.5])

    Args:
      images: u8[n, h, w, c].

    Returns:
      f64[c] and f64[c], from exact counts of the 256 values.
    """
    channels = images.shape[-1]
    counts = np.zeros((channels, 256))
    for start in range(0, len(images), CHUNK):
        for channel in range(channels):
            values = images[start : start + CHUNK, ..., channel].ravel()
            counts[channel] += np.bincount(values, minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    levels = np.arange(256) / 255
    mean = share @ levels
    variance = (share * (levels - mean[:, None]) ** 2).sum(axis=1)
    constant = counts.max(axis=1) == counts.sum(axis=1)
    return mean, np.where(constant, 0.0, np.sqrt(variance))


def chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    """f64[m, d] in 0..255, a piece at a time.

    >>> [piece.shape for piece in matrices.chunks(np.zeros((3, 2, 2, 1), np.uint8))]
    [(3, 4)]
    """
    for start in range(0, len(images), CHUNK):
        piece = images[start : start + CHUNK]
        yield piece.reshape(len(piece), -1).astype(np.float64)


def moments(chunks: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean f64[d] and sum of outer products f64[d, d] over all rows.

    >>> mean, products = matrices.moments(iter([np.array([[1.0, 2.0], [3.0, 4.0]])]))
    >>> mean.tolist(), products.tolist()
    ([2.0, 3.0], [[10.0, 14.0], [14.0, 20.0]])

    Raises:
      InputError: the covariance, and what whitening takes besides, exceeds the memory.
    """
    first = next(chunks)
    d = first.shape[1]
    memory.require(
        WHITENING * 8 * d**2,
        f"whitening images of {d:,} values",
        "choose the preprocessing normalise, or make the images smaller",
    )
    num, total, second = len(first), first.sum(axis=0), first.T @ first
    for features in chunks:
        num += len(features)
        total += features.sum(axis=0)
        second += features.T @ features
    return total / num, second


def whitening(covariance: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """(C + ridge I)^(-1/2), symmetric, and its inverse, f32[d, d], by float64.

    >>> whiten, unwhiten = matrices.whitening(np.diag([3.0, 15.0]), ridge=1.0)
    >>> whiten.round(3).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root = np.sqrt(np.maximum(eigenvalues, 0) + ridge)
    whiten = (vectors / root) @ vectors.T
    whiten = ((whiten + whiten.T) / 2).astype(np.float32)
    return whiten, inverse(whiten)


def sketch(whiten: np.ndarray) -> np.ndarray:
    """f32[d, 4]: the matrix times four fixed random vectors.

    >>> matrices.sketch(np.eye(3, dtype=np.float32)).shape
    (3, 4)
    """
    vectors = np.random.default_rng(0).normal(size=(len(whiten), 4))
    return (np.asarray(whiten, np.float64) @ vectors).astype(np.float32)


def check_matrices(whiten: np.ndarray, unwhiten: np.ndarray) -> None:
    """A transform read from format 1 is symmetric but for the last bit.

    >>> matrices.check_matrices(np.eye(3), np.eye(3))
    """
    if whiten.ndim != 2 or whiten.shape != whiten.T.shape != unwhiten.shape:
        raise InputError(f"whiten {whiten.shape}, unwhiten {unwhiten.shape}: not square")
    largest = np.abs(whiten).max()
    if np.abs(whiten - whiten.T).max() > 1e-5 * largest:
        raise InputError("whiten is not symmetric; fit the preprocessing with data.fit")
    vectors = np.random.default_rng(1).normal(size=(len(whiten), 4))
    back = unwhiten.astype(np.float64) @ (whiten.astype(np.float64) @ vectors)
    if not np.abs(back - vectors).max() < 1e-2:
        raise InputError(
            "unwhiten is not the inverse of whiten; fit the preprocessing with data.fit"
        )


def triangle(matrix: np.ndarray) -> np.ndarray:
    """f32[d, d], symmetric but for rounding -> f32[d (d + 1) / 2].

    >>> matrices.triangle(np.array([[1.0, 2.0], [2.0, 3.0]], np.float32)).tolist()
    [1.0, 2.0, 3.0]
    """
    mean = (matrix.astype(np.float64) + matrix.T) / 2
    return mean[np.triu(np.ones(matrix.shape, bool))].astype(np.float32)


def side(size: int) -> int | None:
    """The d of d (d + 1) / 2, if there is one.

    >>> matrices.side(3), matrices.side(4)
    (2, None)
    """
    d = (math.isqrt(8 * size + 1) - 1) // 2
    return d if d * (d + 1) // 2 == size else None


def symmetric(values: np.ndarray) -> np.ndarray:
    """The inverse of `triangle`.

    >>> matrices.symmetric(np.array([1.0, 2.0, 3.0], np.float32)).tolist()
    [[1.0, 2.0], [2.0, 3.0]]
    """
    d = side(values.size) or 0
    upper = np.triu(np.ones((d, d), bool))
    matrix = np.zeros((d, d), np.float32)
    matrix[upper] = values
    return np.where(upper, matrix, matrix.T)


def inverse(whiten: np.ndarray, kind: str = "zca") -> np.ndarray:
    """The inverse f32[d, d] of a symmetric f32[d, d], computed in float64.

    >>> matrices.inverse(np.diag([2.0, 4.0]).astype(np.float32)).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    try:
        found = np.linalg.inv(whiten.astype(np.float64))
    except np.linalg.LinAlgError:
        found = np.full(whiten.shape, np.inf)
    if not np.isfinite(found).all():
        raise InputError(f"whiten of a stored {kind!r} transform has no inverse")
    return ((found + found.T) / 2).astype(np.float32)
