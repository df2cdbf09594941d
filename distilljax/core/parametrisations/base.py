"""The interface of a parametrisation."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from distilljax.types import DistilledSet


def _as_it_is(distilled: DistilledSet) -> DistilledSet:
    return distilled


class Parametrisation(NamedTuple):
    """A storage format of distilled sets.

    A stored set is a `DistilledSet` whose `images` are a code (a pytree of arrays); it may
    have fewer labels than the images it decodes to.

    Attributes:
      encode: images -> the nearest code.
      decode: differentiable.
      images_per_class: after decoding; None: as many as before encoding.
    """

    encode: Callable[[DistilledSet], DistilledSet]
    decode: Callable[[DistilledSet], DistilledSet]
    images_per_class: int | None


DIRECT = Parametrisation(_as_it_is, _as_it_is, None)


def stored_numbers(stored: DistilledSet) -> int:
    """Returns the number of floats in the code of the images.

    >>> from distilljax.core import distilled
    >>> images = jnp.zeros((2, 8, 8, 1))
    >>> made = distilled.create(images, np.array([0, 1]), 2, learning_rate=0.1)
    >>> base.stored_numbers(made)
    128
    """
    return sum(leaf.size for leaf in jax.tree.leaves(stored.images))
