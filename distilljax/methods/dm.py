"""Distribution matching (`dm`; Zhao & Bilen 2023, arXiv 2110.04181).

The class means of distilled and real images are matched in the feature space of a new
random network psi (eq. 5), under one siamese augmentation A:

    min_S  E_psi  sum_j || mean psi(A(real_j)) - mean psi(A(S_j)) ||^2

Departures: none known. Published settings: 256 real images per class, DSA, SGD with
learning rate 1 (10 above 50 images per class) and momentum 0.5, 20,000 iterations.
"""

import dataclasses

import jax

from distilljax import checks
from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.core import inner, sampling
from distilljax.core.augment import DSA, augment, parse
from distilljax.core.distances import class_mean_gap
from distilljax.core.outer import Method, descent, from_outer_loss, per_field
from distilljax.core.parametrisations import DIRECT, Parametrisation
from distilljax.core.scan import pieces, summed
from distilljax.types import Array, DistilledSet, Key, Model, Params, RealSet

SOURCE = "real"

# Settings to lower when the outer loss diverges, in this order.
LOWER = ("image_lr", "image_momentum")


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Settings of `dm`."""

    real_batch: int = option(256, "Real images per class.", low=1)
    augment: str = option(DSA, "Siamese augmentation; empty for none.")
    image_lr: float = option(1.0, "Outer SGD learning rate of the images.", above=0)
    image_momentum: float = option(0.5, "Outer momentum.", low=0, high=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        parse(self.augment)


def make(config: Config, model: Model, parametrisation: Parametrisation = DIRECT) -> Method:
    """Returns the method; its source is a `RealSet`, its distilled set is class-ordered."""

    def outer_loss(
        distilled: DistilledSet, key: Key, aux: tuple, real: RealSet
    ) -> tuple[Array, tuple]:
        checks.same_classes(distilled, real)
        init_key, batch_key, augment_key = jax.random.split(key, 3)
        params = model.init(init_key)
        k = distilled.label_logits.shape[1]

        def features(params: Params, images: Array) -> Array:
            images = augment(augment_key, images, strategy=config.augment, siamese=True)
            return model.features(params, images)

        def gap(params: Params, classes: tuple[Array, Array]) -> Array:
            ours, targets = classes
            found = features(params, ours.reshape(-1, *ours.shape[2:]))
            return class_mean_gap(found.reshape(*ours.shape[:2], -1), targets)

        drawn = sampling.class_batch(batch_key, real, config.real_batch)
        drawn = drawn.reshape(-1, *drawn.shape[2:])
        num = len(drawn)
        parts = inner.filled(drawn, inner.cache_chunk(num) or num)
        theirs = jax.lax.map(lambda x: features(params, x), parts)
        theirs = theirs.reshape(-1, theirs.shape[-1])[:num].reshape(k, -1, theirs.shape[-1])
        ours = pieces(distilled.images, len(distilled.images) // k)
        together = inner.cache_groups(k, ours.shape[1])
        return summed(gap, params, pieces((ours, theirs), together)), aux

    def check(key: Key, distilled: DistilledSet) -> None:
        checks.network(model, key, distilled, "features")
        checks.certain_order(distilled, "dm")

    rule = descent("sgd", config.image_lr, config.image_momentum)
    return from_outer_loss(
        outer_loss,
        per_field(images=rule),
        parametrisation=parametrisation,
        check=check,
    )
