"""Rematerialisation changes the memory, never the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.core.scan import scan
from distilljax.types import InputError

POLICIES = ("none", "step", "nested")


def wave(carry, x):
    carry = jnp.sin(carry * 1.1 + x)
    return carry, (carry.sum(), x)


@pytest.mark.parametrize("num_steps", [1, 3, 4, 9, 11])
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
