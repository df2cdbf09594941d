"""`tm` against a plain re-implementation in double precision, and its options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import loop
from distilljax.config import FieldError
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters, sampling
from distilljax.core.augment import augment
from distilljax.core.parameters import Trajectories
from distilljax.methods import tm
from distilljax.types import InputError, Model

K, SIDE, HIDDEN = 3, 4, 5
PLAIN = {
    "augment": "",
    "image_lr": 1.0,
    "label_lr": 1.0,
    "lr_lr": 1.0,
    "momentum": 0.0,
    "label_momentum": 0.0,
    "inner_lr": 0.5,
}


def features(params, images):
    flat = images.reshape(images.shape[0], -1)
    return jnp.tanh(flat @ params["a"] + params["b"])


MODEL = Model(
    init=lambda key: {
        "a": 0.3 * jax.random.normal(key, (SIDE * SIDE, HIDDEN)),
        "b": jnp.zeros(HIDDEN),
        "c": 0.3 * jax.random.normal(jax.random.fold_in(key, 1), (HIDDEN, K)),
    },
    features=features,
    apply=lambda params, images: features(params, images) @ params["c"],
)


def trajectories(num_experts=2, num_epochs=5, seed=0, first_epoch=0):
    """A drunkard's walk: any parameters will do."""
    rng = np.random.default_rng(seed)
    steps = 0.3 * rng.normal(size=(num_experts, num_epochs, parameters.num_params(MODEL)))
    return Trajectories(
        jnp.asarray(np.cumsum(steps, axis=1)), jnp.asarray(first_epoch, jnp.int32)
    )


def start(num=6, learning_rate=0.5):
    rng = np.random.default_rng(1)
    made = distilled_set.create(
        jnp.asarray(rng.normal(size=(num, SIDE, SIDE, 1))),
        jnp.repeat(jnp.arange(K), num // K),
        K,
        learning_rate=learning_rate,
        confidence=0.8,
    )
    wide = functools.partial(jnp.asarray, dtype=jnp.asarray(0.0).dtype)
    return jax.tree.map(wide, made)


def plain_loss(config, source, distilled, key):
    """A Python loop of plain SGD on the student; nothing is rematerialised."""
    pick_key, start_key, order_key, augment_key = jax.random.split(key, 4)
    which = jax.random.randint(pick_key, (), 0, source.params.shape[0], jnp.int32)
    epoch = jax.random.randint(
        start_key, (), config.min_start, config.max_start + 1, jnp.int32
    )
    row = epoch - source.first_epoch
    w0, target = source.params[which, row], source.params[which, row + config.expert_epochs]
    num = distilled.images.shape[0]
    size = num if config.student_batch is None else config.student_batch
    order = sampling.epochs(order_key, num, size, config.student_steps)
    keys = jax.random.split(augment_key, config.student_steps)
    labels = jnp.exp(distilled.label_logits)
    labels = labels / labels.sum(-1, keepdims=True)

    def loss(vector, images, labels):
        a = vector[: SIDE * SIDE * HIDDEN].reshape(-1, HIDDEN)
        b = vector[a.size : a.size + HIDDEN]
        c = vector[a.size + HIDDEN :].reshape(HIDDEN, K)
        logits = jnp.tanh(images.reshape(len(images), -1) @ a + b) @ c
        log_probabilities = logits - jnp.log(jnp.exp(logits).sum(-1, keepdims=True))
        return -(labels * log_probabilities).sum() / len(images)

    w = w0
    for i in range(config.student_steps):
        at = order[i] if size < num else jnp.arange(num)
        images = augment(keys[i], distilled.images[at], strategy=config.augment)
        w = w - jnp.exp(distilled.log_lr) * jax.grad(loss)(w, images, labels[at])
    return ((w - target) ** 2).sum() / ((w0 - target) ** 2).sum()


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        pytest.param(1, {}, marks=pytest.mark.slow),
        (2, {}),
        (5, {"student_batch": 3}),
        pytest.param(
            10,
            {"student_batch": 2, "augment": "flip", "min_start": 1},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_gradient_is_exact_under_every_memory_policy(float64, steps, options):
    source = trajectories(first_epoch=options.get("min_start", 0))
    settings = PLAIN | {"student_steps": steps, "max_start": 2} | options
    config, key = tm.Config(**settings), jax.random.key(3)
    given = start()
    plain = jax.value_and_grad(functools.partial(plain_loss, config, source))
    loss, grads = plain(given, key)
    assert np.abs(grads.images).max() > 1e-4
    for remat in ("none", "step", "nested"):
        method = tm.make(tm.Config(**settings, remat=remat), MODEL)
        state = method.init(jax.random.key(0), given)
        new, info = jax.jit(method.step)(key, state, source)
        np.testing.assert_allclose(info.loss, loss, rtol=1e-12)
        for after, before, grad in zip(new.distilled, given, grads, strict=True):
            np.testing.assert_allclose(before - after, grad, rtol=1e-8, atol=1e-10)


def test_a_meta_batch_is_the_mean_over_its_segments(float64):
    config = tm.Config(**PLAIN, student_steps=3, max_start=2, segments=4)
    source, key, given = trajectories(3), jax.random.key(5), start()
    method = tm.make(config, MODEL)
    new, info = jax.jit(method.step)(key, method.init(key, given), source)
    plain = jax.jit(jax.value_and_grad(functools.partial(plain_loss, config, source)))
    each = [plain(given, one) for one in jax.random.split(key, 4)]
    losses = np.array([loss for loss, _ in each])
    assert np.ptp(losses) > 0
    np.testing.assert_allclose(info.loss, losses.mean(), rtol=1e-10)
    mean = sum(np.asarray(grads.images) for _, grads in each) / 4
    np.testing.assert_allclose(
        given.images - new.distilled.images, mean, rtol=1e-8, atol=1e-12
    )


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 2), (24, 2), (25, 3), (50, 4), (99, 5), (100, 6), (9999, 6)]
)
def test_the_window_of_start_epochs_widens(step, expected):
    config = tm.Config(max_start=6, first_max_start=2, widen_steps=100)
    assert int(tm.latest_start(config, jnp.asarray(step))) == expected
    assert int(tm.latest_start(tm.Config(max_start=6), jnp.asarray(step))) == 6


