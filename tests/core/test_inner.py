"""The meta-gradient against its closed form, finite differences and plain loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distilljax import platforms
from distilljax.core import inner, losses
from distilljax.core.losses import cross_entropy
from distilljax.models import mlp
from distilljax.types import Batch, InputError

POLICIES = ("none", "step", "nested")
DIMENSION, RATE = 5, 0.3


def quadratic(params, batch):
    """1/2 (w - s)^T A (w - s) with a learned minimum s."""
    matrix, minimum = batch
    gap = params - minimum
    return 0.5 * gap @ matrix @ gap


@pytest.fixture
def given(float64):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(DIMENSION, DIMENSION))
    matrix = root @ root.T / DIMENSION + 0.1 * np.eye(DIMENSION)
    return matrix, rng.normal(size=DIMENSION), rng.normal(size=DIMENSION)


def test_steps_follow_the_closed_form(given):
    matrix, start, minimum = given
    optimizer = optax.sgd(RATE)
    state, losses = inner.unroll(
        quadratic,
        optimizer,
        lambda _: (matrix, minimum),
        inner.init(jnp.asarray(start), optimizer),
        jnp.arange(12),
    )
    decay = np.eye(DIMENSION) - RATE * matrix
    for t in range(12):
        gap = np.linalg.matrix_power(decay, t) @ (start - minimum)
        np.testing.assert_allclose(losses[t], 0.5 * gap @ matrix @ gap, atol=1e-9)
    expected = minimum + np.linalg.matrix_power(decay, 12) @ (start - minimum)
    np.testing.assert_allclose(state.params, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("remat", "num_steps", "window"),
    [
        *itertools.product(POLICIES, (1, 2, 7, 12), (None,)),
        *itertools.product(POLICIES, (12,), (1, 4, 11, 12)),
    ],
)
def test_meta_gradient_is_the_closed_form(given, remat, num_steps, window):
    """d w_T / d s = I - (I - lr A)^W: the constant start of the window drops out."""
    matrix, start, minimum = given
    direction = np.random.default_rng(1).normal(size=DIMENSION)
    optimizer = optax.sgd(RATE)

    def outer(minimum, burn_in):
        def sample(_):
            return matrix, minimum

        state, steps = inner.init(jnp.asarray(start), optimizer), jnp.arange(num_steps)
        if window is None:
            state, _ = inner.unroll(quadratic, optimizer, sample, state, steps, remat=remat)
        else:
            state, _ = inner.truncated_unroll(
                quadratic,
                optimizer,
                sample,
                state,
                steps,
                start=burn_in,
                window=window,
                remat=remat,
            )
        return state.params @ direction

    decay = np.eye(DIMENSION) - RATE * matrix
    differentiated = num_steps if window is None else window
    jacobian = np.eye(DIMENSION) - np.linalg.matrix_power(decay, differentiated)
    burn_in = jnp.asarray(num_steps - differentiated)
    value, grad = jax.jit(jax.value_and_grad(outer))(jnp.asarray(minimum), burn_in)
    end = minimum + np.linalg.matrix_power(decay, num_steps) @ (start - minimum)
    np.testing.assert_allclose(value, end @ direction, atol=1e-9)
    np.testing.assert_allclose(grad, jacobian.T @ direction, atol=1e-9)


def test_a_start_inside_the_unroll_leaves_the_later_steps_out(given):
    matrix, start, minimum = given
    optimizer = optax.sgd(RATE)

    @jax.jit
    def end(burn_in):
        return inner.truncated_unroll(
            quadratic,
            optimizer,
            lambda _: (matrix, minimum),
            inner.init(jnp.asarray(start), optimizer),
            jnp.arange(12),
            start=burn_in,
            window=3,
        )[0].params

    decay = np.eye(DIMENSION) - RATE * matrix
    for burn_in in (0, 4, 9):
        power = np.linalg.matrix_power(decay, burn_in + 3)
        np.testing.assert_allclose(
            end(burn_in), minimum + power @ (start - minimum), atol=1e-9
        )
    assert end._cache_size() == 1


def small_network():
    model = mlp.make(mlp.Config(width=6, depth=1), (3, 3, 1), 2)
    images = jax.random.normal(jax.random.key(1), (4, 3, 3, 1), jnp.float64)
    labels = jax.nn.one_hot(jnp.array([0, 1, 0, 1]), 2, dtype=jnp.float64)
    params = jax.tree.map(lambda x: x.astype(jnp.float64), model.init(jax.random.key(0)))
    return model, params, images, labels


@pytest.mark.parametrize(
    "optimizer",
    [optax.sgd, lambda lr: optax.sgd(lr, momentum=0.9), optax.adam],
    ids=["sgd", "momentum", "adam"],
)
def test_meta_gradient_equals_finite_differences(float64, optimizer):
    """In the images, the soft labels and the log learning rate, on a ReLU network."""
    model, params, images, labels = small_network()
    loss_fn = cross_entropy(model.apply)
    real = Batch(
        jax.random.normal(jax.random.key(2), (8, 3, 3, 1), jnp.float64),
        labels[jnp.arange(8) % 4],
    )

    @jax.jit
    def outer(images, logits, log_lr):
        rule = optimizer(jnp.exp(log_lr))
        batch = Batch(images, jax.nn.softmax(logits))
        state, _ = inner.unroll(
            loss_fn, rule, lambda _: batch, inner.init(params, rule), jnp.arange(5)
        )
        return loss_fn(state.params, real)

    point = (images, 2 * labels, jnp.log(jnp.asarray(0.1)))
    grads = jax.grad(outer, argnums=(0, 1, 2))(*point)
    for seed in range(3):
        keys = jax.random.split(jax.random.key(10 + seed), 3)
        direction = [
            jax.random.normal(key, x.shape, jnp.float64)
            for key, x in zip(keys, point, strict=True)
        ]
        eps = 1e-7

        def moved(sign, direction=direction, eps=eps):
            return outer(
                *(x + sign * eps * d for x, d in zip(point, direction, strict=True))
            )

        numeric = (moved(1) - moved(-1)) / (2 * eps)
        exact = sum(jnp.vdot(g, d) for g, d in zip(grads, direction, strict=True))
        np.testing.assert_allclose(exact, numeric, rtol=1e-5)
        assert abs(numeric) > 1e-6


def test_unroll_equals_a_python_loop_of_steps(float64):
    model, params, images, labels = small_network()
    loss_fn, rule = cross_entropy(model.apply), optax.adam(0.05)
    order = jnp.array([[0, 1], [2, 3], [1, 2]])

    def sample(rows):
        return Batch(images[rows], labels[rows])

    together, losses = inner.unroll(loss_fn, rule, sample, inner.init(params, rule), order)
    state = inner.init(params, rule)
    for t, rows in enumerate(order):
        state, loss = inner.step(loss_fn, rule, state, sample(rows))
        np.testing.assert_allclose(losses[t], loss, rtol=1e-12)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14),
        together,
        state,
    )


@pytest.mark.parametrize(
    ("start", "window", "message"),
    [(0, 0, "window=0"), (0, 6, "1..5"), (4, 2, "start=4"), (-1, 2, "start=-1")],
)
def test_a_window_that_does_not_fit_is_refused(start, window, message):
    rule = optax.sgd(0.1)
    with pytest.raises(InputError, match=message):
        inner.truncated_unroll(
            quadratic,
            rule,
            lambda _: (jnp.eye(2), jnp.zeros(2)),
            inner.init(jnp.ones(2), rule),
            jnp.arange(5),
            start=start,
            window=window,
        )


@pytest.mark.parametrize("remat", POLICIES)
def test_pieces_of_a_batch_change_no_derivative(remat, float64):
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(6, 3)), rng.normal(size=6)
    rule = optax.sgd(0.1, momentum=0.9)

    def loss_fn(w, batch):
        images, labels = batch
        return jnp.square(jnp.tanh(images @ w) - labels).mean()

    def outer(chunk):
        def after(images):
            state = inner.init(jnp.ones(3), rule)
            state, losses = inner.unroll(
                loss_fn,
                rule,
                lambda _: (images, labels),
                state,
                jnp.arange(5),
                remat=remat,
                chunk=chunk,
            )
            return jnp.sin(state.params).sum() + losses.sum()

        return jax.jit(jax.value_and_grad(after))(images)

    whole, pieces = outer(None), outer(2)
    for a, b in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("chunk", [2, 3, 4, 6, 7])
@pytest.mark.parametrize("stated", [True, False])
def test_a_batch_that_does_not_divide_is_filled_with_weight_zero(stated, chunk, float64):
    """Every derivative is that of the whole batch; no example counts twice."""
    rng = np.random.default_rng(0)
    images, labels, start = rng.normal(size=(7, 3)), rng.normal(size=7), rng.normal(size=3)

    def each(w, batch):
        images, labels = batch
        return jnp.square(jnp.tanh(images @ w) - labels)

    loss_fn = losses.Mean(each) if stated else lambda w, batch: each(w, batch).mean()

    def outer(images, chunk):
        def square(images):
            loss, grad = inner.value_and_grad(loss_fn, start, (images, labels), chunk)
            return loss + jnp.square(grad).sum(), grad

        return jax.value_and_grad(square, has_aux=True)(images)

    whole = outer(jnp.asarray(images), None)
    found = jax.jit(outer, static_argnums=1)(images, chunk)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, whole)


def test_losses_of_a_filled_piece_are_computed_side_by_side():
    """Not each as a batch of its own, which takes a network up to twice the time."""

    def program(loss_fn):
        gradient = lambda w, x: inner.value_and_grad(loss_fn, w, x, chunk=4)  # noqa: E731
        return str(jax.make_jaxpr(gradient)(jnp.ones((3, 2)), jnp.ones((7, 3))))

    def each(w, x):
        return (x @ w).sum(axis=1)

    assert "f32[4,2]" in program(losses.Mean(each))
    assert "f32[4,1,2]" not in program(losses.Mean(each))
    assert "f32[4,1,2]" in program(lambda w, x: each(w, x).mean())


def test_losses_that_are_not_one_an_example_are_refused():
    loss_fn = losses.Mean(lambda w, x: (w * x)[:, None])
    with pytest.raises(InputError, match=r"each returned f32\[4, 1\] for 4 examples"):
        inner.value_and_grad(loss_fn, 1.0, jnp.ones(7), chunk=4)


def test_an_odd_batch_costs_little_more_than_an_even_one(monkeypatch):
    """257 images were once computed all at once: 4.7 times the memory of 256."""
    monkeypatch.setattr(platforms, "threads_per_device", lambda: 1)
    weights = jax.ShapeDtypeStruct((16, 64), jnp.float32)

    def memory(num):
        def gradient(weights, batch):
            chunk = inner.cache_chunk(num, weights)
            loss = lambda w, x: jnp.square(jnp.tanh(x @ w) @ w.T).mean()  # noqa: E731
            return inner.value_and_grad(loss, weights, batch, chunk)

        batch = jax.ShapeDtypeStruct((num, 16), jnp.float32)
        compiled = jax.jit(gradient).lower(weights, batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    batch = 4 * 16 * 258  # the batch itself, filled
    assert memory(257) < 1.2 * memory(256) + batch


@pytest.mark.parametrize("chunk", [0, 7])
def test_a_chunk_that_the_batch_does_not_hold_is_refused(chunk):
    with pytest.raises(InputError, match=rf"chunk={chunk}: must lie in 1..6"):
        inner.value_and_grad(lambda w, x: (w * x).mean(), 1.0, jnp.ones(6), chunk)


FEW_WEIGHTS = jax.ShapeDtypeStruct((500,), jnp.float32)


@pytest.mark.parametrize(
    ("num", "chunk"),
    [(9, None), (10, 5), (11, 4), (20, 5), (99, 5), (100, 5), (256, 4), (257, 6), (64, 4)],
)
def test_one_thread_takes_pieces_that_its_cache_holds(num, chunk, monkeypatch):
    monkeypatch.setattr(platforms, "threads_per_device", lambda: 1)
    assert inner.cache_chunk(num, FEW_WEIGHTS) == chunk


@pytest.mark.parametrize(
    ("mebibytes", "num", "chunk", "groups"),
    [
        (1, 100, 5, 5),
        (3, 19, None, 10),
        (3, 20, 10, 10),
        (3, 100, 10, 10),
        (3, 256, 8, 10),
        (20, 39, None, 20),
        (20, 100, 20, 20),
    ],
)
def test_a_thread_takes_more_of_a_network_whose_weights_are_more_than_its_cache(
    mebibytes, num, chunk, groups, monkeypatch
):
    monkeypatch.setattr(platforms, "threads_per_device", lambda: 1)
    half = jax.ShapeDtypeStruct((mebibytes * 2**17,), jnp.float32)
    assert inner.cache_chunk(num, {"a": half, "b": half}) == chunk
    assert inner.cache_groups(20, 1, (half, half)) == groups


@pytest.mark.parametrize(
    ("num", "chunk"), [(10, None), (18, None), (19, 5), (20, 5), (22, 4), (100, 5)]
)
def test_the_chunk_of_a_device_is_that_of_its_share(num, chunk, monkeypatch):
    monkeypatch.setattr(platforms, "threads_per_device", lambda: 1)
    assert inner.cache_chunk(num, FEW_WEIGHTS, share=2) == chunk


@pytest.mark.parametrize(
    ("threads", "num_devices", "each"),
    [(1, 1, 1), (2, 1, 2), (2, 2, 1), (2, 4, 1), (8, 2, 4)],
)
def test_devices_share_the_threads(threads, num_devices, each, monkeypatch):
    monkeypatch.setattr(platforms, "cpu_threads", lambda: threads)
    monkeypatch.setattr(jax, "local_device_count", lambda: num_devices)
    assert platforms.threads_per_device() == each


@pytest.mark.parametrize(
    ("num", "size", "groups"),
    [(10, 10, 1), (10, 1, 5), (10, 50, 1), (7, 10, 1), (9, 2, 1), (8, 2, 2)],
)
def test_one_thread_takes_groups_that_its_cache_holds(num, size, groups, monkeypatch):
    monkeypatch.setattr(platforms, "threads_per_device", lambda: 1)
    assert inner.cache_groups(num, size, FEW_WEIGHTS) == groups


@pytest.mark.parametrize(
    ("num", "chunk"),
    [(39, None), (40, 20), (99, 20), (100, 20), (256, 16), (257, 20), (64, 16)],
)
def test_several_threads_take_larger_pieces(num, chunk, monkeypatch):
    monkeypatch.setattr(platforms, "threads_per_device", lambda: 2)
    assert inner.cache_chunk(num, FEW_WEIGHTS) == chunk
    assert inner.cache_groups(10, 1, FEW_WEIGHTS) == 10
    assert inner.cache_groups(8, 5, FEW_WEIGHTS) == 4


def test_programs_for_other_platforms_take_whole_batches(monkeypatch):
    monkeypatch.setattr(platforms, "threads_per_device", lambda: 1)
    with platforms.target("cuda"):
        assert inner.cache_chunk(100, FEW_WEIGHTS) is None
        assert inner.cache_groups(10, 1, FEW_WEIGHTS) == 10
        with platforms.target("cpu"):
            assert inner.cache_chunk(100, FEW_WEIGHTS) == 5
        assert not platforms.on_cpu()
    assert platforms.on_cpu()
    with jax.default_device(jax.devices("cpu")[0]):
        assert platforms.on_cpu()


def test_the_derivative_by_the_rate_computes_no_gradient_again():
    """Its step's gradient is kept, the derivative is a product with it."""

    def loss_fn(weights, batch):
        return jnp.tanh(batch @ weights).sum()

    def outer(learned, given):
        weights, rate = learned["weights"], {**given, **learned}["rate"]
        rule = optax.sgd(rate)
        state, _ = inner.unroll(
            loss_fn,
            rule,
            lambda x: x,
            inner.init(weights, rule),
            given["batches"],
            chunk=8,
        )
        return state.params.sum()

    weights = jnp.full((64, 32), 0.01)
    given = {"batches": jnp.ones((5, 16, 64)), "rate": jnp.float32(0.1)}
    both = {"weights": weights, "rate": given["rate"]}

    def flops(learned):
        return (
            jax.jit(jax.grad(outer))
            .lower(learned, given)
            .compile()
            .cost_analysis()["flops"]
        )

    assert flops(both) < 1.1 * flops({"weights": weights})


