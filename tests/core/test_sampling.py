"""Batches of real data; every image is a grey value that tells its position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data
from distilljax.core import sampling
from distilljax.types import InputError

SIZES = (7, 2, 4)
NUM = sum(SIZES)


def grey(labels):
    labels = np.asarray(labels, np.int32)
    values = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    split = data.Split(np.broadcast_to(values, (len(labels), 2, 3, 1)).copy(), labels)
    return data.on_device(split, data.Identity(), int(labels.max()) + 1), labels


@pytest.fixture(scope="module")
def real():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(3), SIZES))
    return grey(labels)


def positions(images):
    """What `grey` wrote into f32[..., h, w, c]."""
    images = np.asarray(images)
    assert (images == images[..., :1, :1, :1]).all()
    return np.rint(images[..., 0, 0, 0] * 255).astype(int)


def test_take(real):
    real, labels = real
    at = jnp.array([4, 0, 4])
    batch = sampling.take(real, at)
    assert batch.images.shape == (3, 2, 3, 1)
    assert batch.images.dtype == batch.labels.dtype == jnp.float32
    np.testing.assert_array_equal(positions(batch.images), at)
    np.testing.assert_array_equal(batch.labels, np.eye(3)[labels[[4, 0, 4]]])


def test_take_applies_the_transform(real):
    real, _ = real
    transform = data.Normalise(jnp.array([0.25]), jnp.array([0.5]))
    batch = sampling.take(real._replace(transform=transform), jnp.array([3, 12]))
    expected = (np.array([3, 12]) / 255 - 0.25) / 0.5
    np.testing.assert_allclose(batch.images[:, 0, 0, 0], expected, rtol=1e-6)


def test_batch_is_without_replacement_and_uniform(real):
    real, labels = real
    draws, size = 2000, 4
    keys = jax.random.split(jax.random.key(0), draws)
    many = jax.jit(jax.vmap(lambda key, real: sampling.batch(key, real, size), (0, None)))
    batches = many(keys, real)
    drawn = positions(batches.images)
    assert drawn.shape == (draws, size)
    assert all(len(set(row)) == size for row in drawn)
    np.testing.assert_array_equal(batches.labels, np.eye(3)[labels[drawn]])
    # Each image equally often, in the batch and at its first place.
    for column, share in ((drawn, size / NUM), (drawn[:, 0], 1 / NUM)):
        counts = np.bincount(column.ravel(), minlength=NUM)
        deviation = np.sqrt(draws * share * (1 - share))
        assert np.abs(counts - draws * share).max() < 4.5 * deviation


def test_the_largest_batch_is_the_whole_set(real):
    real, _ = real
    drawn = positions(sampling.batch(jax.random.key(1), real, NUM).images)
    np.testing.assert_array_equal(np.sort(drawn), np.arange(NUM))


@pytest.mark.parametrize("per_class", [1, 3, 7, 11])
def test_class_batch(real, per_class):
    real, labels = real
    draw = jax.jit(lambda key, real: sampling.class_batch(key, real, per_class))
    for seed in range(20):
        images = draw(jax.random.key(seed), real)
        assert images.shape == (3, per_class, 2, 3, 1)
        for j, row in enumerate(positions(images)):
            assert (labels[row] == j).all()
            counts = np.bincount(row, minlength=NUM)[labels == j]
            # As evenly as can be: none twice before all came once.
            assert counts.max() - counts.min() <= 1
            assert len(set(row[: SIZES[j]])) == min(per_class, SIZES[j])
    assert draw._cache_size() == 1


def test_class_batch_is_uniform_and_classes_are_drawn_apart(real):
    real, labels = real
    draws = 2000
    keys = jax.random.split(jax.random.key(0), draws)
    many = jax.jit(
        jax.vmap(lambda key, real: sampling.class_batch(key, real, 3), (0, None))
    )
    drawn = positions(many(keys, real))
    for j, size in enumerate(SIZES):
        share = min(3, size) / size
        distinct = [set(row) for row in drawn[:, j]]
        counts = np.array([sum(i in row for row in distinct) for i in range(NUM)])
        counts = counts[labels == j]
        deviation = np.sqrt(draws * share * (1 - share))
        assert (np.abs(counts - draws * share) <= 4.5 * deviation).all()
        first = np.bincount(drawn[:, j, 0], minlength=NUM)[labels == j] / draws
        assert np.abs(first - 1 / size).max() < 4.5 * np.sqrt(1 / size / draws)
    # Which image of class 1 leads says nothing about which leads in class 2.
    leads = drawn[:, 1, 0] == np.flatnonzero(labels == 1)[0]
    other = drawn[:, 2, 0] == np.flatnonzero(labels == 2)[0]
    assert abs(other[leads].mean() - other[~leads].mean()) < 0.1


def test_the_key_settles_the_draw(real):
    real, _ = real
    for draw in (
        lambda key: sampling.class_batch(key, real, 5),
        lambda key: sampling.batch(key, real, 5).images,
        lambda key: sampling.epochs(key, NUM, 5, 4),
    ):
        jitted = jax.jit(draw)
        first, again, other = (jitted(jax.random.key(seed)) for seed in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("num", "size", "num_steps"),
    [(12, 4, 8), (12, 12, 3), (6, 1, 15), (13, 4, 8), (7, 3, 0)],
)
def test_each_epoch_is_a_permutation(num, size, num_steps):
    draw = jax.jit(sampling.epochs, static_argnums=(1, 2, 3))
    batches = np.asarray(draw(jax.random.key(0), num, size, num_steps))
    assert batches.shape == (num_steps, size)
    assert batches.dtype == np.int32
    assert ((batches >= 0) & (batches < num)).all()
    per_epoch = num // size
    epochs = [batches[i : i + per_epoch] for i in range(0, num_steps, per_epoch)]
    for epoch in epochs:
        assert len(np.unique(epoch)) == epoch.size
    whole = [epoch for epoch in epochs if len(epoch) == per_epoch]
    if num % size == 0:
        assert all(len(np.unique(epoch)) == num for epoch in whole)
    if len(whole) > 1 and num > 2:
        assert not np.array_equal(whole[0], whole[1])  # shuffled again


def test_what_an_epoch_drops_changes_from_epoch_to_epoch():
    draw = jax.jit(lambda key: sampling.epochs(key, 5, 4, 400))
    batches = np.asarray(draw(jax.random.key(0)))
    dropped = [(set(range(5)) - set(row)).pop() for row in batches]
    counts = np.bincount(dropped, minlength=5)
    assert np.abs(counts - 80).max() < 4.5 * np.sqrt(400 * 0.2 * 0.8)


def test_more_than_there_are_is_refused(real):
    real, _ = real
    message = f"a batch of 14 was asked of a data set of {NUM} images"
    with pytest.raises(InputError, match=message):
        sampling.batch(jax.random.key(0), real, 14)
    with pytest.raises(InputError, match=message):
        sampling.epochs(jax.random.key(0), NUM, 14, 2)
    with pytest.raises(InputError, match=f"2 batches of {NUM - 1} were asked of"):
        sampling.epochs(jax.random.key(0), NUM, NUM - 1, 2, per_epoch=2)


@pytest.mark.parametrize(
    ("num", "most", "expected"),
    [(500, 256, (250, 2)), (100, 256, (100, 1)), (10, None, (10, 1)), (10, 3, (2, 4))],
)
def test_even_batches(num, most, expected):
    assert sampling.even_batches(num, most) == expected


def test_positions_may_be_a_list_and_must_be_there():
    real, _ = grey(np.arange(9) % 3)
    expected = sampling.take(real, jnp.array([8, 0, 0]))
    for positions in ([8, 0, 0], np.array([8, 0, 0], np.uint8)):
        found = sampling.take(real, positions)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert sampling.take(real, np.int64(4)).labels.shape == (1, 3)
    for wrong in ([0, 9], [-1], np.int64(9)):
        with pytest.raises(InputError, match=r"positions has -?\d: .* in 0..8"):
            sampling.take(real, wrong)
    with pytest.raises(InputError, match=r"positions is bool.*numpy.flatnonzero"):
        sampling.take(real, np.ones(9, bool))
    with pytest.raises(InputError, match="positions is float"):
        sampling.take(real, [0.0])
