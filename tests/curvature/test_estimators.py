"""Estimators against dense matrices in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.curvature import estimators as est
from distilljax.types import InputError

DIM = 40


def symmetric(dim=DIM, seed=0):
    """An indefinite matrix with two eigenvalues that stand out."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    values = np.concatenate([[-30.0, 80.0, 150.0], rng.normal(size=dim - 3)])
    return q @ np.diag(values) @ q.T


def as_tree(flat):
    return {"a": flat[:10].reshape(2, 5), "b": [flat[10:]]}


def as_flat(tree):
    return jnp.concatenate([tree["a"].reshape(-1), tree["b"][0]])


@pytest.fixture
def matrix(float64):
    return jnp.asarray(symmetric())


@pytest.fixture
def like(matrix):
    return as_tree(jnp.zeros(DIM))


def products(matrix):
    return lambda v: as_tree(matrix @ as_flat(v))


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_trace_and_its_error(matrix, like, kind):
    def one(key):
        found = est.hutchinson_trace(products(matrix), key, like, num_probes=30, kind=kind)
        return found.value, found.standard_error

    values, errors = jax.vmap(one)(jax.random.split(jax.random.key(0), 400))
    truth = np.trace(matrix)
    assert (abs(values - truth) < 3 * errors).mean() > 0.97
    off = np.asarray(matrix) - (np.diag(np.diag(matrix)) if kind == "rademacher" else 0)
    theory = np.sqrt(2 * (off**2).sum() / 30)
    np.testing.assert_allclose(values.std(), theory, rtol=0.1)
    np.testing.assert_allclose(errors.mean(), theory, rtol=0.1)


def test_more_probes_keep_the_first(matrix, like):
    def sample(key):
        return est.quadratic_form(products(matrix))(est.probe(key, like))

    found = [
        est.sampled_mean(sample, jax.random.key(3), num_probes=n, of="trace")
        for n in (4, 5)
    ]
    fifth = sample(jax.random.fold_in(jax.random.key(3), 4))
    np.testing.assert_allclose(5 * found[1].value, 4 * found[0].value + fifth, rtol=1e-12)


def test_probes_side_by_side_change_nothing(matrix, like):
    one, many = (
        est.hutchinson_trace(
            products(matrix), jax.random.key(1), like, num_probes=10, together=together
        )
        for together in (1, 4)
    )
    np.testing.assert_allclose(one.value, many.value, rtol=1e-12)


def test_a_single_probe_has_no_error(matrix, like):
    found = est.hutchinson_trace(products(matrix), jax.random.key(1), like, num_probes=1)
    assert np.isnan(found.standard_error)


def test_two_stages_reach_the_error_asked_for(matrix, like):
    def one(key):
        return est.sampled_mean_to(
            lambda key: est.quadratic_form(products(matrix))(est.probe(key, like)),
            key,
            relative_error=0.1,
            pilot=12,
            of="trace",
        )

    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(5), 300))
    truth = np.trace(matrix)
    assert (abs(found.value - truth) < 3 * found.standard_error).mean() > 0.95
    # Stein: the number varies with the pilot, and is right on average.
    theory = 2 * ((np.asarray(matrix) - np.diag(np.diag(matrix))) ** 2).sum()
    assert 0.5 < np.median(found.num_probes) / (theory / (0.1 * truth) ** 2) < 1.5
    np.testing.assert_allclose(found.value.mean(), truth, rtol=0.03)


def test_two_stages_are_unbiased_where_the_pilot_decides():
    """A mean that holds the pilot is too large by a tenth here."""

    def one(key):
        return est.sampled_mean_to(
            lambda key: 1 + 2 * jax.random.normal(key),
            key,
            relative_error=0.3,
            max_probes=1000,
            of="mean",
        )

    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(7), 2000))
    error = found.value.std() / 2000**0.5
    assert abs(found.value.mean() - 1) < 4 * error < 0.06


