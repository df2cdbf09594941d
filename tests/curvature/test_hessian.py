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
