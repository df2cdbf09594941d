"""What every entry of METHODS keeps; a new method needs one tiny configuration here."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.core import losses, parameters, sampling
from distilljax.core.parameters import Trajectories
from distilljax.methods import METHODS, bptt, dm, gm, kernel, tm
from distilljax.types import InputError, Model

TINY = {
    "bptt": bptt.Config(unroll=3, real_batch=12, image_lr=0.1, lr_lr=0.01),
    "gm": gm.Config(
        real_batch=8, image_lr=0.05, outer_loop=3, inner_loop=2, augment="flip"
    ),
    "dm": dm.Config(real_batch=8, image_lr=0.1, augment="flip"),
    "tm": tm.Config(
        student_steps=3, expert_epochs=1, max_start=0, augment="", image_lr=10.0
    ),
    "kernel": kernel.Config(
        pool=2, max_age=4, real_batch=30, image_lr=0.05, label_lr=0.0, network_lr=0.01
    ),
}


def test_every_method_is_held_to_the_contract():
    assert TINY.keys() == METHODS.keys()


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


def make(name, problem):
    return METHODS[name].make(TINY[name], problem.model)


@pytest.fixture
def source(name, problem, experts):
    """What a method's step reads."""
    return {"real": problem.real, "experts": experts}[METHODS[name].SOURCE]


@pytest.fixture(scope="module")
def experts(problem):
    """Two experts after one and two epochs of plain gradient descent on real data."""
    loss_fn = losses.cross_entropy(problem.model.apply)
    everything = sampling.take(problem.real, jnp.arange(problem.real.labels.shape[0]))

    def descend(params, _):
        grads = jax.grad(loss_fn)(params, everything)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        return params, parameters.flatten(params)

    def one(key):
        start = problem.model.init(key)
        _, rows = jax.lax.scan(descend, start, None, length=40)
        return jnp.concatenate([parameters.flatten(start)[None], rows])[::20]

    return Trajectories(jax.vmap(one)(jax.random.split(jax.random.key(9), 2)), jnp.int32(0))


def test_settings_to_lower_exist(name):
    assert METHODS[name].LOWER
    for setting in METHODS[name].LOWER:
        assert hasattr(TINY[name], setting)


def test_traces_once_and_agrees_under_scan_and_vmap(name, problem, source):
    method, keys = make(name, problem), jax.random.split(jax.random.key(1), 3)
    traces = 0

    @jax.jit
    def step(key, state, source):
        nonlocal traces
        traces += 1
        return method.step(key, state, source)

    start = method.init(jax.random.key(0), problem.distilled)
    state = start
    for key in keys:
        state, info = step(key, state, source)
    assert traces == 1
    assert int(state.step) == 3
    assert all(np.isfinite(field) for field in info)
    assert not np.array_equal(state.distilled.images, start.distilled.images)

    scanned, infos = jax.jit(
        lambda state, source: jax.lax.scan(
            lambda state, key: method.step(key, state, source), state, keys
        )
    )(start, source)
    np.testing.assert_allclose(scanned.distilled.images, state.distilled.images, atol=2e-5)
    assert infos.loss.shape == (3,)

    alone, _ = step(keys[0], start, source)
    other = start._replace(
        distilled=start.distilled._replace(images=start.distilled.images + 1.0)
    )
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), start, other)
    together, _ = jax.jit(jax.vmap(method.step, in_axes=(None, 0, None)))(
        keys[0], both, source
    )
    np.testing.assert_allclose(
        together.distilled.images[0], alone.distilled.images, atol=2e-5
    )


def test_lowers_its_loss(name, problem, source):
    method = make(name, problem)

    @jax.jit
    def many(state, source):
        keys = jax.random.split(jax.random.key(2), 150)
        return jax.lax.scan(lambda s, key: method.step(key, s, source), state, keys)

    start = method.init(jax.random.key(0), problem.distilled)
    _, infos = many(start, source)
    assert infos.loss[-30:].mean() < 0.8 * infos.loss[:30].mean()


