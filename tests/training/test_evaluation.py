"""Training and testing fresh networks against numpy and against one at a time."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distilljax import data
from distilljax.config import FieldError
from distilljax.core import distilled as sets
from distilljax.core import inner, losses, sampling
from distilljax.models import convnet
from distilljax.training import evaluation
from distilljax.training.evaluation import (
    NETWORKS,
    PROTOCOLS,
    Centred,
    EvaluationProtocol,
    as_batch,
    fresh_accuracy,
    network,
    predict,
    train,
)
from distilljax.types import Batch, InputError, Model


@pytest.mark.parametrize(
    ("settings", "num_images", "expected"),
    [
        ({}, 10, 300),
        ({"steps": 7, "batch": 4}, 100, 7),
        ({"epochs": 5}, 100, 5),
        ({"epochs": 5, "batch": 256}, 100, 5),
        ({"epochs": 5, "batch": 256}, 256, 5),
        ({"epochs": 5, "batch": 256}, 257, 10),
        ({"epochs": 300, "batch": 256}, 500, 600),
        ({"steps": None, "epochs": 2, "batch": 3}, 10, 8),
    ],
)
def test_num_steps(settings, num_images, expected):
    assert EvaluationProtocol(**settings).num_steps(num_images) == expected


def test_a_protocol_without_a_length_is_refused():
    with pytest.raises(InputError):
        EvaluationProtocol(steps=None)


def test_a_protocol_with_an_unknown_augmentation_is_refused():
    with pytest.raises(InputError, match="colour"):
        EvaluationProtocol(augment="flip_colour")


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"epochs": 0},
        {"batch": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"momentum": 1.5},
        {"weight_decay": -1e-4},
        {"decay_at": 1.5},
    ],
)
def test_values_out_of_range_are_refused(settings):
    with pytest.raises(FieldError, match=next(iter(settings))):
        EvaluationProtocol(**settings)


def test_published_protocols():
    """Full batch and 300 steps in the study; 300 or 1000 epochs of 256 elsewhere."""
    dsa = "color_crop_cutout_flip_scale_rotate"
    frepo = "flip_jitter_zoom_turn_translate_hole"
    rows = {
        name: (p.num_steps(500), p.batch, p.lr, p.weight_decay, p.decay_at, p.augment)
        for name, p in PROTOCOLS.items()
    }
    assert rows == {
        "study": (300, None, 0.01, 0.0, None, ""),
        "dc": (600, 256, 0.01, 5e-4, 0.5, ""),
        "dc_augmented": (2000, 256, 0.01, 5e-4, 0.5, "shift_stretch_tilt"),
        "dsa": (2000, 256, 0.01, 5e-4, 0.5, dsa),
        "mtt": (2000, 256, None, 5e-4, 0.5, dsa),
        "rat": (1000, None, 1e-3, 0.0, None, "flip_rotate"),
        "frepo": (2000, 500, 1e-4, 0.0, None, frepo),
        "frepo_ipc1": (1000, 500, 1e-4, 0.0, None, frepo),
        "rcig": (2000, 256, 1e-4, 0.0, None, frepo),
        "rcig_ipc1": (1000, 256, 1e-4, 0.0, None, frepo),
        "rcig_plain_ipc1": (1000, 256, 1e-4, 0.0, None, ""),
        "rfad": (20_000, None, 1e-3, 0.0, None, ""),
        "rfad_ipc1": (20_000, None, 1e-3, 0.0, None, ""),
    }
    assert {p.momentum for p in PROTOCOLS.values()} == {0.9}
    adam = {name for name, p in PROTOCOLS.items() if p.optimizer == "adam"}
    assert adam == {"rat", "frepo", "frepo_ipc1", "rcig", "rcig_ipc1", "rcig_plain_ipc1"}
    assert set(NETWORKS) == {
        name for name in PROTOCOLS if name[:4] in ("frep", "rcig", "rfad")
    }
    for name in NETWORKS:
        convnet.Config(**NETWORKS[name])


def test_protocols_without_new_fields_are_what_they_were():
    """Cross-entropy, SGD, the last weights: the defaults of every field added since."""
    default = EvaluationProtocol()
    old = {
        "steps",
        "epochs",
        "batch",
        "lr",
        "momentum",
        "weight_decay",
        "decay_at",
        "augment",
    }
    for name in ("study", "dc", "dsa", "mtt"):
        for field in dataclasses.fields(default):
            if field.name not in old:
                ours = getattr(PROTOCOLS[name], field.name)
                assert ours == getattr(default, field.name)
    assert (default.loss, default.optimizer, default.flips) == (
        "cross_entropy",
        "sgd",
        False,
    )
    assert (default.centre, default.average, default.check_every) == (False, 0.0, None)


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"cosine_to": 0.1, "decay_at": 0.5}, "decay_at"),
        ({"average": 1.0}, "average"),
        ({"optimizer": "adam", "momentum": 1.0}, "momentum"),
        ({"centre": True, "augment": "flip"}, "centre"),
        ({"centre": True, "loss": "cross_entropy"}, "centre"),
        ({"steps": 250, "check_every": 100}, "check_every"),
        ({"loss": "hinge"}, "loss"),
        ({"optimizer": "lamb"}, "optimizer"),
        ({"label_scale": 0.0}, "label_scale"),
        ({"patience": 0}, "patience"),
    ],
)
def test_settings_that_exclude_each_other(settings, path):
    with pytest.raises(FieldError) as caught:
        EvaluationProtocol(**settings)
    assert caught.value.path == path


def sgd(gradient, start, num_steps, *, lr, momentum, weight_decay, decay_at):
    """As PyTorch does it: the decay joins the gradient, the trace follows."""
    w, trace = np.array(start, np.float64), 0.0
    for t in range(num_steps):
        g = gradient(w) + weight_decay * w
        trace = momentum * trace + g
        fallen = decay_at is not None and t >= int(num_steps * decay_at)
        w = w - (0.1 * lr if fallen else lr) * trace
    return w


RULES = [
    {"momentum": 0.0, "weight_decay": 0.0, "decay_at": None},
    {"momentum": 0.9, "weight_decay": 0.0, "decay_at": None},
    {"momentum": 0.9, "weight_decay": 0.1, "decay_at": 0.5},
    {"momentum": 0.5, "weight_decay": 0.1, "decay_at": 0.25},
]


@pytest.mark.parametrize("rule", RULES)
def test_the_optimizer_is_sgd_by_hand(rule, float64):
    matrix = np.array([[2.0, 0.5], [0.5, 1.0]])
    optimum, start, num_steps = np.array([1.0, -2.0]), np.array([3.0, 4.0]), 11
    optimizer = evaluation.optimizer(EvaluationProtocol(lr=0.1, **rule), num_steps, 55.0)

    @jax.jit
    def run(w):
        def step(_, carry):
            w, state = carry
            updates, state = optimizer.update(matrix @ (w - optimum), state, w)
            return optax.apply_updates(w, updates), state

        return jax.lax.fori_loop(0, num_steps, step, (w, optimizer.init(w)))[0]

    expected = sgd(lambda w: matrix @ (w - optimum), start, num_steps, lr=0.1, **rule)
    np.testing.assert_allclose(run(jnp.asarray(start)), expected, rtol=1e-9)


def softmax(x):
    x = np.exp(x - x.max(1, keepdims=True))
    return x / x.sum(1, keepdims=True)


# A linear classifier that starts from ones on the diagonal, whatever the key.
LINEAR = Model(
    init=lambda key: jnp.eye(4, 3),
    features=lambda params, images: images.reshape(images.shape[0], -1),
    apply=lambda params, images: images.reshape(images.shape[0], -1) @ params,
)


def small_batch(num=7, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(num, 2, 2, 1)).astype(np.float32)
    labels = rng.dirichlet(np.ones(3), num).astype(np.float32)
    return Batch(jnp.asarray(images), jnp.asarray(labels))


def trained_by_hand(batch, num_steps, **rule):
    x = np.asarray(batch.images, np.float64).reshape(-1, 4)
    y = np.asarray(batch.labels, np.float64)
    return sgd(
        lambda w: x.T @ (softmax(x @ w) - y) / len(x), np.eye(4, 3), num_steps, **rule
    )


@pytest.mark.parametrize("rule", RULES[1:3])
def test_training_a_linear_classifier_by_hand(rule):
    batch = small_batch()
    protocol = EvaluationProtocol(steps=20, lr=0.3, **rule)
    params = jax.jit(lambda key: train(key, LINEAR, batch, protocol))(jax.random.key(0))
    expected = trained_by_hand(batch, 20, lr=0.3, **rule)
    np.testing.assert_allclose(params, expected, atol=1e-5)


def test_the_given_rate_serves_only_where_the_protocol_has_none():
    batch, key = small_batch(), jax.random.key(0)

    @jax.jit
    def both(rate):
        fixed = train(
            key, LINEAR, batch, EvaluationProtocol(steps=5, lr=0.3), learning_rate=rate
        )
        own = train(
            key, LINEAR, batch, EvaluationProtocol(steps=5, lr=None), learning_rate=rate
        )
        return fixed, own

    rule = {"momentum": 0.9, "weight_decay": 0.0, "decay_at": None}
    fixed, own = both(0.05)
    np.testing.assert_allclose(fixed, trained_by_hand(batch, 5, lr=0.3, **rule), atol=1e-5)
    np.testing.assert_allclose(own, trained_by_hand(batch, 5, lr=0.05, **rule), atol=1e-5)


def test_each_step_is_augmented_with_its_own_key(monkeypatch):
    batch, asked = small_batch(), set()

    def double(key, images, *, strategy, each):
        asked.add((strategy, each))
        # The sign is random, and so a step's own only if its key is.
        return images * jnp.where(jax.random.bernoulli(key), 2.0, -2.0)

    monkeypatch.setattr(evaluation, "augment", double)
    protocol = EvaluationProtocol(steps=1, lr=0.3, augment="flip_crop")
    ends = jax.jit(jax.vmap(lambda key: train(key, LINEAR, batch, protocol)))(
        jax.random.split(jax.random.key(0), 12)
    )
    assert asked == {("flip_crop", False)}
    rule = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.0, "decay_at": None}
    plus, minus = (
        trained_by_hand(batch._replace(images=sign * batch.images), 1, **rule)
        for sign in (2.0, -2.0)
    )
    nearest = [np.abs(end - plus).max() < np.abs(end - minus).max() for end in ends]
    assert 0 < sum(nearest) < 12
    for end, is_plus in zip(ends, nearest, strict=True):
        np.testing.assert_allclose(end, plus if is_plus else minus, atol=1e-5)


@pytest.mark.parametrize(
    ("num", "size", "expected"),
    [
        (500, 256, (250, 20)),  # 250 + 250, not 256 + 244
        (257, 256, (128, 20)),
        (1000, 256, (250, 40)),
        (512, 256, (256, 20)),
        (300, 16, (15, 190)),  # 19 batches, though 20 of 15 would fit
        (256, 256, None),  # the whole set: nothing to draw
        (100, 256, None),
        (100, None, None),
    ],
)
def test_batches_split_the_set_evenly(num, size, expected, monkeypatch):
    asked = []
    epochs = sampling.epochs

    def recorded(key, num, size, num_steps, per_epoch):
        asked.append((num, size, num_steps))
        assert num_steps == 10 * per_epoch
        return epochs(key, num, size, num_steps, per_epoch)

    monkeypatch.setattr(sampling, "epochs", recorded)
    monkeypatch.setattr(inner, "cache_chunk", lambda *_: None)  # batches whole, as drawn
    seen = set()
    counting = LINEAR._replace(
        apply=lambda params, x: seen.add(x.shape[0]) or LINEAR.apply(params, x)
    )
    batch = Batch(jnp.zeros((num, 2, 2, 1)), jnp.zeros((num, 3)))
    protocol = EvaluationProtocol(steps=None, epochs=10, batch=size)
    jax.eval_shape(lambda key: train(key, counting, batch, protocol), jax.random.key(0))
    if expected is None:
        assert (asked, seen) == ([], {num})
    else:
        assert (asked, seen) == ([(num, *expected)], {expected[0]})


@pytest.mark.parametrize("size", [3, None])
def test_a_real_set_trains_as_its_images_do(size):
    """Drawn batch by batch and transformed, or transformed before: the same weights."""
    rng = np.random.default_rng(0)
    split = data.Split(
        rng.integers(0, 256, (6, 2, 2, 1), dtype=np.uint8), np.array([0, 1, 2, 2, 1, 0])
    )
    real = data.on_device(split, data.fit("normalise", split.images), 3)
    batch = sampling.take(real, jnp.arange(6))
    protocol = EvaluationProtocol(steps=None, epochs=4, batch=size, lr=0.1)
    run = jax.jit(lambda key, given: train(key, LINEAR, given, protocol))
    key = jax.random.key(3)
    np.testing.assert_allclose(run(key, real), run(key, batch), atol=1e-5)
    assert np.abs(run(key, batch) - LINEAR.init(key)).max() > 0.01


@pytest.fixture(scope="module")
def real_11():
    rng = np.random.default_rng(1)
    split = data.Split(
        rng.integers(0, 256, (11, 2, 2, 1), dtype=np.uint8), np.arange(11) % 3
    )
    return split, data.on_device(split, data.fit("normalise", split.images), 3)


@pytest.mark.parametrize("chunk", [1, 4, 10, 11, 500])
def test_predict_in_chunks(chunk, real_11):
    split, real = real_11
    seen = set()

    def apply(params, images):
        seen.add(images.shape[0])
        return images.reshape(images.shape[0], -1) @ params

    params = jnp.asarray(np.random.default_rng(2).normal(size=(4, 3)), jnp.float32)
    logits = jax.jit(lambda p, real: predict(apply, p, real, chunk=chunk))(params, real)
    unit = split.images / 255.0
    x = ((unit - unit.mean()) / unit.std()).reshape(11, 4)
    assert logits.shape == (11, 3)
    np.testing.assert_allclose(logits, x @ np.asarray(params, np.float64), atol=1e-5)
    assert seen == {min(chunk, 11)}


# A linear classifier of 8x8 images whose start depends on the key.
RANDOM = LINEAR._replace(init=lambda key: jax.random.normal(key, (64, 3)))


def test_fresh_accuracy_is_training_and_testing_one_by_one(problem):
    protocol, test = EvaluationProtocol(steps=3, lr=0.05), problem.real
    first = Batch(problem.distilled.images, jnp.eye(3)[jnp.arange(6) // 2])
    second = sampling.take(test, jnp.arange(6) * 10)
    keys = jax.random.split(jax.random.key(0), 5)

    @jax.jit
    def one(key, given):
        params = train(key, RANDOM, given, protocol)
        logits = RANDOM.apply(params, test.transform(test.images))
        return losses.accuracy(logits, test.labels)

    @functools.partial(jax.jit, static_argnames=("stacked", "together"))
    def fresh(given, **settings):
        return fresh_accuracy(keys, RANDOM, given, test, protocol, **settings)

    # Rounding may turn the class of one test image in sixty.
    within = {"atol": 1.01 / 60}
    expected = [one(key, first) for key in keys]
    assert len(np.unique(expected)) > 2
    np.testing.assert_allclose(fresh(first, together=2), expected, **within)

    sets = [first, second, second, first, second]
    expected = [one(key, given) for key, given in zip(keys, sets, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *sets)
    np.testing.assert_allclose(fresh(stacked, stacked=True), expected, **within)
    assert np.abs(fresh(first, together=2) - np.array(expected)).max() > 2.5 / 60


def test_fresh_accuracy_learns(problem):
    """The stripes are easy; where the test's labels are exchanged nothing is right."""
    protocol = EvaluationProtocol(steps=60, lr=0.1)
    keys = jax.random.split(jax.random.key(0), 2)
    run = jax.jit(lambda given, test: fresh_accuracy(keys, RANDOM, given, test, protocol))
    assert (run(problem.real, problem.real) > 0.95).all()
    rolled = problem.real._replace(labels=(problem.real.labels + 1) % 3)
    assert (run(problem.real, rolled) < 0.05).all()


