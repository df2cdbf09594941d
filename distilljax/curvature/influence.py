"""Influence functions: the effect of leaving an image out, without retraining.

The loss without image j is L_-j = (n L - l_j) / (n - 1), for L the mean of the losses l_i
of n images. So at any weights, converged or not,

    grad L_-j = grad L - (g_j - g) / (n - 1),    g_j = grad l_j, g = mean_i g_i,

also if both losses include weight decay. A fixed curvature C maps this change of the
gradient to a change of the weights,

    delta_j = (C + damping I)^-1 (g_j - g) / (n - 1),

the difference between a Newton step on L_-j and one on L, damped by
damping/2 || step ||^2. The test loss of x then changes by grad l_x . delta_j.

Relation to retraining:

- At a minimum of L (with weight decay, if any), with C its Hessian and no damping: the
  effect to first order in 1/n, and to that order delta_j = -(1/n) I_up,params(z_j) of Koh &
  Liang 2017 (arXiv 1703.04730, section 2.1).
- With the curvature of L_-j in place of C (`without`): a full Newton step on L_-j, exact
  for quadratic losses. The two differ most for small sets, where an image contributes much
  of the curvature along its own gradient.
- Away from a minimum the change of the gradient is exact, but the remaining step on L is
  assumed to be the same on L_-j, although C, g_j and g would change along it. Damping keeps
  both steps short. It resembles early stopping: after time T = learning rate * steps /
  (1 - momentum), the response of a quadratic to a constant change of its gradient along an
  eigenvalue c is (1 - exp(-c T)) / c instead of 1 / c; with damping 1 / T it is
  1 / (c + 1 / T).

Departures: Koh & Liang weight the remaining losses by 1/n, here the weights are
1 / (n - 1); they assume a minimum, with weight decay included in each l_i.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from distilljax import checks, exported, varying
from distilljax.curvature.estimators import MatVec, Vector
from distilljax.curvature.hessian import num_examples
from distilljax.types import Array, InputError, Params

Losses = Callable[[Params, Any], Array]  # parameters, data of b examples -> f32[b]

# x, residual, direction, squared residual, iterations, whether the curvature is positive.
_State = tuple[Vector, Vector, Vector, Array, Array, Array]


@exported.named
class Solve(NamedTuple):
    """Convergence of a linear solve.

    Attributes:
      residual: f32[...], || rhs - A x || / || rhs ||, recomputed at the end.
      num_iters: i32[...].
      converged: bool[...], whether the residual is within the tolerance.
    """

    residual: Array
    num_iters: Array
    converged: Array


@exported.named
class Influence(NamedTuple):
    """Estimated effects of leaving images out.

    Attributes:
      changes: f32[m, t], change of test losses; positive where the image helped.
      solve: [m].
    """

    changes: Array
    solve: Solve


def conjugate_gradients(
    matvec: MatVec, rhs: Vector, *, tolerance: float = 1e-4, max_iters: int = 100
) -> tuple[Vector, Solve]:
    """Solves A x = rhs for a symmetric positive definite A, from x = 0.

    It stops within the tolerance, after `max_iters`, at a direction of non-positive
    curvature, or at a value that is not finite; only the first is convergence.

    Departures: the residual of the recursion drifts from the true one by rounding, so the
    iteration runs to half the tolerance. The solver of jax.scipy does not report how it
    ended.

    >>> found, how = influence.conjugate_gradients(lambda v: 2 * v, jnp.ones(2))
    >>> found.tolist(), bool(how.converged)
    ([0.5, 0.5], True)

    Args:
      matvec: v -> A v.
      rhs: a pytree.
      tolerance: maximum || rhs - A x || / || rhs ||.
      max_iters: maximum number of products with A; one more checks the residual.

    Returns:
      x, and the convergence.
    """
    size = optax.tree.norm(rhs)
    size = jnp.where(size > 0, size, 1.0)

    def unfinished(state: _State) -> Array:
        *_, square, count, upwards = state
        far = jnp.sqrt(square) > 0.5 * tolerance * size
        return far & upwards & (count < max_iters)

    def step(state: _State) -> _State:
        x, residual, direction, square, count, _ = state
        product = matvec(direction)
        curvature = optax.tree.vdot(direction, product)
        upwards = curvature > 0
        length = jnp.where(upwards, square / curvature, 0.0)
        x = optax.tree.add_scale(x, length, direction)
        residual = optax.tree.add_scale(residual, -length, product)
        new_square = optax.tree.vdot(residual, residual)
        direction = optax.tree.add_scale(residual, new_square / square, direction)
        return x, residual, direction, new_square, count + 1, upwards

    zero, none = optax.tree.zeros_like(rhs), jnp.int32(0)
    square = optax.tree.vdot(rhs, rhs)
    x, *_, count, _ = varying.while_loop(
        unfinished, step, (zero, rhs, rhs, square, none, jnp.bool_(True))
    )
    residual = optax.tree.norm(optax.tree.sub(rhs, matvec(x))) / size
    return x, Solve(residual, count, residual <= tolerance)


def influence_function(
    matvec: MatVec,
    losses: Losses,
    params: Params,
    train: Any,
    test_losses: Losses,
    test: Any,
    *,
    damping: Array | float,
    positions: Array | None = None,
    without: Callable[[Array], MatVec] | None = None,
    tolerance: float = 1e-4,
    max_iters: int = 100,
    chunk: int = 500,
    together: int = 1,
) -> Influence:
    """Estimates each test loss without a training image minus that with it.

    grad l_x . (C + damping I)^-1 (g_j - g) / (n - 1), see the module docstring; one linear
    solve and one forward-mode pass over the test set for each image j.

    >>> def losses(w, x):
    ...     return (x - w) ** 2 / 2
    ...
    >>> points = jnp.array([0.0, 1.0, 5.0])
    >>> found = influence.influence_function(
    ...     lambda v: v, losses, jnp.array(2.0), points, losses, jnp.array([4.0]),
    ...     damping=0.0)
    >>> jnp.round(found.changes, 3).tolist()
    [[-2.0], [-1.0], [3.000000238418579]]

    Args:
      matvec: v -> C v, the Hessian or Gauss-Newton matrix of the mean loss of all training
        images at `params`, including weight decay, if any.
      losses: the loss of each training example, without weight decay; it must not depend
        on other examples.
      params: the trained weights.
      train: a pytree of arrays with leading axis n; differentiated in one pass.
      test_losses: the loss of each test example; it may include preprocessing.
      test: a pytree of arrays with leading axis t.
      damping: added to the curvature, in absolute units (loss per squared weight). The
        Hessian of a network has negative eigenvalues; with smaller damping than their
        magnitude the solve may fail.
      positions: i32[m], training examples to leave out, one at a time; None for all.
        A list or a number is taken too.
      without: j -> (v -> C_-j v), the curvature of the mean loss without example j; used
        in place of `matvec` for a full Newton step.
      tolerance: see `conjugate_gradients`.
      max_iters: see `conjugate_gradients`.
      chunk: test examples computed at a time.
      together: training examples vmapped at a time (`batch_size` of `jax.lax.map`).

    Returns:
      The changes, and for each example the convergence of its solve: without convergence
      the changes are those of the last iterate.

    Raises:
      InputError: leading axes that differ, fewer than two training examples, a negative
        damping, losses that are not one for each example, positions that are not there
        (where they are not traced).
    """
    num, num_test = num_examples(train), num_examples(test)
    if num < 2:
        raise InputError("train has 1 example: leaving it out would leave none; give more")
    chunk = checks.positive(chunk, "chunk", "give at least one test example")
    together = checks.positive(together, "together")
    if isinstance(damping, float | int) and damping < 0:
        raise InputError(f"damping={damping}: must not be negative")
    train, test = jax.tree.map(jnp.asarray, (train, test))  # traced positions index them
    checks.floating(params)
    params = checks.at_least_float32(params)
    if positions is None:
        positions = jnp.arange(num)
    positions = checks.indices(positions, num, "positions")
    chunk = min(chunk, num_test)
    num_chunks = -(-num_test // chunk)

    def in_chunks(x: Array) -> Array:
        pad = ((0, num_chunks * chunk - num_test), *((0, 0),) * (x.ndim - 1))
        return jnp.pad(x, pad, mode="edge").reshape(num_chunks, chunk, *x.shape[1:])

    pieces = jax.tree.map(in_chunks, test)
    _per_example(losses, params, train, num, "losses")
    first = jax.tree.map(lambda x: x[0], pieces)
    _per_example(test_losses, params, first, chunk, "test_losses")
    mean_gradient = varying.grad(lambda p: losses(p, train).mean())(params)

    def one(j: Array) -> tuple[Array, Solve]:
        example = jax.tree.map(lambda x: x[j][None], train)
        gradient = varying.grad(lambda p: losses(p, example).sum())(params)
        curvature = matvec if without is None else without(j)
        rhs = jax.tree.map(lambda a, b: (a - b) / (num - 1), gradient, mean_gradient)
        change, solve = conjugate_gradients(
            lambda v: optax.tree.add_scale(
                checks.at_least_float32(curvature(v)), damping, v
            ),
            rhs,
            tolerance=tolerance,
            max_iters=max_iters,
        )

        def slopes(piece: Any) -> Array:
            with checks.derivatives(
                "the derivative of test_losses, forward,",
                "use jax.custom_jvp in place of custom_vjp",
            ):
                return varying.jvp(lambda p: test_losses(p, piece), params, change)[1]

        return jax.lax.map(slopes, pieces).reshape(-1)[:num_test], solve

    batch_size = together if together > 1 else None
    return Influence(*jax.lax.map(one, positions, batch_size=batch_size))


def _per_example(losses: Losses, params: Params, data: Any, num: int, what: str) -> None:
    found = jax.eval_shape(losses, params, data)
    shape = getattr(found, "shape", None)
    if shape != (num,):
        shown = type(found).__name__ if shape is None else list(shape)
        raise InputError(
            f"{what} returned {shown} for {num} examples; expected [{num}], the loss of "
            "each example, not their mean"
        )
