"""The largest and the smallest eigenvalues of the Hessian of the mean loss on a set.

Lanczos with full reorthogonalisation (see `distilljax.curvature.estimators`). The
residual |H v - value v| is reported as the standard error of an eigenvalue: an eigenvalue
of the Hessian lies at most that far away.
"""

import dataclasses

import jax.numpy as jnp
from jax.sharding import Mesh

from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.core.losses import cross_entropy
from distilljax.curvature import estimators, hessian
from distilljax.probes.base import (
    Point,
    Probe,
    Quantities,
    Source,
    arrays,
    stateless,
)
from distilljax.types import Estimate, Key, Model


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Extreme eigenvalues of the Hessian."""

    top: int = option(3, "Number of largest eigenvalues.", low=1)
    bottom: int = option(1, "Number of smallest eigenvalues.", low=0)
    num_iters: int = option(
        20, "Lanczos iterations, one Hessian-vector product each.", low=2
    )
    images: int | None = option(
        500, "Maximum number of images, class-balanced; none: all.", low=1
    )
    chunk: int = option(100, "Images computed at a time.", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top + self.bottom > self.num_iters:
            reason = f"finds no more than that many values, not {self.top} + {self.bottom}"
            raise FieldError("num_iters", self.num_iters, reason)


def make(config: Config, model: Model, mesh: Mesh | None = None) -> Probe:
    """Returns the probe; `top_1`, ... from the largest down, `bottom_1`, ... up."""
    loss_fn = cross_entropy(model.apply)

    def measure(key: Key, point: Point, source: Source) -> Quantities:
        data, read = arrays(source)
        found = estimators.extreme_eigenpairs(
            hessian.hvp(
                loss_fn, point.params, data, chunk=config.chunk, read=read, mesh=mesh
            ),
            key,
            point.params,
            top=config.top,
            bottom=config.bottom,
            num_iters=config.num_iters,
        )
        names = [f"top_{i + 1}" for i in range(config.top)]
        names += [f"bottom_{i}" for i in range(config.bottom, 0, -1)]
        return {
            name: Estimate(
                found.values[i],
                found.residuals[i],
                jnp.asarray(1, jnp.int32),
                "eigenvalue of the Hessian; its error is the residual, a bound",
            )
            for i, name in enumerate(names)
        }

    return stateless(measure, config.images)
