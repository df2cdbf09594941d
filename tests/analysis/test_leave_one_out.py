"""Leave-one-out against training without the image, and its statistics against scipy."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from distilljax import data
from distilljax.analysis import leave_one_out as loo
from distilljax.training import evaluation
from distilljax.training.evaluation import PROTOCOLS, EvaluationProtocol
from distilljax.types import Batch, InputError, Model

NUM, CLASSES, SEEDS = 100, 3, 2


def apply(params, images):
    hidden = jnp.tanh(images.reshape(images.shape[0], -1) @ params["in"])
    return hidden @ params["out"]


def init(key):
    weights = jax.random.normal(key, (9 + CLASSES, 5))
    return {"in": weights[:9], "out": weights[9:].T}


NETWORK = Model(init=init, features=lambda params, images: images, apply=apply)


class Identity:
    """A transform that is a pytree without leaves."""

    def __call__(self, images):
        return images / 255.0

    def inverse(self, images):
        return images


jax.tree_util.register_static(Identity)


def sets(num=NUM, num_test=31):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(num, 3, 3, 1)))
    labels = jnp.asarray(rng.dirichlet(np.ones(CLASSES), num))
    split = data.Split(
        rng.integers(0, 256, (num_test, 3, 3, 1), dtype=np.uint8),
        (np.arange(num_test) % CLASSES).astype(np.int32),
    )
    return Batch(images, labels), data.on_device(split, Identity(), CLASSES)


def keys(num=SEEDS):
    return jax.random.split(jax.random.key(5), num)


@jax.jit
def gradient(params, batch):
    def loss_fn(params):
        logits = apply(params, batch.images)
        return -(batch.labels * jax.nn.log_softmax(logits)).sum(axis=1).mean()

    return jax.grad(loss_fn)(params)


def by_loop(params, batch, test, *, steps, lr, momentum):
    """Full-batch training written out, on whatever rows the batch has."""
    trace = jax.tree.map(np.zeros_like, params)
    for _ in range(steps):
        grads = jax.tree.map(np.asarray, gradient(params, batch))
        trace = jax.tree.map(lambda m, g: momentum * m + g, trace, grads)
        params = jax.tree.map(lambda w, m: w - lr * m, params, trace)
    images = np.asarray(test.images).reshape(-1, 9) / 255
    logits = np.tanh(images @ params["in"]) @ params["out"]
    log_shares = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -log_shares[np.arange(len(logits)), test.labels], logits.argmax(1)


def test_it_is_training_without_the_image(float64):
    batch, test = sets()
    protocol = EvaluationProtocol(steps=40, lr=0.3)
    run = jax.jit(lambda *given: loo.leave_one_out(*given, protocol), static_argnums=1)
    found = run(keys(), NETWORK, batch, test)
    assert found.without.losses.shape == (SEEDS, NUM, 31)
    assert found.whole.losses.shape == (SEEDS, 31)
    settings = {"steps": 40, "lr": 0.3, "momentum": 0.9}
    starts = [jax.tree.map(np.asarray, init(jax.random.split(k, 3)[0])) for k in keys()]
    found = jax.tree.map(np.asarray, found)
    largest = 0.0
    for seed, j in [(0, 0), (0, 57), (1, 99), (1, None)]:
        rest = np.delete(np.arange(NUM), [] if j is None else j)
        assert len(rest) == NUM - (j is not None)
        own = Batch(np.asarray(batch.images)[rest], np.asarray(batch.labels)[rest])
        each, predictions = by_loop(starts[seed], own, test, **settings)
        kept, at = (found.whole, seed) if j is None else (found.without, (seed, j))
        np.testing.assert_allclose(kept.losses[at], each, rtol=1e-6)
        np.testing.assert_array_equal(kept.predictions[at], predictions)
        right = predictions == np.asarray(test.labels)
        np.testing.assert_allclose(kept.accuracy[at], right.mean(), rtol=1e-6)
        largest = max(largest, np.abs(found.whole.losses[seed] - each).max())
    assert largest > 0.01  # an image does make a difference


def test_nothing_left_out_is_plain_training():
    batch, test = sets(num=6)
    protocol = EvaluationProtocol(steps=5, lr=None, weight_decay=0.1, decay_at=0.5)

    @jax.jit
    def both(key, test):
        rate = {"learning_rate": 0.1}
        params = evaluation.train(key, NETWORK, batch, protocol, **rate)
        logits = evaluation.predict(apply, params, test)
        each = optax.losses.softmax_cross_entropy_with_integer_labels(logits, test.labels)
        none = jnp.array([-1])
        return (
            each,
            logits.argmax(1),
            loo.retrain(key[None], none, NETWORK, batch, test, protocol, **rate),
        )

    each, predictions, ours = both(jax.random.key(3), test)
    np.testing.assert_allclose(ours.losses[0], each, rtol=1e-5)
    np.testing.assert_array_equal(ours.predictions[0], predictions)


@pytest.fixture(scope="module")
def small():
    """Six images, two seeds: all networks in one dispatch, and what computes some."""
    batch, test = sets(num=6)
    batch = jax.tree.map(lambda x: x.astype(jnp.float32), batch)
    protocol = EvaluationProtocol(steps=8, lr=0.3)

    @functools.partial(jax.jit, static_argnames="together")
    def part(keys, left_out, test, together=1):
        return loo.retrain(
            keys, left_out, NETWORK, batch, test, protocol, together=together
        )

    part = functools.partial(part, test=test)
    return part(*loo.pairs(keys(), 6)), part


def assert_equal(found, expected, rtol=0.0):
    assert type(found) is type(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=rtol)


def test_pieces_make_the_whole(small):
    whole, part = small
    all_keys, left_out = loo.pairs(keys(), 6)
    assert left_out.tolist() == [-1, 0, 1, 2, 3, 4, 5] * 2
    assert (all_keys[:7] == keys()[0]).all()
    assert (all_keys[7:] == keys()[1]).all()
    pieces, again = (
        [part(all_keys[i : i + 7], left_out[i : i + 7]) for i in (0, 7)] for _ in range(2)
    )
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)
    assert_equal(joined, whole, rtol=1e-6)
    for first, second in zip(pieces, again, strict=True):
        assert_equal(second, first)  # to the last bit


def test_how_many_train_together_changes_nothing(small):
    whole, part = small
    assert_equal(part(*loo.pairs(keys(), 6), together=7), whole, rtol=1e-5)


def test_networks_are_arranged_by_seed_and_image(small):
    whole, _ = small
    whole = jax.tree.map(np.asarray, whole)
    found = loo.arrange(whole, SEEDS)
    assert isinstance(found, loo.LeaveOneOut)
    for name in loo.Retrained._fields:
        flat, grid = getattr(whole, name), getattr(found.without, name)
        np.testing.assert_array_equal(getattr(found.whole, name), flat[np.array([0, 7])])
        np.testing.assert_array_equal(grid[0], flat[1:7])
        np.testing.assert_array_equal(grid[1], flat[8:])


def test_seeds_and_images_make_a_difference(small):
    for a, b in itertools.combinations(np.asarray(small[0].losses), 2):
        assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize(
    ("protocol", "told"),
    [
        (EvaluationProtocol(batch=4), "batch=4.*all 6 images"),
        (EvaluationProtocol(augment="flip"), "augment=flip"),
        (PROTOCOLS["dsa"], "augment="),
    ],
)
def test_protocols_with_random_choices_are_refused(protocol, told):
    batch, test = sets(num=6)
    with pytest.raises(InputError, match=told):
        loo.leave_one_out(keys(), NETWORK, batch, test, protocol)


@pytest.mark.parametrize(
    ("protocol", "told"),
    [
        (PROTOCOLS["rcig_plain_ipc1"], "loss=squared_error"),
        (PROTOCOLS["rfad"], "loss=mean_squared_error"),
        (EvaluationProtocol(flips=True), "flips=True"),
        (EvaluationProtocol(average=0.9), "average=0.9"),
        (EvaluationProtocol(check_every=100), "check_every=100"),
    ],
)
def test_protocols_that_train_otherwise_are_refused(protocol, told):
    batch, test = sets(num=6)
    with pytest.raises(InputError, match=told):
        loo.retrain(keys(1), jnp.array([-1]), NETWORK, batch, test, protocol)


def test_a_batch_that_holds_all_images_is_no_minibatch():
    batch, test = sets(num=6)
    protocol = EvaluationProtocol(steps=None, epochs=2, batch=256)
    found = jax.eval_shape(
        lambda keys: loo.leave_one_out(keys, NETWORK, batch, test, protocol), keys()
    )
    assert found.without.losses.shape == (2, 6, 31)


def test_shapes_that_do_not_fit_are_refused():
    batch, test = sets(num=6)
    one, arguments = jax.tree.map(lambda x: x[:1], batch), (test, EvaluationProtocol())
    with pytest.raises(InputError, match=r"keys \[2\], left_out \[3\]"):
        loo.retrain(keys(), jnp.arange(3), NETWORK, batch, *arguments)
    with pytest.raises(InputError, match=r"images \[1, 3, 3, 1\], labels \[1, 3\]"):
        loo.leave_one_out(keys(), NETWORK, one, *arguments)
    unequal = batch._replace(labels=batch.labels[:5])
    with pytest.raises(InputError, match="6 images and 5 labels"):
        loo.leave_one_out(keys(), NETWORK, unequal, *arguments)
    flat = loo.Retrained(jnp.zeros((7, 2)), jnp.zeros((7, 2), jnp.int32), jnp.zeros(7))
    with pytest.raises(InputError, match=r"7 networks.*2 seeds"):
        loo.arrange(flat, 2)
    with pytest.raises(InputError, match=r"without \[2, 3, 4\], whole \[2, 5\]"):
        loo.influence(jnp.zeros((2, 3, 4)), jnp.zeros((2, 5)))
    with pytest.raises(InputError, match=r"\[1, 5\].*at least 2"):
        loo.noise_floor(jnp.zeros((1, 5)))
    with pytest.raises(InputError, match=r"\[1, 5, 4\].*at least 2"):
        loo.reliability(jnp.zeros((1, 5, 4)))
    with pytest.raises(InputError, match=r"\[2, 3\] and \[3, 3\]"):
        loo.rank_correlation(jnp.zeros((2, 3)), jnp.zeros((3, 3)))


def test_influence_is_positive_where_the_image_helped():
    whole = np.array([[0.5, 2.0], [1.0, 1.0]], np.float32)
    without = np.array([[[0.75, 1.0]] * 3, [[1.0, 4.0]] * 3], np.float32)
    found = loo.influence(jnp.asarray(without), jnp.asarray(whole))
    np.testing.assert_array_equal(found, [[[0.25, -1.0]] * 3, [[0.0, 3.0]] * 3])
    one = loo.influence(jnp.asarray(without[0]), jnp.asarray(whole[0]))
    np.testing.assert_array_equal(one, found[0])


def test_mean_influence_and_noise_floor_by_hand():
    x = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    found = loo.mean_influence(jnp.asarray(x))
    np.testing.assert_allclose(found.value, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.standard_error, scipy.stats.sem(x), rtol=1e-5)
    assert found.num_probes == 4
    assert np.isnan(loo.mean_influence(jnp.asarray(x[:1])).standard_error).all()
    floor = loo.noise_floor(jnp.asarray(x[:, 0]))
    factor = math.sqrt(2 / 3) * math.gamma(2) / math.gamma(1.5)
    np.testing.assert_allclose(floor, x[:, 0].std(0, ddof=1) / factor, rtol=1e-5)


def test_the_noise_floor_of_few_seeds_is_not_too_small():
    whole = jax.random.normal(jax.random.key(0), (3, 40_000))
    assert loo.noise_floor(whole).mean() == pytest.approx(1.0, abs=0.01)


def test_influence_over_noise_by_hand():
    """The jackknife by leaving each seed out and starting again."""
    rng = np.random.default_rng(1)
    each, whole = rng.normal(size=(4, 3, 50)), rng.normal(size=(4, 50))

    def ratio(each, whole):
        floor = loo.noise_floor(jnp.asarray(whole)).mean()
        return float(np.abs(each).mean((1, 2)).mean() / floor)

    found = jax.jit(loo.over_noise)(each, whole)
    assert found.value == pytest.approx(ratio(each, whole), rel=1e-5)
    left = [ratio(np.delete(each, i, 0), np.delete(whole, i, 0)) for i in range(4)]
    error = np.sqrt(3 * np.var(np.log(left))) * found.value
    assert found.standard_error == pytest.approx(float(error), rel=1e-4)
    assert np.isnan(loo.over_noise(each[:2], whole[:2]).standard_error)
    with pytest.raises(InputError, match=r"influences \[4, 3, 50\], losses \[4, 49\]"):
        loo.over_noise(each, whole[:, :49])


def test_rank_correlation_is_that_of_scipy():
    """Many ties; rows with a NaN or one value have no correlation, nor has scipy one."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 6, (3, 11, 7)).astype(np.float32)
    b = a + rng.normal(size=a.shape).round(0).astype(np.float32)
    a[0, 3, 2] = np.nan
    b[2, :, 1] = 4.0
    found = jax.jit(lambda a, b: loo.rank_correlation(a, b, axis=1))(a, b)
    assert found.shape == (3, 7)
    for i, j in itertools.product(range(3), range(7)):
        if (i, j) in {(0, 2), (2, 1)}:
            assert np.isnan(found[i, j])
        else:
            expected = scipy.stats.spearmanr(a[i, :, j], b[i, :, j]).statistic
            np.testing.assert_allclose(found[i, j], expected, atol=1e-6)


