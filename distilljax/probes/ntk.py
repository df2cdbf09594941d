"""The empirical neural tangent kernel of a network on a set, along training.

The kernel is K(x, x') = J(x) . J(x') / k, the mean over the k outputs. Its distance from
the first point and its change from the last one are 1 - <K, K'> / (|K| |K'|) (Fort et
al. 2020, arXiv 2010.15110); alignment with the labels is <K, Y Y^T> / (|K| |Y Y^T|)
(Cristianini et al. 2002), centred after Cortes, Mohri & Rostamizadeh (2012).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from distilljax import exported
from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.curvature import kernels
from distilljax.curvature.ntk import empirical_ntk
from distilljax.probes.base import (
    Point,
    Probe,
    Quantities,
    Source,
    arrays,
    exact,
    subset,
)
from distilljax.types import Array, Batch, Key, Model


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Empirical neural tangent kernel."""

    images: int = option(100, "Maximum number of images of a set, class-balanced.", low=1)
    reference: int = option(
        100, "Number of real images to compare with, class-balanced.", low=1
    )
    ridge: float = option(
        1e-3, "Ridge of the kernel regression, relative to the mean diagonal.", above=0
    )
    block: int | None = option(
        None,
        "Images whose Jacobians are in memory at a time; none: 256 MiB of them.",
        low=1,
    )


@exported.named
class State(NamedTuple):
    """Kernels of the first and the previous point.

    Attributes:
      first: f32[n, n].
      last: f32[n, n].
    """

    first: Array
    last: Array


def make(config: Config, model: Model, mesh: Mesh | None = None) -> Probe:
    """Returns the probe.

    Quantities, on the set unless said otherwise:
      distance: from the kernel of the first point, in [0, 1];
      velocity: distance from the kernel of the previous point, per iteration;
      label_alignment, centred_label_alignment: alignment with the labels;
      real_alignment: centred alignment of the kernel between class means with that of the
        reference, real images not in the training set;
      effective_rank: exp of the entropy of the spectrum (Roy & Vetterli 2007);
      condition_number: largest over smallest eigenvalue;
      linearised_accuracy: accuracy on the reference of kernel ridge regression on the set,
        that is, of the network linearised at its current parameters and trained on the set.
    """

    def batch(source: Source) -> Batch:
        data, read = arrays(source)
        return read(data)

    def select(source: Source, reference: Source) -> tuple[Source, Source]:
        return subset(source, config.images), subset(reference, config.reference)

    def kernel(params: Any, x: Array, y: Array | None = None) -> Array:
        found = empirical_ntk(
            model.apply, params, x, y, form="trace", block=config.block, mesh=mesh
        )
        return found / jax.eval_shape(model.apply, params, x).shape[1]

    def init(key: Key, point: Point, source: Source, reference: Source) -> State:
        k = kernel(point.params, batch(source).images)
        return State(k, k)

    def measure(
        key: Key, state: State, point: Point, source: Source, reference: Source
    ) -> tuple[State, Quantities]:
        support, real = batch(source), batch(reference)
        k_ss = kernel(point.params, support.images)
        k_rr = kernel(point.params, real.images)
        k_rs = kernel(point.params, real.images, support.images)
        change = kernels.kernel_distance(k_ss, state.last)
        eigenvalues = kernels.spectrum(k_ss)
        predicted = kernels.predict_linearised(
            k_ss,
            k_rs,
            support.labels - 1 / support.labels.shape[1],
            model.apply(point.params, support.images),
            model.apply(point.params, real.images),
            ridge=config.ridge,
        )
        right = jnp.argmax(predicted, -1) == jnp.argmax(real.labels, -1)
        between = [
            kernels.class_means(k, data.labels)
            for k, data in ((k_ss, support), (k_rr, real))
        ]
        found = {
            "distance": kernels.kernel_distance(k_ss, state.first),
            "velocity": jnp.where(
                point.elapsed > 0, change / jnp.maximum(point.elapsed, 1), 0.0
            ),
            "label_alignment": kernels.label_alignment(k_ss, support.labels),
            "centred_label_alignment": kernels.label_alignment(
                k_ss, support.labels, centred=True
            ),
            "real_alignment": kernels.alignment(*between, centred=True),
            "effective_rank": kernels.effective_rank(eigenvalues),
            "condition_number": kernels.condition_number(eigenvalues),
            "linearised_accuracy": right.mean(dtype=k_ss.dtype),
        }
        quantities = {
            name: exact(value, f"NTK, {name.replace('_', ' ')}")
            for name, value in found.items()
        }
        return State(state.first, k_ss), quantities

    return Probe(select, init, measure)
