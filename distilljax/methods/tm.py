"""Trajectory matching (`tm`; MTT, Cazenavette et al. 2022, arXiv 2203.11932).

A student starts from a checkpoint of an expert trained on real data, takes N steps on the
distilled set, and is compared with the expert M epochs later (eq. 2):

    min_S  || w_N - w*_{t+M} ||^2 / || w*_t - w*_{t+M} ||^2,
    w_0 = w*_t,  w_{i+1} = w_i - eta grad L_{A(batch_i of S)}(w_i)

with augmentation A and a learned inner learning rate eta. The gradient is exact;
remat=step stores one set of parameters for each student step. (TESLA, Cui et al. 2023,
arXiv 2211.10586, has constant memory by another formula, which is not exact as published.)

Variants: `segments` > 1 averages over several expert segments in each outer step. A
widening window of start epochs, soft labels initialised to the experts' logits, and a loss
above which a step is skipped make DATM (Guo et al. 2024, arXiv 2310.05773, section 3.3).
`skip` leaves the smallest squared differences out of each norm (PAD, Li et al. 2024, arXiv
2408.03360). Flat-minimum experts (FTD) are an option of expert training.

Departures: eta is learned through its logarithm and kept within `lr_low`..`lr_high`, so
that it stays positive and bounded; to first order an SGD step of rate r / eta^2 on log eta
equals the published step of rate r on eta, so `lr_lr` corresponds to r / eta^2. The images
can be learned by Adam instead of SGD. The last minibatch of a permutation is as large as
the others. `max_start` itself can be a start epoch; the bound that MTT, DATM and PAD state
is the first that cannot. Both norms of PAD's code leave out the same parameters, those
where student and target differ least, which changes the gradient by a factor; its paper
speaks of shallow layers.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from distilljax import checks, devices
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.core import distilled as distilled_set
from distilljax.core import inner, losses, parameters, sampling
from distilljax.core.augment import DSA, Augmentation, augment, parse
from distilljax.core.distances import parameter_distance
from distilljax.core.outer import (
    Descent,
    Method,
    Optimizers,
    OuterLoss,
    from_outer_loss,
    method_rules,
)
from distilljax.core.parameters import Trajectories
from distilljax.core.parametrisations import DIRECT, Parametrisation
from distilljax.core.scan import Remat
from distilljax.types import Array, Batch, DistilledSet, InputError, Key, Model

SOURCE = "experts"

# Settings to lower when the outer loss diverges, in this order.
LOWER = ("image_lr", "inner_lr", "lr_lr", "lr_high", "label_lr")


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Settings of `tm`."""

    student_steps: int = option(20, "Number of student steps.", low=1)
    expert_epochs: int = option(2, "Expert epochs between start and target.", low=1)
    min_start: int = option(0, "First start epoch.", low=0)
    max_start: int = option(5, "Last start epoch.", low=0)
    first_max_start: int | None = option(
        None, "Initial last start epoch, which grows to max_start; none: max_start.", low=0
    )
    widen_steps: int = option(
        1000, "Outer steps over which the last start epoch grows.", low=1
    )
    student_batch: int | None = option(
        None, "Batch size of a student step; none: the whole distilled set.", low=1
    )
    segments: int = option(1, "Expert segments averaged in an outer step.", low=1)
    skip: float = option(
        0.0,
        "Share of the parameters, the least different ones, that the distance leaves out "
        "(PAD).",
        low=0,
        high=0.99,
    )
    augment: str = option(DSA, "Augmentation of student batches; empty for none.")
    inner_lr: float = option(0.02, "Initial student learning rate.", above=0)
    lr_lr: float = option(
        0.1, "Outer SGD learning rate of log inner_lr; 0: not learned.", low=0
    )
    lr_low: float = option(1e-4, "Minimum student learning rate.", above=0)
    lr_high: float = option(1.0, "Maximum student learning rate.", above=0)
    outer: Literal["sgd", "adam"] = option("sgd", "Outer optimizer of the images.")
    image_lr: float = option(100.0, "Outer learning rate of the images.", above=0)
    label_lr: float = option(
        0.0, "Outer SGD learning rate of the label logits; 0: not learned.", low=0
    )
    label_momentum: float = option(0.9, "Outer momentum of the labels.", low=0, high=1)
    momentum: float = option(
        0.5, "Outer momentum of the images and the inner learning rate.", low=0, high=1
    )
    clip: float | None = option(
        None, "Maximum norm of a meta-gradient; none: no limit.", above=0
    )
    skip_above: float | None = option(
        None, "Outer loss above which a step is skipped (DATM).", above=0
    )
    remat: Remat = option("step", "Rematerialisation policy of the student steps.")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse(self.augment)
        if self.max_start < self.min_start:
            reason = f"cannot lie below min_start={self.min_start}"
            raise FieldError("max_start", self.max_start, reason)
        first = self.first_max_start
        if first is not None and not self.min_start <= first <= self.max_start:
            reason = f"must lie in min_start..max_start, {self.min_start}..{self.max_start}"
            raise FieldError("first_max_start", first, reason)
        if first is None and self.widen_steps != Config.widen_steps:
            reason = "the last start epoch does not grow; set first_max_start"
            raise FieldError("widen_steps", self.widen_steps, reason)
        if not self.lr_low <= self.inner_lr <= self.lr_high:
            reason = f"must lie in lr_low..lr_high, {self.lr_low}..{self.lr_high}"
            raise FieldError("inner_lr", self.inner_lr, reason)

    @property
    def last_epoch(self) -> int:
        """Last expert epoch that is used as a target."""
        return self.max_start + self.expert_epochs


