"""A learning rate for each step, and the strength of an augmentation, learned by gradients.

    python -m tests.examples.schedule

The step of plain SGD at rate 1 on the loss times a rate is a step at that rate, so the
rates are part of the inputs of the steps, and so is the strength: images plus
exp(log_strength) times noise of their step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from distilljax.core import inner

STEPS, OUTER = 40, 30


class Learned(NamedTuple):
    """What is learned."""

    log_rates: jax.Array  # f32[T]
    log_strength: jax.Array  # f32[]


def loss_fn(params, batch):
    """Returns the logistic loss of a network with one hidden layer, times the rate."""
    x, labels, rate = batch
    logits = jnp.tanh(x @ params["a"]) @ params["b"]
    each = optax.sigmoid_binary_cross_entropy(logits, labels)
    return rate * each.mean()


def init(key):
    """Returns the parameters of the network."""
    a, b = jax.random.split(key)
    return {"a": jax.random.normal(a, (8, 12)) / 3, "b": jax.random.normal(b, (12,)) / 3}


def points(key, num):
    """Returns points of eight coordinates, labelled by the signs of two of them."""
    x = jax.random.normal(key, (num, 8))
    return x, (x[:, 0] * x[:, 1] > 0).astype(x.dtype)


def outer_loss(learned, key, train, held_out):
    """Returns the loss on held-out points after training at these rates and strength."""
    init_key, noise_key = jax.random.split(key)
    (x, labels), rule = train, optax.sgd(1.0)
    num_steps = len(learned.log_rates)

    def sample_batch(given):
        log_rate, key = given
        noise = jnp.exp(learned.log_strength) * jax.random.normal(key, x.shape, x.dtype)
        return x + noise, labels, jnp.exp(log_rate)

    inputs = learned.log_rates, jax.random.split(noise_key, num_steps)
    state = inner.init(init(init_key), rule)
    state, _ = inner.unroll(loss_fn, rule, sample_batch, state, inputs)
    return loss_fn(state.params, (*held_out, 1.0))


def learn(train, held_out, num_steps=OUTER):
    """Returns the rates and the strength, and the outer losses."""
    rule, start = optax.adam(0.1), Learned(jnp.full(STEPS, jnp.log(0.3)), jnp.log(0.3))

    def step(carry, key):
        learned, state = carry
        loss, grad = jax.value_and_grad(outer_loss)(learned, key, train, held_out)
        updates, state = rule.update(grad, state)
        return (optax.apply_updates(learned, updates), state), loss

    keys = jax.random.split(jax.random.key(0), num_steps)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))
    (learned, _), losses = run((start, rule.init(start)))
    return learned, losses


if __name__ == "__main__":
    learned, losses = learn(*(points(jax.random.key(s), 60 * s) for s in (1, 5)))
    rates = jnp.exp(learned.log_rates)
    print(f"held-out loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    print(f"rates {rates[0]:.2f} at first, {rates[-1]:.2f} at last")
    print(f"noise {jnp.exp(learned.log_strength):.2f}")
