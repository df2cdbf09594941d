"""Estimators of a symmetric matrix A that is known only by its products.

A `matvec` maps a pytree of float arrays to one like it, linearly; nothing else is known
of it, so that the same functions serve Hessians, Gauss-Newton matrices and kernels.
Random figures are `Estimate`s: the mean over independent probes, its standard error,
and their number. The same key gives the same probes: figures along a training run that
share a key (common random numbers) differ by what changed, not by the probes.

Sums are kept in float32 at least. Lanczos needs directions finer than half precision: where
`like` is of half precision, its matvec is given float32 vectors (`hessian.hvp` takes them).

The standard error of a trace by one Rademacher probe is sqrt(2 sum_{i != j} A_ij^2), by
a Gaussian one sqrt(2) |A|_F; Rademacher is never the larger (Hutchinson 1990; Avron &
Toledo 2011).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from distilljax import checks
from distilljax.types import Array, Estimate, InputError, Key

Vector = Any  # a pytree of float arrays
MatVec = Callable[[Vector], Vector]
Kind = Literal["rademacher", "gaussian"]


class Eigenpairs(NamedTuple):
    """Some eigenvalues of a symmetric matrix, the largest first."""

    values: Array  # f32[r]
    residuals: Array  # f32[r], |A v - value v|: an eigenvalue lies this near, or nearer
    vectors: Vector  # leaves f32[r, ...], of length one


class SpectralDensity(NamedTuple):
    """The distribution of eigenvalues, a quadrature rule for each probe.

    The mean of f(eigenvalue) is estimated by sum_j weights[i, j] f(nodes[i, j]), which
    for a polynomial f of degree up to 2m - 1 is what Hutchinson's estimate gives.
    """

    nodes: Array  # f32[probes, m], where: eigenvalues of Lanczos's matrices
    weights: Array  # f32[probes, m], how much; rows sum to one


def check_probes(num_probes: int, kind: str = "rademacher") -> None:
    """Refuses what no estimate can be made of.

    Raises:
      InputError: fewer than one probe, or an unknown kind.
    """
    if num_probes < 1:
        raise InputError(f"num_probes={num_probes}: an estimate needs at least one probe")
    if kind not in get_args(Kind):
        expected = " or ".join(get_args(Kind))
        raise InputError(f"probes of kind {kind!r}: expected {expected}")


def dot(x: Vector, y: Vector) -> Array:
    """The inner product over all leaves, f32[]."""
    return sum(
        (
            jnp.vdot(a, b)
            for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
        ),
        start=jnp.zeros(()),
    )


def probe(key: Key, like: Vector, kind: Kind = "rademacher") -> Vector:
    """A random vector shaped like `like` with E[v v^T] = I."""
    flat, unravel = ravel_pytree(like)
    draw = jax.random.rademacher if kind == "rademacher" else jax.random.normal
    return unravel(draw(key, flat.shape, flat.dtype))


def summarise(values: Array, of: str) -> Estimate:
    """The mean over the leading axis, with its standard error.

    Args:
      values: f32[m, ...], independent and of the same mean.
      of: what that mean is, in words.

    Raises:
      InputError: outside jit, a mean that is not finite, see `require_finite`.
    """
    num = values.shape[0]
    mean = values.mean(axis=0)
    error = values.std(axis=0, ddof=1) / num**0.5 if num > 1 else mean * jnp.nan
    return _checked(Estimate(mean, error, jnp.asarray(num, jnp.int32), of))


def _checked(estimate: Estimate) -> Estimate:
    if not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(estimate)):
        require_finite(estimate)
    return estimate


def require_finite(estimate: Estimate) -> None:
    """Refuses an estimate that is not finite; for callers of jitted functions.

    Raises:
      InputError: a value is NaN or infinite.
    """
    if not all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(estimate.value)):
        raise InputError(
            f"the {estimate.of} is not finite: the loss or its derivatives hold NaN or "
            "infinity at these parameters; train with a lower learning rate, or look for "
            "NaN in the data"
        )


def quadratic_form(matvec: MatVec) -> Callable[[Vector], Array]:
    """The function v -> v^T A v, f32[]."""
    return lambda v: dot(v, matvec(v))


def sampled_mean(
    sample: Callable[[Key], Array],
    key: Key,
    *,
    num_probes: int,
    together: int = 1,
    of: str,
) -> Estimate:
    """The mean of sample(key_i) over independent keys.

    Args:
      sample: key -> f32[...]; one probe's unbiased figure.
      key: settles the keys; more probes keep those that fewer would have used.
      num_probes: how many.
      together: how many are computed side by side.
      of: what is estimated, in words.

    Raises:
      InputError: fewer than one probe; outside jit, a mean that is not finite.
    """
    check_probes(num_probes)
    values = jax.lax.map(
        lambda i: sample(jax.random.fold_in(key, i)),
        jnp.arange(num_probes),
        batch_size=together if together > 1 else None,
    )
    return summarise(values, of)


def sampled_mean_to(
    sample: Callable[[Key], Array],
    key: Key,
    *,
    relative_error: float,
    pilot: int = 10,
    max_probes: int = 10_000,
    of: str,
) -> Estimate:
    """As `sampled_mean`, to a standard error that is asked for, in two stages (Stein 1945).

    A pilot of a few probes tells their spread; from it follows, once, how many are
    needed in all. A rule that stops when the running mean stands still favours some
    means over others; this one looks at the spread and at the size of the pilot's mean.

    Args:
      sample: key -> f32[]; one probe's unbiased figure.
      key: settles the keys, the same as those of `sampled_mean`.
      relative_error: the standard error wanted, as a share of the pilot's mean.
      pilot: probes of the first stage, at least two.
      max_probes: no more than these in all; the standard error tells what was reached.
      of: what is estimated, in words.

    Raises:
      InputError: a pilot of one, no room after it, or an error of zero or less; outside
        jit, a mean that is not finite.
    """
    if pilot < 2 or max_probes < pilot or relative_error <= 0:
        raise InputError(
            f"pilot={pilot}, max_probes={max_probes}, relative_error={relative_error}: "
            "expected 2 <= pilot <= max_probes and an error above zero"
        )

    def one(i: Array) -> Array:
        return sample(jax.random.fold_in(key, i))

    first = jax.lax.map(one, jnp.arange(pilot))
    needed = first.var(ddof=1) / jnp.square(relative_error * first.mean())
    num = jnp.clip(jnp.nan_to_num(jnp.ceil(needed), nan=pilot), pilot, max_probes)
    num = num.astype(jnp.int32)

    def more(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        mean, squares = sums
        value = one(i)
        gap = value - mean
        mean = mean + gap / (i + 1)
        return mean, squares + gap * (value - mean)

    start = first.mean(), jnp.square(first - first.mean()).sum()
    mean, squares = jax.lax.fori_loop(pilot, num, more, start)
    return _checked(Estimate(mean, jnp.sqrt(squares / (num - 1) / num), num, of))


def hutchinson_trace(
    matvec: MatVec,
    key: Key,
    like: Vector,
    *,
    num_probes: int,
    kind: Kind = "rademacher",
    together: int = 1,
    of: str = "trace",
) -> Estimate:
    """The trace of A as the mean of v^T A v over random v (Hutchinson 1990).

    Unbiased for every square matrix, indefinite ones too.

    Args:
      matvec: the products of A.
      key: settles the probes; more probes keep those that fewer would have used.
      like: a vector of A's space; its values do not matter.
      num_probes: how many.
      kind: of probes.
      together: how many products are computed side by side.
      of: what is estimated, in words.

    Raises:
      InputError: fewer than one probe, or an unknown kind; outside jit, a trace that is
        not finite.
    """
    check_probes(num_probes, kind)
    form = quadratic_form(matvec)
    return sampled_mean(
        lambda key: form(probe(key, like, kind)),
        key,
        num_probes=num_probes,
        together=together,
        of=of,
    )


def deflated_trace(
    matvec: MatVec,
    key: Key,
    like: Vector,
    *,
    num_products: int,
    kind: Kind = "rademacher",
    of: str = "trace",
) -> Estimate:
    """The trace by Hutch++ (Meyer, Musco, Musco & Woodruff 2021, arXiv 2010.09649).

    A third of the products finds where A is large (the range Q of A on random vectors), a
    third gives the trace on Q exactly, a third estimates the rest by Hutchinson. Unbiased
    for every symmetric matrix, indefinite ones too, since Q does not depend on the last
    probes; better than Hutchinson where a few eigenvalues stand out, as in a Hessian.

    Args:
      matvec: the products of A.
      key: settles the probes.
      like: a vector of A's space.
      num_products: matrix-vector products in all, a multiple of three.
      kind: of probes.
      of: what is estimated, in words.

    Returns:
      The estimate; `num_probes` counts the last third, whose spread is the error.

    Raises:
      InputError: a number of products that is not a multiple of three, or under six.
    """
    if num_products < 6 or num_products % 3:
        raise InputError(
            f"num_products={num_products}: Hutch++ divides its products in three parts of "
            "at least two; give 6, 9, 12, ..."
        )
    check_probes(num_products, kind)
    rank = num_products // 3
    range_key, rest_key = jax.random.split(key)
    matvec = _single_precision(matvec, like)
    like = checks.at_least_float32(like)
    unravel = ravel_pytree(like)[1]

    def product(v: Array) -> Array:
        return ravel_pytree(checks.at_least_float32(matvec(unravel(v))))[0]

    def draw(key: Key) -> Array:
        return ravel_pytree(probe(key, like, kind))[0]

    images = jax.lax.map(lambda key: product(draw(key)), jax.random.split(range_key, rank))
    basis = jnp.linalg.qr(images.T)[0].T
    on_basis = jax.lax.map(lambda v: v @ product(v), basis).sum()

    def rest(key: Key) -> Array:
        v = _reject(draw(key), basis)
        return on_basis + v @ product(v)

    return summarise(jax.lax.map(rest, jax.random.split(rest_key, rank)), of)


def _reject(v: Array, basis: Array) -> Array:
    """What of v lies outside the span of the orthonormal rows of `basis`."""
    return v - (basis @ v) @ basis


def block_traces(
    matvec: MatVec, key: Key, like: Vector, *, num_probes: int
) -> dict[str, Estimate]:
    """The trace of each diagonal block of A, one for each leaf; they add up to its trace.

    All blocks share their products: v restricted to a block times (A v) restricted to it.

    Args:
      matvec: the products of A.
      key: settles the Rademacher probes.
      like: a vector of A's space.
      num_probes: how many.

    Returns:
      Path of the leaf, such as backbone/Conv_0/kernel -> estimate.

    Raises:
      InputError: fewer than one probe.
    """

    def form(v: Vector) -> Array:
        return jnp.stack(jax.tree.leaves(jax.tree.map(jnp.vdot, v, matvec(v))))

    whole = sampled_mean(
        lambda key: form(probe(key, like)), key, num_probes=num_probes, of="block traces"
    )
    paths = [
        "/".join(str(getattr(part, "key", getattr(part, "idx", part))) for part in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(like)
    ]
    return {
        path: Estimate(
            whole.value[i], whole.standard_error[i], whole.num_probes, f"trace, {path}"
        )
        for i, path in enumerate(paths)
    }


def diagonal(matvec: MatVec, key: Key, like: Vector, *, num_probes: int) -> Estimate:
    """The diagonal of A as the mean of v * (A v) over Rademacher v (Bekas et al. 2007).

    Memory does not grow with the number of probes.

    Returns:
      An estimate whose value and standard error are vectors like `like`, in float32 where
      it is of half precision.

    Raises:
      InputError: fewer than one probe.
    """
    check_probes(num_probes)

    def body(sums: tuple[Array, Vector, Vector], key: Key) -> tuple[Any, None]:
        count, mean, squares = sums
        v = probe(key, like)
        sample = checks.at_least_float32(jax.tree.map(jnp.multiply, v, matvec(v)))
        gap = jax.tree.map(jnp.subtract, sample, mean)
        mean = jax.tree.map(lambda m, g: m + g / (count + 1), mean, gap)
        squares = jax.tree.map(
            lambda s, g, x, m: s + g * (x - m), squares, gap, sample, mean
        )
        return (count + 1, mean, squares), None

    like = jax.tree.map(jnp.asarray, like)
    zeros = jax.tree.map(jnp.zeros_like, checks.at_least_float32(like))
    start = (jnp.zeros((), jnp.float32), zeros, zeros)
    (_, mean, squares), _ = jax.lax.scan(body, start, jax.random.split(key, num_probes))
    error = jax.tree.map(
        lambda s: (
            jnp.sqrt(s / (num_probes - 1) / num_probes) if num_probes > 1 else s * jnp.nan
        ),
        squares,
    )
    return Estimate(mean, error, jnp.asarray(num_probes, jnp.int32), "diagonal")


class Tridiagonal(NamedTuple):
    """What Lanczos finds: Q^T A Q = T, with Q's rows orthonormal."""

    diag: Array  # f32[m]
    offdiag: Array  # f32[m]; the last one leads out of the space that was seen
    basis: Array  # f32[m, p], in the order of `jax.flatten_util.ravel_pytree`


