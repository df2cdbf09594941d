"""Every probe against what it is made of, and the contract that all of them keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from distilljax import platforms
from distilljax.config import FieldError
from distilljax.core import distilled as distilled_set
from distilljax.core import inner, losses, sampling
from distilljax.curvature import hessian, kernels
from distilljax.curvature.ntk import empirical_ntk
from distilljax.probes import PROBES, Point
from distilljax.probes.base import arrays, chunk_size, subset
from distilljax.types import Batch, Estimate

TINY = {
    "accuracy": {"images": 12, "chunk": 5},
    "hessian_trace": {"num_probes": 8, "batch": 6},
    "hessian_eigenvalues": {"top": 2, "num_iters": 12, "images": 12, "chunk": 5},
    "hessian_spectrum": {"num_probes": 2, "num_iters": 5, "images": 12},
    "ntk": {"images": 9, "reference": 12},
}


def probe_of(name, problem, **values):
    return PROBES[name].make(PROBES[name].Config(**TINY[name] | values), problem.model)


def network(problem, seed):
    return problem.model.init(jax.random.key(seed))


def point(problem, seed, elapsed):
    return Point(network(problem, seed), jnp.float32(elapsed))


@pytest.fixture(scope="module")
def sets(problem):
    return {"real": problem.real, "distilled": distilled_set.as_batch(problem.distilled)}


def measured(probe, source, reference, points, skip=0):
    """What is found at the last point, those after the first `skip` seen in turn."""
    looked_at = probe.select(source, reference)
    key = jax.random.key(3)
    state = jax.jit(probe.init)(key, points[0], *looked_at)
    measure = jax.jit(probe.measure)
    for one in points[skip:]:
        state, found = measure(key, state, one, *looked_at)
    assert measure._cache_size() == 1, "one program serves all points"
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "real") for name in PROBES), ("hessian_trace", "distilled")],
)
def test_contract(problem, sets, name, kind):
    probe = probe_of(name, problem)
    points = [point(problem, seed, 10 * (seed > 0)) for seed in range(4)]
    whole = measured(probe, sets[kind], problem.real, points)
    for found in whole.values():
        assert isinstance(found, Estimate)
        assert found.of
        assert not np.isnan(found.value).any()
        assert found.value.shape == found.standard_error.shape
    resumed = measured(probe, sets[kind], problem.real, points, skip=2)
    for quantity, found in whole.items():
        np.testing.assert_array_equal(found.value, resumed[quantity].value)


@pytest.mark.parametrize("kind", ["real", "distilled"])
def test_accuracy(problem, sets, kind):
    probe = probe_of("accuracy", problem, images=None)
    found = measured(probe, sets[kind], problem.real, [point(problem, 4, 0)])
    data, read = arrays(sets[kind])
    batch = read(data)
    logits = np.asarray(problem.model.apply(network(problem, 4), batch.images))
    right = logits.argmax(1) == np.asarray(batch.labels).argmax(1)
    np.testing.assert_allclose(found["accuracy"].value, right.mean(), rtol=1e-6)
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss = -(np.asarray(batch.labels) * logp).sum(1).mean()
    np.testing.assert_allclose(found["loss"].value, loss, rtol=1e-5)


def test_hessian_trace_of_a_small_set_uses_all_of_it(problem, sets):
    batch = sets["distilled"]
    probe = probe_of("hessian_trace", problem, batch=6)
    found = measured(probe, batch, problem.real, [point(problem, 4, 0)])
    expected = hessian.trace(
        losses.cross_entropy(problem.model.apply),
        network(problem, 4),
        batch,
        jax.random.key(3),
        num_probes=8,
    )
    np.testing.assert_allclose(found["hessian_trace"].value, expected.value, rtol=1e-4)


def test_hessian_probes_against_the_dense_matrix(problem, sets):
    batch = sets["distilled"]
    flat, unravel = ravel_pytree(network(problem, 4))
    loss_fn = losses.cross_entropy(problem.model.apply)
    dense = np.asarray(jax.jit(jax.hessian(lambda p: loss_fn(unravel(p), batch)))(flat))
    at = [point(problem, 4, 0)]
    many = probe_of("hessian_trace", problem, batch=3, num_probes=2000, together=100)
    trace = measured(many, batch, problem.real, at)["hessian_trace"]
    assert abs(trace.value - np.trace(dense)) < 4 * trace.standard_error
    values = np.linalg.eigvalsh(dense)
    extreme = measured(probe_of("hessian_eigenvalues", problem), batch, problem.real, at)
    for name, truth in (
        ("top_1", values[-1]),
        ("top_2", values[-2]),
        ("bottom_1", values[0]),
    ):
        gap = abs(extreme[name].value - truth)
        assert gap <= 1.1 * extreme[name].standard_error + 1e-4 * values[-1], name
    spectrum = measured(
        probe_of("hessian_spectrum", problem, num_probes=40), batch, problem.real, at
    )
    mean, square = spectrum["mean"], spectrum["root_mean_square"]
    assert abs(mean.value - values.mean()) < 4 * mean.standard_error
    truth = np.sqrt((values**2).mean())
    assert abs(square.value - truth) < 4 * square.standard_error


def test_ntk(problem, sets):
    source, reference = sets["distilled"], problem.real
    probe = probe_of("ntk", problem, images=6)
    points = [point(problem, 0, 0), point(problem, 1, 10), point(problem, 2, 5)]
    found = measured(probe, source, reference, points)

    def kernel(params, x, y=None):
        return empirical_ntk(problem.model.apply, params, x, y, form="trace") / 3

    first, last, now = (kernel(p.params, source.images) for p in points)
    real = subset(reference, 12)
    cross = kernel(points[2].params, real.images, source.images)
    f0, f_real = (
        np.asarray(problem.model.apply(points[2].params, x))
        for x in (source.images, real.images)
    )
    ridge = 1e-3 * np.trace(now) / 6
    solved = np.linalg.solve(now + ridge * np.eye(6), source.labels - 1 / 3 - f0)
    right = (f_real + cross @ solved).argmax(1) == np.asarray(real.labels).argmax(1)
    expected = {
        "distance": kernels.kernel_distance(now, first),
        "velocity": kernels.kernel_distance(now, last) / 5,
        "label_alignment": kernels.label_alignment(now, source.labels),
        "effective_rank": kernels.effective_rank(kernels.spectrum(now)),
        "linearised_accuracy": right.mean(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].value, value, rtol=1e-3, err_msg=name)
    start = measured(probe, source, reference, points[:1])
    np.testing.assert_allclose(start["distance"].value, 0, atol=1e-6)
    assert start["velocity"].value == 0


def test_subset_takes_as_many_of_each_class(problem, sets):
    of_real = subset(problem.real, 10)
    assert isinstance(of_real, Batch)
    np.testing.assert_array_equal(of_real.labels.sum(0), [3, 3, 3])
    first = np.asarray(problem.real.class_index[:, :3]).reshape(-1)
    expected = sampling.take(problem.real, first)
    np.testing.assert_allclose(of_real.images, expected.images)
    distilled = sets["distilled"]
    np.testing.assert_allclose(subset(distilled, 3).images, distilled.images[::2])
    assert subset(distilled, 6) is distilled
    assert subset(distilled, None) is distilled


def test_more_eigenvalues_than_iterations_are_refused():
    with pytest.raises(FieldError, match="no more than that many values"):
        PROBES["hessian_eigenvalues"].Config(top=20, num_iters=20)


def test_a_cpu_takes_fewer_images_at_a_time_and_never_more_than_asked():
    few = jnp.ones(3)
    with platforms.target("cpu"):
        assert chunk_size(500, 500, few) == inner.cache_chunk(500, few) < 500
        assert chunk_size(3, 500, few) == 3
        assert chunk_size(500, 2, few) == 2
    with platforms.target("cuda"):
        assert chunk_size(100, 500, few) == 100
        assert chunk_size(500, 100, few) == 100