def test_the_augmentation_of_a_protocol_reaches_the_images():
    batch = small_batch()
    plain = EvaluationProtocol(steps=3, lr=0.3)
    both = jax.jit(
        lambda key: [
            train(key, LINEAR, batch, p)
            for p in (plain, dataclasses.replace(plain, augment="color"))
        ]
    )(jax.random.key(0))
    assert np.abs(both[0] - both[1]).max() > 1e-3


def adam(gradient, start, rates):
    """Kingma & Ba 2015, algorithm 1; all iterates."""
    w, m, v, seen = np.array(start, np.float64), 0.0, 0.0, []
    for t, rate in enumerate(rates, 1):
        g = gradient(w)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        seen.append(w)
    return seen


def half_squared_gradient(x, y):
    """Of half the squared error of a linear network, summed over classes."""
    return lambda w: x.T @ (x @ w - y) / len(x)


def test_frepo_by_hand():
    """Warm-up, cosine, the set doubled, the debiased mean of the weights after steps."""
    batch, steps, warmup = small_batch(), 9, 4
    targets = np.random.default_rng(4).normal(size=(7, 3))
    protocol = dataclasses.replace(
        PROTOCOLS["frepo"], steps=steps, warmup=warmup, lr=0.1, augment="", average=0.7
    )
    given = batch._replace(labels=jnp.asarray(targets, jnp.float32))
    run = jax.jit(lambda key: train(key, LINEAR, given, protocol))
    images = np.asarray(batch.images, np.float64)
    x = np.concatenate([images, images[:, :, ::-1]]).reshape(-1, 4)
    waves = [(1 + np.cos(np.pi * t / (steps - warmup))) / 2 for t in range(steps - warmup)]
    rates = [0.1 * t / warmup for t in range(warmup)]
    rates += [0.1 * (0.99 * wave + 0.01) for wave in waves]
    gradient = half_squared_gradient(x, np.concatenate([targets, targets]))
    seen = adam(gradient, np.eye(4, 3), rates)
    weights = 0.3 * 0.7 ** np.arange(steps)[::-1]
    mean = sum(w * at for w, at in zip(weights, seen, strict=True)) / (1 - 0.7**steps)
    np.testing.assert_allclose(run(jax.random.key(0)), mean, atol=1e-5)
    assert np.abs(mean - seen[-1]).max() > 0.01
    last = dataclasses.replace(protocol, average=0.0)
    plain = jax.jit(lambda key: train(key, LINEAR, given, last))(jax.random.key(0))
    np.testing.assert_allclose(plain, seen[-1], atol=1e-5)