def test_two_stages_equal_one_of_that_many_probes(matrix, like):
    def sample(key):
        return est.quadratic_form(products(matrix))(est.probe(key, like))

    key = jax.random.key(2)
    found = est.sampled_mean_to(sample, key, relative_error=0.2, pilot=5, of="trace")
    again = est.sampled_mean(sample, key, num_probes=int(found.num_probes), of="trace")
    np.testing.assert_allclose(found.value, again.value, rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, again.standard_error, rtol=1e-10)
    limited = est.sampled_mean_to(
        sample, key, relative_error=1e-6, pilot=5, max_probes=50, of="trace"
    )
    assert limited.num_probes == 50


def test_deflation_is_unbiased_and_better_where_few_eigenvalues_stand_out(matrix, like):
    keys = jax.random.split(jax.random.key(4), 300)
    truth = np.trace(matrix)

    def deflated(key):
        found = est.deflated_trace(products(matrix), key, like, num_products=18)
        return found.value, found.standard_error

    values, errors = jax.vmap(deflated)(keys)
    spread = values.std()
    assert abs(values.mean() - truth) < 4 * spread / 300**0.5
    plain = jax.vmap(
        lambda key: est.hutchinson_trace(products(matrix), key, like, num_probes=18).value
    )(keys)
    assert spread < 0.3 * plain.std()
    assert 0.7 < np.sqrt((errors**2).mean()) / spread < 1.3


def test_two_blocks_of_one_path_are_refused():
    like = {"a/b": jnp.ones(3), "a": {"b": jnp.ones(2)}}
    with pytest.raises(InputError, match="two leaves have the path a/b"):
        est.block_traces(lambda v: v, jax.random.key(0), like, num_probes=3)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_inner_products_of_half_precision_are_summed_in_float32(dtype):
    ones = jnp.ones(70_001, dtype)
    assert est.dot(ones, ones) == 70_001


def test_block_traces(matrix, like):
    found = est.block_traces(products(matrix), jax.random.key(0), like, num_probes=4000)
    dense = np.diag(matrix)
    assert set(found) == {"a", "b/0"}
    for name, block in (("a", dense[:10]), ("b/0", dense[10:])):
        assert abs(found[name].value - block.sum()) < 4 * found[name].standard_error
    whole = est.hutchinson_trace(products(matrix), jax.random.key(0), like, num_probes=4000)
    np.testing.assert_allclose(
        sum(f.value for f in found.values()), whole.value, rtol=1e-10
    )


def test_diagonal(matrix, like):
    found = est.diagonal(products(matrix), jax.random.key(0), like, num_probes=2000)
    gap = abs(as_flat(found.value) - np.diag(matrix)) / as_flat(found.standard_error)
    assert gap.max() < 4.5
    theory = np.sqrt(((np.asarray(matrix) ** 2).sum(1) - np.diag(matrix) ** 2) / 2000)
    np.testing.assert_allclose(as_flat(found.standard_error), theory, rtol=0.15)


def test_lanczos_projects_the_matrix(matrix, like):
    start = est.probe(jax.random.key(0), like, "gaussian")
    found = est.lanczos(products(matrix), start, num_iters=12)
    basis = np.asarray(found.basis)
    np.testing.assert_allclose(basis @ basis.T, np.eye(12), atol=1e-12)
    dense = (
        np.diag(found.diag)
        + np.diag(found.offdiag[:-1], 1)
        + np.diag(found.offdiag[:-1], -1)
    )
    np.testing.assert_allclose(basis @ matrix @ basis.T, dense, atol=1e-10)


def test_lanczos_goes_on_where_the_space_closes(float64):
    """Three different eigenvalues: a Krylov space of dimension three."""
    diagonal = jnp.asarray([2.0] * 5 + [-1.0] * 4 + [7.0])
    found = est.lanczos(lambda v: diagonal * v, jnp.arange(1.0, 11.0), num_iters=10)
    np.testing.assert_allclose(found.basis @ found.basis.T, np.eye(10), atol=1e-12)
    pairs = est.extreme_eigenpairs(
        lambda v: diagonal * v, jax.random.key(0), diagonal, top=6, bottom=4, num_iters=10
    )
    np.testing.assert_allclose(pairs.values, np.sort(diagonal)[::-1], atol=1e-10)


