"""Norm, ReLU and pooling against their definitions, of every order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.models import functional

AXES = {"instance": (1, 2), "layer": (1, 2, 3)}


def defined_norm(x, axes, scale, bias):
    """As it is written, without a rule for its derivative."""
    mean = x.mean(axes, keepdims=True)
    variance = ((x - mean) ** 2).mean(axes, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias


def defined_pool(x):
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def block(norm, relu, pool, axes, x, scale, bias):
    return pool(relu(norm(x, axes, scale, bias)))


OURS = functools.partial(
    block, functional.normalise, functional.relu, functional.average_pool
)
DEFINED = functools.partial(block, defined_norm, jax.nn.relu, defined_pool)


def orders(function, x, scale, bias, direction):
    """Values and derivatives of first and second order, in both modes."""

    def loss(x, scale, bias):
        return jnp.sin(3 * function(x, scale, bias)).mean()

    grad = jax.grad(loss, (0, 1, 2))

    def squares(x, scale, bias):
        return sum((g**2).sum() for g in grad(x, scale, bias))

    def slope(x):
        return jax.jvp(lambda x: loss(x, scale, bias), (x,), (direction,))[1]

    return {
        "value": function(x, scale, bias),
        "gradients": grad(x, scale, bias),
        "reverse over reverse": jax.grad(squares, (0, 1, 2))(x, scale, bias),
        "forward over forward": jax.jvp(slope, (x,), (direction,))[1],
        "forward over reverse": jax.jvp(lambda x: grad(x, scale, bias), (x,), (direction,))[
            1
        ],
    }


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.float64, 1e-12)]
)
def test_every_order_is_that_of_the_definition(axes, dtype, tolerance, float64):
    """In either precision against float64, under vmap; channels far from zero mean too."""
    rng = np.random.default_rng(0)
    shape = (3, 2, 6, 4, 5)
    x = rng.normal(size=shape) + np.array([0, 1, -1, 3, -3])
    given = x, rng.normal(size=(3, 5)), rng.normal(size=(3, 5)), rng.normal(size=shape)

    def all_of(block, dtype):
        function = functools.partial(block, axes)
        cast = [jnp.asarray(g, dtype) for g in given]
        return jax.jit(jax.vmap(functools.partial(orders, function)))(*cast)

    expected, found = all_of(DEFINED, jnp.float64), all_of(OURS, dtype)
    for name, theirs in expected.items():
        for a, b in zip(*map(jax.tree.leaves, (found[name], theirs)), strict=True):
            assert a.dtype == dtype
            assert jnp.linalg.norm((a - b).ravel()) < tolerance * jnp.linalg.norm(b), name


def test_relu_at_zero_is_flat_and_keeps_nan():
    """As PyTorch's and JAX's own; the derivative at zero is zero."""
    x = jnp.array([-1.0, -0.0, 0.0, 2.0, jnp.nan, jnp.inf, -jnp.inf])
    np.testing.assert_array_equal(functional.relu(x), jax.nn.relu(x))
    grad = jax.vmap(jax.grad(functional.relu))
    np.testing.assert_array_equal(grad(x[:4]), [0, 0, 0, 1])
    np.testing.assert_array_equal(grad(x[:4]), jax.vmap(jax.grad(jax.nn.relu))(x[:4]))
    assert jax.grad(jax.grad(functional.relu))(2.0) == 0


def test_the_variance_of_a_far_mean_does_not_cancel():
    x = 1000 + np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    mean, variance = functional.moments(jnp.asarray(x), (1,))
    np.testing.assert_allclose(mean[:, 0], x.astype(np.float64).mean(1), rtol=1e-6)
    np.testing.assert_allclose(variance[:, 0], x.astype(np.float64).var(1), rtol=1e-4)