def test_the_rate_is_that_of_optax():
    protocol = PROTOCOLS["rcig"]
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-4, 500, 2000, end_value=1e-6)
    rule = evaluation.optimizer(
        dataclasses.replace(protocol, optimizer="sgd", momentum=0.0), 2000, 55.0
    )

    def at(count):
        state = rule.init(jnp.float32(0))
        state = jax.tree.map(lambda x: jnp.full_like(x, count), state)
        return -rule.update(jnp.float32(1), state, jnp.float32(0))[0]

    counts = jnp.array([0, 1, 250, 499, 500, 501, 1000, 1999, 2000])
    np.testing.assert_allclose(
        jax.vmap(at)(counts), jax.vmap(rate)(counts), rtol=1e-4, atol=1e-12
    )


def rfad_by_hand(x, y, scale, steps, lr):
    """(f - f_0 - c y)^2 / c^2, a mean over images and classes; all iterates."""
    first = np.eye(4, 3)

    def gradient(w):
        return 2 * x.T @ (x @ (w - first) - scale * y) / y.size / scale**2

    return [
        sgd(gradient, first, t, lr=lr, momentum=0.9, weight_decay=0.0, decay_at=None)
        for t in range(steps + 1)
    ]


def test_rfad_by_hand():
    batch, steps = small_batch(), 6
    targets = np.random.default_rng(4).normal(size=(7, 3))
    protocol = dataclasses.replace(
        PROTOCOLS["rfad"], steps=steps, check_every=None, lr=0.5, label_scale=3.0
    )
    given = batch._replace(labels=jnp.asarray(targets, jnp.float32))
    found = jax.jit(lambda key: train(key, LINEAR, given, protocol))(jax.random.key(0))
    x = np.asarray(batch.images, np.float64).reshape(7, 4)
    expected = rfad_by_hand(x, targets, 3.0, steps, 0.5)[-1]
    assert isinstance(found, Centred)
    np.testing.assert_array_equal(found.start, np.eye(4, 3))
    np.testing.assert_allclose(found.now, expected, atol=1e-5)
    seen = network(LINEAR, protocol).apply(found, batch.images)
    np.testing.assert_allclose(seen, x @ (expected - np.eye(4, 3)), atol=1e-5)
    assert network(LINEAR, PROTOCOLS["rcig"]) is LINEAR


