"""Own optimizers, augmentations and outer losses in every method."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from distilljax.core import augment, outer
from distilljax.core.outer import Optimizers, from_outer_loss, per_field
from distilljax.methods import METHODS, bptt, dm
from distilljax.types import DistilledSet, InputError, Model
from tests.methods.test_contract import TINY, experts, name, source  # noqa: F401

KEY = jax.random.key(5)


def steps(method, distilled, real, num=2):
    """Returns the states after each of `num` outer steps, the first included."""
    state, step, states = method.init(KEY, distilled), jax.jit(method.step), []
    for key in jax.random.split(KEY, num):
        states.append(state)
        state, _ = step(key, state, real)
    return [*states, state]


def make(name, problem, **own):  # noqa: F811
    return METHODS[name].make(TINY[name], problem.model, **own)


def test_an_own_optimizer_moves_the_images(name, problem, source):  # noqa: F811
    """The sign of the gradient times a rate: each pixel moves by that rate."""
    rule = optax.chain(optax.scale_by_sign(), optax.scale(-0.125))
    own = make(name, problem, optimizers=Optimizers(images=rule))
    first, second, _ = steps(own, problem.distilled, source)
    moved = np.abs(second.distilled.images - first.distilled.images)
    assert set(np.unique(moved.round(6)).tolist()) <= {0.0, 0.125}
    assert (moved > 0).mean() > 0.5


def test_a_schedule_is_the_rate_of_the_optimizer():
    """Of SGD with momentum as `Config` describes it, against its closed form."""
    described = {"images": outer.Descent("sgd", 7.0, momentum=0.5)}
    schedule = optax.piecewise_constant_schedule(1.0, {1: 0.1})
    rules = outer.method_rules("dm", Optimizers(images=schedule), **described)
    assert rules.learned == ("images",)
    distilled = DistilledSet(jnp.zeros(1), jnp.zeros(1), jnp.zeros(()))
    state, moves = rules.init(distilled), []
    for _ in range(3):
        updates, state = rules.update(distilled._replace(images=jnp.ones(1)), state)
        moves.append(float(updates.images[0]))
    np.testing.assert_allclose(moves, [-1.0, -0.1 * 1.5, -0.1 * 1.75], rtol=1e-6)


def test_a_schedule_reaches_a_method(problem):
    rate = optax.piecewise_constant_schedule(0.1, {1: 0.0})
    own = dm.make(TINY["dm"], problem.model, optimizers=Optimizers(images=rate))
    first, second, third = steps(own, problem.distilled, problem.real)
    assert not np.array_equal(first.distilled.images, second.distilled.images)
    np.testing.assert_array_equal(third.distilled.images, second.distilled.images)


def test_the_public_outer_loss_is_that_of_the_method(name, problem, source):  # noqa: F811
    module, config = METHODS[name], TINY[name]
    loss = module.outer_loss(config, problem.model)
    state = make(name, problem).init(KEY, problem.distilled)
    _, info = jax.jit(make(name, problem).step)(KEY, state, source)
    found, _ = jax.jit(loss)(state.distilled, KEY, state.aux, source)
    np.testing.assert_allclose(found, info.loss, rtol=1e-5)


def test_outer_losses_join_to_a_new_method(problem):
    """The gradient of a sum is the sum of gradients."""
    parts = [
        dm.outer_loss(TINY["dm"], problem.model),
        bptt.outer_loss(TINY["bptt"], problem.model),
    ]

    def both(distilled, key, aux, real):
        return sum(part(distilled, key, (), real)[0] for part in parts), aux

    rule = per_field(images=optax.sgd(1.0))
    moves = [
        steps(from_outer_loss(one, rule), problem.distilled, problem.real, 1)
        for one in (*parts, both)
    ]
    a, b, joined = (
        after.distilled.images - before.distilled.images for before, after in moves
    )
    np.testing.assert_allclose(joined, a + b, atol=1e-5)


def negative(key, images):
    return -images


@pytest.fixture
def registered():
    augment.register("negative", negative)
    yield
    del augment._REGISTERED["negative"]


def test_an_own_augmentation_by_name_and_by_function(name, problem, source, registered):  # noqa: F811
    config = TINY[name].replace({"augment": "negative"})
    named = METHODS[name].outer_loss(config, problem.model)
    given = METHODS[name].outer_loss(TINY[name], problem.model, negative)
    plain = METHODS[name].outer_loss(TINY[name].replace({"augment": ""}), problem.model)
    aux = make(name, problem).init(KEY, problem.distilled).aux
    a, b, c = (
        float(jax.jit(loss)(problem.distilled, KEY, aux, source)[0])
        for loss in (named, given, plain)
    )
    assert a == pytest.approx(b, rel=1e-5)
    assert a != pytest.approx(c, rel=1e-3)


def test_siamese_draws_are_the_same_for_every_image():
    def noise(key, images):
        return images + jax.random.normal(key, images.shape)

    images = jnp.zeros((3, 4, 4, 1))
    together = augment.augment(KEY, images, strategy=noise, siamese=True)
    np.testing.assert_array_equal(together[0], together[1])
    alone = augment.augment(KEY, images[:1], strategy=noise, siamese=True)
    np.testing.assert_array_equal(alone[0], together[0])
    apart = augment.augment(KEY, images, strategy=noise)
    assert not np.array_equal(apart[0], apart[1])


def test_a_registered_operation_joins_built_in_ones(registered):
    images = jax.random.normal(KEY, (2, 4, 4, 1))
    seen = {
        float(np.sign(augment.augment(key, images, strategy="negative_flip")[0].sum()))
        for key in jax.random.split(KEY, 12)
    }
    assert seen == {-1.0, 1.0}


WRONG = {
    "rate": (Optimizers(images=0.1), r"^optimizers.images=0.1: give an optax transf"),
    "type": ({"images": optax.sgd(1.0)}, r"^optimizers is a dict; give Optimizers\("),
    "field": (
        Optimizers(log_lr=optax.sgd(1.0)),
        r"^optimizers.log_lr: the outer loss of dm does not depend on log_lr; leave it out",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_optimizers_are_one_line(problem, case):
    given, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        dm.make(TINY["dm"], problem.model, optimizers=given)


def test_labels_are_learned_by_an_own_optimizer(problem):
    optimizers = Optimizers(label_logits=optax.sgd(1.0))
    method = bptt.make(TINY["bptt"], problem.model, optimizers=optimizers)
    with pytest.raises(InputError, match="are certain"):
        method.init(KEY, problem.distilled)
    soft = problem.distilled._replace(label_logits=problem.distilled.label_logits / 50)
    first, second, _ = steps(method, soft, problem.real)
    assert not np.array_equal(first.distilled.label_logits, second.distilled.label_logits)


def test_wrong_augmentations_are_one_line(problem):
    with pytest.raises(InputError, match=r"returned \[2\] for images \[2, 4, 4, 1\]; it"):
        augment.augment(KEY, jnp.zeros((2, 4, 4, 1)), strategy=lambda key, x: x[:, 0, 0, 0])
    for wrong in ("flip", "a_b", ""):
        with pytest.raises(InputError, match="a name has letters and digits alone"):
            augment.register(wrong, negative)
    with pytest.raises(InputError, match=r"give a function of \(key, images\)"):
        augment.register("blur", "gaussian")
    assert outer.Optimizers._fields == problem.distilled._fields


class Normalised(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(1, rngs=rngs)
        self.head = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.norm(x).reshape(len(x), -1))


def bound_nnx():
    graph, _, rest = nnx.split(Normalised(nnx.Rngs(0)), nnx.Param, ...)
    return Model(
        lambda key: nnx.split(Normalised(nnx.Rngs(key)), nnx.Param, ...)[1],
        None,
        lambda params, x: nnx.merge(graph, params, rest)(x),
    )


def linen(layer):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(layer()(x).reshape(len(x), -1))

    example = jnp.zeros((1, 8, 8, 1))
    return Model(
        lambda key: Net().init({"params": key, "dropout": key}, example)["params"],
        None,
        lambda params, x: Net().apply({"params": params}, x),
    )


NETWORKS = {
    "nnx": bound_nnx,
    "linen": lambda: linen(functools.partial(nn.BatchNorm, use_running_average=False)),
    "dropout": lambda: linen(functools.partial(nn.Dropout, 0.5, deterministic=False)),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_networks_of_flax_with_state_are_one_line(problem, case):
    method = bptt.make(TINY["bptt"], NETWORKS[case]())
    with pytest.raises(InputError, match="changes state, or draws random numbers") as error:
        method.init(KEY, problem.distilled)
    assert "\n" not in str(error.value)


def test_a_method_of_features_says_that_they_are_missing(problem):
    method = dm.make(TINY["dm"], problem.model._replace(features=None))
    with pytest.raises(InputError, match=r"^model.features is None, and this method match"):
        method.init(KEY, problem.distilled)
