"""What a parametrisation is."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from distilljax.types import DistilledSet


def _as_it_is(distilled: DistilledSet) -> DistilledSet:
    return distilled


class Parametrisation(NamedTuple):
    """A storage form of distilled sets.

    A stored set is a `DistilledSet` whose `images` are a code (a pytree of arrays) and
    whose labels may be fewer than the images it decodes to.
    """

    encode: Callable[[DistilledSet], DistilledSet]  # images -> the nearest code
    decode: Callable[[DistilledSet], DistilledSet]  # differentiable
    images_per_class: int | None  # that a stored set decodes to; None: as many as given


DIRECT = Parametrisation(_as_it_is, _as_it_is, None)


def stored_numbers(stored: DistilledSet) -> int:
    """How many numbers the code of the images takes."""
    return sum(leaf.size for leaf in jax.tree.leaves(stored.images))
