"""Linear mode connectivity: a measure along the straight line between two networks.

Frankle et al. 2020 (arXiv 1912.05671): two networks that begin at the same weights and see
the data in different orders are connected where the error along the line between them
hardly rises. The barrier is that of Entezari et al. 2022 (arXiv 2110.06296, eq. 1),

    max_a [ E((1 - a) v + a w) - (1 - a) E(v) - a E(w) ],

which for ends of equal error is Frankle et al.'s instability. `sharpness` says how flat the
loss is at a network.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distilljax import checks, varying
from distilljax.types import Array, Estimate, InputError, Key, Params

Apply = Callable[[Params, Array], Array]


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


def sharpness(
    apply: Apply, params: Params, images: Array, key: Key, *, chunk: int = 50
) -> Estimate:
    """Returns the trace of the Gauss-Newton matrix of the mean cross-entropy.

    It is the Fisher information of the network's own predictions, E_x E_{y ~ p(x)}
    |grad log p(y | x)|^2 (Kunstner et al. 2019, arXiv 1905.12558, sec. 2), which takes one
    gradient an image and no label, and is never negative. The trace of the Hessian, which
    it is where the labels are fitted, is far noisier at networks that do not fit them.

    Args:
      apply: (params, f32[n, h, w, c]) -> logits f32[n, k]; it treats images one by one.
      params: the network.
      images: f32[n, h, w, c], n at least 2.
      key: draws y, one an image.
      chunk: gradients computed at a time.

    Returns:
      The mean over the images, with its standard error over images and draws.
    """
    checks.one_key(key)
    num = images.shape[0]
    keys = jax.random.split(key, num)

    def one(given: tuple[Array, Key]) -> Array:
        image, key = given
        logits = apply(params, image[None])[0]
        drawn = jax.random.categorical(key, logits)

        def log_probability(params: Params) -> Array:
            return jax.nn.log_softmax(apply(params, image[None])[0])[drawn]

        grads = varying.grad(log_probability)(params)
        return jnp.square(optax.tree.norm(grads))

    values = jax.lax.map(one, (images, keys), batch_size=min(chunk, num))
    error = jnp.std(values, ddof=1) / num**0.5
    return Estimate(
        values.mean(), error, jnp.int32(num), "trace of the Gauss-Newton matrix"
    )
