"""`lax.scan` with a rematerialisation policy; the one file that mentions it.

Reverse mode through a scan stores what each step computed. Rematerialising a step
stores its carry alone and computes the step again on the way back, so that the
memory of an unroll grows by one carry a step (Chen et al. 2016, arXiv 1604.06174).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax

from distilljax.types import InputError

Remat = Literal["none", "step", "nested"]
GRADIENT = "gradient"  # see `scan`


def scan(
    body: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any,
    *,
    remat: Remat = "step",
) -> tuple[Any, Any]:
    """`jax.lax.scan(body, carry, xs)` whose reverse pass is told what to keep.

    Values and derivatives of every order do not depend on the policy. What `body` gives
    the name `GRADIENT` (`jax.ad_checkpoint.checkpoint_name`) is stored beside the carry,
    if the reverse pass needs it: the derivative by a learning rate is a product with the
    gradient of the step, which would have to be computed once more.

    Args:
      body: (carry, x) -> (carry, y).
      carry: a pytree.
      xs: a pytree of arrays with one leading axis, T.
      remat: `none` keeps all intermediate values of all T steps; `step` keeps the
        T carries and computes every step twice; `nested` keeps about 2 sqrt(T)
        carries and computes every step three times.

    Raises:
      InputError: an unknown policy.
    """
    if remat not in get_args(Remat):
        raise InputError(f"remat={remat!r}: expected one of {', '.join(get_args(Remat))}")
    if remat == "none":
        return jax.lax.scan(body, carry, xs)
    # Inside a scan no common subexpression spans two iterations.
    checkpoint = functools.partial(jax.checkpoint, prevent_cse=False)
    kept = jax.checkpoint_policies.save_only_these_names(GRADIENT)
    step = checkpoint(body, policy=kept)
    num_steps = jax.tree.leaves(xs)[0].shape[0]
    if remat == "step" or num_steps < 4:
        return jax.lax.scan(step, carry, xs)

    length = round(math.sqrt(num_steps))
    whole = num_steps // length * length
    segments = jax.tree.map(
        lambda x: x[:whole].reshape(whole // length, length, *x.shape[1:]), xs
    )
    carry, ys = jax.lax.scan(
        checkpoint(lambda c, segment: jax.lax.scan(step, c, segment)), carry, segments
    )
    ys = jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), ys)
    if whole == num_steps:
        return carry, ys
    carry, rest = jax.lax.scan(step, carry, jax.tree.map(lambda x: x[whole:], xs))
    return carry, jax.tree.map(lambda a, b: jax.numpy.concatenate([a, b]), ys, rest)
