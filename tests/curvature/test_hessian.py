"""Hessian and Gauss-Newton products against dense matrices in double precision."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from distilljax.core import losses
from distilljax.curvature import estimators, hessian
from distilljax.models import convnet, mlp
from distilljax.types import Batch, InputError

N = 11
NETWORKS = {
    "mlp": lambda: mlp.make(mlp.Config(width=7, depth=1), (8, 8, 1), 3),
    "convnet": lambda: convnet.make(convnet.Config(width=8, depth=1), (8, 8, 1), 3),
}


class Problem:
    """A network of about 500 parameters, eleven images, the dense matrices."""

    def __init__(self, network):
        self.model = NETWORKS[network]()
        params = self.model.init(jax.random.key(0))
        self.params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
        self.flat, self.unravel = ravel_pytree(self.params)
        assert 400 < self.flat.size < 600
        images = jax.random.normal(jax.random.key(1), (N, 8, 8, 1))
        labels = jax.nn.softmax(2 * jax.random.normal(jax.random.key(2), (N, 3)))
        self.batch = Batch(images, labels)
        self.loss_fn = losses.cross_entropy(self.model.apply)
        self.dense = jax.jit(
            jax.hessian(lambda p: self.loss_fn(self.unravel(p), self.batch))
        )(self.flat)

    def columns(self, matvec):
        """The matrix behind the products."""
        return jax.jit(jax.vmap(lambda v: ravel_pytree(matvec(self.unravel(v)))[0]))(
            jnp.eye(self.flat.size)
        )


@pytest.fixture(scope="module", params=NETWORKS)
def problem(request):
    with jax.enable_x64(True):
        yield Problem(request.param)


@pytest.fixture(scope="module")
def small():
    with jax.enable_x64(True):
        yield Problem("mlp")


def test_hessian_products(problem):
    found = problem.columns(
        hessian.hvp(problem.loss_fn, problem.params, problem.batch, chunk=4)
    )
    np.testing.assert_allclose(found, problem.dense, atol=1e-10)


def test_gauss_newton_products(problem):
    model, batch = problem.model, problem.batch

    def outputs(flat):
        return model.apply(problem.unravel(flat), batch.images)

    jacobian = jax.jit(jax.jacobian(outputs))(problem.flat)
    p = jax.nn.softmax(outputs(problem.flat))
    middle = jax.vmap(jnp.diag)(p) - p[:, :, None] * p[:, None, :]
    dense = jnp.einsum("nap,nab,nbq->pq", jacobian, middle, jacobian) / N
    found = problem.columns(hessian.ggn(model.apply, problem.params, batch, chunk=4))
    np.testing.assert_allclose(found, dense, atol=1e-10)
    assert np.linalg.eigvalsh(found).min() > -1e-12


def test_gauss_newton_of_another_loss(small):
    def squared(outputs, labels):
        return jnp.square(outputs - labels).sum(-1).mean()

    def residuals(flat):
        return small.model.apply(small.unravel(flat), small.batch.images)

    jacobian = jax.jit(jax.jacobian(residuals))(small.flat).reshape(-1, small.flat.size)
    found = small.columns(
        hessian.ggn(small.model.apply, small.params, small.batch, output_loss=squared)
    )
    np.testing.assert_allclose(found, 2 * jacobian.T @ jacobian / N, atol=1e-10)


def test_second_derivative_along_a_direction(problem):
    v = jax.random.normal(jax.random.key(3), problem.flat.shape)
    found = hessian.along(
        problem.loss_fn, problem.params, problem.batch, problem.unravel(v)
    )
    np.testing.assert_allclose(found, v @ problem.dense @ v, rtol=1e-10)


def test_a_chunk_is_read_as_the_loss_takes_it(small):
    bytes_ = jnp.arange(N * 64, dtype=jnp.uint8).reshape(N, 8, 8, 1)
    labels = jnp.arange(N) % 3

    def read(part):
        images, labels = part
        return Batch(images / 255.0, jax.nn.one_hot(labels, 3))

    whole = Batch(bytes_ / 255.0, jax.nn.one_hot(labels, 3))
    v = estimators.probe(jax.random.key(0), small.params)
    a = hessian.hvp(small.loss_fn, small.params, (bytes_, labels), chunk=3, read=read)(v)
    b = hessian.hvp(small.loss_fn, small.params, whole)(v)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12), a, b)


def test_trace_lies_within_its_error(small):
    """In 95 of 100 seeds within three standard errors; the error is the spread seen."""

    def one(key):
        found = hessian.trace(small.loss_fn, small.params, small.batch, key, num_probes=30)
        return found.value, found.standard_error

    values, errors = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=20))(
        jax.random.split(jax.random.key(0), 100)
    )
    truth = np.trace(small.dense)
    assert (abs(values - truth) <= 3 * errors).sum() >= 95
    np.testing.assert_allclose(errors.mean(), values.std(ddof=1), rtol=0.2)


def test_trace_of_random_batches_lies_within_its_error(small):
    def one(key):
        found = hessian.batch_trace(
            small.loss_fn, small.params, small.batch, key, batch=4, num_probes=40
        )
        return found.value, found.standard_error

    values, errors = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=20))(
        jax.random.split(jax.random.key(1), 100)
    )
    truth = np.trace(small.dense)
    assert (abs(values - truth) <= 3 * errors).sum() >= 95
    assert abs(values.mean() - truth) < 4 * values.std() / 10
    np.testing.assert_allclose(errors.mean(), values.std(ddof=1), rtol=0.2)


def test_trace_in_chunks_and_side_by_side(small):
    given = {"num_probes": 6, "kind": "gaussian"}
    args = small.loss_fn, small.params, small.batch, jax.random.key(4)
    whole = hessian.trace(*args, **given)
    parts = hessian.trace(*args, **given, chunk=3, together=4)
    plain = estimators.hutchinson_trace(
        hessian.hvp(small.loss_fn, small.params, small.batch),
        jax.random.key(4),
        small.params,
        **given,
    )
    for other in (parts, plain):
        np.testing.assert_allclose(other.value, whole.value, rtol=1e-9)
        np.testing.assert_allclose(other.standard_error, whole.standard_error, rtol=1e-9)


def test_trace_of_random_batches_in_chunks(small):
    args = small.loss_fn, small.params, small.batch, jax.random.key(4)
    whole = hessian.batch_trace(*args, batch=5, num_probes=6)
    for settings in ({"chunk": 2}, {"chunk": 2, "together": 4}):
        parts = hessian.batch_trace(*args, batch=5, num_probes=6, **settings)
        np.testing.assert_allclose(parts.value, whole.value, rtol=1e-9)
        np.testing.assert_allclose(parts.standard_error, whole.standard_error, rtol=1e-9)


def test_trace_to_an_error(small):
    found = hessian.batch_trace(
        small.loss_fn,
        small.params,
        small.batch,
        jax.random.key(5),
        batch=N,
        relative_error=0.05,
    )
    truth = np.trace(small.dense)
    assert abs(found.value - truth) < 4 * found.standard_error
    assert 0.03 < found.standard_error / truth < 0.08


def test_extreme_eigenvalues(problem):
    found = jax.jit(
        lambda key: estimators.extreme_eigenpairs(
            hessian.hvp(problem.loss_fn, problem.params, problem.batch),
            key,
            problem.params,
            top=3,
            bottom=2,
            num_iters=60,
        )
    )(jax.random.key(0))
    truth = np.linalg.eigvalsh(problem.dense)
    np.testing.assert_allclose(found.values, truth[[-1, -2, -3, 1, 0]], rtol=1e-6)
    assert found.residuals.max() < 1e-4


def test_blocks_of_the_trace(small):
    found = estimators.block_traces(
        hessian.hvp(small.loss_fn, small.params, small.batch),
        jax.random.key(0),
        small.params,
        num_probes=400,
    )
    diagonal = small.unravel(jnp.diag(small.dense))
    for path, leaf in jax.tree_util.tree_leaves_with_path(diagonal):
        name = "/".join(part.key for part in path)
        assert abs(found[name].value - leaf.sum()) < 4 * found[name].standard_error + 1e-12


def test_moments_of_the_spectrum(small):
    density = jax.jit(
        lambda key: estimators.spectral_density(
            hessian.hvp(small.loss_fn, small.params, small.batch),
            key,
            small.params,
            num_probes=60,
            num_iters=8,
        )
    )(jax.random.key(0))
    for power in (1, 2, 3):
        found = estimators.mean_over_spectrum(
            density, lambda x, power=power: x**power, "moment"
        )
        truth = np.trace(np.linalg.matrix_power(np.asarray(small.dense), power))
        assert abs(found.value - truth / small.flat.size) < 4 * found.standard_error


def test_sharded_data_stay_where_they_are():
    """On four devices: the same products, and no device receives the others' images."""
    script = textwrap.dedent(
        """
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
        from distilljax.core import losses
        from distilljax.curvature import estimators, hessian
        from distilljax.devices import AXIS
        from distilljax.models import mlp
        from distilljax.types import Batch

        assert jax.device_count() == 4
        model = mlp.make(mlp.Config(width=8, depth=1), (8, 8, 1), 3)
        params = model.init(jax.random.key(0))
        loss_fn = losses.cross_entropy(model.apply)
        data = Batch(
            jax.random.normal(jax.random.key(1), (64, 8, 8, 1)),
            jax.nn.one_hot(jnp.arange(64) % 3, 3),
        )
        v = estimators.probe(jax.random.key(2), params)
        plain = hessian.hvp(loss_fn, params, data, chunk=16)(v)
        mesh = Mesh(np.array(jax.devices()), ("data",))
        data = jax.device_put(data, NamedSharding(mesh, P("data")))

        @jax.jit
        def product(params, data, v):
            return hessian.hvp(loss_fn, params, data, chunk=16)(v)

        compiled = product.lower(params, data, v).compile()
        text = compiled.as_text()
        assert "all-reduce" in text, text
        assert "all-gather" not in text and "all-to-all" not in text, text
        found = compiled(params, data, v)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), found, plain)

        # 66 of 67 examples are shared by three devices, in chunks; one is left over.
        three = Mesh(np.array(jax.devices()[:3]), (AXIS,))
        x = np.random.default_rng(0).normal(size=(67, 5)).astype(np.float32)
        found = hessian.mean_over(lambda x: (x**2).mean(0), x, chunk=4, mesh=three)
        np.testing.assert_allclose(found, (x**2).mean(0), rtol=1e-5)
        print("equal")
        """
    )
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "equal"


