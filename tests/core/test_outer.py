"""Outer steps on a toy loss whose gradients are written by hand."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distilljax.core.outer import (
    Descent,
    Optimizers,
    clip_by_running_norm,
    from_outer_loss,
    method_rules,
    per_field,
)
from distilljax.core.parametrisations.base import DIRECT
from distilljax.types import DistilledSet, InputError

RATE = 0.1


def toy(distilled, key, aux, source):
    """1/2 |images - source|^2 + 2 log_lr + sum of logits; aux counts and sums."""
    gap = distilled.images - source
    loss = (
        0.5 * jnp.square(gap).sum() + 2.0 * distilled.log_lr + distilled.label_logits.sum()
    )
    return loss, {"calls": aux["calls"] + 1, "sum": aux["sum"] + loss}


def noisy(distilled, key, aux, source):
    """The same with a random target, so that keys matter."""
    return toy(distilled, key, aux, source + jax.random.normal(key, source.shape))


def init_aux(key):
    return {"calls": 0, "sum": 0.0}  # Python numbers: weakly typed


def weak_start():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(4, 2, 2, 1)), jnp.float32)
    logits = jnp.asarray(rng.normal(size=(4, 2)), jnp.float32)
    return DistilledSet(images, logits, jnp.asarray(-1.5))


SOURCE = jnp.ones((4, 2, 2, 1))
EVERYTHING = per_field(optax.sgd(RATE), optax.sgd(2 * RATE), optax.sgd(3 * RATE))


def test_rules_of_descent_by_hand():
    assert Descent("adam", 0.0).optimizer() is None
    assert Descent("sgd", 0.0, 0.9).optimizer() is None
    grads = jnp.asarray([1.0, -2.0])
    for rule, momentum, second in (
        ("sgd", 0.0, 1.0),
        ("sgd", 0.9, 1.9),
        ("adam", 0.9, None),
    ):
        found = Descent(rule, 0.1, momentum).optimizer()
        state = found.init(jnp.zeros(2))
        first, state = found.update(grads, state)
        # Adam's first step is the rate, whatever the gradient.
        expected = -0.1 * (jnp.sign(grads) if rule == "adam" else grads)
        np.testing.assert_allclose(first, expected, rtol=1e-5)
        if second is not None:
            after, _ = found.update(grads, state)
            np.testing.assert_allclose(after, -0.1 * second * grads, rtol=1e-6)


def test_first_steps_of_adabelief_and_lamb_by_hand():
    """AdaBelief divides by 0.9 |g|; LAMB scales the sign to the parameters' length."""
    grads, params = jnp.asarray([1.0, -2.0]), jnp.asarray([3.0, 4.0])
    for name, size in (("adabelief", 1 / 0.9), ("lamb", 5 / 2**0.5)):
        rule = Descent(name, 0.1).optimizer()
        found, _ = rule.update(grads, rule.init(params), params)
        np.testing.assert_allclose(found, -0.1 * size * jnp.sign(grads), rtol=1e-5)


def test_own_optimizers_take_the_place_of_those_of_the_method():
    described = {
        "images": Descent("sgd", 0.1, momentum=0.9),
        "log_lr": Descent("sgd", 0.0),
    }
    start = weak_start()
    grads = jax.tree.map(jnp.ones_like, start)

    def moved(own, clip=None):
        rules = method_rules("mine", own, clip=clip, **described)
        first, state = rules.update(grads, rules.init(start), start)
        second, _ = rules.update(grads, state, start)
        steps = zip(first, second, strict=True)
        sizes = [[-float(jnp.unique(x).item()) for x in one] for one in steps]
        return rules.learned, np.round(sizes, 4).tolist()

    still = [0.0, 0.0]
    described_images = [0.1, 0.19]
    for own in (None, Optimizers()):
        assert moved(own) == (("images",), [described_images, still, still])
    # A transformation stands for itself, a schedule is the rate of what is described.
    plain = Optimizers(images=optax.sgd(0.5))
    assert moved(plain) == (("images",), [[0.5, 0.5], still, still])
    own = Optimizers(images=lambda n: 0.5 / (n + 1), log_lr=lambda n: 0.25)
    learned, sizes = moved(own)
    assert learned == ("images", "log_lr")
    assert sizes == [[0.5, 0.475], still, [0.25, 0.25]]
    # 25 numbers of 1, clipped to a norm of 2.
    assert moved(plain, clip=2.0)[1] == [[0.2, 0.2], still, still]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (optax.sgd(0.1), "optimizers is a GradientTransformation"),
        (
            Optimizers(label_logits=optax.sgd(0.1)),
            "label_logits: the outer loss of mine does not depend on label_logits",
        ),
        (Optimizers(images=0.1), r"images=0\.1: give an optax transformation"),
    ],
)
def test_what_is_no_optimizer_of_the_method_is_refused(own, message):
    with pytest.raises(InputError, match=message):
        method_rules("mine", own, images=Descent("sgd", 0.1))