def lanczos(matvec: MatVec, start: Vector, *, num_iters: int) -> Tridiagonal:
    """Lanczos's iteration with full reorthogonalisation (Lanczos 1950; Parlett 1980).

    Memory is `num_iters` vectors. If the space closes early (an invariant subspace), the
    iteration goes on in a random direction outside it, with an off-diagonal of zero.

    Args:
      matvec: the products of A, symmetric.
      start: the first direction, not zero.
      num_iters: m, at most the dimension of the space.

    Raises:
      InputError: fewer than one iteration, or more than the dimension; a matvec that
        refuses float32 vectors, for a start of half precision.
    """
    matvec = _single_precision(matvec, start)
    first, unravel = ravel_pytree(checks.at_least_float32(start))
    size = first.size
    if not 1 <= num_iters <= size:
        raise InputError(f"num_iters={num_iters}: must lie in 1..{size}, the dimension")

    def body(
        carry: tuple[Array, Array, Array], i: Array
    ) -> tuple[tuple[Array, Array, Array], tuple[Array, Array]]:
        basis, v, scale = carry
        basis = basis.at[i].set(v)
        image = ravel_pytree(matvec(unravel(v)))[0].astype(first.dtype)
        alpha = v @ image
        rest = _reject(_reject(image, basis), basis)
        beta = jnp.linalg.norm(rest)
        scale = jnp.maximum(scale, jnp.abs(alpha) + beta)
        closed = beta <= 10 * jnp.finfo(first.dtype).eps * scale

        def elsewhere() -> Array:
            key = jax.random.fold_in(jax.random.key(0), i)
            v = jax.random.normal(key, first.shape, first.dtype)
            return _reject(_reject(v, basis), basis)

        following = jax.lax.cond(closed, elsewhere, lambda: rest)
        following = following / jnp.linalg.norm(following)
        return (basis, following, scale), (alpha, jnp.where(closed, 0, beta))

    basis = jnp.zeros((num_iters, size), first.dtype)
    carry = (basis, first / jnp.linalg.norm(first), jnp.zeros((), first.dtype))
    (basis, _, _), (diag, offdiag) = jax.lax.scan(body, carry, jnp.arange(num_iters))
    return Tridiagonal(diag, offdiag, basis)