@pytest.mark.parametrize(
    "scores", [[1, 3, 2, 2, 9, 9], [5, 1, 1, 1, 1, 9], [1, 2, 3, 4, 5, 6]]
)
def test_training_ends_after_patience_and_the_best_counts(scores, monkeypatch, real_11):
    """Looks at steps 0, 2, 4, ...; patience 4. Scores are told by the look's number."""
    batch = small_batch()
    protocol = EvaluationProtocol(steps=10, lr=0.3, check_every=2, patience=4)
    plain = EvaluationProtocol(steps=10, lr=0.3)
    x = np.asarray(batch.images, np.float64).reshape(-1, 4)
    rule = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.0, "decay_at": None}
    ends = [trained_by_hand(batch, t, **rule) for t in range(0, 11, 2)]
    assert plain.steps == 10
    assert x.shape == (7, 4)

    # Which look it is shows in the weights.
    table = jnp.asarray(np.stack(ends), jnp.float32)

    def told(apply, params, real):
        nearest = jnp.argmin(jnp.abs(table - params).sum((1, 2)))
        return jnp.asarray(scores, jnp.float32)[nearest]

    monkeypatch.setattr(evaluation, "predict", told)
    monkeypatch.setattr(losses, "accuracy", lambda logits, labels: logits)
    found = jax.jit(lambda key: train(key, LINEAR, batch, protocol, validation=real_11[1]))(
        jax.random.key(0)
    )
    best = 0
    for look in range(1, 6):
        if look - best > 2:
            break
        best = look if scores[look] > scores[best] else best
    np.testing.assert_allclose(found, ends[best], atol=1e-5)


