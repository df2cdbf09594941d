"""What a probe is: a pair of pure functions that look at a network in training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from distilljax.types import Array, Batch, Estimate, Key, Params, RealSet

Source = Batch | RealSet
Quantities = dict[str, Estimate]


class Point(NamedTuple):
    """Where a network in training is looked at."""

    params: Params
    elapsed: Array  # f32[], iterations since the last point; 0 at the first


class Probe(NamedTuple):
    """A measurement along a training run.

    The state is what a later point is compared with; it hangs on the first and on the
    last point alone, so that a run that was cut starts again from those two. The same
    key at every point gives common random numbers: smooth curves.
    """

    # What the probe looks at of a set, and of real images to compare it with:
    # (set, reference) -> (source, reference). Outside jit, once for all points.
    select: Callable[[Source, Source], tuple[Source, Source]]
    # (key, point, source, reference) -> state at the first point.
    init: Callable[[Key, Point, Source, Source], Any]
    # (key, state, point, source, reference) -> (state, quantities).
    measure: Callable[[Key, Any, Point, Source, Source], tuple[Any, Quantities]]


def stateless(
    function: Callable[[Key, Point, Source], Quantities],
    images: int | None = None,
) -> Probe:
    """A probe that remembers and compares nothing; of at most `images` of a set."""

    def select(source: Source, reference: Source) -> tuple[Source, Source]:
        chosen = subset(source, images)
        return chosen, chosen

    def init(key: Key, point: Point, source: Source, reference: Source) -> tuple[()]:
        return ()

    def measure(
        key: Key, state: Any, point: Point, source: Source, reference: Source
    ) -> tuple[Any, Quantities]:
        return state, function(key, point, source)

    return Probe(select, init, measure)


def arrays(source: Source) -> tuple[Any, Callable[[Any], Batch]]:
    """Arrays with one leading axis, and what makes a batch of part of them."""
    if isinstance(source, Batch):
        return source, lambda part: part

    def read(part: Any) -> Batch:
        images, labels = part
        k = source.class_sizes.shape[0]
        return Batch(source.transform(images), jax.nn.one_hot(labels, k, dtype=jnp.float32))

    return (source.images, source.labels), read


def subset(source: Source, num: int | None) -> Source:
    """About `num` examples, the first of each class, as many of each.

    Args:
      source: a real set, or a class-ordered batch with as many images of each class, as
        distilled sets are.
      num: a multiple of the classes, else rounded down to one, but not below one image of
        each class. None, or as many as there are: the source itself.

    Returns:
      The source, or a preprocessed batch of that size.
    """
    if num is None or num >= source.labels.shape[0]:
        return source
    if isinstance(source, Batch):
        total, k = source.labels.shape
        first = jnp.arange(k)[:, None] * (total // k)
        chosen = (first + jnp.arange(max(1, num // k))).reshape(-1)
        return jax.tree.map(lambda x: x[chosen], source)
    k = source.class_sizes.shape[0]
    chosen = source.class_index[:, : max(1, num // k)].reshape(-1)
    _, read = arrays(source)
    return read((source.images[chosen], source.labels[chosen]))


def exact(value: Array, of: str) -> Estimate:
    """A figure that no probe had a part in."""
    value = jnp.asarray(value)
    return Estimate(value, jnp.zeros_like(value), jnp.asarray(0, jnp.int32), of)
