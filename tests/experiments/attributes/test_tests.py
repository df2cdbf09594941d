"""Groups of test images, and the statistics that compare them."""

import itertools

import numpy as np
import pytest
from scipy import stats

from experiments.attributes import groups as attributes_groups
from experiments.attributes import tests as attributes_tests
from experiments.attributes.summary import coherence_record


def test_holm_is_that_of_a_hand_computed_case():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(attributes_tests.holm(p), [0.03, 0.06, 0.06, 0.02])
    both = attributes_tests.holm(np.stack([p, np.array([0.5, 0.3, 0.001, 0.4])]))
    np.testing.assert_allclose(both, [[0.03, 0.06, 0.06, 0.02], [0.9, 0.9, 0.004, 0.9]])


TIED = [0.0, 0.0, 0.3, 0.3, 0.3, 0.5, 0.9, 2.0]


@pytest.mark.parametrize("values", [TIED, list(range(8)), [0, 0, 1, 0, 1, 1, 0, 0]])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_exact_p_values_are_those_of_all_subsets(values, size):
    ranks = stats.rankdata(values)
    subsets = np.array(list(itertools.combinations(range(8), size)))
    sums = ranks[subsets].sum(axis=1)
    expected = [
        min(1, 2 * min(np.mean(sums <= s + 1e-9), np.mean(sums >= s - 1e-9))) for s in sums
    ]
    test = attributes_tests.RankTest.of(np.array(values, np.float32), size)
    np.testing.assert_allclose(test.p_values(test.sums(subsets)), expected, rtol=1e-12)


def test_p_values_agree_with_scipy(monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.normal(size=30)
    boolean = np.r_[np.ones(9), np.zeros(21)]
    tied = rng.integers(0, 6, 30)
    for _ in range(5):
        group = rng.permutation(30)[:8]
        one, other = (lambda x, g=group: x[g]), (lambda x, g=group: np.delete(x, g))
        test = attributes_tests.RankTest.of(values, 8)
        exact = stats.mannwhitneyu(one(values), other(values), method="exact")
        assert test.p_values(test.sums(group)) == pytest.approx(exact.pvalue, rel=1e-9)
        test, having = attributes_tests.RankTest.of(boolean, 8), int(boolean[group].sum())
        chance = stats.hypergeom(30, 9, 8)
        tail = min(chance.cdf(having), chance.sf(having - 1))
        assert test.scores.max() == 1
        assert test.p_values(test.sums(group)) == pytest.approx(min(1, 2 * tail))
        with monkeypatch.context() as patched:
            patched.setattr(attributes_tests, "MOST_WORK", 0)
            for x in (values, tied):
                test = attributes_tests.RankTest.of(x, 8)
                assert test.table is None
                usual = stats.mannwhitneyu(one(x), other(x), method="asymptotic")
                assert test.p_values(test.sums(group)) == pytest.approx(usual.pvalue)


def test_effects_count_pairs():
    rng = np.random.default_rng(1)
    for values in (rng.integers(0, 4, 12), rng.integers(0, 2, 12)):
        group = rng.permutation(12)[:5]
        others = np.delete(values, group)
        pairs = [np.sign(x - y) for x in values[group] for y in others]
        test = attributes_tests.RankTest.of(values, 5)
        assert test.effects(test.sums(group)) == pytest.approx(np.mean(pairs))
    assert np.mean(pairs) == pytest.approx(values[group].mean() - others.mean())


def test_rare_values_do_not_mislead():
    """Five of a hundred, all in the group: the normal distribution is wrong by far."""
    values = np.r_[np.linspace(1, 2, 5), np.zeros(95)]
    test = attributes_tests.RankTest.of(values, 20)
    found = test.p_values(test.sums(np.arange(20)))
    chance = stats.hypergeom(100, 5, 20).pmf(5)
    assert 0.2 * chance < found < 3 * chance


def test_groups_are_of_the_image_s_class():
    classes = np.array([0, 1, 0, 1, 0, 1])
    found = np.array([[0.1, 0.9, 0.5, 0.8, 0.7, -1], [5, 1, 4, 2, 3, 0.0]])
    labels = np.array([0, 1])
    own = attributes_groups.groups_of(found, labels, classes, 2, "class")
    assert [g.members.tolist() for g in own] == [[2, 1], [1, 0]]
    assert [g.label for g in own] == [0, 1]
    every = attributes_groups.groups_of(found, labels, classes, 3, "all")
    # Of 1, 3, 4 position 4 is of class 0, the last of it; of 0, 2, 4 none is of class 1.
    assert [g.members.tolist() for g in every] == [[2], []]


def planted(rng, num_images=4, per_class=40, strength=0.0):
    """Values, classes and groups; attribute 1 is higher within a group by `strength`."""
    classes = rng.permutation(np.repeat([0, 1], per_class))
    values = rng.normal(size=(2 * per_class, 5)).astype(np.float32)
    values[:, 3] = values[:, 3] > 0
    values[:, 4] = classes  # constant in a class: no test
    groups = []
    for i in range(num_images):
        members = rng.permutation(per_class)[:10]
        values[np.flatnonzero(classes == i % 2)[members], 1] += strength
        groups.append(attributes_groups.Group(i % 2, members))
    return values, classes, groups


def test_what_is_planted_is_found_and_nothing_else():
    rng = np.random.default_rng(2)
    values, classes, groups = planted(rng, num_images=2, strength=2.0)
    found = attributes_tests.enrichment(rng, values, classes, groups, 99)
    assert len(found.p) == 2 * 4
    np.testing.assert_array_equal(found.attributes[found.p_holm <= 0.05], [1, 1])
    assert (found.effects[found.p_holm <= 0.05] > 0.5).all()
    for i in range(8):
        label, members = groups[found.images[i]]
        of_class = values[classes == label, found.attributes[i]]
        inside, outside = of_class[members], np.delete(of_class, members)
        assert found.rates[i] == pytest.approx(inside.mean())
        assert found.bases[i] == pytest.approx(outside.mean(), abs=1e-6)
        if found.attributes[i] != 3:
            usual = stats.mannwhitneyu(inside, outside, method="exact")
            assert found.p[i] == pytest.approx(usual.pvalue)
    np.testing.assert_allclose(found.p_holm, attributes_tests.holm(found.p))
    np.testing.assert_allclose(found.q, stats.false_discovery_control(found.p))
    assert attributes_tests.chance_p(2, found.chance_holm) == 0.01


def test_chance_alone_is_kept_below_alpha():
    """Of permutations at most 5 % have a finding, up to four standard errors."""
    rng = np.random.default_rng(3)
    values, classes, groups = planted(rng)
    found = attributes_tests.enrichment(rng, values, classes, groups, 600)
    assert (found.p_holm > 0.05).all()
    assert (found.chance_holm > 0).mean() <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 600)
    assert (found.chance_q > 0).sum() >= (found.chance_holm > 0).sum()
    assert attributes_tests.chance_p(0, found.chance_holm) == 1


