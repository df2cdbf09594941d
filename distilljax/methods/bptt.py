"""Back-propagation through the inner loop (`bptt`).

A fresh network is trained on the distilled set for T steps; the outer loss is its
cross-entropy on a batch of real data, differentiated through the training:

    min_S  E_{w_0} [ L_real(w_T) ],   w_{t+1} = w_t - eta grad L_S(w_t)

Wang et al. 2018 (arXiv 1811.10959, eq. 3); with momentum and long unrolls Deng &
Russakovsky 2022 (arXiv 2206.02916). A window of W < T differentiates the last W steps
only; a window that ends at a random step is RaT-BPTT (Feng et al. 2023, arXiv
2310.04295, algorithm 1).

Adaptive windows are AT-BPTT (arXiv 2510.04838). With g_t the gradient norms of the inner
steps, d = `adapt`, and s drawn with probability softmax(g)_s, the window begins and ends

    at first         s,                    after W - d + 2 d rank(|g_s - g_{s-1}|) / T steps
    in the middle    anywhere,             after W + d steps
    at last          T - s - (W - d),      after W - d steps

moved where it would not fit into 0..T. Here the three stages end after given outer steps,
not where the training accuracy stands still; ranks are from 1, the smallest change, to T.
The norms are those of the same network and batches, trained T plain steps beforehand. A
step costs the window W + d whatever its size, and in the first and last stage T steps more.

Departures: the inner learning rate can be learned, through its logarithm. Batches of
real data are sampled over all classes, not a fixed number per class. The last minibatch
of a permutation of the distilled set is as large as the others. Inner Adam divides by
sqrt(v + 1e-16) + 1e-8: the derivative of sqrt(v) is infinite for a weight that never had
a gradient, as behind a dead ReLU, and would make the meta-gradient NaN.

The code of RaT-BPTT and AT-BPTT draws a window for an epoch of real data, ten outer steps,
AT-BPTT by the norms of another network; here each outer step draws one, as in RaT-BPTT's
algorithm 1. Its inner batches are so many images of each class, here parts of a permutation
of the set. It clips the gradient of the images, here that of all that is learned. `rotate`
samples with the corners of images aligned, there with their edges.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from distilljax import checks, devices, varying
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.core import distilled as distilled_set
from distilljax.core import inner, losses, sampling
from distilljax.core.augment import Augmentation, augment, parse
from distilljax.core.inner import InnerState
from distilljax.core.outer import (
    Descent,
    Method,
    Optimizers,
    OuterLoss,
    clip_by_running_norm,
    from_outer_loss,
    method_rules,
)
from distilljax.core.parametrisations import DIRECT, Parametrisation
from distilljax.core.scan import Remat, summed
from distilljax.types import (
    Array,
    Batch,
    DistilledSet,
    Key,
    LossFn,
    Model,
    Params,
    RealSet,
)

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
    adapt: int = option(
        0,
        "Steps by which windows adapted to the gradients differ from window (AT-BPTT); 0: "
        "not adapted.",
        low=0,
    )
    first_stage: int = option(100, "Outer steps of AT-BPTT before its middle stage.", low=0)
    middle_stage: int = option(100, "Outer steps of AT-BPTT's middle stage.", low=0)
    inner_batch: int | None = option(
        None, "Batch size of an inner step; none: the whole distilled set.", low=1
    )
    inner: Literal["sgd", "momentum", "adam"] = option("momentum", "Inner optimizer.")
    inner_lr: float = option(0.02, "Initial inner learning rate.", above=0)
    inner_momentum: float = option(
        0.9, "Momentum.", low=0, high=1, selected_by=("inner", "momentum")
    )
    real_batch: int = option(256, "Batch size of real images in the outer loss.", low=1)
    augment: str = option("", "Augmentation of the real batch, such as flip_rotate.")
    inner_augment: str = option("", "Augmentation of the distilled batch of an inner step.")
    outer: Literal["adam", "sgd"] = option("adam", "Outer optimizer.")
    image_lr: float = option(0.1, "Outer learning rate of the images.", above=0)
    label_lr: float = option(
        0.0, "Outer learning rate of the label logits; 0: not learned.", low=0
    )
    lr_lr: float = option(
        0.0, "Outer learning rate of log inner_lr; 0: not learned.", low=0
    )
    momentum: float = option(0.5, "Momentum.", low=0, high=1, selected_by=("outer", "sgd"))
    clip: float = option(2.0, "Maximum norm of a meta-gradient.", above=0)
    clip_running: bool = option(
        False, "Clip at a multiple of the moving average of norms (RaT-BPTT)."
    )
    remat: Remat = option("step", "Rematerialisation policy of the inner loop.")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse(self.augment)
        parse(self.inner_augment)
        if self.window is not None and self.window > self.unroll:
            reason = f"cannot exceed unroll={self.unroll}; lower one or raise the other"
            raise FieldError("window", self.window, reason)
        if self.random_window and self.window in (None, self.unroll):
            raise FieldError("random_window", True, "needs a window smaller than unroll")
        if self.adapt:
            _check_adapted(self)
        for name in ("first_stage", "middle_stage"):
            if not self.adapt and getattr(self, name) != getattr(Config, name):
                raise FieldError(
                    name, getattr(self, name), "there are no stages; set adapt"
                )


def _check_adapted(config: Config) -> None:
    reason = ""
    if config.random_window:
        reason = "random_window draws the window otherwise; choose one"
    elif config.window is None or config.window <= config.adapt:
        reason = f"must be below the window, and window={config.window}"
    elif config.window + config.adapt > config.unroll:
        reason = f"window + adapt must not exceed unroll={config.unroll}"
    if reason:
        raise FieldError("adapt", config.adapt, reason)


def adapted_window(
    config: Config, stage: Array, norms: Array, key: Key
) -> tuple[Array, Array]:
    """Returns start and size of an adapted window, i32[] each, before it is made to fit.

    >>> config = bptt.Config(unroll=10, window=4, adapt=2)
    >>> norms, key = jnp.arange(10.0), jax.random.key(0)
    >>> start, size = bptt.adapted_window(config, jnp.array(0), norms, key)
    >>> int(size)
    6

    Args:
      config: the settings, with `adapt`.
      stage: i32[], 0, 1 or 2: the first, middle or last.
      norms: f32[T], gradient norms of the inner steps.
      key: PRNG key of the draw.
    """
    total, window, change = config.unroll, int(config.window or 0), config.adapt
    draw_key, uniform_key = jax.random.split(key)
    drawn = jax.random.categorical(draw_key, norms).astype(jnp.int32)
    steps = jnp.abs(jnp.diff(norms, prepend=norms[:1]))
    rank = (steps <= steps[drawn]).sum(dtype=jnp.int32)
    latest = total - window - change
    uniform = jax.random.randint(uniform_key, (), 0, latest + 1, jnp.int32)
    starts = jnp.stack([drawn, uniform, total - drawn - (window - change)])
    sizes = jnp.stack(
        [
            window - change + 2 * change * rank // total,
            jnp.int32(window + change),
            jnp.int32(window - change),
        ]
    )
    return starts[stage], sizes[stage]


class Inner(NamedTuple):
    """What an inner loop is made of.

    Attributes:
      loss_fn: (params, batch) -> f32[].
      optimizer: of the network.
      sample_batch: the inputs of a step -> its batch.
    """

    loss_fn: LossFn
    optimizer: optax.GradientTransformation
    sample_batch: Callable[[Any], Batch]


def gradient_norms(
    loop: Inner, state: InnerState, inputs: Any, chunk: int | None = None
) -> Array:
    """Returns the norms of the gradients of T plain inner steps, f32[T], as constants.

    >>> import optax
    >>> from distilljax.core import inner
    >>> from distilljax.types import Batch
    >>> batch = Batch(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    >>> loop = bptt.Inner(
    ...     lambda w, batch: jnp.sum(w**2) / 2, optax.sgd(0.5), lambda at: batch)
    >>> state = inner.init(jnp.array([3.0, 4.0]), loop.optimizer)
    >>> bptt.gradient_norms(loop, state, jnp.arange(3)).tolist()
    [5.0, 2.5, 1.25]

    Args:
      loop: the inner loop.
      state: the network at step 0.
      inputs: a pytree of arrays with leading axis T.
      chunk: as in `inner.unroll`.
    """
    constant = jax.lax.stop_gradient

    def body(state: InnerState, given: Any) -> tuple[InnerState, Array]:
        batch = constant(loop.sample_batch(given))
        _, grads = inner.value_and_grad(loop.loss_fn, state.params, batch, chunk)
        updates, opt_state = loop.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return constant(InnerState(params, opt_state)), optax.tree.norm(grads)

    return constant(varying.scan(body, constant(state), inputs)[1])


def _train(
    config: Config,
    loop: Inner,
    state: InnerState,
    inputs: Any,
    key: Key,
    outer_step: Any,
    share: int,
) -> InnerState:
    """Takes the inner steps of the window; adapted ones read `outer_step`, i32[]."""
    positions = jax.tree.leaves(inputs)[0]
    chunk = inner.cache_chunk(positions.shape[1], state.params, share)
    kept: Any = {"remat": config.remat, "chunk": chunk}
    if config.window is None or config.window == config.unroll:
        return inner.unroll(*loop, state, inputs, **kept)[0]
    if config.adapt:
        stage = (outer_step >= config.first_stage).astype(jnp.int32)
        stage += outer_step >= config.first_stage + config.middle_stage
        trained = functools.partial(gradient_norms, loop, state, inputs, chunk)
        held = jax.eval_shape(trained)
        norms = varying.cond(stage == 1, lambda: jnp.zeros(held.shape, held.dtype), trained)
        start, size = adapted_window(config, stage, norms, key)
        largest = config.window + config.adapt
        return inner.sized_unroll(
            *loop, state, inputs, start=start, size=size, largest=largest, **kept
        )[0]
    latest = config.unroll - config.window
    first: Array | int = latest
    if config.random_window:
        first = jax.random.randint(key, (), 0, latest + 1, jnp.int32)
    return inner.truncated_unroll(
        *loop, state, inputs, start=first, window=config.window, **kept
    )[0]


def inner_optimizer(config: Config, learning_rate: Array) -> optax.GradientTransformation:
    """Returns the inner optimizer for a learning rate, which may be traced.

    >>> rule = bptt.inner_optimizer(bptt.Config(inner="sgd"), 0.5)
    >>> updates, _ = rule.update(jnp.ones(2), rule.init(jnp.zeros(2)))
    >>> updates.tolist()
    [-0.5, -0.5]
    """
    if config.inner == "adam":
        return optax.adam(learning_rate, eps_root=ADAM_EPS_ROOT)
    momentum = config.inner_momentum if config.inner == "momentum" else None
    return optax.sgd(learning_rate, momentum=momentum)


def first_step(config: Config) -> Callable[[Key], Any]:
    """Returns the function that makes the first `aux` of the method.

    >>> bptt.first_step(bptt.Config())(jax.random.key(0))
    ()
    """
    return lambda key: jnp.zeros((), jnp.int32) if config.adapt else ()


def outer_loss(
    config: Config,
    model: Model,
    augmentation: Augmentation | None = None,
    mesh: Mesh | None = None,
) -> OuterLoss:
    """Returns the loss on real images of a network trained on the set.

    aux is the outer step, i32[], where windows are adapted, and () otherwise.

    >>> from distilljax.models import mlp
    >>> loss = bptt.outer_loss(bptt.Config(unroll=3), mlp.make(mlp.Config(), (8, 8, 1), 2))

    Args:
      config: settings; those of outer optimizers are not read.
      model: the network.
      augmentation: of the real batch, in place of `config.augment`.
      mesh: devices that share the images of every inner step and of the real batch.
    """
    checks.settings(config, Config, model)
    loss_fn = losses.cross_entropy(model.apply)
    strategy = config.augment if augmentation is None else augmentation

    def trained(distilled: DistilledSet, key: Key, aux: Any) -> Params:
        init_key, window_key, _, _, order_key = jax.random.split(key, 5)
        optimizer = inner_optimizer(config, jnp.exp(distilled.log_lr))
        state = inner.init(model.init(init_key), optimizer)

        inputs: Any
        sample_batch: Callable[[Any], Batch]
        inputs, sample_batch = sampling.minibatches(
            order_key,
            devices.separate(distilled_set.as_batch(distilled), mesh),
            config.inner_batch,
            config.unroll,
        )
        if config.inner_augment:
            step_keys = jax.random.split(jax.random.fold_in(key, 5), config.unroll)
            inputs = (inputs, step_keys)
            sample_batch = _augmented(sample_batch, config.inner_augment)
        loop = Inner(losses.shared_by(loss_fn, mesh), optimizer, sample_batch)
        return _train(
            config, loop, state, inputs, window_key, aux, devices.size(mesh)
        ).params

    def tested(shared: Any, batch: Batch) -> Array:
        params = trained(*shared)
        chunk = inner.memory_chunk(loss_fn, params, batch) or len(batch.images)
        term, parts = inner.terms(loss_fn, batch, chunk)
        return summed(term, params, parts)

    def compute(
        distilled: DistilledSet, key: Key, aux: Any, real: RealSet
    ) -> tuple[Array, Any]:
        checks.same_classes(distilled, real)
        _, _, batch_key, augment_key, _ = jax.random.split(key, 5)
        batch = devices.split(sampling.batch(batch_key, real, config.real_batch), mesh)
        images = augment(augment_key, batch.images, strategy=strategy)
        batch = batch._replace(images=images)
        loss = devices.averaged(tested, (distilled, key, aux), batch, mesh)
        return loss, aux + 1 if config.adapt else aux

    return compute


def _augmented(
    read: Callable[[Array], Batch], strategy: str
) -> Callable[[tuple[Array, Key]], Batch]:
    """Returns the batch of positions and a key, augmented."""

    def sample_batch(given: tuple[Array, Key]) -> Batch:
        positions, key = given
        batch = read(positions)
        return batch._replace(images=augment(key, batch.images, strategy=strategy))

    return sample_batch


def make(
    config: Config,
    model: Model,
    parametrisation: Parametrisation = DIRECT,
    *,
    optimizers: Optimizers | None = None,
    augmentation: Augmentation | None = None,
    mesh: Mesh | None = None,
) -> Method:
    """Returns the method; its source is a `RealSet`.

    >>> from distilljax.models import mlp
    >>> method = bptt.make(bptt.Config(unroll=3), mlp.make(mlp.Config(), (8, 8, 1), 2))

    Args:
      config: settings.
      model: the network.
      parametrisation: how the set is stored.
      optimizers: in place of those of `config`.
      augmentation: of the real batch, in place of `config.augment`.
      mesh: devices that share the images of every inner step and of the real batch.
    """
    checks.settings(config, Config, model)
    rules = method_rules(
        "bptt",
        optimizers,
        images=Descent(config.outer, config.image_lr, config.momentum),
        label_logits=Descent(config.outer, config.label_lr, config.momentum),
        log_lr=Descent(config.outer, config.lr_lr, config.momentum),
        clip=clip_by_running_norm(config.clip) if config.clip_running else config.clip,
    )
    return from_outer_loss(
        outer_loss(config, model, augmentation, mesh),
        rules,
        first_step(config),
        parametrisation=parametrisation,
        check=lambda key, distilled: checks.network(model, key, distilled),
    )