def test_a_set_of_another_size_than_the_parametrisation_takes_is_refused():
    rule = optax.sgd(RATE)
    two = DIRECT._replace(images_per_class=2)
    method = from_outer_loss(
        toy, per_field(rule, rule, rule), init_aux, parametrisation=two
    )

    def of(num):
        logits = jnp.zeros((num, 3))
        return DistilledSet(jnp.zeros((num, 2, 2, 1)), logits, jnp.asarray(0.0))

    assert method.init(jax.random.key(0), of(6)).step == 0
    for wrong in (3, 8, 9):
        with pytest.raises(InputError, match=f"{wrong} images of 3 classes.* start with 6"):
            method.init(jax.random.key(0), of(wrong))


def test_one_step_by_hand():
    method = from_outer_loss(toy, EVERYTHING, init_aux)
    start = weak_start()
    state = method.init(jax.random.key(0), start)
    assert state.step == 0
    new, info = jax.jit(method.step)(jax.random.key(1), state, SOURCE)

    images, logits, log_lr = (np.asarray(field, np.float64) for field in start)
    gap = images - 1.0
    loss = 0.5 * (gap**2).sum() + 2 * log_lr + logits.sum()
    norm = np.sqrt((gap**2).sum() + logits.size + 4.0)
    np.testing.assert_allclose(new.distilled.images, images - RATE * gap, rtol=1e-6)
    np.testing.assert_allclose(new.distilled.label_logits, logits - 2 * RATE, atol=1e-6)
    np.testing.assert_allclose(new.distilled.log_lr, log_lr - 6 * RATE, rtol=1e-6)
    np.testing.assert_allclose(info.loss, loss, rtol=1e-6)
    np.testing.assert_allclose(info.grad_norm, norm, rtol=1e-6)
    np.testing.assert_allclose(info.learning_rate, np.exp(-1.5), rtol=1e-6)
    assert (new.step, new.aux["calls"]) == (1, 1)
    np.testing.assert_allclose(new.aux["sum"], loss, rtol=1e-6)


def test_the_grad_norm_is_over_all_that_is_learned():
    method = from_outer_loss(toy, per_field(optax.sgd(RATE)), init_aux)
    start = weak_start()
    state = method.init(jax.random.key(0), start)
    _, info = jax.jit(method.step)(jax.random.key(1), state, SOURCE)
    expected = np.linalg.norm(np.asarray(start.images) - 1.0)
    np.testing.assert_allclose(info.grad_norm, expected, rtol=1e-6)


def test_momentum_and_aux_are_carried_along():
    method = from_outer_loss(toy, per_field(optax.sgd(RATE, momentum=0.5)), init_aux)
    state = method.init(jax.random.key(0), weak_start())
    images, trace, total = np.asarray(state.distilled.images, np.float64), 0.0, 0.0
    step = jax.jit(method.step)
    for count in range(1, 6):
        state, info = step(jax.random.key(count), state, SOURCE)
        trace = (images - 1.0) + 0.5 * trace
        images = images - RATE * trace
        total += float(info.loss)
        assert (state.step, state.aux["calls"]) == (count, count)
        np.testing.assert_allclose(state.aux["sum"], total, rtol=1e-5)
    np.testing.assert_allclose(state.distilled.images, images, atol=1e-5)


@pytest.mark.parametrize("aux", [init_aux, lambda key: {"calls": 0, "sum": jnp.mean(0.0)}])
def test_no_weak_types_and_one_trace(aux):
    method = from_outer_loss(noisy, per_field(optax.adam(RATE)), aux)
    traces = 0

    @jax.jit
    def step(key, state, source):
        nonlocal traces
        traces += 1
        return method.step(key, state, source)

    state = method.init(jax.random.key(0), weak_start())
    assert weak_start().log_lr.weak_type
    shapes = jax.tree.map(jax.typeof, state)
    for seed in range(4):
        assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
        state, info = step(jax.random.key(seed), state, SOURCE)
        assert jax.tree.map(jax.typeof, state) == shapes
    assert traces == 1
    assert not any(field.weak_type for field in info)
    assert {field.shape for field in info} == {()}


