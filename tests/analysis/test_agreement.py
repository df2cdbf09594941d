"""Agreement against counting by hand, its expectations against simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.analysis import agreement as ag
from distilljax.types import Estimate, InputError


def predictions(num, num_images=23, num_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, num_classes, (num, num_images), dtype=np.int32)


def counted(p, q):
    shares = [[sum(x == y for x, y in zip(a, b, strict=True)) for b in q] for a in p]
    return np.array(shares) / p.shape[1]


def test_agreement_is_a_count():
    p, q = predictions(3), predictions(5, seed=1)
    found = jax.jit(ag.agreement)(p, q)
    np.testing.assert_allclose(found, counted(p, q), rtol=1e-6)
    one = jax.jit(ag.agreement)(p[1], q[2])
    assert one.shape == ()
    np.testing.assert_allclose(one, found[1, 2])
    tall = jax.jit(ag.agreement)(p.reshape(3, 1, 23), q[0])
    np.testing.assert_allclose(tall, found[:, :1])


def test_agreement_never_holds_all_pairs():
    """A million pairs of a hundred images: the result, not a hundred times it."""
    p = jax.ShapeDtypeStruct((1000, 100), jnp.int32)
    compiled = jax.jit(ag.agreement).lower(p, p).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * 1000 * 1000


def test_kappas_by_hand():
    labels = np.array([0, 0, 1, 1, 2, 2, 0, 1])
    p = np.array([0, 0, 1, 2, 2, 0, 1, 1])  # right: y y y n y n n y
    q = np.array([0, 1, 1, 2, 2, 1, 0, 0])  # right: y n y n y n y n
    # Equal on 0, 2, 3, 4; both right or both wrong on those and 5.
    np.testing.assert_allclose(ag.agreement(jnp.asarray(p), jnp.asarray(q)), 4 / 8)
    expected = 5 / 8 * 4 / 8 + 3 / 8 * 4 / 8
    consistency = ag.error_consistency(*map(jnp.asarray, (p, q, labels)))
    np.testing.assert_allclose(consistency, (5 / 8 - expected) / (1 - expected), rtol=1e-6)
    # p predicts 3, 3, 2 of each class, q 3, 3, 2.
    expected = (3 * 3 + 3 * 3 + 2 * 2) / 64
    kappa = ag.cohen_kappa(jnp.asarray(p), jnp.asarray(q), 3)
    np.testing.assert_allclose(kappa, (4 / 8 - expected) / (1 - expected), rtol=1e-6)


def test_kappas_of_pools_are_those_of_pairs():
    p, q, labels = predictions(3), predictions(2, seed=1), predictions(1, seed=2)[0]
    consistency = jax.jit(ag.error_consistency)(p, q, labels)
    kappa = jax.jit(ag.cohen_kappa, static_argnums=2)(p, q, 4)
    assert consistency.shape == kappa.shape == (3, 2)
    for i, j in np.ndindex(3, 2):
        right, other = p[i] == labels, q[j] == labels
        a, b = right.mean(), other.mean()
        chance = a * b + (1 - a) * (1 - b)
        expected = ((right == other).mean() - chance) / (1 - chance)
        np.testing.assert_allclose(consistency[i, j], expected, atol=1e-6)
        shares = (np.bincount(row, minlength=4) / 23 for row in (p[i], q[j]))
        chance = np.dot(*shares)
        expected = ((p[i] == q[j]).mean() - chance) / (1 - chance)
        np.testing.assert_allclose(kappa[i, j], expected, atol=1e-6)


def test_expected_agreement_is_that_of_independent_networks():
    """Errors uniform over the wrong classes; within four standard errors."""
    rng, num, k = np.random.default_rng(0), 400_000, 10
    labels = rng.integers(0, k, num)

    def network(accuracy):
        wrong = (labels + rng.integers(1, k, num)) % k
        return np.where(rng.random(num) < accuracy, labels, wrong)

    p, q = network(0.6), network(0.35)
    expected = 0.6 * 0.35 + 0.4 * 0.65 / 9
    found = ag.expected_agreement(jnp.array([0.6, 0.35]), jnp.array([0.35, 0.6]), k)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    error = np.sqrt(expected * (1 - expected) / num)
    assert abs((p == q).mean() - expected) < 4 * error
    same = np.sqrt(0.47 * 0.53 / num) / 0.53
    consistency = ag.error_consistency(*map(jnp.asarray, (p, q, labels)))
    assert abs(consistency) < 4 * same
    np.testing.assert_allclose(
        ag.corrected(jnp.array([1.0, 0.3, 0.15]), 0.3), [1, 0, -3 / 14], atol=1e-6
    )


def test_the_nearest_members_fill_the_smallest_window():
    accuracies = np.array([0.30, 0.41, 0.50, 0.47, 0.44, 0.60, 0.53, 0.47])
    window = ag.nearest(accuracies, 0.48, least=3)
    assert window.members.tolist() == [2, 3, 7]
    np.testing.assert_allclose(window.half_width, 0.02)
    np.testing.assert_allclose(window.mean_gap, 0.0, atol=1e-12)
    window = ag.nearest(accuracies, 0.48, least=1)  # 3 and 7 are as near as each other
    assert window.members.tolist() == [3, 7]
    window = ag.nearest(accuracies, 0.615, least=2)
    assert window.members.tolist() == [5, 6]
    np.testing.assert_allclose(window.half_width, 0.085)  # wider than the tolerance: told
    np.testing.assert_allclose(window.mean_gap, 0.565 - 0.615)
    assert len(ag.nearest(accuracies, 0.48, least=20).members) == 8


def test_a_pool_of_other_accuracies_is_refused():
    with pytest.raises(InputError, match=r"within 0\.02 of accuracy 0\.9000.*0\.3.*0\.5"):
        ag.nearest(np.array([0.3, 0.4, 0.5]), 0.9)
    ag.nearest(np.array([0.3, 0.4, 0.5]), 0.9, tolerance=0.41)


def by_least_squares(x, y, reach):
    """Intercept of the tricube-weighted line, from the stacked equations."""
    weights = np.sqrt((1 - np.abs(x / reach) ** 3) ** 3)
    design = np.stack([np.ones_like(x), x], axis=1) * weights[:, None]
    return np.linalg.lstsq(design, y * weights)[0][0]


@pytest.mark.parametrize("groups", [np.arange(12) // 3 + 7, None])
def test_the_line_at_an_accuracy_and_its_jackknife(groups):
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.05, 0.05, 12)
    values = 0.2 + x + 0.05 * rng.normal(size=12)
    reach = 1.1 * np.abs(x).max()
    found = ag.at_accuracy(0.46 + x, values, 0.46, groups=groups, of="agreement")
    np.testing.assert_allclose(found.value, by_least_squares(x, values, reach), rtol=1e-6)
    assert (found.of, found.num_probes) == ("agreement at accuracy 0.4600", 12)
    names = np.arange(12) if groups is None else groups
    without = np.array(
        [
            by_least_squares(x[names != name], values[names != name], reach)
            for name in np.unique(names)
        ]
    )
    g = len(without)
    error = np.sqrt((g - 1) / g * np.square(without - without.mean()).sum())
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-5)


def test_a_straight_line_is_met_where_the_mean_is_not():
    accuracies = np.array([0.40, 0.42, 0.43, 0.46])
    found = ag.at_accuracy(accuracies, 0.3 + 0.7 * accuracies, 0.44)
    np.testing.assert_allclose(found.value, 0.3 + 0.7 * 0.44, rtol=1e-6)
    np.testing.assert_allclose(found.standard_error, 0, atol=1e-7)
    level = ag.at_accuracy(np.full(3, 0.5), np.array([0.6, 0.7, 0.8]), 0.5)
    np.testing.assert_allclose(level.value, 0.7, rtol=1e-6)
    np.testing.assert_allclose(level.standard_error, 0.1 / np.sqrt(3), rtol=1e-6)
    beside = ag.at_accuracy(np.full(3, 0.49), np.array([0.6, 0.7, 0.8]), 0.5)
    np.testing.assert_allclose(beside.value, 0.7, rtol=1e-6)
    assert np.isnan(ag.at_accuracy([0.5], [0.6], 0.5).standard_error)
    alone = ag.at_accuracy(accuracies, accuracies, 0.44, groups=np.zeros(4, int))
    assert np.isnan(alone.standard_error)


def test_the_standard_error_is_honest_about_runs():
    """Members of a run share an offset: only the grouped error is the actual scatter."""
    rng, runs = np.random.default_rng(1), np.repeat(np.arange(12), 8)
    values, grouped, alone = [], [], []
    for _ in range(300):
        accuracies = rng.uniform(0.4, 0.5, 96)
        offsets = 0.03 * rng.normal(size=12)[runs] + 0.01 * rng.normal(size=96)
        given = accuracies, 0.2 + accuracies + offsets, 0.45
        found = ag.at_accuracy(*given, groups=runs)
        values.append(found.value)
        grouped.append(found.standard_error)
        alone.append(ag.at_accuracy(*given).standard_error)
    scatter = np.std(values, ddof=1)
    assert abs(np.mean(values) - 0.65) < 4 * scatter / np.sqrt(300)
    # The scatter of 300 is known to 4%; the jackknife errs upwards.
    assert 0.9 * scatter < np.mean(grouped) < 1.3 * scatter
    assert np.mean(alone) < 0.6 * scatter


def synthetic_pool(num_images=4000, num_classes=10):
    """Networks that copy the target on a share of the images, else are independent.

    One of accuracy a copies with probability 1/2, and is right with accuracy b elsewhere:
    a = t/2 + b/2, and it agrees with the target on 1/2 + (t b + (1-t)(1-b)/9) / 2.
    """
    rng = np.random.default_rng(2)
    labels = rng.integers(0, num_classes, num_images)

    def network(accuracy):
        wrong = (labels + rng.integers(1, num_classes, num_images)) % num_classes
        return np.where(rng.random(num_images) < accuracy, labels, wrong)

    target = network(0.5)
    levels = np.linspace(0.2, 0.8, 60)
    pool = np.stack(
        [np.where(rng.random(num_images) < 0.5, target, network(b)) for b in levels]
    )
    return pool, labels, target


def test_a_line_through_two_members_has_no_standard_error():
    """Without one of them there is none, and its slope is not known to be wrong."""
    found = ag.at_accuracy(np.array([0.52, 0.5201]), np.array([0.6, 0.7]), 0.5)
    assert np.isnan(found.standard_error)
    equal = ag.at_accuracy(np.array([0.5, 0.5]), np.array([0.6, 0.7]), 0.5)
    np.testing.assert_allclose([equal.value, equal.standard_error], [0.65, 0.05], rtol=1e-5)


def test_matching_finds_the_agreement_of_equal_accuracy():
    pool, labels, target = synthetic_pool()
    accuracies = (pool == labels).mean(1)
    assert abs(accuracies.mean() - 0.5) < 0.02
    found = ag.matched(pool, labels, target, least=12, groups=np.arange(60) // 2)
    own = (target == labels).mean()
    assert found.accuracy == own
    order = np.argsort(np.abs(accuracies - own), kind="stable")
    assert set(order[:12]) <= set(found.window.members.tolist())
    assert len(found.window.members) < 16
    np.testing.assert_array_equal(found.accuracies, accuracies[found.window.members])
    np.testing.assert_allclose(
        found.agreements, [(pool[i] == target).mean() for i in found.window.members]
    )
    assert found.window.half_width == np.abs(found.accuracies - own).max()
    np.testing.assert_allclose(found.window.mean_gap, found.accuracies.mean() - own)
    expected = 0.5 + 0.5 * (own * own + (1 - own) ** 2 / 9)
    assert abs(found.estimate.value - expected) < 4 * found.estimate.standard_error
    assert 0 < found.estimate.standard_error < 0.01
    assert found.estimate.of == f"agreement at accuracy {own:.4f}"
    rerun = ag.at_accuracy(
        found.accuracies, found.agreements, own, groups=found.window.members // 2
    )
    assert found.estimate.standard_error == rerun.standard_error


def estimate(value, error):
    return Estimate(jnp.float32(value), jnp.float32(error), jnp.int32(3), "x")


def test_difference_of_two_estimates():
    a, b = np.array([0.6, 0.7, 0.8, 0.7]), np.array([0.5, 0.4])
    found = ag.difference(estimate(0.7, 0.03), estimate(0.45, 0.04), (a, b))
    np.testing.assert_allclose(found.value, 0.25, rtol=1e-5)
    np.testing.assert_allclose(found.standard_error, 0.05, rtol=1e-5)
    np.testing.assert_allclose(found.low, 0.25 - 1.96 * 0.05, rtol=1e-3)
    np.testing.assert_allclose(found.high, 0.25 + 1.96 * 0.05, rtol=1e-3)
    pooled = np.sqrt((0.02 + 0.005) / 4)
    np.testing.assert_allclose(found.cohen_d, 0.25 / pooled, rtol=1e-5)
    assert np.isnan(ag.difference(estimate(0.7, 0.03), estimate(0.4, 0.04)).cohen_d)


def test_shapes_that_do_not_fit_are_refused():
    p, q = jnp.zeros((3, 5), int), jnp.zeros((2, 6), int)
    for function in (
        lambda: ag.agreement(p, q),
        lambda: ag.cohen_kappa(p, q, 3),
        lambda: ag.error_consistency(p, p, q),
    ):
        with pytest.raises(InputError, match=r"\[3, 5\] and \[2, 6\]"):
            function()
    with pytest.raises(InputError, match=r"pool \[3, 5\], labels \[5\], target \[6\]"):
        ag.matched(p, p[0], q[0])
    with pytest.raises(InputError, match=r"groups \[2\], pool \[3, 5\]"):
        ag.matched(p, p[0], p[0], groups=np.zeros(2))
    with pytest.raises(InputError, match=r"accuracies \[3\], values \[2\], groups \[3\]"):
        ag.at_accuracy(np.ones(3), np.ones(2), 0.5)
    with pytest.raises(InputError, match="NaN"):
        ag.at_accuracy(np.array([0.5, np.nan]), np.ones(2), 0.5)
    with pytest.raises(InputError, match="NaN"):
        ag.nearest(np.array([0.5, np.nan]), 0.5)
    with pytest.raises(InputError, match=r"\[0\]"):
        ag.nearest(np.array([]), 0.5)
    with pytest.raises(InputError, match="least=0"):
        ag.nearest(np.array([0.5]), 0.5, least=0)
    stacked = Estimate(jnp.zeros(2), jnp.zeros(2), jnp.int32(3), "x")
    with pytest.raises(InputError, match=r"\[2\] and \[\]"):
        ag.difference(stacked, estimate(0, 1))
