"""Energy of a labelled set among the directions of feature space.

Bo et al. 2025 (arXiv 2503.01212) read distillation as filtering: with features X and labels
Y, the eigenvectors of the feature correlations of real images, X^T X, are frequencies, and
what a set says about the classes, X^T Y, has an energy in each. Strong directions, of large
eigenvalues, are low frequencies.

Departures: the mean of the real features is subtracted from all features, so that the
strongest direction is not that mean.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax.types import Array, InputError


class Basis(NamedTuple):
    """Eigenvectors of the feature correlations of real images, strongest first.

    Attributes:
      mean: f32[d], of the features.
      eigenvalues: f32[d], variances along the eigenvectors, falling, at least 0.
      vectors: f32[d, d], a column each.
    """

    mean: Array
    eigenvalues: Array
    vectors: Array


def basis(features: Array) -> Basis:
    """Returns the basis that the features of real images give.

    Args:
      features: f32[n, d], n at least 2.

    Raises:
      InputError: features of another shape.
    """
    if features.ndim != 2 or features.shape[0] < 2:
        raise InputError(f"features {list(features.shape)}: expected [n, d], n at least 2")
    mean = features.mean(axis=0)
    centred = features - mean
    precise = jax.lax.Precision.HIGHEST
    correlations = jnp.matmul(centred.T, centred, precision=precise) / features.shape[0]
    values, vectors = jnp.linalg.eigh(correlations)
    return Basis(mean, jnp.maximum(values[::-1], 0), vectors[:, ::-1])


def energy(features: Array, labels: Array, along: Basis) -> Array:
    """Returns the energy of X^T Y / n along each eigenvector, summed over classes, f32[d].

    Args:
      features: X, f32[n, d].
      labels: Y, f32[n, k].
      along: the eigenvectors, and the mean that is subtracted from X.

    Raises:
      InputError: shapes that do not fit.
    """
    num, dim = features.shape
    if labels.ndim != 2 or labels.shape[0] != num or along.mean.shape != (dim,):
        raise InputError(
            f"features {list(features.shape)}, labels {list(labels.shape)}, basis of "
            f"{along.mean.shape[0]} directions: expected [n, d], [n, k] and d"
        )
    precise = jax.lax.Precision.HIGHEST
    moments = jnp.matmul((features - along.mean).T, labels, precision=precise) / num
    return jnp.square(jnp.matmul(along.vectors.T, moments, precision=precise)).sum(axis=1)


def num_strong(eigenvalues: Array, share: float) -> int:
    """Returns how many of the strongest directions hold `share` of the variance.

    Args:
      eigenvalues: f32[d], falling; not traced.
      share: above 0, below 1.

    Raises:
      InputError: another share, or no variance.
    """
    total = float(eigenvalues.sum())
    if not 0 < share < 1 or not total > 0:
        raise InputError(
            f"share={share:g} of the variance {total:g}: expected a share between 0 and 1 "
            "of a variance above 0"
        )
    sums = np.cumsum(np.asarray(eigenvalues, np.float64))
    return int(np.argmax(sums >= share * sums[-1])) + 1


def weak_share(energies: Array, strong: int) -> Array:
    """Returns the share of the energy beyond the first `strong` directions, f32[...].

    Args:
      energies: f32[..., d], strongest direction first.
      strong: directions that are not counted.
    """
    return energies[..., strong:].sum(axis=-1) / energies.sum(axis=-1)