def test_init_aux_is_given_the_key_and_may_keep_it():
    method = from_outer_loss(toy, optax.sgd(RATE), lambda key: {"key": key, "n": 3})
    state = method.init(jax.random.key(5), weak_start())
    np.testing.assert_array_equal(
        jax.random.key_data(state.aux["key"]), jax.random.key_data(jax.random.key(5))
    )
    assert state.aux["n"] == 3


def test_scan_and_vmap_agree_with_a_loop():
    method = from_outer_loss(noisy, EVERYTHING, init_aux)
    keys = jax.random.split(jax.random.key(1), 5)
    step = jax.jit(method.step)

    def loop(state):
        infos = []
        for key in keys:
            state, info = step(key, state, SOURCE)
            infos.append(info)
        return state, jax.tree.map(lambda *rows: jnp.stack(rows), *infos)

    def scan(state):
        return jax.lax.scan(lambda s, key: method.step(key, s, SOURCE), state, keys)

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

    start = method.init(jax.random.key(0), weak_start())
    other = method.init(jax.random.key(0), weak_start()._replace(images=3 * SOURCE))
    ends = [loop(start), loop(other)]
    jax.tree.map(close, jax.jit(scan)(start), ends[0])
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), start, other)
    together = jax.jit(jax.vmap(scan))(both)
    for i in range(2):
        jax.tree.map(close, jax.tree.map(lambda leaf, i=i: leaf[i], together), ends[i])
    assert not np.allclose(ends[0][1].loss, ends[1][1].loss)


@pytest.mark.parametrize(
    ("rules", "learned"),
    [
        ({"images": optax.adam(RATE)}, {"images"}),
        ({"images": optax.sgd(RATE), "log_lr": optax.adam(0.1)}, {"images", "log_lr"}),
        (
            {"images": optax.set_to_zero(), "label_logits": optax.sgd(RATE)},
            {"label_logits"},
        ),
    ],
)
def test_fields_without_a_rule_stay_to_the_bit(rules, learned):
    def broken_elsewhere(distilled, key, aux, source):
        loss, aux = toy(distilled, key, aux, source)
        for name in set(DistilledSet._fields) - learned:  # gradients that are not finite
            loss += 0 * jnp.sqrt(0 * getattr(distilled, name)).sum()
        return loss, aux

    method = from_outer_loss(broken_elsewhere, per_field(**rules), init_aux)
    start = weak_start()
    state = method.init(jax.random.key(0), start)
    step = jax.jit(method.step)
    for _ in range(3):
        state, _ = step(jax.random.key(1), state, SOURCE)
    for name in DistilledSet._fields:
        before, after = (np.asarray(getattr(x, name)) for x in (start, state.distilled))
        assert (before.tobytes() == after.tobytes()) == (name not in learned)
        assert np.isfinite(after).all()


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_clipping_at_the_running_norm_by_hand(scale):
    """Norms 1, 10, 1, 10: averages 1, 1.9, 1.81, 2.629."""
    rule = clip_by_running_norm(2.0)
    state = rule.init(jnp.zeros(2))
    direction = jnp.array([0.6, 0.8])
    expected = [1.0, 3.8, 1.0, 5.258]
    for norm, wanted in zip([1.0, 10.0, 1.0, 10.0], expected, strict=True):
        clipped, state = rule.update(scale * norm * direction, state)
        np.testing.assert_allclose(clipped, scale * wanted * direction, rtol=1e-6)


@pytest.mark.parametrize(("multiple", "decay"), [(2.0, 0.9), (1.2, 0.5)])
def test_clipping_at_the_running_norm_against_a_loop(multiple, decay):
    """The authors' loop: the average takes the norm, unclipped, before it is the limit."""
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(40, 3)) * np.exp(2 * rng.normal(size=(40, 1)))
    rule = clip_by_running_norm(multiple, decay)
    update = jax.jit(lambda grad, state: rule.update({"x": grad}, state))
    state, average, num = rule.init({"x": jnp.zeros(3)}), None, 0
    for grad in grads:
        norm = np.linalg.norm(grad)
        average = norm if average is None else average - (1 - decay) * (average - norm)
        limit = multiple * average
        clipped, state = update(jnp.asarray(grad, jnp.float32), state)
        np.testing.assert_allclose(clipped["x"], grad * min(1, limit / norm), rtol=1e-4)
        num += norm > limit
    assert 3 < num < 37


