"""Statistical tests: rank tests of attributes, coherence of groups, and their chance."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from distilljax.analysis.statistics import ALPHA
from experiments.attributes.groups import Group

COHERENCE_DRAWS = 9_999  # random groups that a group's coherence is compared with

MOST_WORK = 5e7  # additions to tabulate one exact distribution


def holm(p: np.ndarray) -> np.ndarray:
    """Returns p-values corrected for all by Holm's step-down procedure, f64[..., m].

    Holm 1979: with p_(1) <= .. <= p_(m), the i-th becomes max over j <= i of
    min(1, (m + 1 - j) p_(j)). Those at most alpha hold together with probability
    1 - alpha, whatever the dependence.
    """
    order = np.argsort(p, axis=-1, kind="stable")
    factors = np.arange(p.shape[-1], 0, -1)
    steps = np.minimum(1, np.take_along_axis(p, order, -1) * factors)
    found = np.empty(p.shape)
    np.put_along_axis(found, order, np.maximum.accumulate(steps, axis=-1), -1)
    return found


class RankTest(NamedTuple):
    """The rank-sum test of Mann and Whitney, with ties, for one population.

    Chance draws m of the N values without replacement. The statistic is the sum of the
    drawn mid-ranks; of a boolean attribute it is the number that have it, and the test is
    Fisher's.
    """

    scores: np.ndarray  # i64[N], mid-ranks, shifted and scaled to the least integers
    step: float  # of a score, in ranks
    size: int  # m
    table: np.ndarray | None  # f64, two-sided p of every sum; None: normal distribution

    @classmethod
    def of(cls, values: np.ndarray, size: int) -> "RankTest":
        """Makes the test of a population.

        Args:
          values: f[N], not all equal.
          size: m, 0 < m < N.

        Two-sided p is twice the smaller tail, at most 1. Tails are exact where that takes
        up to MOST_WORK additions, else those of the normal distribution with the variance
        under ties and the usual continuity correction.
        """
        doubled = np.rint(2 * stats.rankdata(values)).astype(np.int64)
        doubled -= doubled.min()
        unit = int(np.gcd.reduce(doubled))
        scores = doubled // unit
        return cls(scores, unit / 2, size, _two_sided(scores, size))

    def sums(self, groups: np.ndarray) -> np.ndarray:
        """Returns rank sums i64[...] of groups i[..., m], positions in the population."""
        return self.scores[groups].sum(axis=-1)

    def effects(self, sums: np.ndarray) -> np.ndarray:
        """Returns the rank-biserial correlation, f64[...] in -1..1.

        P(drawn > other) - P(drawn < other); of a boolean attribute that is the difference
        of the rates.
        """
        beyond = self.step * (sums - self.size * self.scores.mean())
        return 2 * beyond / (self.size * (len(self.scores) - self.size))

    def p_values(self, sums: np.ndarray) -> np.ndarray:
        """Returns two-sided p-values, f64[...]."""
        if self.table is not None:
            return self.table[sums]
        num, size = len(self.scores), self.size
        variance = size * (num - size) / (num - 1) * self.scores.var() * self.step**2
        beyond = np.abs(sums - size * self.scores.mean()) * self.step
        z = np.maximum(beyond - 0.5, 0) / math.sqrt(variance)
        return np.minimum(1, 2 * special.ndtr(-z))


def _two_sided(scores: np.ndarray, size: int) -> np.ndarray | None:
    """Returns p of every sum, f64[largest + 1], by counting the subsets of each."""
    largest = int(np.sort(scores)[-size:].sum())
    each, numbers = np.unique(scores, return_counts=True)
    if size * largest * np.minimum(numbers, size).sum() > MOST_WORK:
        return None
    ways = np.zeros((size + 1, largest + 1))  # of drawing so many with that sum
    ways[0, 0] = 1
    for score, number in zip(each.tolist(), numbers.tolist(), strict=True):
        before = ways.copy()
        for j in range(1, min(number, size) + 1):
            if j * score > largest:
                break
            kept = before[: size + 1 - j, : largest + 1 - j * score]
            ways[j:, j * score :] += special.comb(number, j) * kept
    chances = ways[size] / ways[size].sum()
    tails = np.minimum(chances.cumsum(), chances[::-1].cumsum()[::-1])
    return np.minimum(1, 2 * tails)


class Enrichment(NamedTuple):
    """All tests, and the number of findings by chance."""

    images: np.ndarray  # i[m], of each test
    attributes: np.ndarray  # i[m]
    rates: np.ndarray  # f64[m], rate or mean within the group
    bases: np.ndarray  # f64[m], the same of the others of the class
    effects: np.ndarray  # f64[m]
    p: np.ndarray  # f64[m]
    p_holm: np.ndarray  # f64[m]
    q: np.ndarray  # f64[m], Benjamini and Hochberg
    chance_holm: np.ndarray  # i[r], tests with p_holm <= ALPHA in each permutation
    chance_q: np.ndarray  # i[r], the same of q


def enrichment(
    rng: np.random.Generator,
    values: np.ndarray,
    classes: np.ndarray,
    groups: Sequence[Group],
    num_permutations: int,
) -> Enrichment:
    """Compares every group with the other test images of its class, in every attribute.

    There is no test where an attribute is the same for the whole class, nor of a group
    that is empty or all of the class; that does not depend on who is in the group. A
    permutation exchanges attributes among the test images of a class, the same for all
    groups and attributes, so that groups overlap and attributes depend as they do.

    Args:
      rng: draws the permutations.
      values: f[t, a].
      classes: i[t].
      groups: one a distilled image.
      num_permutations: r.

    Returns:
      With m = 0 there are no tests.
    """
    members = {label: np.flatnonzero(classes == label) for label in {g[0] for g in groups}}
    orders = {
        # Row 0 is what was found.
        label: np.stack(
            [
                np.arange(len(where)),
                *(rng.permutation(len(where)) for _ in range(num_permutations)),
            ]
        )
        for label, where in sorted(members.items())
    }

    @functools.cache
    def test(label: int, size: int, attribute: int) -> RankTest:
        return RankTest.of(values[members[label], attribute], size)

    rows, p_values = [], []
    for image, (label, group) in enumerate(groups):
        of_class = values[members[label]].astype(np.float64)
        if not 0 < len(group) < len(of_class):
            continue
        others = np.delete(of_class, group, axis=0)
        for attribute in np.flatnonzero(np.ptp(of_class, axis=0) > 0).tolist():
            tested = test(label, len(group), attribute)
            sums = tested.sums(orders[label][:, group])
            p_values.append(tested.p_values(sums))
            rate = of_class[group, attribute].mean()
            base = others[:, attribute].mean()
            rows.append((image, attribute, rate, base, tested.effects(sums[0])))
    if not rows:
        whole, none = np.zeros(0, int), np.zeros(0)
        by_chance = np.zeros(num_permutations, int)
        return Enrichment(
            whole, whole, none, none, none, none, none, none, by_chance, by_chance
        )
    images, attributes, rates, bases, effects = map(np.array, zip(*rows, strict=True))
    p = np.stack(p_values, axis=1)  # [1 + r, m]
    corrected, q = holm(p), stats.false_discovery_control(p, axis=1)
    return Enrichment(
        images,
        attributes,
        rates,
        bases,
        effects,
        p[0],
        corrected[0],
        q[0],
        (corrected[1:] <= ALPHA).sum(axis=1),
        (q[1:] <= ALPHA).sum(axis=1),
    )


def chance_p(found: float, by_chance: np.ndarray) -> float:
    """Returns the one-sided p of a number of findings, (1 + #{>= found}) / (1 + r)."""
    return float((1 + (by_chance >= found).sum()) / (1 + len(by_chance)))


class Coherence(NamedTuple):
    """Similarity of the members of each group."""

    images: np.ndarray  # i[g], whose groups have two members or more
    similarity: np.ndarray  # f64[g], mean cosine of two members
    chance: np.ndarray  # f64[g], mean over random groups of the class
    chance_std: np.ndarray  # f64[g]
    p: np.ndarray  # f64[g], one-sided
    q: np.ndarray  # f64[g], Benjamini and Hochberg


def coherence(
    rng: np.random.Generator,
    features: np.ndarray,
    classes: np.ndarray,
    groups: Sequence[Group],
    num_draws: int = COHERENCE_DRAWS,
) -> Coherence:
    """Compares mean pairwise cosine similarity with random groups of the same class.

    Args:
      rng: draws the groups, `num_draws` for each class and size.
      features: f[t, d]; a row of zeros is like no other.
      classes: i[t].
      groups: one a distilled image.
      num_draws: random groups.
    """
    wide = features.astype(np.float64)
    unit = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-30)

    @functools.cache
    def cosines(label: int) -> np.ndarray:
        of_class = unit[classes == label]
        found = of_class @ of_class.T
        np.fill_diagonal(found, 0)
        return found

    def similarity(label: int, chosen: np.ndarray) -> np.ndarray:
        size = chosen.shape[-1]
        pairs = cosines(label)[chosen[..., :, None], chosen[..., None, :]]
        return pairs.sum(axis=(-1, -2)) / (size * (size - 1))

    @functools.cache
    def by_chance(label: int, size: int) -> np.ndarray:
        num, parts = len(cosines(label)), []
        for start in range(0, num_draws, 500):
            shuffled = rng.random((min(500, num_draws - start), num)).argsort(axis=1)
            parts.append(similarity(label, shuffled[:, :size]))
        return np.concatenate(parts)

    rows = []
    for image, (label, group) in enumerate(groups):
        if len(group) > 1:
            alike, drawn = float(similarity(label, group)), by_chance(label, len(group))
            # The whole class has one group: equal up to rounding.
            chance = chance_p(alike - 1e-12, drawn)
            rows.append((image, alike, drawn.mean(), drawn.std(), chance))
    images, found, means, stds, p = map(np.array, zip(*rows, strict=True))
    return Coherence(images, found, means, stds, p, stats.false_discovery_control(p))
