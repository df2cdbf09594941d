"""Matrix-free estimators for a symmetric matrix A.

A `matvec` is a linear map of a pytree of float arrays to a pytree of the same structure, so
that the same functions serve Hessians, Gauss-Newton matrices and kernels. Random quantities
are `Estimate`s: the mean over independent probes, its standard error and the number of
probes. The same key gives the same probes, so that estimates along a training run with a
common key (common random numbers) vary with A only.

Sums are kept in float32 at least, and products of vectors are not rounded to the faster
types that accelerators multiply by default. Lanczos needs directions finer than half
precision: where `like` is of half precision, its matvec is given float32 vectors
(`hessian.hvp` takes them).

The standard error of a trace by one Rademacher probe is sqrt(2 sum_{i != j} A_ij^2), by
a Gaussian one sqrt(2) |A|_F; Rademacher is never the larger (Hutchinson 1990; Avron &
Toledo 2011).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from distilljax import checks, devices, exported, varying
from distilljax.types import Array, Estimate, InputError, Key

Vector = Any  # a pytree of float arrays
MatVec = Callable[[Vector], Vector]
Kind = Literal["rademacher", "gaussian"]

_PRECISE = jax.lax.Precision.HIGHEST


@exported.named
class Eigenpairs(NamedTuple):
    """Eigenpairs of a symmetric matrix in descending order.

    Attributes:
      values: f32[r].
      residuals: f32[r], |A v - value v|, a bound on the distance to an eigenvalue.
      vectors: leaves f32[r, ...], of unit norm.
    """

    values: Array
    residuals: Array
    vectors: Vector


@exported.named
class SpectralDensity(NamedTuple):
    """The distribution of eigenvalues as a quadrature rule for each probe.

    The mean of f(eigenvalue) is estimated by sum_j weights[i, j] f(nodes[i, j]), which
    equals Hutchinson's estimate for a polynomial f of degree up to 2m - 1.

    Attributes:
      nodes: f32[probes, m], eigenvalues of the Lanczos matrices.
      weights: f32[probes, m]; rows sum to one.
    """

    nodes: Array
    weights: Array


def check_probes(num_probes: int, kind: str = "rademacher") -> None:
    """Validates the number and kind of probes.

    >>> estimators.check_probes(10, "gaussian")

    Raises:
      InputError: fewer than one probe, no whole number, or an unknown kind.
    """
    checks.positive(num_probes, "num_probes", "an estimate needs at least one probe")
    if kind not in get_args(Kind):
        expected = " or ".join(get_args(Kind))
        raise InputError(f"probes of kind {kind!r}: expected {expected}")


def dot(x: Vector, y: Vector) -> Array:
    """Returns the inner product over all leaves, f32[].

    >>> float(estimators.dot({"w": jnp.ones(3)}, {"w": jnp.arange(3.0)}))
    3.0
    """
    return sum(
        (
            jnp.vdot(
                a,
                b,
                precision=_PRECISE,
                preferred_element_type=jnp.promote_types(a.dtype, jnp.float32),
            )
            for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
        ),
        start=jnp.zeros(()),
    )


def probe(key: Key, like: Vector, kind: Kind = "rademacher") -> Vector:
    """Returns a random vector of the structure of `like` with E[v v^T] = I.

    >>> (estimators.probe(jax.random.key(0), jnp.zeros(3)) ** 2).tolist()
    [1.0, 1.0, 1.0]
    """
    checks.one_key(key)
    flat, unravel = ravel_pytree(like)
    draw = jax.random.rademacher if kind == "rademacher" else jax.random.normal
    return unravel(draw(key, flat.shape, flat.dtype))


def summarise(values: Array, of: str) -> Estimate:
    """Returns the mean over the leading axis with its standard error.

    >>> found = estimators.summarise(jnp.array([1.0, 3.0]), "number")
    >>> float(found.value), float(found.standard_error)
    (2.0, 1.0)

    Args:
      values: f32[m, ...], independent samples with the same mean.
      of: name of the estimated quantity.

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
    """Checks that an estimate is finite; for callers of jitted functions.

    >>> estimators.require_finite(estimators.summarise(jnp.array([1.0, 3.0]), "number"))

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
    """Returns the function v -> v^T A v, f32[].

    >>> float(estimators.quadratic_form(lambda v: 2 * v)(jnp.ones(3)))
    6.0
    """
    return lambda v: dot(v, matvec(v))


def sampled_mean(
    sample: Callable[[Key], Array],
    key: Key,
    *,
    num_probes: int,
    together: int = 1,
    of: str,
    mesh: Mesh | None = None,
) -> Estimate:
    """Estimates the mean of sample(key_i) over independent keys.

    >>> found = estimators.sampled_mean(
    ...     jax.random.normal, jax.random.key(0), num_probes=100, of="mean of a Gaussian")
    >>> abs(float(found.value)) < 0.3, round(float(found.standard_error), 1)
    (True, 0.1)

    Args:
      sample: key -> f32[...], an unbiased estimate from one probe.
      key: PRNG key; the probes of a smaller number are a prefix of those of a larger one.
      num_probes: number of probes.
      together: probes vmapped at a time (`batch_size` of `jax.lax.map`).
      of: name of the estimated quantity.
      mesh: devices that share the probes; None for one.

    Raises:
      InputError: fewer than one probe; outside jit, a mean that is not finite.
    """
    check_probes(num_probes)
    checks.one_key(key)
    values = devices.spread(
        lambda i: sample(jax.random.fold_in(key, i)),
        jnp.arange(num_probes),
        mesh,
        together=together,
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
    """Estimates a mean to a given standard error in two stages (after Stein 1945).

    A pilot of a few probes gives mean and variance, from which the number of probes is
    computed once. The estimate is of these, and they are drawn apart from the pilot: a rule
    that stops when a running mean converges, or a mean that holds the pilot, is biased.

    >>> found = estimators.sampled_mean_to(
    ...     lambda key: 3 + jax.random.normal(key), jax.random.key(0),
    ...     relative_error=0.05, of="mean")
    >>> abs(float(found.value) - 3) < 0.5
    True

    Args:
      sample: key -> f32[], an unbiased estimate from one probe.
      key: PRNG key; the probes are those of `sampled_mean` with the number found.
      relative_error: target standard error, relative to the pilot's mean.
      pilot: number of probes of the first stage, and the least of the second, at least
        two.
      max_probes: the most probes of the second stage; the standard error shows what was
        reached.
      of: name of the estimated quantity.

    Raises:
      InputError: a pilot below two or above `max_probes`, or an error that is not positive;
        outside jit, a mean that is not finite.
    """
    pilot = checks.integer(pilot, "pilot")
    max_probes = checks.integer(max_probes, "max_probes")
    if pilot < 2 or max_probes < pilot or relative_error <= 0:
        raise InputError(
            f"pilot={pilot}, max_probes={max_probes}, relative_error={relative_error}: "
            "expected 2 <= pilot <= max_probes and an error above zero"
        )
    checks.one_key(key)

    def one(i: Array) -> Array:
        return sample(jax.random.fold_in(key, i))

    first = jax.lax.map(one, max_probes + jnp.arange(pilot))
    needed = first.var(ddof=1) / jnp.square(relative_error * first.mean())
    num = jnp.clip(jnp.nan_to_num(jnp.ceil(needed), nan=pilot), pilot, max_probes)
    num = num.astype(jnp.int32)

    def more(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        mean, squares = sums
        value = one(i)
        gap = value - mean
        mean = mean + gap / (i + 1)
        return mean, squares + gap * (value - mean)

    start = jnp.zeros_like(first[0]), jnp.zeros_like(first[0])
    mean, squares = varying.fori_loop(0, num, more, start)
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
    """Estimates the trace of A as the mean of v^T A v over random v (Hutchinson 1990).

    Unbiased for every square matrix, including indefinite ones.

    >>> found = estimators.hutchinson_trace(
    ...     lambda v: jnp.arange(1.0, 4.0) * v, jax.random.key(0), jnp.zeros(3),
    ...     num_probes=4)
    >>> float(found.value), float(found.standard_error)
    (6.0, 0.0)

    Args:
      matvec: v -> A v.
      key: PRNG key; the probes of a smaller number are a prefix of those of a larger one.
      like: a vector of A's space; its values are not used.
      num_probes: number of probes.
      kind: distribution of the probes.
      together: products vmapped at a time (`batch_size` of `jax.lax.map`).
      of: name of the estimated quantity.

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
    """Estimates the trace by Hutch++ (Meyer et al. 2021, arXiv 2010.09649).

    A third of the products finds the range Q of A on random vectors, a third gives the
    trace on Q exactly, a third estimates the remainder by Hutchinson. Unbiased for every
    symmetric matrix, including indefinite ones, since Q is independent of the last probes;
    better than Hutchinson if a few eigenvalues dominate, as in a Hessian.

    >>> found = estimators.deflated_trace(
    ...     lambda v: jnp.arange(1.0, 4.0) * v, jax.random.key(0), jnp.zeros(3),
    ...     num_products=6)
    >>> round(float(found.value), 3)
    6.72

    Args:
      matvec: v -> A v.
      key: PRNG key of the probes.
      like: a vector of A's space.
      num_products: total number of matrix-vector products, a multiple of three.
      kind: distribution of the probes.
      of: name of the estimated quantity.

    Returns:
      The estimate; `num_probes` counts the last third, whose variance gives the error.

    Raises:
      InputError: a number of products that is not a multiple of three, or below six.
    """
    num_products = checks.integer(num_products, "num_products")
    if num_products < 6 or num_products % 3:
        raise InputError(
            f"num_products={num_products}: Hutch++ divides its products in three parts of "
            "at least two; give 6, 9, 12, ..."
        )
    check_probes(num_products, kind)
    checks.one_key(key)
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
    on_basis = jax.lax.map(lambda v: _matmul(v, product(v)), basis).sum()

    def rest(key: Key) -> Array:
        v = _reject(draw(key), basis)
        return on_basis + _matmul(v, product(v))

    return summarise(jax.lax.map(rest, jax.random.split(rest_key, rank)), of)