def test_a_step_is_exported_and_read_again():
    """With all that its state is made of: types that `jax.export` must know by name."""
    rules = per_field(images=optax.sgd(RATE), clip=clip_by_running_norm(2.0))
    method = from_outer_loss(toy, rules, init_aux)
    state = jax.tree.map(jnp.asarray, method.init(jax.random.key(0), weak_start()))
    inputs = jax.random.key(1), state, SOURCE
    program = jax.export.export(jax.jit(method.step))(*inputs)
    again = jax.export.deserialize(program.serialize())
    ours, theirs = jax.jit(method.step)(*inputs), again.call(*inputs)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_gradient_of_zero_does_not_close_the_way():
    rule = clip_by_running_norm(2.0)
    zero, state = rule.update(jnp.zeros(2), rule.init(jnp.zeros(2)))
    np.testing.assert_array_equal(zero, jnp.zeros(2))
    passed, _ = rule.update(jnp.array([3.0, 4.0]), state)
    np.testing.assert_allclose(passed, [3.0, 4.0])


def test_clipping_at_the_running_norm_counts_what_is_learned_alone():
    rules = per_field(images=optax.sgd(RATE), clip=clip_by_running_norm(2.0))
    method = from_outer_loss(toy, rules, init_aux)
    state = method.init(jax.random.key(0), weak_start())
    _, info = method.step(jax.random.key(1), state, SOURCE)
    np.testing.assert_allclose(
        info.grad_norm, np.linalg.norm(weak_start().images - 1.0), rtol=1e-6
    )


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_inner_rate_ends_at_the_border_of_its_range(sign):
    """d loss / d log_lr is 2: the rate falls by 6e3 RATE in its log, or rises."""
    rules = per_field(log_lr=optax.sgd(sign * 1e3))
    method = from_outer_loss(toy, rules, init_aux, lr_range=(0.02, 0.7))
    state = method.init(jax.random.key(0), weak_start())
    new, _ = jax.jit(method.step)(jax.random.key(1), state, SOURCE)
    np.testing.assert_allclose(
        np.exp(new.distilled.log_lr), 0.02 if sign > 0 else 0.7, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("rule", "needed"),
    [
        (optax.lbfgs(), "'value', 'grad' and 'value_fn'"),
        (optax.chain(optax.sgd(RATE), optax.contrib.reduce_on_plateau()), "'value'"),
    ],
)
def test_an_optimizer_that_needs_the_value_is_refused(rule, needed):
    rules = method_rules("mine", Optimizers(images=rule), images=Descent("sgd", 0.1))
    method = from_outer_loss(toy, rules, init_aux)
    state = method.init(jax.random.key(0), weak_start())
    with pytest.raises(
        InputError, match=f"needs {needed} .* outer step does not"
    ) as caught:
        jax.jit(method.step)(jax.random.key(1), state, SOURCE)
    assert "\n" not in str(caught.value)


def test_a_rate_that_is_not_learned_is_not_projected():
    method = from_outer_loss(toy, per_field(optax.sgd(RATE)), init_aux, lr_range=(0.5, 0.7))
    state = method.init(jax.random.key(0), weak_start())
    new, _ = jax.jit(method.step)(jax.random.key(1), state, SOURCE)
    assert new.distilled.log_lr == -1.5


def test_a_skipped_step_leaves_set_and_optimizer_and_a_nan_does_not_skip():
    rules = per_field(images=optax.sgd(RATE, momentum=0.9))
    loss = float(toy(weak_start(), None, init_aux(None), SOURCE)[0])
    for limit, skipped in ((loss - 1, True), (loss + 1, False)):
        method = from_outer_loss(toy, rules, init_aux, skip_above=limit)
        state = method.init(jax.random.key(0), weak_start())
        new, info = jax.jit(method.step)(jax.random.key(1), state, SOURCE)
        same = [
            np.array_equal(a, b)
            for a, b in zip(
                jax.tree.leaves((new.distilled.images, new.opt_state)),
                jax.tree.leaves((state.distilled.images, state.opt_state)),
                strict=True,
            )
        ]
        assert all(same) if skipped else not any(same)
        np.testing.assert_allclose(info.loss, loss, rtol=1e-6)
        assert (int(new.step), int(new.aux["calls"])) == (1, 1)
        new, info = jax.jit(method.step)(jax.random.key(1), state, SOURCE * jnp.nan)
        assert np.isnan(info.loss)
        assert np.isnan(new.distilled.images).all()


def test_what_comes_after_sees_the_new_set():
    def after(distilled, key, aux, source):
        return {**aux, "sum": distilled.images.sum() + jax.random.uniform(key)}

    method = from_outer_loss(toy, EVERYTHING, init_aux, after=after)
    key = jax.random.key(1)
    new, _ = jax.jit(method.step)(key, method.init(key, weak_start()), SOURCE)
    expected = new.distilled.images.sum() + jax.random.uniform(key)
    np.testing.assert_allclose(new.aux["sum"], expected, rtol=1e-6)
    assert int(new.aux["calls"]) == 1