def test_extreme_eigenpairs(matrix, like):
    found = est.extreme_eigenpairs(
        products(matrix), jax.random.key(1), like, top=3, bottom=1, num_iters=25
    )
    truth = np.linalg.eigvalsh(matrix)
    for got, residual in zip(found.values, found.residuals, strict=True):
        assert abs(truth - got).min() <= residual + 1e-10
    np.testing.assert_allclose(
        np.asarray(found.values)[[0, 1, 3]], truth[[-1, -2, 0]], rtol=1e-6
    )
    first = jax.tree.map(lambda x: x[0], found.vectors)
    gap = jax.tree.map(lambda a, b: a - found.values[0] * b, products(matrix)(first), first)
    np.testing.assert_allclose(jnp.sqrt(est.dot(gap, gap)), found.residuals[0], atol=1e-8)


def test_products_of_vectors_are_exact_on_accelerators():
    """Their default is half precision, in which Lanczos vectors are not orthogonal."""
    like, key = jnp.ones(6), jax.random.key(0)

    def all_of_them(key):
        def matvec(v):
            return like * v

        return (
            est.hutchinson_trace(matvec, key, like, num_probes=2),
            est.deflated_trace(matvec, key, like, num_products=6),
            est.extreme_eigenpairs(matvec, key, like, num_iters=3),
        )

    program = str(jax.make_jaxpr(all_of_them)(key))
    assert program.count("precision=(Precision.HIGHEST") == program.count("dot_general[")


def test_moments_of_the_density(matrix, like):
    found = est.spectral_density(
        products(matrix), jax.random.key(2), like, num_probes=2000, num_iters=6
    )
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-10)
    for power in (1, 2, 3, 4):
        moment = est.mean_over_spectrum(found, lambda x, p=power: x**p, "moment")
        truth = np.trace(np.linalg.matrix_power(np.asarray(matrix), power)) / DIM
        assert abs(moment.value - truth) < 4 * moment.standard_error


def test_density_on_a_grid(matrix, like):
    found = est.spectral_density(
        products(matrix), jax.random.key(2), like, num_probes=300, num_iters=DIM
    )
    grid = jnp.linspace(-100, 250, 401)
    got = est.smoothed_density(found, grid, 8.0)
    values = np.linalg.eigvalsh(matrix)
    bells = np.exp(-0.5 * ((grid - values[:, None]) / 8) ** 2) / (8 * np.sqrt(2 * np.pi))
    truth = bells.mean(0)
    assert (abs(got.value - truth) < 4 * got.standard_error + 1e-9).mean() > 0.98
    np.testing.assert_allclose(got.value.sum() * (grid[1] - grid[0]), 1, rtol=1e-3)


def nan_products(v):
    return jax.tree.map(lambda x: x * jnp.nan, v)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda like, f: est.hutchinson_trace(f, jax.random.key(0), like, num_probes=0),
            "at least one probe",
        ),
        (
            lambda like, f: est.hutchinson_trace(
                f, jax.random.key(0), like, num_probes=2, kind="uniform"
            ),
            "rademacher or gaussian",
        ),
        (
            lambda like, f: est.diagonal(f, jax.random.key(0), like, num_probes=0),
            "at least one probe",
        ),
        (
            lambda like, f: est.deflated_trace(f, jax.random.key(0), like, num_products=10),
            "give 6, 9, 12",
        ),
        (lambda like, f: est.lanczos(f, like, num_iters=DIM + 1), f"1..{DIM}"),
        (
            lambda like, f: est.extreme_eigenpairs(
                f, jax.random.key(0), like, top=5, num_iters=4
            ),
            "1..4 together",
        ),
        (
            lambda like, f: est.spectral_density(
                f, jax.random.key(0), like, num_probes=0, num_iters=3
            ),
            "at least one probe",
        ),
        (
            lambda like, f: est.hutchinson_trace(
                nan_products, jax.random.key(0), like, num_probes=3
            ),
            "trace is not finite",
        ),
        (
            lambda like, f: est.sampled_mean_to(
                lambda k: jnp.ones(()), jax.random.key(0), relative_error=0.0, of="x"
            ),
            "above zero",
        ),
    ],
)
def test_mistakes_are_named(matrix, like, call, message):
    with pytest.raises(InputError, match=message):
        call(like, products(matrix))


