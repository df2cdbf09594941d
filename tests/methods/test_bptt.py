"""`bptt` against a plain re-implementation, and its windows and options."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distilljax.core import sampling
from distilljax.core.augment import augment
from distilljax.methods import bptt
from distilljax.types import InputError


def plain_outer_loss(problem, config, key, images, log_lr, window):
    """Python loops, no scan, no remat, written from the equation."""
    init_key, _, batch_key, *_ = jax.random.split(key, 5)
    model, labels = problem.model, jax.nn.softmax(problem.distilled.label_logits)
    params = model.init(init_key)
    velocity = jax.tree.map(jnp.zeros_like, params)

    def loss(params, images, labels):
        return -(jax.nn.log_softmax(model.apply(params, images)) * labels).sum(-1).mean()

    for t in range(config.unroll):
        if t == config.unroll - window:
            params, velocity = jax.lax.stop_gradient((params, velocity))
        grads = jax.grad(loss)(params, images, labels)
        velocity = jax.tree.map(lambda v, g: config.inner_momentum * v + g, velocity, grads)
        params = jax.tree.map(lambda p, v: p - jnp.exp(log_lr) * v, params, velocity)
    batch = sampling.batch(batch_key, problem.real, config.real_batch)
    return loss(params, batch.images, batch.labels)


@pytest.mark.parametrize(
    ("window", "remat"),
    [(None, "none"), (None, "step"), (None, "nested"), (5, "step"), (2, "step")],
)
def test_one_step_is_the_equation(problem, window, remat):
    """One outer step = Adam on the clipped gradient of the plain outer loss."""
    config = bptt.Config(
        unroll=5, window=window, real_batch=10, lr_lr=0.01, clip=0.02, remat=remat
    )
    method, key = bptt.make(config, problem.model), jax.random.key(5)
    start = method.init(jax.random.key(0), problem.distilled)
    state, info = jax.jit(method.step)(key, start, problem.real)

    point = (problem.distilled.images, problem.distilled.log_lr)
    loss, grads = jax.jit(
        jax.value_and_grad(
            lambda images, log_lr: plain_outer_loss(
                problem, config, key, images, log_lr, window or 5
            ),
            argnums=(0, 1),
        )
    )(*point)
    np.testing.assert_allclose(info.loss, loss, rtol=1e-5)
    norm = optax.tree.norm(grads)
    np.testing.assert_allclose(info.grad_norm, norm, rtol=1e-4)
    assert norm > config.clip
    clipped = jax.tree.map(lambda g: g * config.clip / norm, grads)
    # Adam's first step: the bias-corrected moments are the gradient and its square.
    for after, before, grad, rate in zip(
        (state.distilled.images, state.distilled.log_lr),
        point,
        clipped,
        (config.image_lr, config.lr_lr),
        strict=True,
    ):
        large = np.abs(grad) > 1e-6
        expected = before - rate * grad / (jnp.abs(grad) + 1e-8)
        np.testing.assert_allclose(
            np.asarray(after)[large], np.asarray(expected)[large], atol=2e-4
        )


def test_random_windows_end_anywhere_and_fixed_ones_at_the_end(problem):
    """Same network, same real images: only the number of inner steps varies."""
    same = problem.model._replace(init=lambda _: problem.model.init(jax.random.key(0)))

    def losses(**options):
        config = bptt.Config(unroll=12, window=2, real_batch=60, inner_lr=0.05, **options)
        method = bptt.make(config, same)
        state = method.init(jax.random.key(0), problem.distilled)
        step = jax.jit(method.step)
        infos = [step(jax.random.key(s), state, problem.real)[1] for s in range(12)]
        assert step._cache_size() == 1
        return [float(info.loss) for info in infos]

    assert np.ptp(losses()) < 1e-5
    drawn = np.round(losses(random_window=True), 5)
    assert 4 <= len(set(drawn)) <= 11


@pytest.mark.parametrize("inner", ["sgd", "momentum", "adam"])
def test_every_inner_optimizer_has_a_finite_meta_gradient(problem, inner):
    config = bptt.Config(unroll=3, real_batch=12, inner=inner, inner_lr=0.02)
    method = bptt.make(config, problem.model)
    state = method.init(jax.random.key(0), problem.distilled)
    _, info = jax.jit(method.step)(jax.random.key(1), state, problem.real)
    assert np.isfinite(info.grad_norm)
    assert info.grad_norm > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unroll": 5, "window": 6}, "window=6: cannot exceed unroll=5"),
        ({"random_window": True}, "random_window=True: needs a window"),
        ({"augment": "flip_blur"}, "no operation 'blur'"),
        ({"inner_augment": "rotate_blur"}, "no operation 'blur'"),
        ({"adapt": 2}, "adapt=2: must be below the window, and window=None"),
        ({"adapt": 3, "window": 3}, "adapt=3: must be below the window"),
        ({"adapt": 3, "window": 13}, "window \\+ adapt must not exceed unroll=15"),
        (
            {"adapt": 2, "window": 4, "random_window": True},
            "random_window draws the window otherwise",
        ),
        ({"inner_lr": 0.0}, "inner_lr=0.0: must be greater than 0"),
        ({"unroll": 0}, "unroll=0: must be at least 1"),
    ],
)
def test_settings_without_a_meaning_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        bptt.Config(**options)


@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_minibatches_and_labels_against_a_loop(problem, inner):
    """Two permutations of six images in batches of two; images and labels are learned."""
    config = bptt.Config(
        unroll=5,
        inner_batch=2,
        inner=inner,
        real_batch=10,
        outer="sgd",
        image_lr=1.0,
        label_lr=1.0,
        momentum=0.0,
        clip=1e9,
    )
    given = problem.distilled._replace(
        label_logits=2.0 * jnp.eye(3)[jnp.repeat(jnp.arange(3), 2)]
    )
    method, key = bptt.make(config, problem.model), jax.random.key(5)
    new, info = jax.jit(method.step)(key, method.init(key, given), problem.real)
    init_key, _, batch_key, _, order_key = jax.random.split(key, 5)
    order = sampling.epochs(order_key, 6, 2, 5)
    assert sorted(order[:3].ravel().tolist()) == list(range(6))
    model = problem.model

    def loss(params, images, labels):
        return -(jax.nn.log_softmax(model.apply(params, images)) * labels).sum(-1).mean()

    def outer(images, logits):
        params, labels = model.init(init_key), jax.nn.softmax(logits)
        rate = jnp.exp(given.log_lr)
        first = second = jax.tree.map(jnp.zeros_like, params)
        for t, at in enumerate(order, 1):
            grads = jax.grad(loss)(params, images[at], labels[at])
            step = grads
            if inner == "adam":
                first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
                second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, grads)
                step = jax.tree.map(
                    lambda m, v, t=t: (
                        m
                        / (1 - 0.9**t)
                        / (jnp.sqrt(v / (1 - 0.999**t) + bptt.ADAM_EPS_ROOT) + 1e-8)
                    ),
                    first,
                    second,
                )
            params = jax.tree.map(lambda p, s: p - rate * s, params, step)
        batch = sampling.batch(batch_key, problem.real, config.real_batch)
        return loss(params, batch.images, batch.labels)

    value, grads = jax.jit(jax.value_and_grad(outer, argnums=(0, 1)))(
        given.images, given.label_logits
    )
    np.testing.assert_allclose(info.loss, value, rtol=1e-4)
    for after, before, grad in zip(new.distilled[:2], given[:2], grads, strict=True):
        assert np.abs(grad).max() > 1e-4
        np.testing.assert_allclose(before - after, grad, rtol=2e-2, atol=2e-5)


def double(tree):
    def one(x):
        return x.astype(jnp.float64) if x.dtype == jnp.float32 else x

    return jax.tree.map(one, tree)


@pytest.mark.parametrize("window", [None, pytest.param(3, marks=pytest.mark.slow)])
def test_inner_augmentation_against_a_loop(problem, window, float64):
    """Each inner step, of the burn-in and of the window, has a draw of its own."""
    settings = {"outer": "sgd", "image_lr": 1.0, "momentum": 0.0, "clip": 1e9}
    config = bptt.Config(
        unroll=5,
        window=window,
        random_window=window is not None,
        inner="sgd",
        inner_batch=4,
        real_batch=10,
        inner_augment="flip_rotate",
        **settings,
    )
    model = problem.model._replace(init=lambda key: double(problem.model.init(key)))
    real, given = double(problem.real), double(problem.distilled)
    method, key = bptt.make(config, model), jax.random.key(3)
    step = jax.jit(method.step)
    init_key, window_key, batch_key, _, order_key = jax.random.split(key, 5)
    draws = jax.random.split(jax.random.fold_in(key, 5), 5)
    order = sampling.epochs(order_key, 6, 3, 5)
    first = 0
    if window:
        first = int(jax.random.randint(window_key, (), 0, 3, jnp.int32))
        assert first == 1
    labels = jax.nn.softmax(given.label_logits)

    def loss(params, images, labels):
        return -(jax.nn.log_softmax(model.apply(params, images)) * labels).sum(-1).mean()

    def outer(images):
        params = model.init(init_key)
        for t in range(first + (window or 5)):
            if t == first:
                params = jax.lax.stop_gradient(params)
            seen = augment(draws[t], images[order[t]], strategy="flip_rotate")
            grads = jax.grad(loss)(params, seen, labels[order[t]])
            rate = jnp.exp(given.log_lr)
            params = jax.tree.map(lambda p, g, rate=rate: p - rate * g, params, grads)
        batch = sampling.batch(batch_key, real, config.real_batch)
        return loss(params, batch.images, batch.labels)

    value, grad = jax.jit(jax.value_and_grad(outer))(given.images)
    new, info = step(key, method.init(key, given), real)
    found = given.images - new.distilled.images
    np.testing.assert_allclose(info.loss, value, rtol=1e-10)
    np.testing.assert_allclose(found, grad, rtol=1e-7, atol=1e-12)
    assert np.abs(grad).max() > 1e-4
    if window:  # finite differences see the burn-in too
        return
    direction, eps = jax.random.normal(jax.random.key(4), grad.shape, jnp.float64), 1e-6
    ahead, behind = (
        step(key, method.init(key, given._replace(images=given.images + d)), real)[1].loss
        for d in (eps * direction, -eps * direction)
    )
    np.testing.assert_allclose(
        jnp.vdot(found, direction), (ahead - behind) / (2 * eps), rtol=1e-6
    )


def test_random_windows_start_at_every_step_from_the_first(problem):
    """A window of W steps from start s ends as an unroll of s + W steps does."""
    same = problem.model._replace(init=lambda _: problem.model.init(jax.random.key(0)))

    def losses(seeds, **options):
        config = bptt.Config(real_batch=60, inner_lr=0.05, **options)
        method = bptt.make(config, same)
        state, step = (
            method.init(jax.random.key(0), problem.distilled),
            jax.jit(method.step),
        )
        infos = [step(jax.random.key(s), state, problem.real)[1] for s in range(seeds)]
        return np.array([float(info.loss) for info in infos])

    ends = np.concatenate([losses(1, unroll=num) for num in (2, 3, 4)])
    assert np.diff(ends).max() < -1e-4
    drawn = losses(24, unroll=4, window=2, random_window=True)
    gaps = np.abs(drawn[:, None] - ends)
    assert gaps.min(axis=1).max() < 1e-5
    assert set(gaps.argmin(axis=1)) == {0, 1, 2}


ADAPT = bptt.Config(
    unroll=10, window=4, adapt=2, first_stage=2, middle_stage=2, real_batch=10, clip=1e9,
    outer="sgd", image_lr=1.0, momentum=0.0, inner_augment="flip",
)  # fmt: skip


def test_adapted_windows_follow_their_definition():
    """Norms so far apart that the draw is certain, and the shares of it where it is not."""
    norms = np.array([1.0, 2.0, 2.5, 99.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    changes = np.abs(np.diff(norms, prepend=norms[0]))
    rank = sorted(changes).index(changes[3]) + 1
    assert rank == 10
    window = jax.jit(bptt.adapted_window, static_argnums=0)
    key = jax.random.key(0)
    assert [int(x) for x in window(ADAPT, 0, norms, key)] == [3, 2 + 2 * 2 * rank // 10]
    assert [int(x) for x in window(ADAPT, 2, norms, key)] == [10 - 3 - 2, 2]
    wider = ADAPT.replace({"window": 5})
    assert [int(x) for x in window(wider, 2, norms, key)] == [10 - 3 - 3, 3]
    # A certain draw of the step with the third smallest change: ranks 1 to 5 are equal.
    flat = np.array([100.0, 0, 0, 0, 0, 0, 1, 3, 6, 10])
    assert [int(x) for x in window(ADAPT, 0, flat, key)] == [0, 2 + 2 * 2 * 5 // 10]
    keys = jax.random.split(key, 4000)
    starts, sizes = jax.vmap(lambda k: window(ADAPT, 1, norms, k))(keys)
    assert set(np.asarray(sizes)) == {6}
    np.testing.assert_allclose(np.bincount(starts) / 4000, np.full(5, 0.2), atol=0.03)
    close = np.linspace(0, 2, 10)
    starts, _ = jax.vmap(lambda k: window(ADAPT, 0, close, k))(keys)
    shares = np.exp(close) / np.exp(close).sum()
    np.testing.assert_allclose(np.bincount(starts) / 4000, shares, atol=0.03)


def test_an_adapted_step_is_the_equation_in_every_stage(problem):
    """Python loops over the window of the definition; the step is traced once."""
    method, step = bptt.make(ADAPT, problem.model), None
    state = method.init(jax.random.key(0), problem.distilled)
    step, sizes = jax.jit(method.step), set()
    labels = jax.nn.softmax(problem.distilled.label_logits)
    model = problem.model

    def loss(params, images, labels):
        return -(jax.nn.log_softmax(model.apply(params, images)) * labels).sum(-1).mean()

    def train(params, images, draws, steps):
        velocity, norms = jax.tree.map(jnp.zeros_like, params), []
        for t, keep in enumerate(steps):
            if not keep:
                params, velocity = jax.lax.stop_gradient((params, velocity))
            seen = augment(draws[t], images, strategy="flip")
            grads = jax.grad(loss)(params, seen, labels)
            norms.append(optax.tree.norm(grads))
            velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
            params = jax.tree.map(lambda p, v: p - 0.02 * v, params, velocity)
        return params, jnp.stack(norms)

    state = state._replace(
        distilled=state.distilled._replace(log_lr=jnp.log(jnp.float32(0.02)))
    )
    whole = jax.jit(lambda *given: train(*given, [True] * 10)[1])
    for number in range(6):
        key = jax.random.key(10 + number)
        init_key, window_key, batch_key, *_ = jax.random.split(key, 5)
        params, images = model.init(init_key), state.distilled.images
        draws = jax.random.split(jax.random.fold_in(key, 5), 10)
        norms = whole(params, images, draws)
        drawn = bptt.adapted_window(ADAPT, jnp.int32(number // 2), norms, window_key)
        size = int(drawn[1])
        start = min(max(int(drawn[0]), 0), 10 - size)
        sizes.add(size)
        batch = sampling.batch(batch_key, problem.real, 10)

        def outer(images, start=start, size=size, given=(params, draws), batch=batch):
            params, draws = given
            steps = [t > start for t in range(start + size)]
            return loss(train(params, images, draws, steps)[0], *batch)

        value, grad = jax.jit(jax.value_and_grad(outer))(images)
        state, info = step(key, state, problem.real)
        np.testing.assert_allclose(info.loss, value, rtol=1e-5)
        np.testing.assert_allclose(state.distilled.images, images - grad, atol=1e-5)
    assert step._cache_size() == 1
    assert sizes >= {2, 6}