def test_outer_losses_carry_their_labels_unchanged(name, problem, source):
    """Labels that are not learned stay as they are, to the bit."""
    method = make(name, problem)
    start = method.init(jax.random.key(0), problem.distilled)
    state, _ = jax.jit(method.step)(jax.random.key(1), start, source)
    np.testing.assert_array_equal(
        state.distilled.label_logits, start.distilled.label_logits
    )


def refused(name, message, model, distilled, config=None):
    method = METHODS[name].make(config or TINY[name], model)
    with pytest.raises(InputError, match=message) as caught:
        method.init(jax.random.key(0), distilled)
    assert "\n" not in str(caught.value)


def test_labels_of_another_width_are_refused(name, problem):
    wide = problem.distilled._replace(label_logits=jnp.zeros((6, 4)))
    refused(name, "the network has 3 outputs, the labels 4 classes", problem.model, wide)


@pytest.mark.parametrize("name", ["bptt", "gm", "dm", "kernel"], indirect=True)
def test_real_data_of_other_classes_are_refused(name, problem):
    more = problem.real._replace(class_sizes=jnp.ones(4, jnp.int32))
    method = make(name, problem)
    state = method.init(jax.random.key(0), problem.distilled)
    with pytest.raises(InputError, match="labels of 3 classes, the real data 4"):
        jax.eval_shape(method.step, jax.random.key(1), state, more)


def batch_normalised(params, x):
    x = x.reshape(len(x), -1) @ params["a"]
    x = (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5)
    return x @ params["b"]


def two_layers(key):
    return {
        "a": jax.random.normal(key, (64, 5)),
        "b": jax.random.normal(jax.random.fold_in(key, 1), (5, 3)),
    }


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Model(two_layers, batch_normalised, batch_normalised),
            "other images of the batch",
        ),
        (
            Model(two_layers, batch_normalised, lambda p, x: (batch_normalised(p, x), {})),
            "apply returned tuple for 2 images.*state are not supported",
        ),
        (
            Model(lambda key: {"count": jnp.int32(0)}, None, lambda p, x: x[:, 0, 0]),
            r"\['count'\] is int32",
        ),
    ],
)
def test_networks_with_state_are_refused(name, problem, model, message):
    refused(name, message, model, problem.distilled)


def test_a_normalisation_of_convolutions_over_the_batch_is_refused(problem):
    """Statistics over pixels hide what a batch of alike images would show."""

    def apply(params, x):
        x = x @ params["a"]
        x = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)
        return jax.nn.relu(x).mean((1, 2)) @ params["b"]

    def init(key):
        return {"a": jnp.ones((1, 4)), "b": jax.random.normal(key, (4, 3))}

    refused(
        "bptt", "other images of the batch", Model(init, None, apply), problem.distilled
    )


@pytest.mark.parametrize("name", ["gm", "dm"], indirect=True)
def test_matching_by_class_needs_the_order_of_classes(name, problem):
    """Certain labels tell the order; a soft one may lean to another class."""
    hard = problem.distilled
    turned = hard._replace(label_logits=hard.label_logits[::-1])
    refused(
        name,
        f"{name}: image 0 is of class 2, in the place of class 0",
        problem.model,
        turned,
    )
    odd = jax.tree.map(lambda x: x[:5] if x.ndim else x, hard)
    refused(name, f"{name}: 5 images of 3 classes", problem.model, odd)
    soft = hard._replace(label_logits=turned.label_logits / 30)
    method = make(name, problem)
    method.init(jax.random.key(0), soft)
    jax.eval_shape(method.init, jax.random.key(0), turned)  # traced: nothing is known


@pytest.mark.parametrize("name", ["bptt", "gm", "tm"], indirect=True)
def test_certain_labels_cannot_be_learned(name, problem):
    config = dataclasses.replace(TINY[name], label_lr=0.1)
    refused(
        name, "label_lr > 0.*confidence below 1", problem.model, problem.distilled, config
    )
    soft = problem.distilled._replace(label_logits=problem.distilled.label_logits / 30)
    METHODS[name].make(config, problem.model).init(jax.random.key(0), soft)
