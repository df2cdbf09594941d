"""The examples: their gradients by finite differences, what they find, their memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distilljax.core import inner
from tests.examples import schedule, weights


def test_mislabelled_images_are_found():
    noisy, wrong, clean = weights.noisy_and_clean()
    assert wrong.sum() == weights.TRAIN // 4
    logits, losses = weights.learn(noisy, clean)
    assert losses[-1] < losses[0]
    assert weights.separation(logits, wrong) > 0.85
    shuffled = np.random.default_rng(1).permutation(wrong)
    assert 0.35 < weights.separation(logits, shuffled) < 0.65


def test_the_gradient_of_a_weight_is_the_difference_quotient(float64):
    (images, labels), _, clean = weights.noisy_and_clean()
    noisy, key = (images[:20].astype(jnp.float64), labels[:20]), jax.random.key(3)
    clean = (clean[0][:20].astype(jnp.float64), clean[1][:20])
    loss = jax.jit(lambda x: weights.outer_loss(x, key, noisy, clean))
    direction = jax.random.normal(key, (20,), jnp.float64)
    grad = jax.jit(jax.grad(loss))(jnp.zeros(20)) @ direction
    numeric = (loss(1e-6 * direction) - loss(-1e-6 * direction)) / 2e-6
    np.testing.assert_allclose(grad, numeric, rtol=1e-5)


@pytest.fixture(scope="module")
def sets():
    return [schedule.points(jax.random.key(s), 60 * s) for s in (1, 5)]


def test_a_schedule_and_a_strength_lower_the_loss(sets):
    learned, losses = schedule.learn(*sets)
    assert losses[-3:].mean() < losses[:3].mean() - 0.02
    assert np.ptp(learned.log_rates) > 0.1


def test_the_gradient_by_rates_and_strength_is_the_difference_quotient(sets, float64):
    train, held_out = jax.tree.map(lambda x: x.astype(jnp.float64), sets)
    at = schedule.Learned(jnp.full(7, -1.0), jnp.asarray(-1.0))
    key = jax.random.key(2)
    loss = jax.jit(lambda x: schedule.outer_loss(x, key, train, held_out))
    grad = jax.jit(jax.grad(loss))(at)
    for name in schedule.Learned._fields:
        x = getattr(at, name)
        direction = jax.random.normal(key, x.shape, jnp.float64)
        ends = [
            loss(at._replace(**{name: x + sign * 1e-5 * direction})) for sign in (1, -1)
        ]
        numeric = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(
            jnp.vdot(getattr(grad, name), direction), numeric, rtol=1e-6
        )


def test_memory_grows_by_parameters_not_activations():
    """A set of parameters a step, or of its square root; not the activations of a batch."""
    num = 400
    width = 8
    params = {"a": jnp.zeros((width, width)), "b": jnp.zeros((width, 1))}
    held = 4 * (width * width + width)

    def loss_fn(params, batch):
        return jnp.mean(batch[1] * (jnp.tanh(batch[0] @ params["a"]) @ params["b"])[:, 0])

    def bytes_of(num_steps, remat):
        def outer(weights, x):
            rule = optax.sgd(0.1)
            state, _ = inner.unroll(
                loss_fn, rule, lambda _: (x, weights), inner.init(params, rule),
                jnp.arange(num_steps), remat=remat,
            )  # fmt: skip
            return loss_fn(state.params, (x, 1.0))

        shapes = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((num,), (num, width)))
        compiled = jax.jit(jax.grad(outer)).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    growth = {r: bytes_of(400, r) - bytes_of(100, r) for r in ("none", "step", "nested")}
    activations = 4 * num * width
    assert growth["none"] > 300 * activations
    # Parameters, and their gradient where the reverse pass needs it.
    assert growth["step"] < 300 * 3 * held < 300 * activations / 10
    assert growth["nested"] < growth["step"] / 4