@pytest.mark.parametrize("num", [3, 1000, 3333])
def test_equal_values_have_no_rank_correlation(num):
    equal, other = jnp.zeros(num), jnp.arange(num)
    assert np.isnan(loo.rank_correlation(equal, equal))
    assert np.isnan(loo.rank_correlation(equal, other))


def test_reliability_by_hand():
    """Every pair by scipy, the jackknife by leaving each seed out and starting again."""
    rng = np.random.default_rng(3)
    common = rng.normal(size=(5, 40))
    x = (common + rng.normal(size=(4, 5, 40))).astype(np.float32)
    found = jax.jit(loo.reliability)(x)

    def correlations(x):
        return np.array(
            [
                [scipy.stats.spearmanr(p, q).statistic for p, q in zip(a, b, strict=True)]
                for a, b in itertools.combinations(x, 2)
            ]
        )

    expected = correlations(x)
    np.testing.assert_allclose(found.correlations, expected, atol=1e-6)
    without = np.array([correlations(np.delete(x, i, 0)).mean(0) for i in range(4)])
    for estimate, value, means in (
        (found.per_image, expected.mean(0), without),
        (found.overall, expected.mean(), without.mean(1)),
    ):
        np.testing.assert_allclose(estimate.value, value, atol=1e-6)
        error = np.sqrt(3 / 4 * ((means - means.mean(0)) ** 2).sum(0))
        np.testing.assert_allclose(estimate.standard_error, error, rtol=1e-4)
        assert estimate.num_probes == 4
    two = jax.jit(loo.reliability)(x[:2])
    assert two.correlations.shape == (1, 5)
    np.testing.assert_allclose(two.per_image.value, expected[0], atol=1e-6)
    assert np.isnan(two.overall.standard_error)


def test_images_to_leave_out_must_be_there():
    batch, test = sets(num=6)
    arguments = (NETWORK, batch, test, EvaluationProtocol(steps=2))
    for wrong in ([6, 0], [-2, 0], np.array([0, 99])):
        with pytest.raises(InputError, match=r"left_out has .* in -1..5"):
            loo.retrain(keys(), wrong, *arguments)
    numbers = batch._replace(labels=jnp.zeros(6, jnp.int32))
    with pytest.raises(InputError, match=r"jax.nn.one_hot"):
        loo.retrain(keys(), [0, 1], NETWORK, numbers, *arguments[2:])
