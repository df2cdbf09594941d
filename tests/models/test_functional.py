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


@functools.cache
def given():
    rng = np.random.default_rng(0)
    shape = (3, 2, 6, 4, 5)
    x = rng.normal(size=shape) + np.array([0, 1, -1, 3, -3])
    return x, rng.normal(size=(3, 5)), rng.normal(size=(3, 5)), rng.normal(size=shape)


def all_of(block, axes, dtype):
    function = functools.partial(block, AXES[axes])
    cast = [jnp.asarray(g, dtype) for g in given()]
    return jax.jit(jax.vmap(functools.partial(orders, function)))(*cast)


@functools.cache
def expected_of(axes):
    return all_of(DEFINED, axes, jnp.float64)


@pytest.fixture
def lowered_for(monkeypatch):
    """Has this CPU run the program of another platform."""

    def choose(platform):
        def dependent(*args, default, **branches):
            return branches.get(platform, default)(*args)

        monkeypatch.setattr(jax.lax, "platform_dependent", dependent)

    return choose


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.float64, 1e-12)]
)
def test_every_order_is_that_of_the_definition(
    axes, platform, dtype, tolerance, float64, lowered_for
):
    """In either precision against float64, under vmap; channels far from zero mean too."""
    expected = expected_of(axes)
    lowered_for(platform)
    found = all_of(OURS, axes, dtype)
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


def test_no_step_of_a_scan_reads_a_constant_as_large_as_its_values():
    """Zeros of a choice would be carried into the loop, and read there again and again."""

    def loss(x):
        def body(x, _):
            ones, zeros = jnp.ones(3), jnp.zeros(3)
            y = functional.relu(functional.normalise(x, (1, 2), ones, zeros))
            return x + functional.average_pool(y).mean(), None

        return jax.lax.scan(body, x, None, length=2)[0].sum()

    x = jnp.ones((5, 8, 8, 3))
    loops = [
        eqn
        for eqn in jax.make_jaxpr(jax.grad(loss))(x).eqns
        if eqn.primitive.name == "scan"
    ]
    assert len(loops) == 2
    params = loops[0].params
    if "num_consts" in params:
        first = params["num_consts"]
    else:  # JAX 0.12: a tree of constants, carry and inputs
        first = len(params["ft_in"].unpack()[0])
    assert all(var.aval.size < x.size for var in loops[0].invars[:first])


FORMULATIONS = [functional.centred_moments, functional.shifted_moments]


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_the_variance_of_a_far_mean_does_not_cancel(formulation):
    x = 1000 + np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    mean, variance = formulation(jnp.asarray(x), (1,))
    np.testing.assert_allclose(mean[:, 0], x.astype(np.float64).mean(1), rtol=1e-6)
    np.testing.assert_allclose(variance[:, 0], x.astype(np.float64).var(1), rtol=1e-4)


@pytest.mark.parametrize("far", [0.0, 1.0, 1e3])
def test_the_worst_first_value_costs_n_roundings(far):
    """All values equal but the first, which is as many deviations away as can be."""
    num, eps = 1024, np.finfo(np.float32).eps
    x = np.full((8, num), far, np.float32)
    x[:, 0] += np.linspace(1, 3, 8, dtype=np.float32)
    exact = x.astype(np.float64).var(1)
    _, variance = functional.shifted_moments(jnp.asarray(x), (1,))
    assert (abs(np.asarray(variance)[:, 0] - exact) < 4 * num * eps * exact).all()
    ordinary = np.random.default_rng(0).normal(far, 1, (64, num)).astype(np.float32)
    _, variance = functional.shifted_moments(jnp.asarray(ordinary), (1,))
    exact = ordinary.astype(np.float64).var(1)
    assert (abs(np.asarray(variance)[:, 0] - exact) < 20 * eps * exact).all()


def test_a_constant_has_variance_zero():
    x = jnp.full((3, 49), 0.1)
    for formulation in FORMULATIONS:
        mean, variance = formulation(x, (1,))
        np.testing.assert_allclose(mean, 0.1, rtol=1e-6)
        assert (variance >= 0).all()
        assert (variance < 1e-13).all()


def test_half_precision_is_normalised_in_float32():
    x = np.random.default_rng(0).normal(3, 1, (2, 32, 32, 4)).astype(np.float32)
    low = jnp.asarray(x, jnp.bfloat16)
    scale, bias = jnp.ones(4), jnp.zeros(4)
    found = functional.normalise(low, (1, 2), scale, bias)
    expected = defined_norm(low.astype(jnp.float32), (1, 2), scale, bias)
    assert found.dtype == jnp.bfloat16
    error = abs(found.astype(jnp.float32) - expected)
    assert (error <= 2**-8 * abs(expected) + 1e-6).all()  # a rounding to eight bits
