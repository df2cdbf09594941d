"""Rematerialisation changes the memory, never the numbers."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.core.scan import scan, summed
from distilljax.types import InputError
from tests.cases import some

POLICIES = ("none", "step", "nested")


def wave(carry, x):
    carry = jnp.sin(carry * 1.1 + x)
    return carry, (carry.sum(), x)


@pytest.mark.parametrize("num_steps", some([1, 3, 4, 9, 11], 1, 9))
@pytest.mark.parametrize("remat", POLICIES)
def test_values_and_derivatives_are_those_of_lax_scan(float64, remat, num_steps):
    xs = jnp.linspace(-1.0, 1.0, num_steps * 3).reshape(num_steps, 3)
    start = jnp.array([0.3, -0.2, 0.9])

    def total(run, start, xs):
        carry, (sums, copies) = run(wave, start, xs)
        return (carry**2).sum() + (sums * jnp.arange(num_steps)).sum() + copies.sum()

    def ours(body, carry, xs):
        return scan(body, carry, xs, remat=remat)

    jax.tree.map(
        np.testing.assert_array_equal, ours(wave, start, xs), jax.lax.scan(wave, start, xs)
    )

    def first(run):
        return jax.grad(lambda *point: total(run, *point), argnums=(0, 1))

    def second(run):
        return jax.grad(lambda *point: (first(run)(*point)[1] ** 3).sum(), argnums=(0, 1))

    for derivative in (first, second):
        expected = derivative(jax.lax.scan)(start, xs)
        for a, b in zip(derivative(ours)(start, xs), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def temporary_bytes(remat, num_steps, width=64):
    """Of the compiled gradient of `num_steps` layers with 32 wide hidden values each."""

    def layer(x, scale):
        hidden = jnp.tanh(x[None] * jnp.linspace(0.1, 2.0, 32)[:, None])
        return jnp.tanh(hidden * scale).sum(0), None

    def loss(x, scales):
        return scan(layer, x, scales, remat=remat)[0].sum()

    compiled = jax.jit(jax.grad(loss)).lower(jnp.ones(width), jnp.ones(num_steps)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_grows_as_the_policy_says():
    carry, hidden = 64 * 4, 32 * 64 * 4
    growth = {
        policy: temporary_bytes(policy, 256) - temporary_bytes(policy, 64)
        for policy in POLICIES
    }
    assert growth["none"] > 192 * hidden
    assert growth["step"] < 192 * (2 * carry + 64)
    assert growth["nested"] < growth["step"] / 4


def test_an_unknown_policy_is_refused():
    with pytest.raises(InputError, match="remat='all': expected one of none, step, nested"):
        scan(wave, jnp.zeros(3), jnp.zeros((2, 3)), remat="all")


def term(shared, x):
    weights, key = shared["weights"], x["key"]
    noise = jax.random.normal(key, x["given"].shape, x["given"].dtype)
    logits = jnp.tanh(x["given"] * (1 + 0.1 * noise)) @ weights
    return jnp.sin(logits)[x["number"]] * x["scale"].sum()


@pytest.fixture
def terms(float64):
    rng = np.random.default_rng(0)
    shared = {"weights": jnp.asarray(rng.standard_normal((4, 3)))}
    xs = {
        "given": jnp.asarray(rng.standard_normal((5, 4))),
        "scale": jnp.asarray(rng.standard_normal((5, 2))),
        "number": jnp.array([0, 2, 1, 1, 0]),
        "key": jax.random.split(jax.random.key(3), 5),
    }
    return shared, xs


def plain_sum(function, shared, xs):
    return sum(function(shared, jax.tree.map(operator.itemgetter(i), xs)) for i in range(5))


@pytest.mark.parametrize(
    "moving",
    some([("weights",), ("given",), ("weights", "given", "scale")], ("weights",)),
)
def test_a_sum_has_every_derivative_of_its_terms(terms, moving):
    shared, xs = terms
    point = {name: (shared | xs)[name] for name in moving}

    def by(total):
        def of(point):
            changed = [
                {name: point.get(name, value) for name, value in side.items()}
                for side in (shared, xs)
            ]
            return total(term, *changed)

        return of

    ours, expected = by(summed), by(plain_sum)
    direction = jax.tree.map(jnp.cos, point)

    def along(of):
        return lambda point: jax.jvp(of, (point,), (direction,))

    same = functools.partial(
        jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-12)
    )
    same(ours(point), expected(point))
    same(jax.grad(ours)(point), jax.grad(expected)(point))
    same(jax.jit(jax.grad(ours))(point), jax.grad(expected)(point))
    same(along(ours)(point), along(expected)(point))
    same(along(jax.grad(ours))(point), along(jax.grad(expected))(point))
    same(jax.hessian(ours)(point), jax.hessian(expected)(point))
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), point)
    same(jax.vmap(jax.grad(ours))(many), jax.vmap(jax.grad(expected))(many))


def test_the_gradient_of_a_sum_needs_the_memory_of_one_term():
    def wide(weights, x):
        return jnp.tanh(x[:, None] * weights).sum()

    def temporary(total):
        gradient = jax.jit(jax.grad(lambda w, xs: total(wide, w, xs), argnums=(0, 1)))
        compiled = gradient.lower(jnp.ones(64), jnp.ones((50, 100))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    def kept(function, weights, xs):
        return jax.lax.map(lambda x: function(weights, x), xs).sum()

    assert temporary(summed) < temporary(kept) / 10


def test_a_term_that_is_at_rest_has_no_gradient_computed():
    """An image is fixed; the kernel's gradient alone is what it costs."""

    def loss(weights, x):
        return jnp.tanh(jnp.tanh(x @ weights) @ weights.T).sum()

    def products(argnums):
        gradient = jax.grad(lambda w, xs: summed(loss, w, xs), argnums)
        text = str(jax.make_jaxpr(gradient)(jnp.ones((8, 8)), jnp.ones((3, 4, 8))))
        return text.count("dot_general")

    assert products((0,)) == 5
    assert products((0, 1)) == 6
