"""`dm` against a loop over classes, and its gradient against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import platforms
from distilljax.core import sampling
from distilljax.core.augment import augment
from distilljax.methods import dm
from tests.core.test_distances import complex_gap

CONFIG = dm.Config(real_batch=7, image_lr=0.5, image_momentum=0.0)


def plain_outer_loss(problem, key, images, strategy):
    """sum over classes of || mean features of real - of distilled ||^2, one at a time.

    Each class has an augmentation of its own.
    """
    init_key, batch_key, augment_key = jax.random.split(key, 3)
    params = problem.model.init(init_key)
    real = sampling.class_batch(batch_key, problem.real, CONFIG.real_batch)
    total = 0.0
    for j, own in enumerate(jax.random.split(augment_key, 3)):
        ours = augment(own, images[2 * j : 2 * j + 2], strategy=strategy, siamese=True)
        theirs = augment(own, real[j], strategy=strategy, siamese=True)
        gap = problem.model.features(params, ours).mean(0)
        gap = gap - problem.model.features(params, theirs).mean(0)
        total = total + (gap**2).sum()
    return total


def test_one_step_is_the_equation(problem):
    """Over several keys, so that several augmentations are drawn."""
    method = dm.make(CONFIG, problem.model)
    start = method.init(jax.random.key(0), problem.distilled)
    step = jax.jit(method.step)
    plain = jax.jit(
        jax.value_and_grad(
            lambda images, key: plain_outer_loss(problem, key, images, CONFIG.augment)
        )
    )
    for seed in range(6):
        key = jax.random.key(seed)
        state, info = step(key, start, problem.real)
        loss, grad = plain(problem.distilled.images, key)
        np.testing.assert_allclose(info.loss, loss, rtol=1e-4)
        np.testing.assert_allclose(
            state.distilled.images, problem.distilled.images - 0.5 * grad, atol=1e-4
        )


def test_gradient_equals_finite_differences(problem, float64):
    config = dm.Config(real_batch=7, augment="color", image_lr=1.0, image_momentum=0.0)

    def double(tree):
        return jax.tree.map(
            lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree
        )

    model = problem.model._replace(init=lambda key: double(problem.model.init(key)))
    method = dm.make(config, model)
    real, distilled = double(problem.real), double(problem.distilled)
    step = jax.jit(method.step)
    key = jax.random.key(3)

    def loss_at(images):
        state = method.init(jax.random.key(0), distilled._replace(images=images))
        return step(key, state, real)

    state, _ = loss_at(distilled.images)
    grad = distilled.images - state.distilled.images
    direction = jax.random.normal(jax.random.key(4), grad.shape, jnp.float64)
    eps = 1e-7
    numeric = (
        loss_at(distilled.images + eps * direction)[1].loss
        - loss_at(distilled.images - eps * direction)[1].loss
    ) / (2 * eps)
    np.testing.assert_allclose(jnp.vdot(grad, direction), numeric, rtol=1e-5)
    assert abs(numeric) > 1e-3


def test_classes_side_by_side_are_those_in_turn(problem):
    """As programs of accelerators have them."""
    config = CONFIG.replace({"augment": "color_flip"})

    def steps():
        method, found = dm.make(config, problem.model), []
        start = method.init(jax.random.key(0), problem.distilled)
        step = jax.jit(method.step)
        for seed in range(4):
            state, info = step(jax.random.key(seed), start, problem.real)
            found.append((state.distilled.images, info.loss))
        return found

    in_turn = steps()
    with platforms.target("gpu"):
        side_by_side = steps()
    for (images, loss), (other, expected) in zip(side_by_side, in_turn, strict=True):
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
        np.testing.assert_allclose(images, other, atol=1e-4)


@pytest.mark.parametrize("strategy", ["", "color_crop"])
def test_characteristic_functions_against_complex_numbers(problem, strategy):
    """The loss of one step."""
    settings = {"match": "characteristic", "frequencies": 20, "augment": strategy}
    config = dm.Config(real_batch=7, **settings)
    method, key = dm.make(config, problem.model), jax.random.key(4)
    start = method.init(key, problem.distilled)
    _, info = jax.jit(method.step)(key, start, problem.real)
    init_key, batch_key, augment_key = jax.random.split(key, 3)
    params = problem.model.init(init_key)
    real = sampling.class_batch(batch_key, problem.real, 7)
    total, t = 0.0, None
    for j, own in enumerate(jax.random.split(augment_key, 3)):
        both = problem.distilled.images[2 * j : 2 * j + 2], real[j]
        both = [augment(own, x, strategy=strategy, siamese=True) for x in both]
        found = [np.asarray(problem.model.features(params, x)) for x in both]
        if t is None:
            shape = (20, found[0].shape[1])
            t = np.asarray(
                jax.random.normal(jax.random.fold_in(key, 3), shape, found[1].dtype)
            )
        found = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in found]
        total += 300 * complex_gap(*found, t)
    np.testing.assert_allclose(info.loss, total, rtol=1e-4)


@pytest.mark.parametrize("dead", [1, 6])
def test_features_of_zero_have_a_characteristic_function(problem, dead):
    """Images that no unit answers to; the others move as without them."""

    def features(params, images):
        return problem.model.features(params, images) * (images.max((1, 2, 3)) > 0)[:, None]

    config = dm.Config(real_batch=7, augment="", match="characteristic", frequencies=20)
    method = dm.make(config, problem.model._replace(features=features))
    images = problem.distilled.images.at[:dead].set(-1.0)
    given = problem.distilled._replace(images=images)
    state = method.init(jax.random.key(0), given)
    new, info = jax.jit(method.step)(jax.random.key(4), state, problem.real)
    assert np.isfinite(info.loss)
    assert np.isfinite(new.distilled.images).all()
    np.testing.assert_array_equal(new.distilled.images[:dead], images[:dead])
    assert (new.distilled.images != images).any() == (dead < 6)


def test_the_unit_of_features_and_its_derivative(float64):
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    x[0, 1] = 0
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    expected = x / np.where(length > 0, length, 1)
    np.testing.assert_allclose(dm._unit(jnp.asarray(x)), expected, rtol=1e-12)
    grad = jax.grad(lambda x: (dm._unit(x) * jnp.arange(4.0)).sum())(jnp.asarray(x))
    assert np.isfinite(grad).all()