def test_a_protocol_that_looks_needs_images_to_look_at(problem):
    with pytest.raises(InputError, match="give some as validation"):
        train(jax.random.key(0), LINEAR, small_batch(), PROTOCOLS["rfad"])
    protocol = EvaluationProtocol(
        steps=None, epochs=3, batch=4, check_every=4, loss="squared_error"
    )
    run = jax.jit(
        lambda key: train(key, RANDOM, problem.real, protocol, validation=problem.real)
    )
    with pytest.raises(InputError, match="does not divide the 45 steps"):
        run(jax.random.key(0))


@pytest.mark.parametrize("name", ["rcig_ipc1", "rfad_ipc1"])
def test_a_real_set_under_a_squared_error_trains_as_its_images_do(name):
    """Its labels are one-hot less 1/k; mirror images and the start count as in a batch."""
    rng = np.random.default_rng(0)
    split = data.Split(
        rng.integers(0, 256, (6, 2, 2, 1), dtype=np.uint8), np.array([0, 1, 2, 2, 1, 0])
    )
    real = data.on_device(split, data.fit("normalise", split.images), 3)
    batch = sampling.take(real, jnp.arange(6))
    batch = batch._replace(labels=batch.labels - 1 / 3)
    for size in (None, 3):
        protocol = dataclasses.replace(
            PROTOCOLS[name],
            steps=8,
            warmup=0,
            batch=size,
            lr=0.1,
            augment="",
            check_every=None,
        )
        run = jax.jit(lambda key, given, p=protocol: train(key, LINEAR, given, p))
        key = jax.random.key(3)
        ours, theirs = jax.tree.leaves(run(key, real)), jax.tree.leaves(run(key, batch))
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
        assert np.abs(theirs[-1] - np.eye(4, 3)).max() > 0.01
    both = dataclasses.replace(PROTOCOLS["rfad"], flips=True, check_every=None)
    with pytest.raises(InputError, match="flips and centre"):
        train(key, LINEAR, real, both)