@pytest.mark.parametrize(
    ("pilot", "most", "error"),
    [(2, 2, 0.1), (1, 9, 0.1), (3, 2, 0.1), (2, 9, 0.0), (2, 9, -0.1)],
)
def test_the_limits_of_two_stages(pilot, most, error):
    def found():
        return est.sampled_mean_to(
            lambda k: jax.random.normal(k),
            jax.random.key(0),
            relative_error=error,
            pilot=pilot,
            max_probes=most,
            of="x",
        )

    if (pilot, error) == (2, 0.1):
        assert found().num_probes == 2
    else:
        said = f"pilot={pilot}, max_probes={most}, relative_error={error}: expected"
        with pytest.raises(InputError, match=said):
            found()


def test_nan_under_jit_is_left_to_the_caller(matrix, like):
    found = jax.jit(
        lambda key: est.hutchinson_trace(nan_products, key, like, num_probes=3)
    )(jax.random.key(0))
    with pytest.raises(InputError, match="lower learning rate"):
        est.require_finite(found)


@pytest.mark.parametrize("num", [2, 7])
def test_the_diagonal_and_its_error_are_those_of_the_samples(matrix, like, num):
    """Mean and standard error of v * (A v), the formulas of two passes."""
    found = est.diagonal(products(matrix), jax.random.key(3), like, num_probes=num)
    probes = [
        np.asarray(as_flat(est.probe(key, like)))
        for key in jax.random.split(jax.random.key(3), num)
    ]
    samples = np.stack([v * (np.asarray(matrix) @ v) for v in probes])
    np.testing.assert_allclose(as_flat(found.value), samples.mean(0), rtol=1e-10)
    error = samples.std(0, ddof=1) / np.sqrt(num)
    np.testing.assert_allclose(as_flat(found.standard_error), error, rtol=1e-8)
    assert int(found.num_probes) == num
    alone = est.diagonal(products(matrix), jax.random.key(3), like, num_probes=1)
    assert np.isnan(as_flat(alone.standard_error)).all()


def test_half_precision_is_summed_in_single():
    """Samples of magnitude 1 and 300 probes: a bfloat16 count would stop at 256."""
    numbers = jnp.arange(1.0, 17.0)
    like = {"w": jnp.zeros(16, jnp.bfloat16)}

    def matvec(v):
        return {"w": numbers.astype(v["w"].dtype) * v["w"]}

    found = est.diagonal(matvec, jax.random.key(0), like, num_probes=300)
    assert found.value["w"].dtype == found.standard_error["w"].dtype == jnp.float32
    np.testing.assert_allclose(found.value["w"], numbers, rtol=1e-6)
    pairs = est.extreme_eigenpairs(matvec, jax.random.key(0), like, top=2, num_iters=16)
    np.testing.assert_allclose(pairs.values, [16, 15], rtol=1e-4)
    assert pairs.vectors["w"].dtype == jnp.float32
    deflated = est.deflated_trace(matvec, jax.random.key(0), like, num_products=48)
    np.testing.assert_allclose(deflated.value, numbers.sum(), rtol=1e-4)


def test_products_that_take_half_precision_alone_are_refused_where_it_is_too_coarse():
    params = jnp.ones(4, jnp.bfloat16)

    def matvec(v):
        return jax.jvp(jax.grad(lambda p: (p**3).sum()), (params,), (v,))[1]

    with pytest.raises(InputError, match=r"refuses float32 vectors.*hessian.hvp"):
        est.lanczos(matvec, params, num_iters=2)
