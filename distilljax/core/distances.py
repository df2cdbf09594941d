"""Distances that outer losses descend."""

import jax.numpy as jnp

from distilljax.types import Array


def class_mean_gap(ours: Array, theirs: Array) -> Array:
    """sum_j || mean_i ours_ji - mean_i theirs_ji ||^2.

    Args:
      ours: f32[k, m, d].
      theirs: f32[k, m', d].

    Returns:
      f32[].
    """
    return jnp.square(ours.mean(axis=1) - theirs.mean(axis=1)).sum()
