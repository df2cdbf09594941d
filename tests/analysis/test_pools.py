"""Pools against networks trained one step at a time, their errors against counting."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distilljax.analysis import agreement, pools
from distilljax.analysis.agreement import Match, Window
from distilljax.types import Estimate, InputError

LR, MOMENTUM = 0.05, 0.9
SGD = optax.sgd(LR, momentum=MOMENTUM)


@functools.partial(jax.jit, static_argnums=0)
def gradient(model, params, transform, image, label):
    """Of the loss on one image."""

    def loss(params):
        return -jax.nn.log_softmax(model.apply(params, transform(image[None]))[0])[label]

    return jax.grad(loss)(params)


def by_hand(model, params, real, batches):
    """SGD with momentum in a Python loop; the parameters after each batch of positions."""
    params = jax.tree.map(np.asarray, params)
    images, labels = np.asarray(real.images), np.asarray(real.labels)
    velocity = jax.tree.map(np.zeros_like, params)
    for where in batches:
        each = [
            jax.device_get(gradient(model, params, real.transform, images[i], labels[i]))
            for i in where
        ]
        slope = jax.tree.map(lambda *parts: np.mean(parts, axis=0), *each)
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, slope)
        params = jax.tree.map(lambda w, v: w - LR * v, params, velocity)
        yield params


def subset_batches(order_key, positions, size, epochs, most):
    """What a network on a subset is given: even batches of a new order in each epoch."""
    for epoch in range(epochs):
        scores = jax.random.bits(jax.random.fold_in(order_key, epoch), (len(positions),))
        order = positions[:size][np.argsort(np.asarray(scores)[:size], kind="stable")]
        yield from np.array_split(order, -(-size // most))


def whole_batches(order_key, num, most, iterations):
    """What a network on all images is given."""
    per_epoch = -(-num // most)
    size = num // per_epoch
    for key in jax.random.split(order_key, -(-iterations // per_epoch)):
        order = np.asarray(jax.random.permutation(key, num))
        yield from order[: per_epoch * size].reshape(-1, size)


@functools.partial(jax.jit, static_argnums=0)
def classes(model, params, test):
    return model.apply(params, test.transform(test.images)).argmax(-1)


@pytest.fixture(scope="module")
def members(problem):
    """Networks on three subsets of 60 images: (keys, subsets, program, predictions)."""
    drawn = pools.subsets(np.asarray(problem.real.labels), 3, 0.1, 0.8, seed=3)
    keys = jax.random.split(jax.random.key(1), 3)

    @jax.jit
    def train(keys, positions, sizes):
        return pools.subset_trained(
            keys,
            problem.model,
            problem.real,
            positions,
            sizes,
            problem.real,
            epochs=2,
            batch=10,
            optimizer=SGD,
            chunk=4,
            together=3,
        )

    return keys, drawn, train, train(keys, *drawn[:2])


def test_subsets_hold_the_same_share_of_each_class():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [40, 20, 60]))
    found = pools.subsets(labels, 30, 0.1, 0.5, seed=1)
    assert found.positions.shape == (30, found.sizes.max())
    for row, size, share in zip(*found, strict=True):
        assert len(set(row[:size])) == size
        counts = np.bincount(labels[row[:size]], minlength=3)
        expected = [round(share * num) for num in (40, 20, 60)]
        assert counts.tolist() == expected
        assert not row[size:].any()
    assert 0.1 <= found.fractions.min() < 0.2
    assert 0.4 < found.fractions.max() <= 0.5
    few = pools.subsets(labels, 4, 0.1, 0.5, seed=1)
    np.testing.assert_array_equal(few.fractions, found.fractions[:4])
    for mine, theirs, size in zip(few.positions, found.positions, few.sizes, strict=False):
        np.testing.assert_array_equal(mine[:size], theirs[:size])
    assert not np.array_equal(pools.subsets(labels, 4, 0.1, 0.5, 2)[2], few.fractions)
    # A class gives at least one image.
    assert pools.subsets(labels, 1, 0.001, 0.001, 0).sizes.tolist() == [3]
    for low, high in ((0, 0.5), (0.6, 0.5), (0.5, 1.1)):
        with pytest.raises(InputError, match="expected at least one subset and 0 < low"):
            pools.subsets(labels, 4, low, high, 0)


def test_one_program_trains_subsets_of_all_sizes_as_a_loop_does(problem, members):
    """The weights one after another and in whole batches, the rest together in chunks."""
    keys, (positions, sizes, _), train, found = members
    assert len(set(sizes.tolist())) == 3
    assert train._cache_size() == 1
    assert found.finite.all()
    assert found.classes.dtype == jnp.uint8

    @jax.jit
    def weights(keys, positions, sizes):
        def one(given):
            key, where, size = given
            return pools.train_on_subset(
                key,
                problem.model,
                problem.real,
                where,
                size,
                epochs=2,
                batch=10,
                optimizer=SGD,
            )

        return jax.lax.map(one, (keys, positions, sizes))

    stacked = weights(keys, positions, sizes)
    for i, size in enumerate(sizes):
        ours = jax.tree.map(lambda x, i=i: x[i], stacked)
        init_key, order_key = jax.random.split(keys[i])
        batches = subset_batches(order_key, positions[i], size, 2, 10)
        start = problem.model.init(init_key)
        *_, params = by_hand(problem.model, start, problem.real, batches)
        for one, other in zip(*map(jax.tree.leaves, (ours, params)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        expected = classes(problem.model, params, problem.real)
        np.testing.assert_array_equal(found.classes[i], expected)


def test_an_empty_subset_trains_nothing_and_costs_nothing(problem, members):
    keys, (positions, sizes, _), train, _ = members
    untrained = train(keys, positions, 0 * sizes)
    for i in range(3):
        params = problem.model.init(jax.random.split(keys[i])[0])
        expected = classes(problem.model, params, problem.real)
        np.testing.assert_array_equal(untrained.classes[i], expected)


def test_a_run_stopped_early_is_a_shorter_run(problem):
    keys = jax.random.split(jax.random.key(5), 2)

    def train(keys, every=2):
        return pools.early_stopped(
            keys,
            problem.model,
            problem.real,
            problem.real,
            iterations=9,
            every=every,
            batch=25,
            optimizer=SGD,
            together=2,
        )

    found = jax.jit(train)(keys)
    assert found.classes.shape == (2, 4, 60)
    assert found.finite.shape == (2, 4)
    assert found.finite.all()
    for i in range(2):
        init_key, order_key = jax.random.split(keys[i])
        start = problem.model.init(init_key)
        batches = list(whole_batches(order_key, 60, 25, 8))[:8]
        assert [len(batch) for batch in batches] == [20] * 8
        shorter = list(whole_batches(order_key, 60, 25, 2))[:2]
        np.testing.assert_array_equal(shorter, batches[:2])
        for look, params in enumerate(by_hand(problem.model, start, problem.real, batches)):
            if look % 2:
                expected = classes(problem.model, params, problem.real)
                np.testing.assert_array_equal(found.classes[i, look // 2], expected)
    with pytest.raises(InputError, match="every=10 is more than iterations=9; lower it"):
        train(keys, every=10)


def test_what_diverged_is_known(problem):
    params = problem.model.init(jax.random.key(0))
    assert pools.predicted(problem.model, params, problem.real).finite
    wild = jax.tree.map(lambda x: x * jnp.inf, params)
    assert not pools.predicted(problem.model, wild, problem.real).finite


def test_many_classes_fit(problem):
    apply = jax.jit(lambda params, images: jnp.eye(300)[jnp.full(len(images), 299)])
    found = pools.predicted(problem.model._replace(apply=apply), (), problem.real)
    assert found.classes.tolist() == [299] * 60
    assert found.classes.dtype == jnp.int32


def match(accuracies, agreements, members, target):
    window = Window(np.asarray(members), 0.1, 0.0)
    estimate = agreement.at_accuracy(accuracies, agreements, target)
    return Match(target, window, np.asarray(accuracies), np.asarray(agreements), estimate)


def test_the_error_of_a_mean_is_that_of_its_shared_runs():
    """All of one accuracy, so that estimates are means."""
    rng = np.random.default_rng(0)
    values = rng.normal(0.6, 0.1, (2, 12))
    level = np.full(12, 0.5)
    one, two = (match(level, row, np.arange(12), 0.5) for row in values)
    runs = np.arange(20)
    alone = pools.mean_error([one], runs)
    assert alone.num_runs == 12
    np.testing.assert_allclose(alone.error, values[0].std(ddof=1) / 12**0.5, rtol=1e-4)
    # The same network twice is no more evidence; members weigh with their sum.
    np.testing.assert_allclose(
        pools.mean_error([one, one], runs).error, alone.error, rtol=1e-6
    )
    both = pools.mean_error([one, two], runs)
    expected = values.mean(axis=0).std(ddof=1) / 12**0.5
    np.testing.assert_allclose(both.error, expected, rtol=1e-4)
    # Four members a run: three runs.
    grouped = pools.mean_error([one], np.arange(20) // 4)
    means = values[0].reshape(3, 4).mean(axis=1)
    np.testing.assert_allclose(grouped.error, means.std(ddof=1) / 3**0.5, rtol=1e-4)
    assert grouped.num_runs == 3
    assert np.isnan(pools.mean_error([one], np.zeros(20, int)).error)


def test_the_error_on_a_slope_is_near_that_of_the_match():
    """Of one network it is the standard error it has, but for the width of the kernel."""
    rng = np.random.default_rng(1)
    accuracies = rng.uniform(0.4, 0.6, 40)
    agreements = 0.3 + 0.5 * accuracies + rng.normal(0, 0.02, 40)
    found = match(accuracies, agreements, np.arange(40), 0.5)
    assert isinstance(found.estimate, Estimate)
    error = pools.mean_error([found], np.arange(40)).error
    np.testing.assert_allclose(error, found.estimate.standard_error, rtol=0.05)