def test_a_loss_that_is_no_scalar(small):
    def loss_fn(params, batch):
        return small.model.apply(params, batch.images)

    with pytest.raises(InputError, match=r"returned \(11, 3\) instead of one number"):
        hessian.hvp(loss_fn, small.params, small.batch)


def test_integer_parameters(small):
    params = jax.tree.map(lambda x: x.astype(jnp.int32), small.params)
    with pytest.raises(InputError, match="is int32; derivatives need floating point"):
        hessian.trace(small.loss_fn, params, small.batch, jax.random.key(0), num_probes=2)


def test_no_probes(small):
    args = small.loss_fn, small.params, small.batch, jax.random.key(0)
    with pytest.raises(InputError, match="num_probes=0"):
        hessian.trace(*args, num_probes=0)
    with pytest.raises(InputError, match="num_probes=0"):
        hessian.batch_trace(*args, batch=4, num_probes=0)
    with pytest.raises(InputError, match="either num_probes or relative_error"):
        hessian.batch_trace(*args, batch=4)
    with pytest.raises(InputError, match=r"batch=12: must lie in 1\.\.11"):
        hessian.batch_trace(*args, batch=12, num_probes=2)


def test_nan_in_the_products(small):
    images = small.batch.images.at[3].set(jnp.nan)
    batch = small.batch._replace(images=images)
    with pytest.raises(
        InputError, match="trace of the Hessian of the mean loss is not fin"
    ):
        hessian.trace(small.loss_fn, small.params, batch, jax.random.key(0), num_probes=2)