def test_labels_of_a_set_are_read_as_the_loss_needs(problem):
    given = problem.distilled
    softer = given._replace(label_logits=given.label_logits / 50)
    targets = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    study, rcig = PROTOCOLS["study"], PROTOCOLS["rcig"]
    probabilities = softmax(np.asarray(softer.label_logits, np.float64))
    hard = np.eye(3)[np.asarray(sets.hard_labels(softer))]

    def labels(protocol, **settings):
        return as_batch(softer, protocol, **settings).labels

    np.testing.assert_allclose(labels(study), probabilities, atol=1e-6)
    np.testing.assert_allclose(labels(rcig), probabilities - 1 / 3, atol=1e-6)
    np.testing.assert_array_equal(labels(study, labels="hard"), hard)
    np.testing.assert_array_equal(labels(study, targets=targets, labels="hard"), hard)
    np.testing.assert_allclose(labels(rcig, labels="hard"), hard - 1 / 3, atol=1e-6)
    np.testing.assert_array_equal(labels(rcig, targets=targets), targets)
    with pytest.raises(InputError, match="cross-entropy cannot read them") as caught:
        labels(study, targets=targets)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", ["Hard", "soft", None])
def test_unknown_labels_are_refused(problem, labels):
    with pytest.raises(InputError, match=r"^labels=.*: choose own or hard$"):
        as_batch(problem.distilled, PROTOCOLS["study"], labels=labels)


