"""Ridge regression by a linearised network, without its kernel.

The network is replaced by its tangent J(x) t at `params`, for a change t of the parameters
and with its initial output taken off. Training that to the end, with weight decay, is
kernel ridge regression with the empirical NTK (`ntk.empirical_ntk(..., form="full")`),
n k by n k numbers for n images and b k by n k for b others. Here the kernel is only
multiplied: a forward and a backward pass of the n images for each iteration of the solver,
and a forward one of the b.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from distilljax import checks, varying
from distilljax.core import inner, scan
from distilljax.types import Array, InputError, Params

_PRECISE = jax.lax.Precision.HIGHEST


def linearised_ridge(
    apply: Callable[[Params, Array], Array],
    params: Params,
    images: Array,
    targets: Array,
    others: Array,
    *,
    ridge: Array | float,
    num_iters: int = 20,
    features: Callable[[Params, Array], Array] | None = None,
    chunk: int | None = None,
) -> Array:
    """Returns what a linearised network predicts after training to the end, f32[b, k].

    J(others) t with t the minimum of |J(images) t - targets|^2 + ridge |t|^2, by
    preconditioned conjugate gradients on (J J^T + ridge I) a = targets, t = J^T a. The
    derivative is the implicit one, by a second solve of as many iterations, so its memory
    does not grow with them (RCIG, Loo et al. 2023, arXiv 2302.06755: their exact solution
    for the last layer is the preconditioner here).

        >>> import jax.numpy as jnp
        >>> from distilljax.core import regression
        >>> def apply(params, x):
        ...     return x @ params
        >>> x, y = jnp.eye(3), jnp.array([[1.0], [2.0], [3.0]])
        >>> params = jnp.zeros((3, 1))
        >>> regression.linearised_ridge(apply, params, x, y, x, ridge=1.0).ravel()
        Array([0.5, 1. , 1.5], dtype=float32)

    Args:
      apply: (params, images) -> f32[n, k].
      params: where the network is linearised.
      images: f32[n, ...], what is trained on.
      targets: f32[n, k].
      others: f32[b, ...], where predictions are made.
      ridge: weight decay, absolute, above zero.
      num_iters: the most iterations of the solver.
      features: (params, images) -> f32[n, d], last features of the network; the inverse of
        their kernel plus ridge is the preconditioner. None for none.
      chunk: how many of `others` at once; None for a number that suits the processor.

    Raises:
      InputError: targets that do not fit, a ridge that is not above zero, or no iterations.
    """
    if not isinstance(ridge, jax.core.Tracer) and not ridge > 0:
        raise InputError(
            f"ridge={ridge}: above zero is needed, or nothing has one solution"
        )
    num_iters = checks.positive(num_iters, "num_iters", "at least one is needed")
    if chunk is not None:
        chunk = checks.positive(chunk, "chunk")
    targets = jnp.asarray(targets, jnp.result_type(targets, jnp.float32))
    params, images, targets, others = varying.alike((params, images, targets, others))
    outputs, push = jax.linearize(lambda p: apply(p, images), params)
    if outputs.shape != targets.shape:
        raise InputError(
            f"targets {list(targets.shape)} of a network whose outputs are "
            f"{list(outputs.shape)}"
        )
    pull = jax.linear_transpose(push, params)

    def product(a: Array) -> Array:
        return push(pull(a)[0]) + ridge * a

    inverse = _preconditioner(features, params, images, ridge)
    least = float(jnp.finfo(targets.dtype).eps)
    solved, _ = cg(product, targets, tol=least, maxiter=num_iters, M=inverse)
    change = pull(solved)[0]
    num = len(others)
    parts = inner.filled(others, chunk or inner.cache_chunk(num, params) or num)

    def predicted(carry: Array, x: Array) -> tuple[Array, Array]:
        return carry, jax.jvp(lambda p: apply(p, x), (params,), (change,))[1]

    _, found = scan.scan(predicted, jnp.zeros(()), parts, remat="step")
    return found.reshape(-1, targets.shape[1])[:num]


def _preconditioner(
    features: Callable[[Params, Array], Array] | None,
    params: Params,
    images: Array,
    ridge: Array | float,
) -> Callable[[Array], Array] | None:
    if features is None:
        return None
    found = jax.lax.stop_gradient(features(params, images))
    gram = jnp.matmul(found, found.T, precision=_PRECISE)
    factor = jax.scipy.linalg.cho_factor(gram + ridge * jnp.eye(len(gram)), lower=True)
    return lambda a: jax.scipy.linalg.cho_solve(factor, a)