def test_sets_of_different_shapes(small):
    batch = small.batch._replace(labels=small.batch.labels[:5])
    with pytest.raises(InputError, match=r"\(11, 8, 8, 1\), \(5, 3\)"):
        hessian.hvp(small.loss_fn, small.params, batch)
    with pytest.raises(InputError, match="chunk=0"):
        hessian.hvp(small.loss_fn, small.params, small.batch, chunk=0)(small.params)


def tanh_loss(params, batch):
    inputs, targets = batch
    return jnp.mean((jnp.tanh(inputs @ params["w"]) - targets) ** 2)


@pytest.fixture
def regression():
    key = jax.random.key(0)
    with jax.enable_x64(False):
        params = {"w": jax.random.normal(key, (5, 1))}
        yield (
            params,
            (
                jax.random.normal(jax.random.fold_in(key, 1), (20, 5)),
                jnp.ones((20, 1)),
            ),
        )


def test_half_precision_parameters_are_used_in_single(regression):
    params, batch = regression
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    back = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    key, v = jax.random.key(2), {"w": jnp.arange(5.0)[:, None]}
    for chunk in (None, 7):
        found, expected = (
            hessian.trace(tanh_loss, p, batch, key, num_probes=9, chunk=chunk)
            for p in (half, back)
        )
        assert found.value.dtype == jnp.float32
        np.testing.assert_array_equal(found.value, expected.value)
    found, expected = (hessian.hvp(tanh_loss, p, batch)(v)["w"] for p in (half, back))
    np.testing.assert_array_equal(found, expected)
    dense = jax.hessian(tanh_loss)(back, batch)["w"]["w"].reshape(5, 5)
    largest = estimators.extreme_eigenpairs(
        hessian.hvp(tanh_loss, half, batch), key, half, num_iters=5
    )
    np.testing.assert_allclose(largest.values[0], np.linalg.eigvalsh(dense)[-1], rtol=1e-4)