def _reject(v: Array, basis: Array) -> Array:
    """Returns the component of v orthogonal to the orthonormal rows of `basis`."""
    return v - _matmul(_matmul(basis, v), basis)


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=_PRECISE)


def block_traces(
    matvec: MatVec, key: Key, like: Vector, *, num_probes: int
) -> dict[str, Estimate]:
    """Estimates the trace of each diagonal block of A, one block per leaf.

    All blocks share their products: v restricted to a block times (A v) restricted to it.

    >>> like = {"b": jnp.zeros(2), "w": jnp.zeros(3)}
    >>> found = estimators.block_traces(
    ...     lambda v: jax.tree.map(lambda leaf: 2 * leaf, v), jax.random.key(0), like,
    ...     num_probes=4)
    >>> {name: float(trace.value) for name, trace in found.items()}
    {'b': 4.0, 'w': 6.0}

    Args:
      matvec: v -> A v.
      key: PRNG key of the Rademacher probes.
      like: a vector of A's space.
      num_probes: number of probes.

    Returns:
      Path of the leaf, such as backbone/Conv_0/kernel -> estimate.

    Raises:
      InputError: fewer than one probe, or two leaves of one path.
    """

    def form(v: Vector) -> Array:
        return jnp.stack(jax.tree.leaves(jax.tree.map(dot, v, matvec(v))))

    whole = sampled_mean(
        lambda key: form(probe(key, like)), key, num_probes=num_probes, of="block traces"
    )
    paths = [
        "/".join(str(getattr(part, "key", getattr(part, "idx", part))) for part in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(like)
    ]
    if len(set(paths)) < len(paths):
        raise InputError(
            f"two leaves have the path {max(paths, key=paths.count)}; rename one"
        )
    return {
        path: Estimate(
            whole.value[i], whole.standard_error[i], whole.num_probes, f"trace, {path}"
        )
        for i, path in enumerate(paths)
    }


def diagonal(matvec: MatVec, key: Key, like: Vector, *, num_probes: int) -> Estimate:
    """Estimates the diagonal of A as the mean of v * (A v) over Rademacher v.

    See Bekas et al. 2007. Memory is independent of the number of probes.

    >>> found = estimators.diagonal(
    ...     lambda v: jnp.arange(1.0, 4.0) * v, jax.random.key(0), jnp.zeros(3),
    ...     num_probes=4)
    >>> jnp.round(found.value, 3).tolist()
    [1.0, 2.0, 3.000000238418579]

    Returns:
      An estimate whose value and standard error are vectors like `like`, in float32 where
      it is of half precision.

    Raises:
      InputError: fewer than one probe.
    """
    check_probes(num_probes)
    checks.one_key(key)

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
    (_, mean, squares), _ = varying.scan(body, start, jax.random.split(key, num_probes))
    error = jax.tree.map(
        lambda s: (
            jnp.sqrt(s / (num_probes - 1) / num_probes) if num_probes > 1 else s * jnp.nan
        ),
        squares,
    )
    return Estimate(mean, error, jnp.asarray(num_probes, jnp.int32), "diagonal")


@exported.named
class Tridiagonal(NamedTuple):
    """The Lanczos decomposition Q A Q^T = T with orthonormal rows of Q.

    Attributes:
      diag: f32[m].
      offdiag: f32[m]; the last entry couples to the next, unused vector.
      basis: f32[m, p], in the order of `jax.flatten_util.ravel_pytree`.
    """

    diag: Array
    offdiag: Array
    basis: Array


def lanczos(matvec: MatVec, start: Vector, *, num_iters: int) -> Tridiagonal:
    """Runs Lanczos with full reorthogonalisation (Lanczos 1950; Parlett 1980).

    Memory is `num_iters` vectors. On reaching an invariant subspace, the iteration
    continues in a random direction orthogonal to it, with an off-diagonal of zero.

    >>> found = estimators.lanczos(
    ...     lambda v: jnp.arange(1.0, 4.0) * v, jnp.ones(3), num_iters=3)
    >>> above = jnp.diag(found.offdiag[:-1], 1)
    >>> matrix = jnp.diag(found.diag) + above + above.T
    >>> np.round(np.linalg.eigvalsh(matrix), 3).tolist()
    [1.0, 2.0, 3.0]

    Args:
      matvec: v -> A v, symmetric.
      start: start vector, not zero.
      num_iters: m, at most the dimension of the space.

    Raises:
      InputError: fewer than one iteration, or more than the dimension; a matvec that
        refuses float32 vectors, for a start of half precision.
    """
    matvec = _single_precision(matvec, start)
    first, unravel = ravel_pytree(checks.at_least_float32(start))
    size = first.size
    num_iters = checks.integer(num_iters, "num_iters")
    if not 1 <= num_iters <= size:
        raise InputError(f"num_iters={num_iters}: must lie in 1..{size}, the dimension")

    def body(
        carry: tuple[Array, Array, Array], i: Array
    ) -> tuple[tuple[Array, Array, Array], tuple[Array, Array]]:
        basis, v, scale = carry
        basis = basis.at[i].set(v)
        image = ravel_pytree(matvec(unravel(v)))[0].astype(first.dtype)
        alpha = _matmul(v, image)
        rest = _reject(_reject(image, basis), basis)
        beta = jnp.linalg.norm(rest)
        scale = jnp.maximum(scale, jnp.abs(alpha) + beta)
        closed = beta <= 10 * jnp.finfo(first.dtype).eps * scale

        def elsewhere() -> Array:
            key = jax.random.fold_in(jax.random.key(0), i)
            v = jax.random.normal(key, first.shape, first.dtype)
            return _reject(_reject(v, basis), basis)

        following = varying.cond(closed, elsewhere, lambda: rest)
        following = following / jnp.linalg.norm(following)
        return (basis, following, scale), (alpha, jnp.where(closed, 0, beta))

    basis = jnp.zeros((num_iters, size), first.dtype)
    carry = (basis, first / jnp.linalg.norm(first), jnp.zeros((), first.dtype))
    (basis, _, _), (diag, offdiag) = varying.scan(body, carry, jnp.arange(num_iters))
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
    """Returns ascending eigenvalues and eigenvectors (columns) of a tridiagonal matrix."""
    dense = jnp.diag(t.diag) + jnp.diag(t.offdiag[:-1], 1) + jnp.diag(t.offdiag[:-1], -1)
    return jnp.linalg.eigh(dense)


def extreme_eigenpairs(
    matvec: MatVec, key: Key, like: Vector, *, top: int = 1, bottom: int = 0, num_iters: int
) -> Eigenpairs:
    """Returns the largest and the smallest eigenpairs by Lanczos.

    >>> found = estimators.extreme_eigenpairs(
    ...     lambda v: jnp.arange(1.0, 4.0) * v, jax.random.key(0), jnp.zeros(3),
    ...     top=1, bottom=1, num_iters=3)
    >>> np.round(found.values, 3).tolist()
    [3.000000238418579, 1.0]

    Args:
      matvec: v -> A v.
      key: PRNG key of the start vector.
      like: a vector of A's space.
      top: number of largest eigenvalues (signed).
      bottom: number of smallest eigenvalues.
      num_iters: number of products; a few times top + bottom, more if residuals are large.

    Returns:
      The pairs in descending order, with residuals; a degenerate eigenvalue is found once.

    Raises:
      InputError: more pairs than iterations.
    """
    top, bottom = checks.integer(top, "top"), checks.integer(bottom, "bottom")
    num_iters = checks.integer(num_iters, "num_iters")
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
        jax.vmap(unravel)(_matmul(columns.T, found.basis)),
    )