def _single_precision(matvec: MatVec, like: Vector) -> MatVec:
    """Checks that products are there of float32 vectors, where `like` is of half precision.

    Raises:
      InputError: they are not.
    """
    wide = checks.at_least_float32(like)
    if any(
        a.dtype != jnp.result_type(b)
        for a, b in zip(jax.tree.leaves(wide), jax.tree.leaves(like), strict=True)
    ):
        try:
            jax.eval_shape(matvec, wide)
        except TypeError as error:
            raise InputError(
                "the matvec refuses float32 vectors, which half-precision parameters need "
                "here: make it with hessian.hvp, or convert the parameters to float32"
            ) from error
    return matvec


def _decompose(t: Tridiagonal) -> tuple[Array, Array]:
    """Eigenvalues, ascending, and eigenvectors (columns) of the tridiagonal matrix."""
    dense = jnp.diag(t.diag) + jnp.diag(t.offdiag[:-1], 1) + jnp.diag(t.offdiag[:-1], -1)
    return jnp.linalg.eigh(dense)


def extreme_eigenpairs(
    matvec: MatVec, key: Key, like: Vector, *, top: int = 1, bottom: int = 0, num_iters: int
) -> Eigenpairs:
    """The largest and the smallest eigenvalues by Lanczos.

    Args:
      matvec: the products of A.
      key: settles the first direction.
      like: a vector of A's space.
      top: how many of the largest (of the signed values).
      bottom: how many of the smallest.
      num_iters: products used; a few times top + bottom, more where the residuals are
        large.

    Returns:
      The pairs, the largest value first, with residuals; an eigenvalue with two equal
      eigenvectors is found once.

    Raises:
      InputError: more pairs than iterations.
    """
    if top < 0 or bottom < 0 or not 1 <= top + bottom <= num_iters:
        raise InputError(
            f"top={top}, bottom={bottom}: must be 1..{num_iters} together, the iterations"
        )
    found = lanczos(matvec, probe(key, like, "gaussian"), num_iters=num_iters)
    values, vectors = _decompose(found)
    chosen = jnp.concatenate([jnp.arange(num_iters - top, num_iters), jnp.arange(bottom)])[
        jnp.argsort(-jnp.concatenate([values[num_iters - top :], values[:bottom]]))
    ]
    columns = vectors[:, chosen]
    unravel = ravel_pytree(checks.at_least_float32(like))[1]
    return Eigenpairs(
        values[chosen],
        jnp.abs(found.offdiag[-1] * columns[-1]),
        jax.vmap(unravel)(columns.T @ found.basis),
    )