def test_python_and_numpy_numbers_are_parameters():
    def loss_fn(params, batch):
        return (params["a"] ** 2 * params["b"] * batch).mean()

    params = {"a": 2.0, "b": np.float32(3)}
    found = hessian.hvp(loss_fn, params, jnp.ones(4))({"a": 1.0, "b": 0.0})
    assert (float(found["a"]), float(found["b"])) == (6.0, 4.0)


def test_a_scan_in_the_loss_has_second_derivatives(regression):
    params, batch = regression

    def scanned(params, batch):
        step = lambda x, _: (jnp.tanh(x * params["w"][0, 0]), None)  # noqa: E731
        return jax.lax.scan(step, batch[0], length=3)[0].mean()

    dense = jax.hessian(scanned)(params, batch)["w"]["w"].reshape(5, 5)
    found = hessian.trace(scanned, params, batch, jax.random.key(0), num_probes=1)
    np.testing.assert_allclose(found.value, np.trace(dense), rtol=1e-4)
    v = jnp.arange(5.0)[:, None]
    product = hessian.hvp(scanned, params, batch)({"w": v})["w"]
    np.testing.assert_allclose(product, dense @ v, rtol=1e-4)


@jax.custom_vjp
def reverse_only(x):
    return jnp.sin(x)


# Its forward rule calls the function itself, as most do, so it has no second derivative.
reverse_only.defvjp(lambda x: (reverse_only(x), x), lambda x, g: (g * jnp.cos(x),))


@jax.custom_vjp
def plain_rule(x):
    return jnp.sin(x)


plain_rule.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))


