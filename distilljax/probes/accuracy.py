"""Recognition: accuracy and loss of a network on a set (Yang et al. 2024, sec. 4.2)."""

import dataclasses

import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.curvature.hessian import mean_over, num_examples
from distilljax.probes.base import (
    Point,
    Probe,
    Quantities,
    Source,
    arrays,
    chunk_size,
    exact,
    stateless,
)
from distilljax.types import Array, Batch, Key, Model


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Accuracy and loss."""

    images: int | None = option(
        None, "Maximum number of images, class-balanced; none: all.", low=1
    )
    chunk: int = option(
        500,
        "Images computed at a time, at most: a CPU takes fewer where that is faster.",
        low=1,
    )


def make(config: Config, model: Model, mesh: Mesh | None = None) -> Probe:
    """Returns the probe; quantities `accuracy`, in [0, 1], and `loss`, mean cross-entropy.

    The class of a soft label is that of its largest entry. Both quantities are exact on the
    images used.
    """

    def measure(key: Key, point: Point, source: Source) -> Quantities:
        def both(batch: Batch) -> Array:
            logits = model.apply(point.params, batch.images)
            right = jnp.argmax(logits, -1) == jnp.argmax(batch.labels, -1)
            loss = optax.losses.softmax_cross_entropy(logits, batch.labels)
            return jnp.stack([right.mean(dtype=loss.dtype), loss.mean()])

        data, read = arrays(source)
        chunk = chunk_size(config.chunk, num_examples(data), point.params)
        found = mean_over(both, data, chunk=chunk, read=read, mesh=mesh)
        return {
            "accuracy": exact(found[0], "accuracy"),
            "loss": exact(found[1], "mean cross-entropy"),
        }

    return stateless(measure, config.images)