def test_permutations_keep_what_depends():
    """Two equal groups and two equal attributes: findings come four at a time."""
    rng = np.random.default_rng(4)
    values, classes, groups = planted(rng, num_images=1)
    values = np.stack([values[:, 0]] * 2, axis=1)
    found = attributes_tests.enrichment(rng, values, classes, groups * 2, 800)
    assert set(found.chance_holm.tolist()) == {0, 4}


def test_groups_that_leave_nothing_to_compare_are_not_tested():
    rng = np.random.default_rng(5)
    values, classes, _ = planted(rng)
    groups = [
        attributes_groups.Group(0, np.arange(40)),
        attributes_groups.Group(1, np.arange(0)),
    ]
    found = attributes_tests.enrichment(rng, values, classes, groups, 19)
    assert len(found.p) == 0
    assert attributes_tests.chance_p(0, found.chance_holm) == 1


def test_coherence_is_the_mean_of_cosines():
    rng = np.random.default_rng(6)
    classes = np.repeat([0, 1], 12)
    features = rng.normal(size=(24, 3)) + 1
    features[[2, 5, 7]] = [[4, 0, 0.1], [3, 0.2, 0], [5, 0, 0]]  # alike, of class 0
    groups = [
        attributes_groups.Group(0, np.array([2, 5, 7])),
        attributes_groups.Group(1, np.array([3])),
        attributes_groups.Group(1, np.arange(12)),
        attributes_groups.Group(1, np.array([0, 4, 8])),
    ]
    found = attributes_tests.coherence(rng, features, classes, groups, 2000)
    assert found.images.tolist() == [0, 2, 3]

    def naive(rows):
        rows = [row / np.sqrt(row @ row) for row in rows]
        return np.mean([a @ b for a, b in itertools.combinations(rows, 2)])

    of_class = [features[:12], features[12:]]
    expected = [naive(of_class[0][[2, 5, 7]]), naive(of_class[1])]
    np.testing.assert_allclose(found.similarity[:2], expected)
    # On average a random group is as alike as the class.
    error = found.chance_std / np.sqrt(2000)
    by_chance = [naive(of_class[0]), expected[1], expected[1]]
    assert (np.abs(found.chance - by_chance) <= 5 * error + 1e-9).all()
    every = itertools.combinations(range(12), 3)
    beyond = [naive(of_class[0][list(g)]) >= expected[0] - 1e-12 for g in every]
    assert found.p[0] == pytest.approx(np.mean(beyond), abs=0.01)
    assert found.p[1] == 1
    np.testing.assert_allclose(found.q, stats.false_discovery_control(found.p))


def test_images_of_one_class_are_one_draw_of_the_coherence():
    """Their groups overlap: here they are one group, ten times."""
    rng = np.random.default_rng(3)
    classes, labels = np.repeat(np.arange(6), 40), np.repeat(np.arange(6), 10)
    hard, features = rng.normal(size=240), rng.normal(size=(240, 8))
    given = np.tile(hard, (60, 1)), labels, classes, 12, "class"
    groups = attributes_groups.groups_of(*given)
    alike = attributes_tests.coherence(rng, features, classes, groups, 500)
    record = coherence_record(alike, labels)
    once = (alike.similarity - alike.chance)[::10]
    expected = stats.ttest_1samp(once, 0).confidence_interval()
    np.testing.assert_allclose(record["interval"], expected, rtol=1e-6)
    assert record["mean"] == pytest.approx(once.mean())
    assert record["classes"] == 6
    alone = alike._replace(**{name: x[::10] for name, x in alike._asdict().items()})
    again = coherence_record(alone, labels)
    np.testing.assert_allclose(again["interval"], record["interval"])
