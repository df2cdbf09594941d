"""Back-propagation through the inner loop (`bptt`).

A fresh network is trained on the distilled set for T steps; the outer loss is its
cross-entropy on a batch of real data, differentiated through the training:

    min_S  E_{w_0} [ L_real(w_T) ],   w_{t+1} = w_t - eta grad L_S(w_t)

Wang et al. 2018 (arXiv 1811.10959, eq. 3); with momentum and long unrolls Deng &
Russakovsky 2022 (arXiv 2206.02916). A window of W < T differentiates the last W steps
only; a window that ends at a random step is RaT-BPTT (Feng et al. 2023, arXiv
2310.04295, algorithm 1).

Departures: the inner learning rate can be learned, through its logarithm. Batches of
real data are sampled over all classes, not a fixed number per class. The last minibatch
of a permutation of the distilled set is as large as the others. Inner Adam divides by
sqrt(v + 1e-16) + 1e-8: the derivative of sqrt(v) is infinite for a weight that never had
a gradient, as behind a dead ReLU, and would make the meta-gradient NaN.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from distilljax import checks
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.core import distilled as distilled_set
from distilljax.core import inner, losses, sampling
from distilljax.core.augment import augment, parse
from distilljax.core.outer import (
    Method,
    clip_by_running_norm,
    descent,
    from_outer_loss,
    per_field,
)
from distilljax.core.parametrisations import DIRECT, Parametrisation
from distilljax.core.scan import Remat, summed
from distilljax.types import Array, DistilledSet, Key, Model, RealSet

SOURCE = "real"
ADAM_EPS_ROOT = inner.EPS_ROOT

# Settings to lower when the outer loss diverges, in this order.
LOWER = ("image_lr", "inner_lr", "lr_lr", "label_lr", "clip")
# Options that draw so many different images of the whole set.
DRAWN = ("real_batch",)


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Settings of `bptt`."""

    unroll: int = option(15, "Number of inner steps.", low=1)
    window: int | None = option(
        None, "Differentiated steps at the end of the unroll; none: all.", low=1
    )
    random_window: bool = option(
        False, "End the window at a random step from window to unroll (RaT-BPTT)."
    )
    inner_batch: int | None = option(
        None, "Batch size of an inner step; none: the whole distilled set.", low=1
    )
    inner: Literal["sgd", "momentum", "adam"] = option("momentum", "Inner optimizer.")
    inner_lr: float = option(0.02, "Initial inner learning rate.", above=0)
    inner_momentum: float = option(0.9, "Momentum of inner=momentum.", low=0, high=1)
    real_batch: int = option(256, "Batch size of real images in the outer loss.", low=1)
    augment: str = option("", "Augmentation of the real batch, such as flip_rotate.")
    outer: Literal["adam", "sgd"] = option("adam", "Outer optimizer.")
    image_lr: float = option(0.1, "Outer learning rate of the images.", above=0)
    label_lr: float = option(
        0.0, "Outer learning rate of the label logits; 0: not learned.", low=0
    )
    lr_lr: float = option(
        0.0, "Outer learning rate of log inner_lr; 0: not learned.", low=0
    )
    momentum: float = option(0.5, "Momentum of outer=sgd.", low=0, high=1)
    clip: float = option(2.0, "Maximum norm of a meta-gradient.", above=0)
    clip_running: bool = option(
        False, "Clip at a multiple of the running mean norm (RaT-BPTT)."
    )
    remat: Remat = option("step", "Rematerialisation policy of the inner loop.")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse(self.augment)
        if self.window is not None and self.window > self.unroll:
            reason = f"cannot exceed unroll={self.unroll}; lower one or raise the other"
            raise FieldError("window", self.window, reason)
        if self.random_window and self.window in (None, self.unroll):
            raise FieldError("random_window", True, "needs a window smaller than unroll")


def inner_optimizer(config: Config, learning_rate: Array) -> optax.GradientTransformation:
    """Returns the inner optimizer for a learning rate, which may be traced."""
    if config.inner == "adam":
        return optax.adam(learning_rate, eps_root=ADAM_EPS_ROOT)
    momentum = config.inner_momentum if config.inner == "momentum" else None
    return optax.sgd(learning_rate, momentum=momentum)


def make(config: Config, model: Model, parametrisation: Parametrisation = DIRECT) -> Method:
    """Returns the method; its source is a `RealSet`."""
    loss_fn = losses.cross_entropy(model.apply)

    def outer_loss(
        distilled: DistilledSet, key: Key, aux: tuple, real: RealSet
    ) -> tuple[Array, tuple]:
        checks.same_classes(distilled, real)
        init_key, window_key, batch_key, augment_key, order_key = jax.random.split(key, 5)
        optimizer = inner_optimizer(config, jnp.exp(distilled.log_lr))
        state = inner.init(model.init(init_key), optimizer)

        positions, sample_batch = sampling.minibatches(
            order_key,
            distilled_set.as_batch(distilled),
            config.inner_batch,
            config.unroll,
        )
        chunk = inner.cache_chunk(positions.shape[1])
        if config.window is None or config.window == config.unroll:
            state, _ = inner.unroll(
                loss_fn,
                optimizer,
                sample_batch,
                state,
                positions,
                remat=config.remat,
                chunk=chunk,
            )
        else:
            latest = config.unroll - config.window
            start = (
                jax.random.randint(window_key, (), 0, latest + 1, jnp.int32)
                if config.random_window
                else latest
            )
            state, _ = inner.truncated_unroll(
                loss_fn,
                optimizer,
                sample_batch,
                state,
                positions,
                start=start,
                window=config.window,
                remat=config.remat,
                chunk=chunk,
            )
        batch = sampling.batch(batch_key, real, config.real_batch)
        images = augment(augment_key, batch.images, strategy=config.augment)
        num = len(images)
        chunk = inner.cache_chunk(num) or num
        term, parts = inner.terms(loss_fn, batch._replace(images=images), chunk)
        return summed(term, state.params, parts), aux

    rules = per_field(
        images=descent(config.outer, config.image_lr, config.momentum),
        label_logits=descent(config.outer, config.label_lr, config.momentum),
        log_lr=descent(config.outer, config.lr_lr, config.momentum),
        clip=clip_by_running_norm(config.clip) if config.clip_running else config.clip,
    )
    return from_outer_loss(
        outer_loss,
        rules,
        parametrisation=parametrisation,
        check=lambda key, distilled: checks.network(model, key, distilled),
    )