@pytest.mark.parametrize(
    ("loss", "centre"),
    [
        ("cross_entropy", False),
        ("squared_error", False),
        ("squared_error", True),
        ("mean_squared_error", False),
        ("mean_squared_error", True),
    ],
)
@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2)])
def test_labels_that_are_not_a_row_for_each_image_are_refused(shape, loss, centre):
    batch = Batch(jnp.ones((3, 2, 2, 1)), jnp.zeros(shape))
    protocol = EvaluationProtocol(steps=1, loss=loss, centre=centre)
    with pytest.raises(InputError, match=r"^labels \[3.* beside logits \[3, 3\]"):
        train(jax.random.key(0), LINEAR, batch, protocol)


@pytest.mark.parametrize("size", [2, None])
def test_as_many_labels_as_images(size):
    batch = small_batch(6)
    few = batch._replace(images=batch.images[:4])
    with pytest.raises(InputError, match=r"^4 images and 6 labels: give one row"):
        train(jax.random.key(0), LINEAR, few, EvaluationProtocol(steps=3, batch=size))


def test_fresh_accuracy_tests_the_centred_network(problem):
    """A network that starts far off: its own output says nothing, the change does."""
    far = RANDOM._replace(init=lambda key: 100 * jax.random.normal(key, (64, 3)))
    protocol = EvaluationProtocol(
        steps=60, lr=0.02, loss="mean_squared_error", centre=True, label_scale=2.0
    )
    keys = jax.random.split(jax.random.key(0), 2)
    run = jax.jit(lambda real: fresh_accuracy(keys, far, real, real, protocol))
    assert (run(problem.real) > 0.9).all()
