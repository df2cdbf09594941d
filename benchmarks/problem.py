"""Random data, models and experts for benchmarks.

Speed and memory do not depend on the content of images or experts.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import data
from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.core.parameters import Trajectories
from distilljax.models import convnet
from distilljax.types import DistilledSet, Model

NUM_CLASSES, PER_CLASS = 10, 300
NUM_EXPERTS = 2


@dataclasses.dataclass(frozen=True)
class ProblemOptions(Base):
    """Sizes of a problem."""

    ipc: int = option(1, "Distilled images per class, of ten classes.", low=1)
    width: int = option(32, "Width of the ConvNet of depth 3.", low=1)
    size: int = option(28, "Height and width of the images.", low=8)
    channels: int = option(1, "Number of image channels.", low=1, high=3)


class Problem(NamedTuple):
    """Model, data and initial set of a method."""

    model: Model
    start: DistilledSet
    sources: dict[str, Any]  # by `SOURCE` of a method


def make(
    config: ProblemOptions, num_epochs: int = 8, num_classes: int = NUM_CLASSES
) -> Problem:
    """Returns a problem of the given sizes; experts have `num_epochs` epochs."""
    rng = np.random.default_rng(0)
    shape = (config.size, config.size, config.channels)
    labels = np.repeat(np.arange(num_classes, dtype=np.int32), PER_CLASS)
    pixels = rng.integers(0, 256, (len(labels), *shape)).astype(np.uint8)
    split = data.Split(pixels, labels)
    transform = data.fit("normalise", split.images)
    model = convnet.make(convnet.Config(width=config.width), shape, num_classes)
    chosen = data.subset(split, config.ipc, seed=0)
    start = distilled_set.create(
        transform(jnp.asarray(chosen.images)),
        jnp.asarray(chosen.labels),
        num_classes,
        learning_rate=0.01,
    )
    keys = jax.random.split(jax.random.key(2), NUM_EXPERTS)
    first = jax.vmap(lambda key: parameters.flatten(model.init(key)))(keys)
    steps = 0.01 * jax.random.normal(keys[0], (NUM_EXPERTS, num_epochs, first.shape[1]))
    walk = first[:, None] + jnp.cumsum(steps, axis=1)
    return Problem(
        model,
        start,
        {
            "real": data.on_device(split, transform, num_classes),
            "experts": Trajectories(walk, jnp.asarray(0, jnp.int32)),
        },
    )