RULE = optax.sgd(0.1)


def run(loss_fn=quadratic, rule=RULE, inputs=None, **options):
    unroll = inner.truncated_unroll if options else inner.unroll
    inputs = jnp.arange(8) if inputs is None else inputs
    state = inner.init(jnp.ones(2), rule)
    return unroll(
        loss_fn, rule, lambda t: (jnp.eye(2), jnp.ones(2) * t), state, inputs, **options
    )


def test_a_start_may_be_any_whole_number():
    expected = run(start=jnp.int32(3), window=2)[1]
    assert expected.shape == (2,)
    for start in (3, np.int64(3), np.array(3)):
        np.testing.assert_array_equal(run(start=start, window=2)[1], expected)


@pytest.mark.parametrize("start", [7, np.int64(7), np.int64(-1), jnp.int32(7)])
def test_a_start_that_does_not_fit_is_refused_whatever_its_type(start):
    with pytest.raises(InputError, match=rf"start={start}: must lie in 0..6"):
        run(start=start, window=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ()}, "inputs has no arrays: .* jnp.arange"),
        ({"inputs": (jnp.arange(2), jnp.arange(3))}, r"leading axes \[\(2,\), \(3,\)\]"),
        ({"inputs": jnp.float32(1)}, r"leading axes \[\(\)\]"),
        ({"loss_fn": lambda w, b: (quadratic(w, b), {})}, "loss_fn returned tuple"),
        ({"loss_fn": lambda w, b: w}, r"loss_fn returned f32\[2\]"),
        (
            {"rule": optax.chain(RULE, optax.contrib.reduce_on_plateau())},
            "the optimizer needs 'value' beside",
        ),
        ({"rule": optax.lbfgs()}, "the optimizer needs 'value', 'grad' and 'value_fn'"),
    ],
)
def test_what_an_inner_loop_cannot_take_is_refused(options, message):
    with pytest.raises(InputError, match=message) as caught:
        run(**options)
    assert "\n" not in str(caught.value)


