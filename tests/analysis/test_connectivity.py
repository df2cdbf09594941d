"""Linear mode connectivity, against closed forms."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.analysis import connectivity
from distilljax.types import InputError


def test_a_quadratic_along_a_line_is_the_closed_form():
    """|v + a (w - v)|^2 with v = -w: (1 - 2 a)^2 |w|^2, lowest in the middle."""
    w = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[2.0]])}
    v = jax.tree.map(jnp.negative, w)
    shares = connectivity.points(5)

    def norm(params):
        return sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(params))

    found = jax.jit(lambda v, w: connectivity.along(norm, v, w, shares))(v, w)
    np.testing.assert_allclose(found, 9 * (1 - 2 * shares) ** 2, rtol=1e-6)
    assert connectivity.barrier(found, shares) == 0


def test_the_barrier_is_the_rise_above_the_straight_line():
    shares = np.array([0.0, 0.25, 0.5, 1.0])
    values = np.array([[0.1, 0.2, 0.9, 0.3], [0.1, 0.15, 0.2, 0.3]])
    # The line from 0.1 to 0.3 is at 0.2 in the middle; the second never leaves it.
    np.testing.assert_allclose(connectivity.barrier(values, shares), [0.7, 0], atol=1e-12)
    instability = 0.9 - (0.2 + 0.2) / 2  # of Frankle et al., ends of equal error
    np.testing.assert_allclose(
        connectivity.barrier(np.array([0.2, 0.9, 0.2]), np.array([0, 0.5, 1])), instability
    )


def test_two_units_swapped_are_the_same_function_and_apart():
    """tanh networks whose hidden units are swapped: equal at the ends, not between."""
    params = {"in": jnp.array([3.0, -1.0]), "out": jnp.array([1.0, 2.0])}
    swapped = jax.tree.map(lambda x: x[::-1], params)
    x = jnp.linspace(-2, 2, 9)

    def outputs(p):
        return jnp.tanh(x[:, None] * p["in"]) @ p["out"]

    def error(p):
        return jnp.mean((outputs(p) - outputs(params)) ** 2)

    shares = connectivity.points(3)
    found = np.asarray(connectivity.along(error, params, swapped, shares))
    middle = {"in": jnp.array([1.0, 1.0]), "out": jnp.array([1.5, 1.5])}
    np.testing.assert_allclose(found, [0, error(middle), 0], rtol=1e-6, atol=1e-6)
    assert connectivity.barrier(found, shares) == pytest.approx(float(error(middle)))


@pytest.mark.parametrize("shares", [[0.0], [0.0, 0.5], [0.1, 1.0], [0.0, 0.6, 0.5, 1.0]])
def test_shares_that_are_no_line_are_refused(shares):
    with pytest.raises(InputError, match="expected to rise from 0 to 1"):
        connectivity.barrier(np.zeros(len(shares)), np.array(shares))


def test_values_at_other_shares_are_refused():
    with pytest.raises(InputError, match="3 values at 2 shares"):
        connectivity.barrier(np.zeros(3), np.array([0.0, 1.0]))


def test_sharpness_is_the_trace_of_the_dense_gauss_newton_matrix():
    """Sum over classes in place of draws: J^T (diag p - p p^T) J, made densely."""
    key = jax.random.key(0)
    params = {
        "w": jax.random.normal(key, (2, 3, 4)),
        "v": jax.random.normal(jax.random.key(1), (4, 3)),
    }
    images = jax.random.normal(jax.random.key(2), (6, 2, 3, 1))

    def apply(params, x):
        return jnp.tanh(jnp.einsum("nhwc,hwd->nd", x, params["w"])) @ params["v"]

    flat, restore = jax.flatten_util.ravel_pytree(params)
    jacobian = jax.jacobian(lambda p: apply(restore(p), images))(flat)  # [n, k, p]
    p = jax.nn.softmax(apply(params, images))
    inner = jax.vmap(jnp.diag)(p) - p[:, :, None] * p[:, None]
    matrix = jnp.einsum("nap,nab,nbq->pq", jacobian, inner, jacobian) / 6
    many = jnp.tile(images, (2000, 1, 1, 1))
    found = connectivity.sharpness(apply, params, many, key, chunk=500)
    assert abs(found.value - jnp.trace(matrix)) < 4 * found.standard_error
    assert found.standard_error < 0.02 * found.value
    assert found.num_probes == 12_000
    again = connectivity.sharpness(apply, params, many[:7], key, chunk=3)
    assert again.value > 0
