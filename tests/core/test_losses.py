"""Losses against numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.core.losses import accuracy, cross_entropy, squared_error
from distilljax.types import Batch, InputError


def linear(params, images):
    return images.reshape(images.shape[0], -1) @ params


def reference(logits, labels):
    logits = logits - logits.max(1, keepdims=True)
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -(labels * log_softmax).sum(1).mean()


def test_cross_entropy_by_hand():
    """Logits (0, log 3): probabilities 1/4 and 3/4."""
    loss_fn = cross_entropy(linear)
    params, image = jnp.array([[0.0, np.log(3.0)]]), jnp.ones((1, 1, 1, 1))
    for labels, expected in (
        ([1.0, 0.0], np.log(4)),
        ([0.0, 1.0], np.log(4 / 3)),
        ([0.5, 0.5], (np.log(4) + np.log(4 / 3)) / 2),
    ):
        loss = loss_fn(params, Batch(image, jnp.array([labels])))
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("soft", [True, False])
def test_cross_entropy_is_a_mean_over_label_distributions(soft):
    rng = np.random.default_rng(0)
    images, params = rng.normal(size=(6, 2, 2, 1)), 3 * rng.normal(size=(4, 5))
    labels = rng.dirichlet(np.ones(5), 6) if soft else np.eye(5)[rng.integers(0, 5, 6)]
    logits = images.reshape(6, -1) @ params
    batch = Batch(jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.float32))
    loss, grad = jax.value_and_grad(cross_entropy(linear))(
        jnp.asarray(params, jnp.float32), batch
    )
    assert loss.shape == ()
    np.testing.assert_allclose(loss, reference(logits, labels), rtol=1e-5)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = images.reshape(6, -1).T @ (softmax - labels) / 6
    np.testing.assert_allclose(grad, expected, atol=1e-5)


def test_cross_entropy_of_huge_logits_is_finite():
    params, image = jnp.array([[1e4, 0.0]]), jnp.ones((1, 1, 1, 1))
    loss, grad = jax.value_and_grad(cross_entropy(linear))(
        params, Batch(image, jnp.array([[0.0, 1.0]]))
    )
    assert loss == 1e4
    np.testing.assert_array_equal(grad, [[1.0, -1.0]])


def test_accuracy():
    logits = jnp.array([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [0.0, 1.0, 9.0], [4.0, 3.0, 3.0]])
    assert accuracy(logits, jnp.array([0, 1, 2, 0])) == 1.0
    assert accuracy(logits, jnp.array([0, 1, 0, 1])) == 0.5
    both = accuracy(jnp.stack([logits, -logits]), jnp.array([0, 1, 2, 1]))
    np.testing.assert_array_equal(both, [0.75, 0.25])


@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3), (1, 4), (4, 4, 1)])
def test_class_numbers_do_not_pass_for_rows(shape, loss):
    """Also where there are as many images as classes, and numbers would broadcast."""
    batch = Batch(jnp.ones((4, 1, 2, 1)), jnp.zeros(shape))
    with pytest.raises(InputError, match=r"beside logits \[4, 4\].*jax.nn.one_hot"):
        jax.eval_shape(loss(linear), jnp.ones((2, 4)), batch)


def test_a_network_that_returns_its_state_is_refused():
    batch = Batch(jnp.ones((2, 1, 2, 1)), jnp.eye(2))
    with pytest.raises(InputError, match=r"apply returned tuple .* state are not"):
        cross_entropy(lambda p, x: (linear(p, x), {}))(jnp.ones((2, 2)), batch)


def test_accuracy_is_float32_in_double_precision_too(float64):
    assert accuracy(jnp.eye(3), jnp.arange(3)).dtype == jnp.float32
