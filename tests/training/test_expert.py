"""Experts against gradient descent written out in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from distilljax.config import FieldError
from distilljax.core import parameters, sampling
from distilljax.core.augment import augment
from distilljax.core.losses import accuracy
from distilljax.training import expert
from distilljax.training.expert import Recipe
from distilljax.types import InputError, Model

K, PIXELS = 3, 64
KEY = jax.random.key(11)
LIVELY = Recipe(lr=0.1, batch=20, augment="flip")
RECIPES = {
    "plain, the whole set a step": Recipe(lr=0.3, batch=100, augment=""),
    "everything, the set not divisible": Recipe(
        lr=0.1, batch=7, momentum=0.8, weight_decay=0.05, augment="crop_flip", sam_rho=0.3
    ),
}

# Named so that creation order and sorted order differ.
LINEAR = Model(
    init=lambda key: {
        "weights": 0.3 * jax.random.normal(key, (PIXELS, K)),
        "bias": jnp.zeros(K),
    },
    features=lambda params, images: images.reshape(images.shape[0], -1),
    apply=lambda params, images: (
        images.reshape(images.shape[0], -1) @ params["weights"] + params["bias"]
    ),
)


@functools.partial(jax.jit, static_argnames="recipe")
def begin(numbers, recipe):
    return jax.vmap(
        lambda number: expert.init(expert.epoch_key(KEY, number, 0), LINEAR, recipe)
    )(numbers)


@functools.partial(jax.jit, static_argnames=("recipe", "arrangement"))
def advance(numbers, states, epoch, real, recipe, arrangement):
    def one(number, state):
        key = expert.epoch_key(KEY, number, epoch)
        return expert.epoch(key, LINEAR, real, recipe, state)

    if arrangement == "vmap":
        return jax.vmap(one)(numbers, states)
    return jax.lax.map(lambda given: one(*given), (numbers, states))


def train(numbers, epochs, real, recipe, arrangement="vmap"):
    """Experts side by side: (states, losses [epochs, m])."""
    numbers = jnp.asarray(numbers)
    states, history = begin(numbers, recipe), []
    for epoch in range(1, epochs + 1):
        states, losses = advance(numbers, states, epoch, real, recipe, arrangement)
        history.append(losses)
    return states, jnp.stack(history)


def gradient(w, b, x, y):
    """Of the mean cross-entropy of softmax(x w + b): (loss, d w, d b)."""
    logits = x @ w + b
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = (p - y) / len(x)
    return -(y * np.log(p)).sum() / len(x), x.T @ error, error.sum(0)


def descend(number, epochs, real, recipe):
    """One expert, step by step: (w, b, mean loss of each epoch)."""
    num = len(real.labels)
    num_steps = -(-num // recipe.batch)
    size = num // num_steps

    @jax.jit
    def draw(number, epoch):
        order_key, augment_key = jax.random.split(expert.epoch_key(KEY, number, epoch))
        order = sampling.epochs(order_key, num, size, num_steps, num_steps)

        def images(given):
            at, key = given
            return augment(key, real.transform(real.images[at]), strategy=recipe.augment)

        return order, jax.lax.map(images, (order, jax.random.split(augment_key, num_steps)))

    start = jax.jit(LINEAR.init)(expert.epoch_key(KEY, number, 0))
    w, b = np.array(start["weights"]), np.array(start["bias"])
    momentum_w, momentum_b = np.zeros_like(w), np.zeros_like(b)
    history = []
    for epoch in range(1, epochs + 1):
        order, images = map(np.asarray, draw(number, epoch))
        assert len(set(order.ravel())) == num_steps * size  # no image twice
        losses = []
        for at, x in zip(order, images.reshape(num_steps, size, -1), strict=True):
            y = np.eye(K)[np.asarray(real.labels)[at]]
            loss, grad_w, grad_b = gradient(w, b, x, y)
            if recipe.sam_rho:
                norm = np.sqrt((grad_w**2).sum() + (grad_b**2).sum())
                worse = [
                    v + recipe.sam_rho * g / norm for v, g in ((w, grad_w), (b, grad_b))
                ]
                loss, grad_w, grad_b = gradient(*worse, x, y)
            losses.append(loss)
            momentum_w = recipe.momentum * momentum_w + grad_w + recipe.weight_decay * w
            momentum_b = recipe.momentum * momentum_b + grad_b + recipe.weight_decay * b
            w, b = w - recipe.lr * momentum_w, b - recipe.lr * momentum_b
        history.append(np.mean(losses))
    return w, b, history


@pytest.mark.parametrize("name", RECIPES)
def test_experts_side_by_side_are_each_plain_gradient_descent(float64, problem, name):
    recipe, numbers = RECIPES[name], (4, 0)
    states, losses = train(numbers, 2, problem.real, recipe)
    for i, number in enumerate(numbers):
        w, b, history = descend(number, 2, problem.real, recipe)
        np.testing.assert_allclose(states.params["weights"][i], w, rtol=0, atol=1e-6)
        np.testing.assert_allclose(states.params["bias"][i], b, rtol=0, atol=1e-6)
        np.testing.assert_allclose(losses[:, i], history, rtol=1e-6)
    moved = (
        states.params["weights"][0] - LINEAR.init(expert.epoch_key(KEY, 4, 0))["weights"]
    )
    assert jnp.abs(moved).max() > 1e-2
    assert jnp.abs(states.params["weights"][0] - states.params["weights"][1]).max() > 1e-2


def test_an_expert_does_not_depend_on_its_company(problem):
    together, _ = train((0, 1, 2), 2, problem.real, LIVELY)
    apart, _ = train((1, 2), 2, problem.real, LIVELY, "map")
    for ours, theirs in zip(jax.tree.leaves(apart), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(ours, theirs[1:], rtol=0, atol=1e-6)


def test_epochs_of_an_expert_and_experts_of_an_epoch_differ():
    keys = [expert.epoch_key(KEY, e, t) for e in range(4) for t in range(4)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 16


def test_experts_learn(problem):
    states, losses = train((0, 1, 2), 8, problem.real, LIVELY)
    images = problem.real.transform(problem.real.images)
    logits = jax.vmap(LINEAR.apply, (0, None))(states.params, images)
    assert accuracy(logits, problem.real.labels).min() > 0.9
    assert (losses[-1] < 0.8 * losses[0]).all()


def test_sharpness_aware_follows_its_formula(float64):
    """L = w A w / 2: the gradient of eq. 3 is A (w + rho A w / |A w|)."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    matrix, rho = root @ root.T, 0.7
    params = {"u": jnp.asarray(rng.normal(size=2)), "v": jnp.asarray(rng.normal(size=3))}
    w = np.concatenate([params["u"], params["v"]])

    def loss_fn(params, batch):
        vector = ravel_pytree(params)[0]
        return vector @ batch @ vector / 2

    sharp = expert.sharpness_aware(loss_fn, rho)
    loss, grads = jax.value_and_grad(sharp)(params, jnp.asarray(matrix))
    worse = w + rho * matrix @ w / np.linalg.norm(matrix @ w)
    np.testing.assert_allclose(loss, worse @ matrix @ worse / 2, rtol=1e-12)
    np.testing.assert_allclose(ravel_pytree(grads)[0], matrix @ worse, rtol=1e-12)