def test_adam_with_a_dead_weight_needs_eps_root(float64):
    """The derivative of sqrt(0); a weight without gradients changes nothing of the rest."""

    def outer(learned, rule, dead):
        def loss_fn(params, batch):
            loss = jnp.square(params["live"] * batch.sum() - 1)
            return loss + jax.nn.relu(params["dead"] @ batch - 10.0) if dead else loss

        start = {"live": jnp.ones(()), "dead": jnp.zeros(3)}
        state = inner.init(start if dead else {"live": start["live"]}, rule)
        state, _ = inner.unroll(loss_fn, rule, lambda _: learned, state, jnp.arange(4))
        rest = state.params["dead"].sum() if dead else 0.0
        return jnp.square(state.params["live"]) + rest

    grad, point = jax.grad(outer), jnp.array([1.0, 2.0, 0.5])
    expected = grad(point, optax.adam(0.1), False)
    assert np.abs(expected).min() > 1e-3
    found = grad(point, optax.adam(0.1, eps_root=inner.EPS_ROOT), True)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.isnan(grad(point, optax.adam(0.1), True)).all()  # why


@pytest.mark.parametrize("remat", POLICIES)
def test_a_window_of_traced_size_is_that_of_a_plain_loop(given, remat):
    """Value and gradient by the data, for every start and size; one program for all."""
    matrix, begin, minimum = given
    rule = optax.sgd(RATE, momentum=0.9)
    total, largest = 6, 4

    def ours(minimum, start, size):
        state = inner.init(jnp.asarray(begin), rule)
        state, _ = inner.sized_unroll(
            quadratic, rule, lambda t: (matrix, minimum * (1 + 0.1 * t)), state,
            jnp.arange(total), start=start, size=size, largest=largest, remat=remat,
        )  # fmt: skip
        return jnp.sum(state.params**3)

    def plain(minimum, start, size):
        params, velocity = jnp.asarray(begin), jnp.zeros(DIMENSION)
        for t in range(start + size):
            if t <= start:
                params, velocity = jax.lax.stop_gradient((params, velocity))
            grad = matrix @ (params - minimum * (1 + 0.1 * t))
            velocity = 0.9 * velocity + grad
            params = params - RATE * velocity
        return jnp.sum(params**3)

    found = jax.jit(jax.value_and_grad(ours))
    for size in range(1, largest + 1):
        for start in range(total - size + 1):
            value, grad = found(minimum, start, size)
            expected = jax.value_and_grad(plain)(jnp.asarray(minimum), start, size)
            np.testing.assert_allclose(value, expected[0], rtol=1e-12)
            np.testing.assert_allclose(grad, expected[1], rtol=1e-10)
    assert found._cache_size() == 1
    with pytest.raises(InputError, match=r"largest=7: must lie in 1\.\.6"):
        inner.sized_unroll(
            quadratic, rule, lambda t: t, inner.init(jnp.zeros(5), rule), jnp.arange(6),
            start=0, size=1, largest=7,
        )  # fmt: skip


