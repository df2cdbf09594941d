"""Distribution matching (`dm`; Zhao & Bilen 2023, arXiv 2110.04181).

The class means of distilled and real images are matched in the feature space of a new
random network psi (eq. 5), under a siamese augmentation A_j, drawn for each class:

    min_S  E_psi  sum_j || mean psi(A_j(real_j)) - mean psi(A_j(S_j)) ||^2

With `match=characteristic` the characteristic functions of features of unit length are
compared in place of the means, at `frequencies` Gaussian t (NCFM, Wang et al. 2025, arXiv
2502.20653; see `core.distances.characteristic_gap`):

    min_S  E_psi  300 sum_j mean_t gap_j(t)

Departures: `scale` and `rotate` sample with the corners of images aligned, the code of the
authors with their edges, PyTorch's default; no other is known of distribution matching.
NCFM's networks lie between the start and the end of training, its classes take a step each,
it adds the cross-entropy of a trained network, and has 4,096 frequencies and Adam with
weight decay: here networks are random and untrained, and there is the gap alone. Published
settings of `dm`: 256 real images per class, DSA, SGD with learning rate 1 (10 above 50
images per class) and momentum 0.5, 20,000 iterations.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from distilljax import checks, devices, platforms
from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.core import inner, sampling
from distilljax.core.augment import DSA, Augmentation, augment, parse
from distilljax.core.distances import characteristic_gap, class_mean_gap
from distilljax.core.outer import (
    Descent,
    Method,
    Optimizers,
    OuterLoss,
    from_outer_loss,
    method_rules,
)
from distilljax.core.parametrisations import DIRECT, Parametrisation
from distilljax.core.scan import pieces, spread_sum
from distilljax.types import Array, DistilledSet, Key, Model, Params, RealSet

SOURCE = "real"
WEIGHT = 300.0  # of the gap of characteristic functions

# Settings to lower when the outer loss diverges, in this order.
LOWER = ("image_lr", "image_momentum")


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Settings of `dm`."""

    real_batch: int = option(256, "Real images per class.", low=1)
    augment: str = option(DSA, "Siamese augmentation; empty for none.")
    image_lr: float = option(1.0, "Outer SGD learning rate of the images.", above=0)
    image_momentum: float = option(0.5, "Outer momentum.", low=0, high=1)
    match: Literal["means", "characteristic"] = option(
        "means", "Means of features, or their characteristic functions (NCFM)."
    )
    frequencies: int = option(
        1024,
        "Frequencies in each step.",
        low=1,
        selected_by=("match", "characteristic"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        parse(self.augment)


def outer_loss(
    config: Config,
    model: Model,
    augmentation: Augmentation | None = None,
    mesh: Mesh | None = None,
) -> OuterLoss:
    """Returns the distance of features, by `config.match`; aux is unchanged.

    >>> from distilljax.models import mlp
    >>> loss = dm.outer_loss(dm.Config(augment=""), mlp.make(mlp.Config(), (8, 8, 1), 2))

    Args:
      config: settings; those of outer optimizers are not read.
      model: the network.
      augmentation: siamese, in place of `config.augment`.
      mesh: devices that share the classes.
    """
    checks.settings(config, Config, model)
    strategy = config.augment if augmentation is None else augmentation

    def siamese(given: tuple[Key, Array]) -> Array:
        key, images = given
        return augment(key, images, strategy=strategy, siamese=True)

    def compute(
        distilled: DistilledSet, key: Key, aux: tuple, real: RealSet
    ) -> tuple[Array, tuple]:
        checks.same_classes(distilled, real)
        init_key, batch_key, augment_key = jax.random.split(key, 3)
        params = model.init(init_key)
        k = distilled.label_logits.shape[1]
        class_keys = jax.random.split(augment_key, k)

        def gap(
            shared: tuple[Params, Array], classes: tuple[Key, Array, Array], counts: Array
        ) -> Array:
            (params, frequencies), (keys, ours, targets) = shared, classes
            images = ours
            if strategy:
                # Vmapped classes compute every operation: on a CPU they take turns.
                together = None if platforms.on_cpu() else len(ours)
                images = jax.lax.map(siamese, (keys, ours), batch_size=together)
            found = model.features(params, images.reshape(-1, *ours.shape[2:]))
            found = found.reshape(*ours.shape[:2], -1)
            if config.match == "means":
                found, targets = (
                    jnp.where(counts[:, None, None], x, 0) for x in (found, targets)
                )
                return class_mean_gap(found, targets)
            gaps = jax.vmap(characteristic_gap, (0, 0, None))
            each = gaps(_unit(found), _unit(targets), frequencies)
            return WEIGHT * jnp.where(counts, each, 0).sum()

        def real_features(given: tuple[Key, Array]) -> Array:
            key, positions = given
            num = len(positions)
            parts = inner.filled(positions, inner.cache_chunk(num, params) or num)

            def features(part: Array) -> Array:
                images = siamese((key, sampling.take(real, part).images))
                return model.features(params, images)

            found = jax.lax.map(features, parts)
            return found.reshape(-1, found.shape[-1])[:num]

        drawn = sampling.class_positions(batch_key, real, config.real_batch)
        if mesh is None and not strategy:
            theirs = real_features((augment_key, drawn.reshape(-1)))
            theirs = theirs.reshape(*drawn.shape, -1)
        else:
            theirs = devices.spread(real_features, (class_keys, drawn), mesh)
        ours = pieces(distilled.images, len(distilled.images) // k)
        together = inner.cache_groups(-(-k // devices.size(mesh)), ours.shape[1], params)
        shape = (config.frequencies if config.match == "characteristic" else 0,)
        frequencies = jax.random.normal(
            jax.random.fold_in(key, 3), (*shape, theirs.shape[-1]), theirs.dtype
        )
        shared, classes = (params, frequencies), (class_keys, ours, theirs)
        return spread_sum(gap, shared, classes, mesh, together=together), aux

    return compute


def make(
    config: Config,
    model: Model,
    parametrisation: Parametrisation = DIRECT,
    *,
    optimizers: Optimizers | None = None,
    augmentation: Augmentation | None = None,
    mesh: Mesh | None = None,
) -> Method:
    """Returns the method; its source is a `RealSet`, its distilled set is class-ordered.

    >>> from distilljax.models import mlp
    >>> method = dm.make(dm.Config(real_batch=8), mlp.make(mlp.Config(), (8, 8, 1), 2))

    Args:
      config: settings.
      model: the network.
      parametrisation: how the set is stored.
      optimizers: in place of those of `config`.
      augmentation: siamese, in place of `config.augment`.
      mesh: devices that share the classes.
    """
    checks.settings(config, Config, model)

    def check(key: Key, distilled: DistilledSet) -> None:
        checks.network(model, key, distilled, "features")
        checks.certain_order(distilled, "dm")

    rule = Descent("sgd", config.image_lr, config.image_momentum)
    return from_outer_loss(
        outer_loss(config, model, augmentation, mesh),
        method_rules("dm", optimizers, images=rule),
        parametrisation=parametrisation,
        check=check,
    )


def _unit(features: Array) -> Array:
    """Returns features f32[..., d] of unit length; those that are zero stay zero."""
    square = jnp.square(features).sum(axis=-1, keepdims=True)
    return features / jnp.sqrt(jnp.where(square > 0, square, 1.0))
