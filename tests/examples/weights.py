"""Weights of training examples, learned through training: mislabelled images get little.

    python -m tests.examples.weights

A network is trained for `STEPS` steps on images of which a quarter have a wrong label. The
loss of a few clean images after that training is differentiated by the weight that each
training image has in it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distilljax import data
from distilljax.core import inner
from distilljax.models import mlp

STEPS, TRAIN, CLEAN, OUTER = 60, 200, 200, 6


def loss_fn(params, batch):
    """Returns the weighted mean of the cross-entropy."""
    images, labels, weights = batch
    each = optax.softmax_cross_entropy_with_integer_labels(
        MODEL.apply(params, images), labels
    )
    return jnp.mean(weights * each)


def outer_loss(logits, key, noisy, clean):
    """Returns the loss of clean images after training with weights 2 sigmoid(logits)."""
    rule = optax.sgd(0.02, momentum=0.9)
    batch = (*noisy, 2 * jax.nn.sigmoid(logits))
    params = jax.tree.map(lambda p: p.astype(noisy[0].dtype), MODEL.init(key))
    state = inner.init(params, rule)
    state, _ = inner.unroll(loss_fn, rule, lambda _: batch, state, jnp.arange(STEPS))
    return loss_fn(state.params, (*clean, 1.0))


MODEL = mlp.make(mlp.Config(width=16, depth=1), (28, 28, 1), 10)


def noisy_and_clean(seed=0):
    """Returns training images with wrong labels, which are wrong, and clean images."""
    train = data.load("embedded").train
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(train.labels))[: TRAIN + CLEAN]
    images = jnp.asarray(train.images[chosen] / 255.0 - 0.3, jnp.float32)
    labels = train.labels[chosen].astype(np.int32)
    wrong = rng.permutation(TRAIN) < TRAIN // 4
    given = np.where(
        wrong, (labels[:TRAIN] + rng.integers(1, 10, TRAIN)) % 10, labels[:TRAIN]
    )
    return (images[:TRAIN], given), wrong, (images[TRAIN:], labels[TRAIN:])


def learn(noisy, clean, num_steps=OUTER):
    """Returns the logits of the weights, and the outer losses."""
    rule = optax.adam(0.3)

    def step(carry, key):
        logits, state = carry
        loss, grad = jax.value_and_grad(outer_loss)(logits, key, noisy, clean)
        updates, state = rule.update(grad, state)
        return (logits + updates, state), loss

    logits = jnp.zeros(len(noisy[1]))
    keys = jax.random.split(jax.random.key(0), num_steps)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))
    (logits, _), losses = run((logits, rule.init(logits)))
    return logits, losses


def separation(logits, wrong):
    """Returns the share of pairs in which the mislabelled image weighs less (AUC)."""
    logits = np.asarray(logits)
    return (logits[wrong][:, None] < logits[~wrong]).mean()


if __name__ == "__main__":
    noisy, wrong, clean = noisy_and_clean()
    logits, losses = learn(noisy, clean)
    print(f"loss of clean images {losses[0]:.2f} -> {losses[-1]:.2f}")
    print(f"a mislabelled image weighs less in {separation(logits, wrong):.0%} of pairs")