def test_start_epochs_are_drawn_from_the_window_of_the_step():
    """An expert whose distances reveal the epoch: a step of no size, loss 1, but where
    start and target coincide (infinity)."""
    source = trajectories(1, 6)
    at = source.params[:, [0, 1, 2, 3, 3, 3]]  # epochs 3 and 4 have nothing ahead
    config = tm.Config(
        augment="",
        student_steps=1,
        expert_epochs=1,
        max_start=4,
        first_max_start=2,
        widen_steps=10,
        lr_lr=0.0,
    )
    method = tm.make(config, MODEL)
    given = start()

    @jax.jit
    def loss_at(step, key):
        state = method.init(key, given)._replace(aux=step)
        new, info = method.step(key, state, at_source)
        return info.loss, new.aux

    at_source = source._replace(params=at)
    keys = jax.random.split(jax.random.key(0), 60)
    early, aux = jax.vmap(loss_at, (None, 0))(jnp.asarray(0), keys)
    late, _ = jax.vmap(loss_at, (None, 0))(jnp.asarray(10), keys)
    assert np.isfinite(early).all()
    assert 0.2 < np.isinf(late).mean() < 0.6  # 2 of the 5 start epochs
    assert (aux == 1).all()


@pytest.mark.parametrize("rate", [1e6, 1e20])
def test_the_inner_rate_stays_in_its_range(rate):
    """Outer rates that are absurd: the inner one neither explodes nor turns negative."""
    config = tm.Config(
        **PLAIN | {"lr_lr": rate, "image_lr": 1e-6, "label_lr": 0.0},
        student_steps=3,
        max_start=2,
        lr_low=0.01,
        lr_high=0.9,
    )
    method = tm.make(config, MODEL)
    state = method.init(jax.random.key(0), start())
    keys = jax.random.split(jax.random.key(1), 40)
    state, infos = jax.jit(
        lambda state, source: jax.lax.scan(
            lambda s, key: method.step(key, s, source), state, keys
        )
    )(state, trajectories())
    rates = np.asarray(infos.learning_rate)
    assert np.isfinite(rates).all()
    assert rates.min() >= 0.01 * (1 - 1e-6)
    assert rates.max() <= 0.9 * (1 + 1e-6)
    assert np.isclose(rates, 0.01).any() or np.isclose(rates, 0.9).any()
    assert np.isfinite(state.distilled.images).all()