def spectral_density(
    matvec: MatVec, key: Key, like: Vector, *, num_probes: int, num_iters: int
) -> SpectralDensity:
    """Estimates the spectral density by stochastic Lanczos quadrature.

    See Ubaru, Chen & Saad 2017; Ghorbani et al. 2019.

    >>> density = estimators.spectral_density(
    ...     lambda v: jnp.arange(1.0, 4.0) * v, jax.random.key(0), jnp.zeros(3),
    ...     num_probes=2, num_iters=3)
    >>> np.round(density.nodes[0], 3).tolist()
    [1.0, 2.0, 3.000000238418579]

    Args:
      matvec: v -> A v.
      key: PRNG key of the start vectors, one per probe.
      like: a vector of A's space.
      num_probes: number of independent quadratures, whose variance gives the error.
      num_iters: number of nodes of each quadrature, and of products.

    Raises:
      InputError: fewer than one probe, or more iterations than dimensions.
    """
    check_probes(num_probes)
    checks.one_key(key)

    def one(key: Key) -> tuple[Array, Array]:
        found = lanczos(matvec, probe(key, like, "rademacher"), num_iters=num_iters)
        nodes, vectors = _decompose(found)
        return nodes, jnp.square(vectors[0])

    return SpectralDensity(*jax.lax.map(one, jax.random.split(key, num_probes)))


