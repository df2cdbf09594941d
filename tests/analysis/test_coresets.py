"""Coresets against their definitions, searched one point at a time in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data
from distilljax.analysis import coresets
from distilljax.analysis.coresets import CORESETS, herding, k_centre
from distilljax.core import sampling
from distilljax.types import InputError
from tests.conftest import striped_images


def reference_herding(points, num):
    points, chosen = np.asarray(points, np.float64), []
    for _ in range(num):
        gaps = {
            i: np.linalg.norm(points.mean(0) - points[[*chosen, i]].mean(0))
            for i in range(len(points))
            if i not in chosen
        }
        chosen.append(min(gaps, key=gaps.get))
    return chosen


def reference_k_centre(points, num):
    points = np.asarray(points, np.float64)
    chosen = [int(np.linalg.norm(points - points.mean(0), axis=1).argmin())]
    while len(chosen) < num:
        reach = {
            i: min(np.linalg.norm(points[i] - points[j]) for j in chosen)
            for i in range(len(points))
            if i not in chosen
        }
        chosen.append(max(reach, key=reach.get))
    return chosen


REFERENCES = {"herding": reference_herding, "k_centre": reference_k_centre}


def test_every_chooser_has_a_reference():
    assert set(REFERENCES) == set(CORESETS)


def random_points(seed, m, d):
    rng = np.random.default_rng(seed)
    return (rng.exponential(size=(m, d)) + rng.normal(size=d)).astype(np.float32)


@pytest.mark.parametrize("name", CORESETS)
@pytest.mark.parametrize(("m", "d", "num"), [(12, 3, 12), (40, 5, 11)])
def test_definition(name, m, d, num):
    choose = jax.jit(CORESETS[name], static_argnums=1)
    for seed in range(20):
        points = random_points(seed, m, d)
        chosen = choose(points, num)
        assert chosen.dtype == jnp.int32
        assert chosen.tolist() == REFERENCES[name](points, num)


HAND = [
    # On a line; 4 is the mean.
    ("herding", [0, 3, 4, 5, 8], 1, [2]),
    # With 4, means 3.5 of 3 and 4.5 of 5 tie: the lower position; then 5 restores 4.
    ("herding", [0, 3, 4, 5, 8], 3, [2, 1, 3]),
    # Once the middle is used up, the ends follow, the lower position first.
    ("herding", [0, 3, 4, 5, 8], 5, [2, 1, 3, 0, 4]),
    # A repeated value is another point, and no position comes twice.
    ("herding", [2, 2, 2, 2], 3, [0, 1, 2]),
    ("herding", [0, 2, 2, 4], 4, [1, 2, 0, 3]),
    # 3 is the mean but no point; 2 and 4 tie.
    ("herding", [0, 4, 2, 6], 2, [1, 2]),
    ("k_centre", [0, 3, 4, 5, 8], 1, [2]),
    # Both ends are 4 away: the lower position; then the other end.
    ("k_centre", [0, 3, 4, 5, 8], 3, [2, 0, 4]),
    # 3 and 5 are both 1 from 4.
    ("k_centre", [0, 3, 4, 5, 8], 5, [2, 0, 4, 1, 3]),
    ("k_centre", [2, 2, 2, 2], 3, [0, 1, 2]),
    # The farthest, 20, then the one farthest from both, 0.
    ("k_centre", [0, 8, 0, 20], 3, [1, 3, 0]),
    ("k_centre", [0, 8, 0, 20], 4, [1, 3, 0, 2]),
]


@pytest.mark.parametrize(("name", "line", "num", "expected"), HAND)
def test_by_hand(name, line, num, expected):
    points = jnp.array(line, jnp.float32)[:, None]
    assert CORESETS[name](points, num).tolist() == expected


def test_in_the_plane_by_hand():
    # The mean is the origin. Herding balances what it chose, k_centre reaches out.
    points = jnp.array([[1.0, 0], [-2, 0], [1, 1], [0, -1], [0, 8], [0, -8]])
    assert points.mean(0).tolist() == [0, 0]
    # (1,0); + (0,-1) is 1.41 long, + (-2,0) is 1: that one; then (1,1) leaves (0,1).
    assert herding(points, 4).tolist() == [0, 1, 2, 3]
    # (1,0) before (0,-1), which is as near; (0,8) before (0,-8); then (-2,0) is 3 away.
    assert k_centre(points, 4).tolist() == [0, 4, 5, 1]


@pytest.mark.parametrize("name", CORESETS)
def test_a_smaller_coreset_begins_a_larger_one_and_all_are_chosen_in_the_end(name):
    points = random_points(0, 30, 4)
    choose = jax.jit(CORESETS[name], static_argnums=1)
    everything = choose(points, 30)
    assert sorted(everything.tolist()) == list(range(30))
    for num in (1, 7):
        assert choose(points, num).tolist() == everything[:num].tolist()


@pytest.mark.parametrize("name", CORESETS)
def test_a_common_shift_changes_nothing(name):
    points = np.random.default_rng(0).integers(-50, 50, (64, 6)).astype(np.float32)
    choose = jax.jit(CORESETS[name], static_argnums=1)
    assert choose(points, 20).tolist() == choose(points + 1000, 20).tolist()


def test_k_centre_is_within_twice_the_best_radius():
    choose = jax.jit(k_centre, static_argnums=1)
    for seed in range(10):
        points = random_points(seed, 12, 2)
        apart = np.linalg.norm(points[:, None] - points[None], axis=2)

        def radius(chosen, apart=apart):
            return apart[:, list(chosen)].min(1).max()

        best = min(map(radius, itertools.combinations(range(12), 3)))
        assert best <= radius(choose(points, 3).tolist()) <= 2 * best


@pytest.mark.parametrize("name", CORESETS)
def test_memory_grows_with_the_features_not_with_pairs(name):
    m, d = 3000, 4
    lowered = jax.jit(CORESETS[name], static_argnums=1).lower(jnp.zeros((m, d)), 5)
    used = lowered.compile().memory_analysis().temp_size_in_bytes
    assert 0 < used < 16 * 4 * m * d


@pytest.mark.parametrize("choose", CORESETS.values())
@pytest.mark.parametrize(
    ("shape", "num", "message"),
    [
        ((3, 2), 4, "4 were to be chosen of 3 points"),
        ((3, 2), 0, "0 were to be chosen of 3 points"),
        ((3, 2, 2), 1, r"\[m, d\], got \[3, 2, 2\]"),
    ],
)
def test_refusals(choose, shape, num, message):
    with pytest.raises(InputError, match=message):
        choose(jnp.zeros(shape), num)


SIZES = (9, 6, 4)


@pytest.fixture(scope="module")
def real():
    """Three classes of different sizes, mixed in order."""
    split = striped_images(max(SIZES))
    places = [np.flatnonzero(split.labels == j)[:n] for j, n in enumerate(SIZES)]
    order = np.random.default_rng(3).permutation(np.concatenate(places))
    split = data.Split(split.images[order], split.labels[order])
    return data.on_device(split, data.fit("normalise", split.images), 3)


def brightness(images):
    """f32[b, 2]: the mean of the upper and of the lower half."""
    return jnp.stack([images[:, :4].mean((1, 2, 3)), images[:, 4:].mean((1, 2, 3))], axis=1)


@pytest.mark.parametrize(
    ("name", "features"), [("herding", coresets.pixels), ("k_centre", brightness)]
)
def test_select_chooses_within_each_class(name, features, real, monkeypatch):
    monkeypatch.setattr(coresets, "_CHUNK", 5)  # smaller than some classes
    positions = coresets.select(CORESETS[name], real, 3, features)
    assert positions.dtype == jnp.int32
    points = np.asarray(features(real.transform(real.images)))
    expected = []
    for j in range(3):
        members = np.flatnonzero(np.asarray(real.labels) == j)
        expected += members[REFERENCES[name](points[members], 3)].tolist()
    assert positions.tolist() == expected
    labels = sampling.take(real, positions).labels
    np.testing.assert_array_equal(labels, np.eye(3).repeat(3, 0))


def test_select_sees_preprocessed_images(real):
    # A scaling of columns apart, which only the transform knows, changes the choice.
    weights = jnp.ones(64).at[:8].set(50.0)
    skewed = data.ZCA(jnp.zeros(64), jnp.diag(weights), jnp.diag(1 / weights))
    plain = coresets.select(herding, real, 4)
    assert coresets.select(herding, real, 4).tolist() == plain.tolist()
    other = coresets.select(herding, real._replace(transform=skewed), 4)
    assert other.tolist() != plain.tolist()


@pytest.mark.parametrize(
    ("num", "features", "message"),
    [
        (5, coresets.pixels, "num_per_class=5: class 2 has 4 images; choose 1 to 4"),
        (0, coresets.pixels, "num_per_class=0"),
        (1, lambda images: images, r"\[m, d\], got \[9, 8, 8, 1\]"),
        (1, lambda images: jnp.log(coresets.pixels(images)), "class 0 have NaN"),
    ],
)
def test_select_refusals(num, features, message, real):
    with pytest.raises(InputError, match=message):
        coresets.select(k_centre, real, num, features)


def test_numbers_of_images_are_whole(real):
    expected = coresets.select(herding, real, 2)
    np.testing.assert_array_equal(coresets.select(herding, real, np.int64(2)), expected)
    with pytest.raises(InputError, match=r"num_per_class=2\.0: give a whole number"):
        coresets.select(herding, real, 2.0)


def test_a_random_part_is_nested_and_of_each_class():
    key = jax.random.key(3)
    whole = coresets.random_part(key, 4, 5, 5)
    assert sorted(whole.tolist()) == list(range(20))
    part = coresets.random_part(key, 4, 5, 2)
    assert (part // 5).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    np.testing.assert_array_equal(part, whole.reshape(4, 5)[:, :2].reshape(-1))
    # Each class has an order of its own, and every image its turn.
    keys = jax.random.split(jax.random.key(0), 200)
    firsts = np.asarray(jax.vmap(lambda k: coresets.random_part(k, 4, 5, 1))(keys)) % 5
    counts = np.stack([np.bincount(firsts[:, j], minlength=5) for j in range(4)])
    assert counts.min() > 20  # 40 expected, standard deviation 5.7
    assert len({tuple(first) for first in firsts.tolist()}) > 100
    with pytest.raises(InputError, match="6 were to be chosen of 5 images"):
        coresets.random_part(key, 4, 5, 6)
