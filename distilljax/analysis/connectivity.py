"""Linear mode connectivity: a measure along the straight line between two networks.

Frankle et al. 2020 (arXiv 1912.05671): two networks that begin at the same weights and see
the data in different orders are connected where the error along the line between them
hardly rises. The barrier is that of Entezari et al. 2022 (arXiv 2110.06296, eq. 1),

    max_a [ E((1 - a) v + a w) - (1 - a) E(v) - a E(w) ],

which for ends of equal error is Frankle et al.'s instability.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distilljax.types import Array, InputError, Params


def between(first: Params, second: Params, share: Array | float) -> Params:
    """Returns (1 - share) first + share second, leaf by leaf."""
    return jax.tree.map(lambda v, w: (1 - share) * v + share * w, first, second)


def along(
    measure: Callable[[Params], Any], first: Params, second: Params, shares: Array
) -> Any:
    """Returns a measure at points of the line between two networks.

    Args:
      measure: params -> a tree of arrays.
      first: the network at share 0.
      second: the network at share 1, of the same structure.
      shares: f32[t], points of the line.

    Returns:
      The tree, each array with a leading axis t.
    """
    return jax.lax.map(lambda share: measure(between(first, second, share)), shares)


def barrier(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Returns how far a measure rises above the straight line between its ends.

    Args:
      values: f[..., t], at each share.
      shares: f[t], rising from 0 to 1.

    Returns:
      f64[...], at least 0, which the ends have.

    Raises:
      InputError: shares that do not rise from 0 to 1, or other values.
    """
    values, shares = np.asarray(values, np.float64), np.asarray(shares, np.float64)
    rising = shares.ndim == 1 and len(shares) > 1 and bool((np.diff(shares) > 0).all())
    if not rising or shares[0] != 0 or shares[-1] != 1:
        raise InputError(f"shares {shares.tolist()}: expected to rise from 0 to 1")
    if values.shape[-1] != len(shares):
        raise InputError(f"{values.shape[-1]} values at {len(shares)} shares")
    straight = (1 - shares) * values[..., :1] + shares * values[..., -1:]
    return (values - straight).max(axis=-1)


def points(num: int) -> Array:
    """Returns `num` evenly spaced shares from 0 to 1, f32[num]."""
    return jnp.linspace(0.0, 1.0, num, dtype=jnp.float32)