def test_a_step_with_a_great_loss_is_skipped_and_a_nan_is_not():
    config = tm.Config(**PLAIN, student_steps=1, max_start=2, skip_above=1e-6)
    method = tm.make(config, MODEL)
    state = method.init(jax.random.key(0), start())
    step = jax.jit(method.step)
    new, info = step(jax.random.key(1), state, trajectories())
    assert info.loss > 1e-6
    jax.tree.map(
        np.testing.assert_array_equal,
        (new.distilled, new.opt_state),
        (state.distilled, state.opt_state),
    )
    assert int(new.step) == 1
    assert int(new.aux) == 1
    still = Trajectories(jnp.zeros_like(trajectories().params), jnp.asarray(0, jnp.int32))
    new, info = step(jax.random.key(1), state, still)
    assert np.isnan(info.loss)
    assert np.isnan(new.distilled.images).any()


def test_stored_in_half_precision_they_are_used_in_single():
    source = trajectories()
    half = source._replace(params=source.params.astype(jnp.bfloat16))
    back = half._replace(params=half.params.astype(jnp.float32))
    method = tm.make(tm.Config(**PLAIN, student_steps=2, max_start=2), MODEL)
    state = method.init(jax.random.key(0), start())
    losses = [
        jax.jit(method.step)(jax.random.key(1), state, given)[1].loss
        for given in (half, back)
    ]
    np.testing.assert_array_equal(*losses)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (trajectories(num_epochs=3), r"5 successive epochs .* 3 were given"),
        (
            Trajectories(jnp.zeros((1, 5, 7)), jnp.asarray(0)),
            "the experts have 7 parameters, the model 100",
        ),
    ],
)
def test_experts_that_do_not_fit_are_refused(source, message):
    method = tm.make(tm.Config(max_start=2), MODEL)
    state = method.init(jax.random.key(0), start())
    with pytest.raises(InputError, match=message):
        method.step(jax.random.key(1), state, source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_start": 3, "max_start": 2}, "max_start=2: cannot lie below min_start=3"),
        ({"first_max_start": 9}, "first_max_start=9: must lie in .*0..5"),
        ({"inner_lr": 2.0}, "inner_lr=2.0: must lie in lr_low..lr_high"),
    ],
)
def test_options_that_contradict_are_refused(options, message):
    with pytest.raises(FieldError, match=message):
        tm.Config(**options)


def test_a_store_that_begins_later_gives_the_same_epochs():
    """The rows of a store are its epochs from `first_epoch` on."""
    whole = trajectories(num_epochs=7)
    later = Trajectories(whole.params[:, 2:], jnp.asarray(2, jnp.int32))
    config = tm.Config(**PLAIN, student_steps=2, min_start=2, max_start=4)
    method = tm.make(config, MODEL)
    state = method.init(jax.random.key(0), start())
    step = jax.jit(method.step)
    found = []
    for seed in range(6):
        key = jax.random.key(seed)
        (new, info), (other, same) = step(key, state, whole), step(key, state, later)
        np.testing.assert_array_equal(info.loss, same.loss)
        np.testing.assert_array_equal(new.distilled.images, other.distilled.images)
        found.append(float(info.loss))
    assert len(set(found)) > 1
    plain = jax.jit(functools.partial(plain_loss, config, later))(
        start(), jax.random.key(0)
    )
    np.testing.assert_allclose(found[0], plain, rtol=1e-5)


@pytest.mark.parametrize("first_epoch", [1, -1])
def test_a_store_without_the_epochs_that_are_needed_is_refused(first_epoch):
    method = tm.make(tm.Config(max_start=2), MODEL)
    state = method.init(jax.random.key(0), start())
    source = trajectories(num_epochs=5, first_epoch=first_epoch)
    with pytest.raises(
        InputError, match=f"hold epochs {first_epoch}..{first_epoch + 4}, and"
    ):
        method.step(jax.random.key(1), state, source)
    with pytest.raises(InputError, match=f"hold epochs {first_epoch}"):
        loop.run(method, start(), source, jax.random.key(1), num_steps=1)


def test_the_least_different_parameters_are_left_out_of_both_norms(float64):
    """`skip` reaches the loss: the student that is at its start has distance one."""
    source, key = trajectories(), jax.random.key(3)
    found = {}
    for skip in (0.0, 0.5):
        config = tm.Config(
            student_steps=2, expert_epochs=1, max_start=1, augment="", skip=skip,
            lr_low=1e-9, inner_lr=1e-9,
        )  # fmt: skip
        method = tm.make(config, MODEL)
        state = method.init(key, start(learning_rate=1e-9))
        still = method.step(key, state, source)[1].loss
        np.testing.assert_allclose(still, 1.0, atol=1e-6)
        state = method.init(key, start(learning_rate=0.5))
        found[skip] = float(method.step(key, state, source)[1].loss)
    assert abs(found[0.5] - found[0.0]) > 1e-4