def mean_over_spectrum(
    density: SpectralDensity, function: Callable[[Array], Array], of: str
) -> Estimate:
    """Estimates the mean of function(eigenvalue), that is tr(f(A)) / dimension.

    Of the example of `spectral_density`:

    >>> mean = estimators.mean_over_spectrum(density, lambda value: value, "mean")
    >>> 1 < float(mean.value) < 3
    True
    """
    return summarise((density.weights * function(density.nodes)).sum(axis=1), of)


def smoothed_density(
    density: SpectralDensity, grid: Array, width: Array | float
) -> Estimate:
    """Returns the density of eigenvalues on a grid, smoothed by a Gaussian.

    Of the example of `spectral_density`:

    >>> grid = jnp.linspace(-1, 5, 61)
    >>> found = estimators.smoothed_density(density, grid, width=0.3)
    >>> round(float(found.value.sum() * (grid[1] - grid[0])), 2)
    1.0

    Args:
      density: from `spectral_density`.
      grid: f32[g].
      width: standard deviation of the Gaussian, in units of eigenvalues.

    Returns:
      Value and standard error f32[g], per unit of eigenvalue; the error is that of the
      probes, not of the smoothing.
    """
    gaps = (grid - density.nodes[..., None]) / width
    bells = jnp.exp(-0.5 * jnp.square(gaps)) / (width * jnp.sqrt(2 * jnp.pi))
    return summarise((density.weights[..., None] * bells).sum(axis=1), "spectral density")