def latest_start(config: Config, step: Array) -> Array:
    """Returns the last start epoch at an outer step, i32[].

    It grows linearly from `first_max_start` to `max_start` over `widen_steps`, in whole
    epochs (DATM, section 3.3).

    >>> config = tm.Config(first_max_start=2, max_start=10, widen_steps=100)
    >>> int(tm.latest_start(config, jnp.array(50)))
    6
    """
    if config.first_max_start is None:
        return jnp.asarray(config.max_start, jnp.int32)
    growth = config.max_start - config.first_max_start
    grown = growth * jnp.minimum(step, config.widen_steps) // config.widen_steps
    return jnp.asarray(config.first_max_start + grown, jnp.int32)


def first_step(key: Key) -> Array:
    """Returns the first `aux` of the method: the number of the outer step, i32[].

    >>> int(tm.first_step(jax.random.key(0)))
    0
    """
    return jnp.zeros((), jnp.int32)


def outer_loss(
    config: Config,
    model: Model,
    augmentation: Augmentation | None = None,
    mesh: Mesh | None = None,
) -> OuterLoss:
    """Returns the distance of student and expert; aux, the outer step, grows by one.

    >>> from distilljax.models import mlp
    >>> loss = tm.outer_loss(tm.Config(), mlp.make(mlp.Config(), (8, 8, 1), 2))

    Args:
      config: settings; those of outer optimizers are not read.
      model: the network of the experts.
      augmentation: of student batches, in place of `config.augment`.
      mesh: devices that share the segments; the images of student steps where there is
        one segment.

    Raises:
      InputError: when traced, if the trajectories are of another model or too short.
    """
    checks.settings(config, Config, model)
    strategy = config.augment if augmentation is None else augmentation
    unflatten = parameters.unflatten(model)
    within = mesh if config.segments == 1 else None
    loss_fn = losses.shared_by(losses.cross_entropy(model.apply), within)

    def distance(
        distilled: DistilledSet, step: Array, source: Trajectories, key: Key
    ) -> Array:
        pick_key, start_key, order_key, augment_key = jax.random.split(key, 4)
        num_experts = source.params.shape[0]
        which = jax.random.randint(pick_key, (), 0, num_experts, jnp.int32)
        latest = latest_start(config, step)
        epoch = jax.random.randint(start_key, (), config.min_start, latest + 1, jnp.int32)
        row = epoch - source.first_epoch
        start, target = (
            _at_least_float32(source.params[which, at])
            for at in (row, row + config.expert_epochs)
        )

        positions, read = sampling.minibatches(
            order_key,
            devices.separate(distilled_set.as_batch(distilled), within),
            config.student_batch,
            config.student_steps,
        )

        def sample_batch(given: tuple[Array, Key]) -> Batch:
            where, key = given
            batch = read(where)
            images = augment(key, batch.images, strategy=strategy)
            return batch._replace(images=images)

        rule = optax.sgd(jnp.exp(distilled.log_lr))
        state = inner.init(unflatten(start), rule)
        inputs = (positions, jax.random.split(augment_key, config.student_steps))
        state, _ = inner.unroll(
            loss_fn,
            rule,
            sample_batch,
            state,
            inputs,
            remat=config.remat,
            chunk=inner.cache_chunk(positions.shape[1], start, devices.size(within)),
        )
        found = parameters.flatten(state.params)
        return parameter_distance(found, start, target, config.skip)

    def compute(
        distilled: DistilledSet, key: Key, step: Array, source: Trajectories
    ) -> tuple[Array, Array]:
        _check(config, model, source)
        if config.segments == 1:
            given = distilled, step, source, key
            found = devices.averaged(lambda given, _: distance(*given), given, (), mesh)
            return found, step + 1
        keys = jax.random.split(key, config.segments)
        if mesh is None:
            each = jax.vmap(functools.partial(distance, distilled, step, source))(keys)
            return each.mean(), step + 1

        def share(shared: Any, keys: Key, counts: Array) -> Array:
            of_shared: Callable[[Key], Array] = functools.partial(distance, *shared)
            each = jax.vmap(of_shared)(keys)
            return jnp.where(counts, each, 0).sum()

        total = devices.added(share, (distilled, step, source), keys, mesh)
        return total / config.segments, step + 1

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
    """Returns the method; its source is `Trajectories` that reach `config.last_epoch`.

    >>> from distilljax.models import mlp
    >>> method = tm.make(tm.Config(), mlp.make(mlp.Config(), (8, 8, 1), 2))

    Args:
      config: settings.
      model: the network of the experts.
      parametrisation: how the set is stored.
      optimizers: in place of those of `config`.
      augmentation: of student batches, in place of `config.augment`.
      mesh: devices that share the segments; the images of student steps where there is
        one segment.

    Raises:
      InputError: by `check_source`, and when traced: trajectories of another model, too
        short, or of other epochs. A traced `first_epoch` is not checked.
    """
    checks.settings(config, Config, model)
    rules = method_rules(
        "tm",
        optimizers,
        images=Descent(config.outer, config.image_lr, config.momentum),
        label_logits=Descent("sgd", config.label_lr, config.label_momentum),
        log_lr=Descent("sgd", config.lr_lr, config.momentum),
        clip=config.clip,
    )
    return from_outer_loss(
        outer_loss(config, model, augmentation, mesh),
        rules,
        first_step,
        skip_above=config.skip_above,
        lr_range=(config.lr_low, config.lr_high),
        parametrisation=parametrisation,
        check=lambda key, distilled: checks.network(model, key, distilled),
        check_source=functools.partial(_check, config, model),
    )


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _check(config: Config, model: Model, source: Trajectories) -> None:
    """Refuses trajectories of another model or too few epochs; shapes are static."""
    size = parameters.num_params(model)
    _, num_epochs, held = source.params.shape
    if held != size:
        raise InputError(
            f"the experts have {held:,} parameters, the model {size:,}; train experts of "
            "this model"
        )
    needed = config.last_epoch - config.min_start + 1
    if num_epochs < needed:
        raise InputError(
            f"{needed} successive epochs of the experts are needed (min_start="
            f"{config.min_start} to max_start + expert_epochs={config.last_epoch}), "
            f"{num_epochs} were given; train longer experts or lower max_start"
        )
    first = checks.concrete(source.first_epoch)
    if first is not None and not (
        first <= config.min_start and config.last_epoch < first + num_epochs
    ):
        raise InputError(
            f"the experts hold epochs {int(first)}..{int(first) + num_epochs - 1}, and "
            f"min_start={config.min_start} to max_start + expert_epochs="
            f"{config.last_epoch} are needed; give those"
        )
