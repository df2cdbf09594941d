"""hold_out, subset and on_device."""

import numpy as np
import pytest

from distilljax.data import (
    Identity,
    Split,
    dataset,
    hold_out,
    on_device,
    prepare,
    subset,
)
from distilljax.types import InputError

SIZES = (5, 9, 7)


@pytest.fixture
def split():
    """An image's first pixel is its position, so images can be traced."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(3), SIZES))
    images = np.zeros((len(labels), 8, 8, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return Split(images, labels.astype(np.int32))


def positions(split):
    return split.images[:, 0, 0, 0].tolist()


def test_hold_out_is_stratified_and_loses_nothing(split):
    rest, held = hold_out(split, num_per_class=2, seed=0)
    assert np.bincount(held.labels).tolist() == [2, 2, 2]
    assert np.bincount(rest.labels).tolist() == [3, 7, 5]
    assert sorted(positions(rest) + positions(held)) == list(range(21))
    for part in (rest, held):
        assert positions(part) == sorted(positions(part))
        np.testing.assert_array_equal(part.labels, split.labels[positions(part)])


def test_hold_out_depends_on_the_seed_only(split):
    draws = [positions(hold_out(split, 2, seed)[1]) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) > 1


def test_subset_is_class_ordered_without_repetition(split):
    chosen = subset(split, num_per_class=5, seed=3)
    assert chosen.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert len(set(positions(chosen))) == 15
    np.testing.assert_array_equal(chosen.labels, split.labels[positions(chosen)])
    assert (chosen.images.dtype, chosen.labels.dtype) == (np.uint8, np.int32)


def test_subset_is_random_and_reproducible(split):
    draws = [positions(subset(split, 3, seed)) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) > 1
    everyone = {one for seed in range(50) for one in positions(subset(split, 1, seed))}
    assert everyone == set(range(21))


def test_smaller_subset_begins_a_larger_one(split):
    small, large = subset(split, 2, seed=0), subset(split, 4, seed=0)
    for label in range(3):
        of_class = [
            [p for p in positions(s) if split.labels[p] == label] for s in (small, large)
        ]
        assert of_class[1][:2] == of_class[0]


@pytest.mark.parametrize(
    ("divide", "num", "seed", "message"),
    [
        (hold_out, 5, 0, "class 0 has 5 images, and at least one must be left.*at most 4"),
        (subset, 6, 0, "num_per_class=6: class 0 has 5 images.*at most 5"),
        (subset, 0, 0, "num_per_class=0"),
        (hold_out, -1, 0, "num_per_class=-1"),
        (subset, 1, -1, "seed=-1"),
    ],
)
def test_refusals(split, divide, num, seed, message):
    with pytest.raises(InputError, match=message):
        divide(split, num, seed)


@pytest.mark.parametrize("given", [None, "embedded"])
def test_what_is_no_split_is_refused(split, given):
    whole = dataset(split.images, split.labels, split.images, split.labels)
    for other in (given, whole, tuple(split)):
        for call in (
            lambda other=other: hold_out(other, 1, 0),
            lambda other=other: subset(other, 1, 0),
            lambda other=other: on_device(other, Identity(), 3),
        ):
            with pytest.raises(InputError, match=r"^split is a .*; give a Split, such as"):
                call()
    with pytest.raises(InputError, match=r"^data is a .*; give a Dataset"):
        prepare(given)
    with pytest.raises(InputError, match=r"^held_out=0: must be at least 1"):
        prepare(whole, "none", held_out=0)


def test_images_at_hand_are_those_of_the_device(split):
    """On a CPU they are the same memory, or Tiny-ImageNet would be there once more."""
    real = dataset(split.images, split.labels, split.images, split.labels)
    prepared = prepare(real, "none", held_out=2)
    rest, _ = hold_out(split, 2, seed=0)
    np.testing.assert_array_equal(prepared.rest.images, rest.images)
    found = prepared.rest.images.__array_interface__["data"][0]
    assert found == prepared.real.images.unsafe_buffer_pointer()


def test_on_device(split):
    real = on_device(split, Identity(), num_classes=3)
    assert real.class_index.shape == (3, 9)
    assert real.class_sizes.tolist() == list(SIZES)
    for label, size in enumerate(SIZES):
        row = np.asarray(real.class_index[label])
        expected = np.flatnonzero(split.labels == label)
        np.testing.assert_array_equal(row[:size], expected)
        np.testing.assert_array_equal(row, expected[np.arange(9) % size])
    np.testing.assert_array_equal(real.images, split.images)
    np.testing.assert_array_equal(real.labels, split.labels)
    dtypes = [str(array.dtype) for array in real[:4]]
    assert dtypes == ["uint8", "int32", "int32", "int32"]


@pytest.mark.parametrize("num_classes", [2, 4])
def test_on_device_needs_every_class(split, num_classes):
    with pytest.raises(InputError, match=r"\[5, 9, 7"):
        on_device(split, Identity(), num_classes)
