"""`regression.linearised_ridge` against the dense empirical NTK and the closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.core import losses, regression
from distilljax.curvature import kernels, ntk
from distilljax.models import convnet
from distilljax.types import InputError

RIDGE = 0.1


@pytest.fixture
def network(float64):
    """A ConvNet without norm, its parameters in double precision."""
    config = convnet.Config(width=3, depth=2, norm="none")
    model = convnet.make(config, (8, 8, 1), 3)
    params = model.init(jax.random.key(0))
    return model, jax.tree.map(lambda x: x.astype(jnp.float64), params)


@pytest.fixture
def points(float64):
    """Images and targets to train on, others, and what these should be."""
    shapes = ((4, 8, 8, 1), (4, 3), (5, 8, 8, 1), (5, 3))
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def dense(model, params, images, targets, others):
    """The same by the kernel and a direct solve."""
    k_ss, k_ts = (
        kernels.as_matrix(ntk.empirical_ntk(model.apply, params, a, images, form="full"))
        for a in (images, others)
    )
    solved = jnp.linalg.solve(k_ss + RIDGE * jnp.eye(len(k_ss)), targets.ravel())
    return (k_ts @ solved).reshape(len(others), -1)


def free_ridge(network, images, targets, others, **settings):
    """The same without the kernel."""
    model, params = network
    return regression.linearised_ridge(
        model.apply, params, images, targets, others, ridge=RIDGE, **settings
    )


@pytest.mark.parametrize(
    "preconditioned", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_predictions_and_implicit_gradient_are_those_of_the_dense_kernel(
    network, points, preconditioned
):
    """By images and by targets, against differentiating through the direct solve."""
    model, params = network
    images, targets, others, wanted = points

    def free(images, targets):
        features = model.features if preconditioned else None
        settings = {"num_iters": 60, "features": features, "chunk": 2}
        return free_ridge(network, images, targets, others, **settings)

    def error(predict):
        return lambda *args: jnp.square(predict(*args) - wanted).sum()

    whole = lambda *args: dense(model, params, *args, others)  # noqa: E731
    np.testing.assert_allclose(free(images, targets), whole(images, targets), rtol=1e-9)
    found = jax.jit(jax.grad(error(free), (0, 1)))(images, targets)
    expected = jax.jit(jax.grad(error(whole), (0, 1)))(images, targets)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8 * float(jnp.abs(b).max()))


def test_the_preconditioner_saves_iterations(network, points):
    model, params = network
    images, targets, others, _ = points
    exact = dense(model, params, images, targets, others)
    gaps = [
        jnp.abs(
            free_ridge(network, images, targets, others, num_iters=4, features=features)
            - exact
        ).max()
        for features in (None, model.features)
    ]
    assert gaps[1] < gaps[0] / 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ridge": 0.0}, "ridge=0.0"),
        ({"ridge": np.float32(-3)}, "ridge=-3.0"),
        ({"ridge": jnp.nan}, "ridge=nan"),
        ({"num_iters": 0}, "num_iters=0"),
        ({"targets": jnp.ones((4, 2))}, r"targets \[4, 2\]"),
    ],
)
def test_what_cannot_be_solved_is_refused(network, points, changed, words):
    model, params = network
    images, targets, others, _ = points
    given = {"targets": targets, "ridge": 1.0, **changed}
    with pytest.raises(InputError, match=words):
        regression.linearised_ridge(model.apply, params, images, others=others, **given)


def test_the_best_temperature_is_the_least_of_a_grid(float64):
    """Value and derivative; logits that are worse than chance give log k."""
    rng = np.random.default_rng(1)
    labels = jnp.eye(4)[rng.integers(4, size=30)]
    logits = jnp.asarray(0.01 * (labels + rng.normal(size=(30, 4))))

    def at(factor):
        shares = factor * logits - jax.nn.logsumexp(factor * logits, 1, keepdims=True)
        return -(labels * shares).sum(1).mean()

    value, grad = jax.value_and_grad(losses.tempered_cross_entropy)(logits, labels)
    least = min(float(at(factor)) for factor in np.geomspace(1, 1e4, 2000))
    assert least - 1e-4 < value <= least
    step, moved = 1e-6, jnp.asarray(rng.normal(size=(30, 4)))
    up, down = (
        losses.tempered_cross_entropy(logits + sign * step * moved, labels)
        for sign in (1, -1)
    )
    np.testing.assert_allclose((up - down) / (2 * step), (grad * moved).sum(), rtol=1e-6)
    worse = losses.tempered_cross_entropy(-labels, labels)
    np.testing.assert_allclose(worse, np.log(4), rtol=1e-6)


def test_a_chunk_may_be_larger_than_what_is_predicted():
    """And targets may be integers."""
    images, others = jnp.eye(3), jnp.ones((3, 3))
    found = regression.linearised_ridge(
        lambda p, x: x @ p,
        jnp.zeros((3, 1)),
        images,
        jnp.array([[2], [4], [6]]),
        others,
        ridge=1.0,
        chunk=8,
    )
    np.testing.assert_allclose(found, 6.0, rtol=1e-5)