def two_layers(params, batch):
    """Values of an example: 8 and 4 numbers, their tanh and squares, the labels, a sum."""
    first, second = params
    hidden = jnp.tanh(batch[0] @ first)
    return jnp.square(jnp.tanh(hidden @ second) - batch[1]).sum(1).mean()


def test_on_accelerators_a_large_batch_is_cut_by_what_it_would_store(monkeypatch):
    """The bytes of an example are counted by hand, and the limit is set about them."""
    params = jnp.ones((3, 8)), jnp.ones((8, 4))
    bytes_of_one = 4 * (8 + 8 + 4 + 4 + 4 + 4 + 1)

    def chosen(num, examples):
        monkeypatch.setattr(inner, "VALUES", examples * bytes_of_one)
        batch = jnp.ones((num, 3)), jnp.ones((num, 4))
        return inner.memory_chunk(two_layers, params, batch)

    with platforms.target("cuda"):
        assert chosen(60, 60) is None
        assert chosen(60, 59) == 30
        assert chosen(60, 25) == 20
        assert chosen(61, 25) == 21  # a prime number: three pieces, as even as can be
        assert chosen(2, 0) == 1
    with platforms.target("cpu"):
        assert chosen(60, 1) == inner.cache_chunk(60, params)


@pytest.mark.parametrize("num", [12, 13])
def test_pieces_of_a_memory_rule_give_the_gradient_of_the_whole(num, monkeypatch, float64):
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.normal(size=(3, 8))), jnp.asarray(rng.normal(size=(8, 4)))
    batch = jnp.asarray(rng.normal(size=(num, 3))), jnp.asarray(rng.normal(size=(num, 4)))
    whole = jax.value_and_grad(two_layers)(params, batch)
    monkeypatch.setattr(inner, "VALUES", 2000)
    with platforms.target("tpu"):
        chunk = inner.memory_chunk(two_layers, params, batch)
    assert chunk is not None
    assert chunk < num
    found = inner.value_and_grad(two_layers, params, batch, chunk)
    for a, b in zip(*map(jax.tree.leaves, (found, whole)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
