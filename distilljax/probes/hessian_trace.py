"""The trace of the Hessian of the mean loss on a set (Yang et al. 2024, sec. 4.3).

Departures: the paper stops when the running mean converges; here the number of probes is
fixed and the standard error is reported. The probes are the same at every point of a run,
so that curves are smooth without a moving average. On a set of more than `batch` images
each probe uses its own random batch, and the standard error includes that choice.
"""

import dataclasses
import functools
from typing import Literal

from jax.sharding import Mesh

from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.core.losses import cross_entropy
from distilljax.curvature import hessian
from distilljax.probes.base import (
    Point,
    Probe,
    Quantities,
    Source,
    arrays,
    chunk_size,
    stateless,
)
from distilljax.types import Key, Model


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Trace of the Hessian."""

    num_probes: int = option(100, "Number of random probes.", low=1)
    batch: int | None = option(
        50, "Images per probe, sampled from a larger set; none: all images.", low=1
    )
    chunk: int = option(
        100,
        "Images computed at a time, at most: a CPU takes fewer where that is faster.",
        low=1,
    )
    kind: Literal["rademacher", "gaussian"] = option(
        "rademacher", "Distribution of the probes."
    )
    together: int = option(1, "Probes vmapped at a time.", low=1)


def make(config: Config, model: Model, mesh: Mesh | None = None) -> Probe:
    """Returns the probe; one quantity, `hessian_trace`."""
    loss_fn = cross_entropy(model.apply)

    def measure(key: Key, point: Point, source: Source) -> Quantities:
        data, read = arrays(source)
        num = hessian.num_examples(data)
        batch = num if config.batch is None else min(config.batch, num)
        estimate = (
            hessian.trace
            if batch == num
            else functools.partial(hessian.batch_trace, batch=batch)
        )
        found = estimate(
            loss_fn,
            point.params,
            data,
            key,
            num_probes=config.num_probes,
            kind=config.kind,
            chunk=chunk_size(config.chunk, batch, point.params),
            read=read,
            together=config.together,
            mesh=mesh,
        )
        return {"hessian_trace": found}

    return stateless(measure)
