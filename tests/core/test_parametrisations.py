"""Stored forms of distilled sets decode to what their formulas say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distilljax.config import FieldError
from distilljax.core import distilled as distilled_set
from distilljax.core.outer import from_outer_loss, per_field
from distilljax.core.parametrisations import (
    DIRECT,
    PARAMETRISATIONS,
    memory,
    multi_formation,
    stored_numbers,
)
from distilljax.core.parametrisations.memory import Memory

K, SHAPE = 3, (8, 4, 2)


def start(num_per_class, num_classes=K, shape=SHAPE):
    rng = np.random.default_rng(0)
    num = num_per_class * num_classes
    images = jnp.asarray(rng.normal(size=(num, *shape)), jnp.float32)
    labels = jnp.repeat(jnp.arange(num_classes), num_per_class)
    return distilled_set.create(images, labels, num_classes, learning_rate=0.1)


def enlarge(small, factor):
    """Bilinear interpolation with half-pixel centres and clamped borders, by loops."""
    h, w = small.shape[:2]
    out = np.zeros((h * factor, w * factor, *small.shape[2:]))
    for i in range(h * factor):
        for j in range(w * factor):
            y = np.clip((i + 0.5) / factor - 0.5, 0, h - 1)
            x = np.clip((j + 0.5) / factor - 0.5, 0, w - 1)
            top, left = int(y), int(x)
            low, right = min(top + 1, h - 1), min(left + 1, w - 1)
            a, b = y - top, x - left
            out[i, j] = (1 - a) * (
                (1 - b) * small[top, left] + b * small[top, right]
            ) + a * ((1 - b) * small[low, left] + b * small[low, right])
    return out


@pytest.mark.parametrize("name", PARAMETRISATIONS)
@pytest.mark.parametrize("ipc", [1, 2])
def test_a_set_is_stored_within_the_budget_and_decodes_class_ordered(name, ipc):
    module = PARAMETRISATIONS[name]
    made = module.make(module.Config(), SHAPE, K, ipc)
    given = start(made.images_per_class)
    stored = jax.jit(made.encode)(given)
    assert stored_numbers(stored) <= ipc * K * np.prod(SHAPE)
    decoded = jax.jit(made.decode)(stored)
    assert decoded.images.shape == given.images.shape
    labels = np.repeat(np.arange(K), made.images_per_class)
    np.testing.assert_array_equal(distilled_set.hard_labels(decoded), labels)


def test_direct_is_the_set_itself():
    given = start(2)
    for function in (DIRECT.encode, DIRECT.decode):
        assert function(given) is given


@pytest.mark.parametrize("factor", [2, 4])
def test_a_mosaic_decodes_to_its_enlarged_parts(factor):
    made = multi_formation.make(multi_formation.Config(factor=factor), SHAPE, K, 1)
    mosaic = start(1)
    decoded = made.decode(mosaic)
    num, h, w = factor**2, SHAPE[0] // factor, SHAPE[1] // factor
    assert decoded.images.shape == (num * K, *SHAPE)
    for i in range(K):
        for row in range(factor):
            for column in range(factor):
                part = np.asarray(mosaic.images)[
                    i, h * row : h * row + h, w * column : w * column + w
                ]
                np.testing.assert_allclose(
                    decoded.images[num * i + factor * row + column],
                    enlarge(part, factor),
                    atol=1e-6,
                )
    np.testing.assert_array_equal(
        decoded.label_logits, np.repeat(np.asarray(mosaic.label_logits), num, axis=0)
    )


@pytest.mark.parametrize("factor", [2, 4])
def test_a_mosaic_of_constant_images_keeps_them(factor):
    made = multi_formation.make(multi_formation.Config(factor=factor), SHAPE, K, 2)
    given = start(2 * factor**2)
    flat = given._replace(images=jnp.zeros_like(given.images) + given.images[:, :1, :1])
    again = made.decode(made.encode(flat))
    np.testing.assert_allclose(again.images, flat.images, atol=1e-6)
    np.testing.assert_array_equal(again.label_logits, flat.label_logits)


def test_memory_decodes_to_enlarged_combinations():
    config = memory.Config(images=2, bases=4, downsample=2)
    made = memory.make(config, SHAPE, K, 2)
    stored = made.encode(start(2))
    bases, coefficients = (np.asarray(x, np.float64) for x in stored.images)
    assert bases.shape == (4, 4, 2, 2)
    assert coefficients.shape == (6, 4)
    decoded = made.decode(stored).images
    for i in range(6):
        small = sum(coefficients[i, j] * bases[j] for j in range(4))
        np.testing.assert_allclose(decoded[i], enlarge(small, 2), atol=1e-5)


@pytest.mark.parametrize("rank", [1, 5])
def test_memory_starts_as_the_best_approximation_of_its_rank(rank):
    config = memory.Config(images=4, bases=rank, downsample=1)
    made = memory.make(config, SHAPE, K, 4)
    given = start(4)
    residue = np.linalg.norm(made.decode(made.encode(given)).images - given.images)
    spectrum = np.linalg.svd(np.asarray(given.images).reshape(12, -1), compute_uv=False)
    np.testing.assert_allclose(residue, np.sqrt((spectrum[rank:] ** 2).sum()), rtol=1e-4)


@pytest.mark.parametrize(
    ("module", "options", "shape", "ipc", "message"),
    [
        (multi_formation, {"factor": 3}, SHAPE, 1, "factor=3: 8x4 images"),
        (memory, {"downsample": 3}, SHAPE, 1, "downsample=3: 8x4 images"),
        (memory, {"bases": 100}, SHAPE, 1, "bases=100: .* at most 6"),
        (memory, {"images": 2, "bases": 7}, SHAPE, 2, "bases=7: 6 images .* 6 bases"),
        (memory, {"images": 1000}, SHAPE, 1, "images=1000: the coefficients"),
    ],
)
def test_what_cannot_be_stored_is_refused(module, options, shape, ipc, message):
    with pytest.raises(FieldError, match=message):
        module.make(module.Config(**options), shape, K, ipc)


def test_the_code_is_what_is_learned():
    """A step on the code is the chain rule through decode."""
    made = memory.make(memory.Config(images=2, bases=3), SHAPE, K, 2)
    target = start(2).images + 1.0

    def outer_loss(distilled, key, aux, source):
        return jnp.square(distilled.images - source).sum(), aux

    rules = per_field(images=optax.sgd(0.01))
    method = from_outer_loss(outer_loss, rules, parametrisation=made)
    state = method.init(jax.random.key(0), start(2))
    new, info = jax.jit(method.step)(jax.random.key(1), state, target)

    def by_hand(code):
        decoded = made.decode(state.distilled._replace(images=code)).images
        return jnp.square(decoded - target).sum()

    loss, grads = jax.value_and_grad(by_hand)(state.distilled.images)
    np.testing.assert_allclose(info.loss, loss, rtol=1e-6)
    for ours, before, grad in zip(
        new.distilled.images, state.distilled.images, grads, strict=True
    ):
        np.testing.assert_allclose(ours, before - 0.01 * grad, atol=1e-5)
    assert isinstance(new.distilled.images, Memory)
    assert method.decode(new.distilled).images.shape == (6, *SHAPE)