def test_the_way_out_of_a_missing_derivative_is_one(regression):
    params, batch = regression

    def loss_fn(params, batch):
        return plain_rule(params["w"]).sum() + 0 * batch[0].mean()

    with pytest.raises(InputError, match=r"hutchinson_trace of hessian\.hvp"):
        hessian.trace(loss_fn, params, batch, jax.random.key(0), num_probes=2)
    matvec = hessian.hvp(loss_fn, params, batch)
    found = estimators.hutchinson_trace(matvec, jax.random.key(0), params, num_probes=2)
    np.testing.assert_allclose(found.value, -jnp.sin(params["w"]).sum(), rtol=1e-5)


def test_a_derivative_that_is_not_there_is_named(regression):
    params, batch = regression

    def loss_fn(params, batch):
        return reverse_only(params["w"]).sum() * batch[0].mean()

    def looping(params, batch):
        return jax.lax.while_loop(
            lambda x: x < 10, lambda x: 2 * x, params["w"].sum() ** 2 + batch[0].mean()
        )

    def trace():
        return hessian.trace(loss_fn, params, batch, jax.random.key(0), num_probes=2)

    for call, message in (
        (trace, "forward over forward.*custom_vjp"),
        (lambda: hessian.hvp(loss_fn, params, batch)(params), "over reverse.*custom_vjp"),
        (lambda: hessian.hvp(looping, params, batch)(params), "over reverse.*lax.scan"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [jnp.zeros((0, 5)), {"x": jnp.zeros((0, 2))}])
def test_an_empty_data_set_is_refused(data):
    with pytest.raises(InputError, match="the data set is empty"):
        hessian.num_examples(data)
    with pytest.raises(InputError, match="the data set is empty"):
        hessian.hvp(lambda p, b: p["w"].sum(), {"w": jnp.ones(2)}, data)


def test_a_sum_over_examples_is_refused_where_chunks_are_averaged(regression):
    params, batch = regression

    def summed(params, batch):
        return jnp.sum((batch[0] @ params["w"] - batch[1]) ** 2)

    for chunk in (None, 20):
        hessian.hvp(summed, params, batch, chunk=chunk)
    with pytest.raises(InputError, match="the loss is a sum over examples"):
        hessian.hvp(summed, params, batch, chunk=10)
    with pytest.raises(InputError, match="the loss is a sum over examples"):
        hessian.trace(summed, params, batch, jax.random.key(0), num_probes=2, chunk=10)


FUNCTIONS = {
    "hvp": lambda p, params, batch, v: hessian.hvp(p.loss_fn, params, batch)(v),
    "ggn": lambda p, params, batch, v: hessian.ggn(p.model.apply, params, batch)(v),
    "along": lambda p, params, batch, v: hessian.along(p.loss_fn, params, batch, v),
    "trace": lambda p, params, batch, v: (
        hessian.trace(p.loss_fn, params, batch, jax.random.key(v), num_probes=2).value
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_fixed_parameters_are_not_folded_while_compiling(name, small):
    """As many operations are left as where parameters and data are arguments."""
    v = 3 if name == "trace" else jax.tree.map(jnp.ones_like, small.params)

    def function(params, batch, v):
        return FUNCTIONS[name](small, params, batch, v)

    given = jax.jit(function).lower(small.params, small.batch, v).compile()
    fixed = jax.jit(lambda v: function(small.params, small.batch, v)).lower(v).compile()
    one, other = (each.cost_analysis()["flops"] for each in (given, fixed))
    assert other > 0.95 * one
    pairs = zip(
        jax.tree.leaves(fixed(v)),
        jax.tree.leaves(given(small.params, small.batch, v)),
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_a_mean_in_half_precision_does_not_depend_on_the_chunk(chunk):
    found = hessian.mean_over(lambda x: x.mean(), jnp.ones(2048, jnp.bfloat16), chunk=chunk)
    assert found == 1
    assert found.dtype == jnp.bfloat16
