"""`lax.scan` with a rematerialisation policy.

Reverse mode through a scan stores the intermediate values of each step. Rematerialisation
stores the carry alone and recomputes the step in the reverse pass, so that memory grows by
one carry per step (Chen et al. 2016, arXiv 1604.06174).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh

from distilljax import devices, varying
from distilljax.types import Array, InputError

Remat = Literal["none", "step", "nested"]
GRADIENT = "gradient"  # see `scan`


def scan(
    body: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any,
    *,
    remat: Remat = "step",
) -> tuple[Any, Any]:
    """Runs `jax.lax.scan(body, carry, xs)` with a rematerialisation policy.

    Values and derivatives of every order are independent of the policy. Values that `body`
    names `GRADIENT` (`jax.ad_checkpoint.checkpoint_name`) are stored with the carry if the
    reverse pass needs them: the derivative with respect to a learning rate is a product
    with the gradient of the step, which would otherwise be recomputed.

    >>> total, before = scan.scan(
    ...     lambda carry, x: (carry + x, carry), jnp.zeros(()), jnp.arange(3.0))
    >>> float(total), before.tolist()
    (3.0, [0.0, 0.0, 1.0])

    Args:
      body: (carry, x) -> (carry, y).
      carry: a pytree.
      xs: a pytree of arrays with one leading axis, T.
      remat: `none` stores all intermediate values of all T steps; `step` stores the T
        carries and computes every step twice; `nested` stores about 2 sqrt(T) carries and
        computes every step three times.

    Raises:
      InputError: an unknown policy.
    """
    if remat not in get_args(Remat):
        raise InputError(f"remat={remat!r}: expected one of {', '.join(get_args(Remat))}")
    if remat == "none":
        return varying.scan(body, carry, xs)
    # prevent_cse=False: inside a scan no common subexpression spans two iterations.
    checkpoint = functools.partial(jax.checkpoint, prevent_cse=False)
    kept = jax.checkpoint_policies.save_only_these_names(GRADIENT)
    step = checkpoint(body, policy=kept)
    num_steps = jax.tree.leaves(xs)[0].shape[0]
    if remat == "step" or num_steps < 4:
        return varying.scan(step, carry, xs)

    length = round(math.sqrt(num_steps))
    whole = num_steps // length * length
    segments = jax.tree.map(
        lambda x: x[:whole].reshape(whole // length, length, *x.shape[1:]), xs
    )
    carry, ys = varying.scan(
        checkpoint(lambda c, segment: varying.scan(step, c, segment)), carry, segments
    )
    ys = jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), ys)
    if whole == num_steps:
        return carry, ys
    carry, rest = varying.scan(step, carry, jax.tree.map(lambda x: x[whole:], xs))
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, rest)


def pieces(tree: Any, size: int | None) -> Any:
    """Reshapes leaves [n, ...] to [n / size, size, ...]; `size` divides n, None for n.

    >>> scan.pieces(np.arange(4), 2).tolist()
    [[0, 1], [2, 3]]
    """
    return jax.tree.map(lambda x: x.reshape(-1, size or len(x), *x.shape[1:]), tree)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def summed(function: Callable[[Any, Any], Array], shared: Any, xs: Any) -> Array:
    """Returns sum_i function(shared, xs[i]), differentiated term by term.

    Differentiation computes the gradient of each term together with its value, before the
    next term, while the intermediate values are still in the cache; only gradients are
    stored. Works in forward and reverse mode and for every order.

    >>> float(scan.summed(lambda w, x: w * x**2, 2.0, jnp.arange(4.0)))
    28.0

    Args:
      function: (shared, x) -> f32[]. It must not close over differentiated values.
      shared: a pytree.
      xs: a pytree of arrays with one leading axis.
    """

    def add(total: Array, x: Any) -> tuple[Array, None]:
        return total + function(shared, x), None

    return varying.scan(add, _zero(function, shared, xs), xs)[0]


def _summed_with_gradient(
    function: Callable[[Any, Any], Array], primals: Any, tangents: Any
) -> tuple[Array, Array]:
    moves = jax.tree.map(lambda t: not isinstance(t, SymbolicZero), tangents)
    moving = jax.tree.map(lambda m, p: p if m else None, moves, primals)
    resting = jax.tree.map(lambda m, p: None if m else p, moves, primals)

    def add(carry: Any, x: Any) -> Any:
        total, so_far = carry
        x_moving, x_resting = x

        def term(shared: Any, x: Any) -> Array:
            return function(_both(shared, resting[0]), _both(x, x_resting))

        value, (by_shared, by_x) = varying.value_and_grad(term, (0, 1))(moving[0], x_moving)
        return (total + value, jax.tree.map(jnp.add, so_far, by_shared)), by_x

    carry = _zero(function, *primals), jax.tree.map(jnp.zeros_like, moving[0])
    (total, by_shared), by_x = varying.scan(add, carry, (moving[1], resting[1]))
    directions = [t for t in jax.tree.leaves(tangents) if not isinstance(t, SymbolicZero)]
    grads = jax.tree.leaves((by_shared, by_x))
    each = [jnp.sum(g * t) for g, t in zip(grads, directions, strict=True)]
    return total, functools.reduce(jnp.add, each).astype(total.dtype)


summed.defjvp(_summed_with_gradient, symbolic_zeros=True)


def _both(moving: Any, resting: Any) -> Any:
    """Merges differentiated and constant leaves."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, moving, resting, is_leaf=lambda x: x is None
    )


def spread_sum(
    function: Callable[[Any, Any, Array], Array],
    shared: Any,
    xs: Any,
    over: Mesh | None,
    *,
    together: int,
) -> Array:
    """Returns a sum over xs like `summed`, of which each device of a mesh does its share.

    >>> def function(w, xs, counts):
    ...     return w * jnp.sum(xs**2 * counts)
    ...
    >>> float(scan.spread_sum(function, 2.0, jnp.arange(4.0), None, together=2))
    28.0

    Args:
      function: (shared, group of xs, counts) -> f32[], the sum over those xs of the group
        that count, bool[g]. It must not close over differentiated values.
      shared: a pytree.
      xs: a pytree of arrays with one leading axis n.
      over: mesh of one axis; None for one device.
      together: size of a group, a divisor of the share of a device, ceil(n / devices).
    """

    def share(shared: Any, xs: Any, counts: Array) -> Array:
        def group(shared: Any, given: tuple[Any, Array]) -> Array:
            return function(shared, *given)

        return summed(group, shared, pieces((xs, counts), together))

    if over is None:
        num = jax.tree.leaves(xs)[0].shape[0]
        return share(shared, xs, jnp.ones(num, bool))
    return devices.added(share, shared, xs, over)


def _zero(function: Callable[[Any, Any], Array], shared: Any, xs: Any) -> Array:
    first = jax.tree.map(lambda x: x[0], xs)
    found = jax.eval_shape(function, shared, first)
    return jnp.zeros(found.shape, found.dtype)
