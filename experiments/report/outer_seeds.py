"""Readings of several studies that differ in their seed, joined over outer seeds.

Every number becomes the mean over the studies, with Student's interval over them: it holds
the choice of the distilled set as well as that of the networks and of random real images,
since each study distilled its sets and drew networks and images by a seed of its own. Where
all studies agree to the last digit it is the widest of their own. One-sided p-values become
one by Stouffer's method, sum of z / sqrt(number of studies).
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distilljax.analysis.statistics import student
from distilljax.types import InputError
from experiments.lab.claims import (
    Claim,
    Every,
    Node,
    Reading,
    Record,
    Some,
    Verdict,
    all_readings,
    spelt,
)

_LEAST_P = 1e-300  # of which z is still finite


def judge(claim: Claim, studies: Sequence[Sequence[Record[Any]]]) -> Verdict:
    """Returns the verdict on a claim over the records of one study, or of several."""
    nodes = [claim.node(records) for records in studies]
    return claim.verdict(joined(nodes))


def joined(nodes: Sequence[Node]) -> Node:
    """Returns the first node with every reading joined with those of the others.

    Readings belong together by their place, where all nodes have the same methods in the
    same places, otherwise by method and `where`; what a study lacks has no value, and
    what the first lacks is added to it.

    Raises:
      InputError: readings that cannot be told apart.
    """
    first, *others = nodes
    if not others:
        return first
    leaves = [all_readings(node) for node in nodes]
    same_places = len({tuple(one.method for one in of) for of in leaves}) == 1
    if same_places:
        rows = [list(row) for row in zip(*leaves, strict=True)]
    else:
        _check_apart(leaves)
        keyed = [{(one.method, one.where): one for one in of} for of in leaves]
        keys = dict.fromkeys(key for of in keyed for key in of)
        rows = [[of[key] for of in keyed if key in of] for key in keys]
        if more := [row[0] for row in rows[len(leaves[0]) :]]:
            first = Every([first, *more])
    found = iter([_joined(row, len(nodes)) for row in rows])
    return _replaced(first, lambda: next(found))


def _check_apart(leaves: Sequence[Sequence[Reading]]) -> None:
    for of in leaves:
        counts = Counter((one.method, one.where) for one in of)
        if twice := [key for key, number in counts.items() if number > 1]:
            method, where = twice[0]
            raise InputError(
                f"outer seeds: two sets of {method} {where}, and not in all of the "
                "studies; give studies of the same sets"
            )


def _replaced(node: Node, following: Callable[[], Reading]) -> Node:
    """Returns the node with the following readings in place of its own, in order."""
    if isinstance(node, Reading):
        return following()
    parts = [_replaced(part, following) for part in node.parts]
    return Every(parts) if isinstance(node, Every) else Some(parts)


def _joined(row: Sequence[Reading], number: int) -> Reading:
    first = row[0]
    values = [one.value for one in row if one.value is not None]
    wheres = list(dict.fromkeys(one.where for one in row))
    reading = first._replace(
        value=None,
        interval=None,
        p=None,
        p_other=None,
        where=wheres[0] if len(wheres) == 1 else "",
        n=f"{number} outer seeds",
        note="" if len(wheres) == 1 else "; ".join(wheres),
    )
    if not any(one.folder for one in row):
        return reading._replace(n="")
    if len(values) < number:
        return reading._replace(
            n="", note=f"a number in {len(values)} of {number} studies alone"
        )
    each = ", ".join(spelt(value, first.unit) for value in values)
    if all(one.p is not None for one in row):
        p = stouffer([one.p for one in row if one.p is not None])
        others = [one.p_other for one in row if one.p_other is not None]
        other = stouffer(others) if len(others) == number else None
        return reading._replace(value=p, p=p, p_other=other, note=each)
    array = np.array(values, np.float64)
    interval = student(array)
    own = [one.interval for one in row if one.interval is not None]
    if interval is None and len(own) == number:
        interval = max(own, key=lambda one: one.high - one.low)
    return reading._replace(
        value=float(array.mean()),
        interval=interval,
        note="; ".join(filter(None, (reading.note, each))),
    )


def stouffer(p_values: Sequence[float]) -> float:
    """Returns the one-sided p-value of independent ones, by Stouffer's method."""
    from scipy.special import ndtr, ndtri

    z = [ndtri(min(max(p, _LEAST_P), 1 - 1e-16)) for p in p_values]
    return float(ndtr(sum(z) / math.sqrt(len(z))))


def check(folders: Sequence[str], studies: Sequence[Sequence[Record[Any]]]) -> list[int]:
    """Returns the seed of each study.

    Args:
      folders: of the studies.
      studies: the records in each.

    Raises:
      InputError: other data, several seeds in one, or one seed in two of them.
    """
    data = {of[0].summary["dataset"]["fingerprint"] for of in studies}
    if len(data) > 1:
        raise InputError("outer seeds: the studies are of different data; name others")
    found: list[int] = []
    for folder, records in zip(folders, studies, strict=True):
        seeds = {int(record.config.get("seed", 0)) for record in records}
        if len(seeds) > 1:
            raise InputError(
                f"{folder}: its runs have the seeds {_listed(sorted(seeds))}; name a study "
                "of one, experiments.study --sets=distil --seed=N"
            )
        found += seeds
    if len(set(found)) < len(found):
        raise InputError(
            f"outer seeds: the studies have the seeds {_listed(found)}, each must have its "
            "own; experiments.study --sets=distil --seed=N"
        )
    return found


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