def spectral_density(
    matvec: MatVec, key: Key, like: Vector, *, num_probes: int, num_iters: int
) -> SpectralDensity:
    """Stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017; Ghorbani et al. 2019).

    Args:
      matvec: the products of A.
      key: settles the first directions, one a probe.
      like: a vector of A's space.
      num_probes: independent quadratures; their spread is the error.
      num_iters: nodes of each, and products it costs.

    Raises:
      InputError: fewer than one probe, or more iterations than dimensions.
    """
    check_probes(num_probes)

    def one(key: Key) -> tuple[Array, Array]:
        found = lanczos(matvec, probe(key, like, "rademacher"), num_iters=num_iters)
        nodes, vectors = _decompose(found)
        return nodes, jnp.square(vectors[0])

    return SpectralDensity(*jax.lax.map(one, jax.random.split(key, num_probes)))


def mean_over_spectrum(
    density: SpectralDensity, function: Callable[[Array], Array], of: str
) -> Estimate:
    """The mean of function(eigenvalue), such as a moment: the trace of f(A) / dimension."""
    return summarise((density.weights * function(density.nodes)).sum(axis=1), of)


def smoothed_density(
    density: SpectralDensity, grid: Array, width: Array | float
) -> Estimate:
    """The density of eigenvalues at the points of `grid`, blurred by a Gaussian.

    Args:
      density: from `spectral_density`.
      grid: f32[g].
      width: standard deviation of the blur, in units of eigenvalues.

    Returns:
      Value and standard error f32[g], per unit of eigenvalue; the error is that of the
      probes, not of the blur.
    """
    gaps = (grid - density.nodes[..., None]) / width
    bells = jnp.exp(-0.5 * jnp.square(gaps)) / (width * jnp.sqrt(2 * jnp.pi))
    return summarise((density.weights[..., None] * bells).sum(axis=1), "spectral density")
