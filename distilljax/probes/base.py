"""The interface of a probe: a pair of pure functions of a network in training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from distilljax import exported
from distilljax.core import inner
from distilljax.types import Array, Batch, Estimate, Key, Params, RealSet

Source = Batch | RealSet
Quantities = dict[str, Estimate]


@exported.named
class Point(NamedTuple):
    """A point of a training run at which quantities are measured.

    Attributes:
      params: parameters of the network at this point.
      elapsed: f32[], iterations since the last point; 0 at the first.
    """

    params: Params
    elapsed: Array


class Probe(NamedTuple):
    """A measurement along a training run.

    The state holds what later points are compared with; it depends on the first and the
    previous point alone, so that an interrupted run can resume from those two. The same key
    at every point gives common random numbers and hence smooth curves.

    Attributes:
      select: selects examples of a set and of real images to compare it with: (set,
        reference) -> (source, reference). Outside jit, once for all points.
      init: (key, point, source, reference) -> state at the first point.
      measure: (key, state, point, source, reference) -> (state, quantities).
    """

    select: Callable[[Source, Source], tuple[Source, Source]]
    init: Callable[[Key, Point, Source, Source], Any]
    measure: Callable[[Key, Any, Point, Source, Source], tuple[Any, Quantities]]


def stateless(
    function: Callable[[Key, Point, Source], Quantities],
    images: int | None = None,
) -> Probe:
    """Returns a probe without state, on at most `images` examples of a set."""

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
    """Returns arrays with one leading axis, and the function from a slice to a batch."""
    if isinstance(source, Batch):
        return source, lambda part: part

    def read(part: Any) -> Batch:
        images, labels = part
        k = source.class_sizes.shape[0]
        return Batch(source.transform(images), jax.nn.one_hot(labels, k, dtype=jnp.float32))

    return (source.images, source.labels), read


def chunk_size(most: int, num: int, params: Params) -> int:
    """Returns how many of `num` images are computed at a time with those weights.

    At most `most`, and on a CPU as many as fit its cache: at width 32 a forward pass of
    500 images takes a third of the time in chunks of 5. Not for the products of a Lanczos
    iteration: those of one chunk share the forward pass and the gradient.
    """
    return min(most, inner.cache_chunk(num, params) or num)


def subset(source: Source, num: int | None) -> Source:
    """Returns the first examples of each class, about `num` in all, class-balanced.

    Args:
      source: a real set, or a class-ordered, class-balanced batch such as a distilled set.
      num: rounded down to a multiple of the number of classes, at least one image per
        class. None, or at least the size of the source: the source itself.

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
    """Returns an exact value as an estimate without error or probes."""
    value = jnp.asarray(value)
    return Estimate(value, jnp.zeros_like(value), jnp.asarray(0, jnp.int32), of)
