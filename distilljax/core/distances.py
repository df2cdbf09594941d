"""Distances minimised by outer losses."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from distilljax.types import Array, InputError

GradientDistance = Literal["rows", "cosine", "mse"]

_EPS = 1e-6  # added to products of norms, against division by zero


def class_mean_gap(ours: Array, theirs: Array) -> Array:
    """Returns sum_j || mean_i ours_ji - mean_i theirs_ji ||^2.

    >>> float(distances.class_mean_gap(np.ones((2, 3, 4)), np.zeros((2, 5, 4))))
    8.0

    Args:
      ours: f32[k, m, d].
      theirs: f32[k, m', d].

    Returns:
      f32[].
    """
    return jnp.square(ours.mean(axis=1) - theirs.mean(axis=1)).sum()


def characteristic_gap(ours: Array, theirs: Array, frequencies: Array) -> Array:
    """Returns the gap between the characteristic functions of two samples, f32[].

    With phi(t) the mean of exp(i t.x) over a sample, and r, s the two samples: the mean
    over frequencies t of

        sqrt((|r| - |s|)^2 / 2 + |r| |s| - Re r Re s - Im r Im s),   r = phi_r(t), ...

    the amplitudes' and the phases' share of |phi_r - phi_s|^2 / 2, the second at least
    1e-12 (NCFM, Wang et al. 2025, arXiv 2502.20653).

    >>> ours, frequencies = np.ones((5, 2)), np.ones((3, 2))
    >>> float(distances.characteristic_gap(ours, ours, frequencies)) < 1e-5
    True

    Args:
      ours: f32[m, d].
      theirs: f32[m', d].
      frequencies: f32[t, d].
    """

    def function(x: Array) -> tuple[Array, Array, Array]:
        angles = jnp.matmul(x, frequencies.T, precision=jax.lax.Precision.HIGHEST)
        real, imaginary = jnp.cos(angles).mean(0), jnp.sin(angles).mean(0)
        return real, imaginary, _norm(jnp.stack([real, imaginary]), 0)

    (a, b, ours_size), (c, d, their_size) = function(ours), function(theirs)
    amplitude = 0.5 * jnp.square(ours_size - their_size)
    phase = jnp.maximum(ours_size * their_size - a * c - b * d, 1e-12)
    return jnp.sqrt(amplitude + phase).mean()


def parameter_distance(
    ours: Array, start: Array, target: Array, skip: float = 0.0
) -> Array:
    """Returns || ours - target ||^2 / || start - target ||^2 of flat parameters f32[p].

    One at the start, zero at the target (Cazenavette et al. 2022, eq. 2). NaN if start and
    target are equal.

    >>> start, target = jnp.zeros(3), jnp.ones(3)
    >>> float(distances.parameter_distance(jnp.full(3, 0.5), start, target))
    0.25

    Args:
      ours: f32[p].
      start: f32[p].
      target: f32[p].
      skip: share of the p squared differences that each sum leaves out, the smallest ones
        (PAD, Li et al. 2024, arXiv 2408.03360), in [0, 1).
    """

    def total(differences: Array) -> Array:
        squares = jnp.square(differences)
        left_out = int(skip * len(squares))
        return (jnp.sort(squares)[left_out:] if left_out else squares).sum()

    return total(ours - target) / total(start - target)


def _norm(x: Array, axis: int) -> Array:
    """Euclidean norm with derivative zero, not NaN, at zero."""
    square = jnp.square(x).sum(axis)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def _cosine_gap(a: Array, b: Array) -> Array:
    """Returns 1 - cosine of the columns of f32[m, d], f32[d]; one where either is zero."""
    return 1 - (a * b).sum(0) / (_norm(a, 0) * _norm(b, 0) + _EPS)


def gradient_distance(ours: Any, theirs: Any, kind: GradientDistance = "rows") -> Array:
    """Returns the distance between two gradients of the same parameters, f32[].

    >>> round(float(distances.gradient_distance({"w": jnp.eye(2)}, {"w": -jnp.eye(2)})), 3)
    4.0

    Args:
      ours: a pytree of arrays; the last axis of a weight is its output channels,
        which cannot be checked here; `gm` checks it on the classifier.
      theirs: the same structure.
      kind: `rows` sums 1 - cosine over the output channels of every weight; leaves with
        one axis (biases, parameters of normalisation layers) are excluded (Zhao et al.
        2021, arXiv 2006.05929, eq. 10). `cosine` is 1 - cosine of the concatenated
        gradients, `mse` the sum of squared differences.

    A row of zeros, as of a unit that is never active, has distance one to any other row,
    with a finite derivative.

    Raises:
      InputError: an unknown kind, or `rows` where no leaf has two axes.
    """
    if kind not in get_args(GradientDistance):
        raise InputError(
            f"{kind!r}: expected one of {', '.join(get_args(GradientDistance))}"
        )
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
    if kind == "mse":
        return jnp.stack([jnp.square(a - b).sum() for a, b in pairs]).sum()
    if kind == "cosine":
        a, b = (
            jnp.concatenate([leaf.reshape(-1) for leaf in side])[:, None]
            for side in zip(*pairs, strict=True)
        )
        return _cosine_gap(a, b)[0]
    gaps = [
        _cosine_gap(*(leaf.reshape(-1, leaf.shape[-1]) for leaf in pair)).sum()
        for pair in pairs
        if pair[0].ndim > 1
    ]
    if not gaps:
        raise InputError(
            "no gradient has rows: all leaves have one axis; choose another distance"
        )
    return jnp.stack(gaps).sum()
