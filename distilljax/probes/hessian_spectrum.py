"""The spectral density of the Hessian of the mean loss on a set.

Stochastic Lanczos quadrature (Ghorbani, Krishnan & Xiao 2019, arXiv 1901.10159).
"""

import dataclasses

import jax.numpy as jnp
from jax.sharding import Mesh

from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.core.losses import cross_entropy
from distilljax.curvature import estimators, hessian
from distilljax.probes.base import (
    Point,
    Probe,
    Quantities,
    Source,
    arrays,
    exact,
    stateless,
)
from distilljax.types import Key, Model


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Spectral density of the Hessian."""

    num_probes: int = option(4, "Number of random start vectors.", low=1)
    num_iters: int = option(
        30, "Lanczos iterations, one Hessian-vector product each.", low=2
    )
    images: int | None = option(
        500, "Maximum number of images, class-balanced; none: all.", low=1
    )
    chunk: int = option(100, "Images computed at a time.", low=1)


def make(config: Config, model: Model, mesh: Mesh | None = None) -> Probe:
    """Returns the probe.

    Quantities `nodes` and `weights`, f32[num_probes, num_iters], the quadrature of each
    probe (input of `estimators.smoothed_density`); `mean` and `root_mean_square` of the
    eigenvalues.
    """
    loss_fn = cross_entropy(model.apply)

    def measure(key: Key, point: Point, source: Source) -> Quantities:
        data, read = arrays(source)
        found = estimators.spectral_density(
            hessian.hvp(
                loss_fn, point.params, data, chunk=config.chunk, read=read, mesh=mesh
            ),
            key,
            point.params,
            num_probes=config.num_probes,
            num_iters=config.num_iters,
        )
        over = estimators.mean_over_spectrum
        square = over(found, jnp.square, "root mean square eigenvalue of the Hessian")
        root = jnp.sqrt(square.value)
        return {
            "nodes": exact(found.nodes, "nodes of each probe's quadrature"),
            "weights": exact(found.weights, "weights of each probe's quadrature"),
            "mean": over(found, lambda x: x, "mean eigenvalue of the Hessian"),
            "root_mean_square": dataclasses.replace(
                square, value=root, standard_error=square.standard_error / (2 * root)
            ),
        }

    return stateless(measure, config.images)