def test_sharpness_aware_survives_a_zero_gradient():
    sharp = expert.sharpness_aware(lambda params, batch: (params**2).sum(), 0.5)
    loss, grads = jax.value_and_grad(sharp)(jnp.zeros(3), None)
    assert loss == 0
    np.testing.assert_array_equal(grads, 0)


def test_parameters_are_flattened_in_the_order_of_their_names():
    params = LINEAR.init(KEY)
    vector = parameters.flatten(params)
    assert vector.shape == (parameters.num_params(LINEAR),) == (PIXELS * K + K,)
    np.testing.assert_array_equal(vector[:K], params["bias"])
    np.testing.assert_array_equal(vector[K:], params["weights"].ravel())


def test_unflatten_is_the_inverse_of_flatten(problem):
    params = problem.model.init(KEY)
    again = parameters.unflatten(problem.model)(parameters.flatten(params))
    assert jax.tree.structure(again) == jax.tree.structure(params)
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_recipes_that_make_no_sense_are_refused():
    with pytest.raises(FieldError, match="lr=0: must be greater than 0"):
        Recipe(lr=0)
    with pytest.raises(InputError, match="has no operation 'blur'"):
        Recipe(augment="flip_blur")


def test_the_curriculum_of_pad_in_numbers():
    """Of a hundred images, by the number of the epoch."""
    scores = jnp.asarray(np.random.default_rng(0).permutation(100) / 7)
    order = np.argsort(scores)
    ends = {1: (0, 75), 11: (0, 88), 21: (0, 100), 40: (0, 100)}
    ends |= {41: (10, 100), 60: (10, 100), 61: (20, 100)}
    for which, (low, high) in ends.items():
        taken = np.flatnonzero(expert.taking_part(scores, which))
        np.testing.assert_array_equal(taken, np.sort(order[low:high]), f"epoch {which}")


def test_only_the_images_that_take_part_are_seen(problem):
    """And all of them: an epoch of linear regression knows every one."""
    real, recipe = problem.real, Recipe(lr=0.1, batch=10, augment="")
    included = jnp.arange(len(real.labels)) % 3 > 0
    state = begin(jnp.arange(1), recipe)
    state = jax.tree.map(lambda x: x[0], state)

    @jax.jit
    def after(images):
        changed = real._replace(images=images)
        key = expert.epoch_key(KEY, 0, 1)
        return expert.epoch(key, LINEAR, changed, recipe, state, included)[1]

    def is_seen(number):
        dark = real.images.at[number].set(255 - real.images[number])
        return bool(after(dark) != after(real.images))

    assert [is_seen(n) for n in range(6)] == [bool(x) for x in included[:6]]
    assert is_seen(len(included) - 1) == bool(included[-1])


def test_difficulty_is_the_norm_of_the_last_layers_gradient(problem):
    """A linear model is its last layer: gradients of each loss, one by one."""
    real, recipe = problem.real, Recipe(lr=0.05, batch=20, augment="flip")
    found = jax.jit(
        lambda: expert.difficulty(KEY, LINEAR, real, recipe, networks=2, epochs=1)
    )()
    images = jax.vmap(real.transform)(real.images[:, None])

    def loss(params, image, label):
        return -jax.nn.log_softmax(LINEAR.apply(params, image)[0])[label]

    norms = []
    for number in range(2):
        states, _ = train((number,), 1, real, recipe)
        params = jax.tree.map(lambda x: x[0], states.params)
        grads = jax.vmap(jax.grad(loss), (None, 0, 0))(params, images, real.labels)
        squares = [np.square(g).reshape(len(images), -1).sum(1) for g in grads.values()]
        norms.append(np.sqrt(sum(squares)))
    np.testing.assert_allclose(found, np.mean(norms, axis=0), rtol=1e-5)
