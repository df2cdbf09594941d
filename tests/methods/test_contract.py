"""What every entry of METHODS keeps; a new method needs one tiny configuration here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.methods import METHODS, bptt, dm

TINY = {
    "bptt": bptt.Config(unroll=3, real_batch=12, image_lr=0.1, lr_lr=0.01),
    "dm": dm.Config(real_batch=8, image_lr=0.1),
}


def test_every_method_is_held_to_the_contract():
    assert TINY.keys() == METHODS.keys()


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


def make(name, problem):
    return METHODS[name].make(TINY[name], problem.model)


def test_settings_to_lower_exist(name):
    assert METHODS[name].LOWER
    for setting in METHODS[name].LOWER:
        assert hasattr(TINY[name], setting)


def test_traces_once_and_agrees_under_scan_and_vmap(name, problem):
    method, keys = make(name, problem), jax.random.split(jax.random.key(1), 3)
    traces = 0

    @jax.jit
    def step(key, state, real):
        nonlocal traces
        traces += 1
        return method.step(key, state, real)

    start = method.init(jax.random.key(0), problem.distilled)
    state = start
    for key in keys:
        state, info = step(key, state, problem.real)
    assert traces == 1
    assert int(state.step) == 3
    assert all(np.isfinite(field) for field in info)
    assert not np.array_equal(state.distilled.images, start.distilled.images)

    scanned, infos = jax.jit(
        lambda state, real: jax.lax.scan(
            lambda state, key: method.step(key, state, real), state, keys
        )
    )(start, problem.real)
    np.testing.assert_allclose(scanned.distilled.images, state.distilled.images, atol=2e-5)
    assert infos.loss.shape == (3,)

    alone, _ = step(keys[0], start, problem.real)
    other = start._replace(
        distilled=start.distilled._replace(images=start.distilled.images + 1.0)
    )
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), start, other)
    together, _ = jax.jit(jax.vmap(method.step, in_axes=(None, 0, None)))(
        keys[0], both, problem.real
    )
    np.testing.assert_allclose(
        together.distilled.images[0], alone.distilled.images, atol=2e-5
    )


def test_lowers_its_loss(name, problem):
    method = make(name, problem)

    @jax.jit
    def many(state, real):
        keys = jax.random.split(jax.random.key(2), 150)
        return jax.lax.scan(lambda s, key: method.step(key, s, real), state, keys)

    start = method.init(jax.random.key(0), problem.distilled)
    _, infos = many(start, problem.real)
    assert infos.loss[-30:].mean() < 0.8 * infos.loss[:30].mean()


def test_outer_losses_carry_their_labels_unchanged(name, problem):
    """Labels that are not learned stay as they are, to the bit."""
    method = make(name, problem)
    start = method.init(jax.random.key(0), problem.distilled)
    state, _ = jax.jit(method.step)(jax.random.key(1), start, problem.real)
    np.testing.assert_array_equal(
        state.distilled.label_logits, problem.distilled.label_logits
    )
