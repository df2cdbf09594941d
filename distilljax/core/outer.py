"""The outer loop: a distillation method as a pair of pure functions."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from distilljax import checks, exported, varying
from distilljax.core.parametrisations import DIRECT, Parametrisation
from distilljax.types import Array, DistilledSet, InputError, Key

exported.optimizer_states()


@exported.named
class OuterState(NamedTuple):
    """State carried between outer steps."""

    distilled: DistilledSet  # encoded, see `Method.decode`
    opt_state: optax.OptState
    aux: Any  # method state, such as the network of gradient matching
    step: Array  # i32[], number of outer steps taken


@exported.named
class StepInfo(NamedTuple):
    """Scalars logged for each outer step."""

    loss: Array  # f32[], outer loss before the step
    grad_norm: Array  # f32[], norm of the meta-gradient over all learned fields
    learning_rate: Array  # f32[], inner learning rate before the step


Source = Any  # real data on the device, or expert trajectories
OuterLoss = Callable[[DistilledSet, Key, Any, Source], tuple[Array, Any]]
After = Callable[[DistilledSet, Key, Any, Source], Any]


class Method(NamedTuple):
    """A dataset-distillation method as pure functions; the caller applies `jit`."""

    init: Callable[[Key, DistilledSet], OuterState]
    step: Callable[[Key, OuterState, Source], tuple[OuterState, StepInfo]]
    # Encoded set -> the set that networks are trained on; see `parametrisations`.
    decode: Callable[[DistilledSet], DistilledSet] = DIRECT.decode


def descent(
    rule: Literal["sgd", "adam"], learning_rate: float, momentum: float = 0.0
) -> optax.GradientTransformation | None:
    """Returns the outer optimizer of a field for `per_field`; `momentum` applies to SGD.

    None if the rate is 0: the field is not learned.
    """
    if not learning_rate:
        return None
    if rule == "adam":
        return optax.adam(learning_rate)
    return optax.sgd(learning_rate, momentum=momentum or None)


@exported.named
class RunningNorm(NamedTuple):
    """State of `clip_by_running_norm`."""

    mean: Array  # f32[], mean of the norms so far
    num_steps: Array  # i32[]


def clip_by_running_norm(multiple: float) -> optax.GradientTransformation:
    """Clips a gradient to `multiple` times the mean norm of the previous gradients.

    RaT-BPTT uses a multiple of 2 (Feng et al. 2023, arXiv 2310.04295). The mean is over
    clipped norms, so that one outlier does not raise the limit for the next; the first
    non-zero gradient is not clipped.
    """

    def init(params: Any) -> RunningNorm:
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        return RunningNorm(jnp.zeros((), dtype), jnp.zeros((), jnp.int32))

    def update(grads: Any, state: RunningNorm, params: Any = None) -> tuple[Any, Any]:
        norm = optax.tree.norm(grads)
        limit = jnp.where(state.mean > 0, multiple * state.mean, jnp.inf)
        clipped = jnp.minimum(norm, limit)
        grads = optax.tree.scale(clipped / jnp.maximum(norm, 1e-30), grads)
        num_steps = state.num_steps + 1
        mean = state.mean + (clipped - state.mean) / num_steps
        return grads, RunningNorm(mean, num_steps)

    return optax.GradientTransformation(init, update)


class FieldRules(NamedTuple):
    """An optax transformation of `DistilledSet`s and the names of the learned fields."""

    init: Callable[[Any], optax.OptState]
    update: Callable[..., tuple[Any, optax.OptState]]
    learned: tuple[str, ...]


def per_field(
    images: optax.GradientTransformation | None = None,
    label_logits: optax.GradientTransformation | None = None,
    log_lr: optax.GradientTransformation | None = None,
    *,
    clip: float | optax.GradientTransformation | None = None,
) -> FieldRules:
    """Returns an optimizer with a separate rule for each field of a `DistilledSet`.

    A field without a rule is not learned: its gradient is not computed and does not count
    in the norm.

    Args:
      images: rule for the images.
      label_logits: rule for the label logits.
      log_lr: rule for the log of the inner learning rate.
      clip: maximum norm of the gradient over all learned fields, or a clipping
        transformation such as `clip_by_running_norm`; None for no clipping.
    """
    given = dict(zip(DistilledSet._fields, (images, label_logits, log_lr), strict=True))
    fields: Any = DistilledSet._fields
    rules = optax.partition(
        {name: rule or optax.set_to_zero() for name, rule in given.items()},
        DistilledSet(*fields),
    )
    if clip is not None:
        limit = optax.clip_by_global_norm(clip) if isinstance(clip, int | float) else clip
        rules = optax.chain(limit, rules)
    return FieldRules(rules.init, rules.update, tuple(n for n in given if given[n]))


def from_outer_loss(
    outer_loss: OuterLoss,
    optimizer: FieldRules | optax.GradientTransformation,
    init_aux: Callable[[Key], Any] = lambda key: (),
    *,
    after: After | None = None,
    skip_above: float | None = None,
    lr_range: tuple[float, float] | None = None,
    parametrisation: Parametrisation = DIRECT,
    check: Callable[[Key, DistilledSet], None] | None = None,
) -> Method:
    """Returns a method that minimises an outer loss with respect to the distilled set.

    Args:
      outer_loss: (distilled, key, aux, source) -> (f32[], aux); the loss is differentiated
        with respect to the learned fields.
      optimizer: `per_field` rules, or an optax transformation that learns all fields.
      init_aux: key -> aux before the first step.
      after: (distilled, key, aux, source) -> aux, called with the updated set and the aux
        of the outer loss, for example to train a network on the new set.
      skip_above: a step with a larger outer loss leaves set and optimizer unchanged; NaN is
        not skipped. None for no limit.
      lr_range: minimum and maximum inner learning rate; updates are projected onto it.
        None for no limit.
      parametrisation: how the set is stored; its code is learned.
      check: (key, distilled) -> None, called first by `init`; raises `InputError` for a set
        that the method cannot learn.

    Returns:
      A `Method` whose step takes no host input but a key, so that it works in a Python
      loop, in a `lax.scan` over outer steps and under a `vmap` over sets.
    """
    learned = getattr(optimizer, "learned", DistilledSet._fields)

    def decoded_loss(
        stored: DistilledSet, key: Key, aux: Any, source: Source
    ) -> tuple[Array, Any]:
        constant = {
            name: jax.lax.stop_gradient(value)
            for name, value in stored._asdict().items()
            if name not in learned
        }
        distilled = parametrisation.decode(stored._replace(**constant))
        return outer_loss(distilled, key, aux, source)

    def init(key: Key, distilled: DistilledSet) -> OuterState:
        if check is not None:
            check(key, distilled)
        if isinstance(optimizer, FieldRules) and "label_logits" in learned:
            checks.learnable_labels(distilled)
        _check_number(parametrisation, distilled)
        stored = parametrisation.encode(distilled)
        state = OuterState(
            stored, optimizer.init(stored), init_aux(key), jnp.zeros((), jnp.int32)
        )
        return varying.alike(jax.tree.map(_strong, state))

    def step(key: Key, state: OuterState, source: Source) -> tuple[OuterState, StepInfo]:
        (loss, aux), grads = varying.value_and_grad(decoded_loss, has_aux=True)(
            state.distilled, key, state.aux, source
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.distilled)
        distilled = optax.apply_updates(state.distilled, updates)
        if lr_range is not None:
            low, high = (math.log(rate) for rate in lr_range)
            distilled = distilled._replace(log_lr=jnp.clip(distilled.log_lr, low, high))
        if skip_above is not None:
            kept = (state.distilled, state.opt_state)
            distilled, opt_state = jax.tree.map(
                lambda new, old: jnp.where(loss > skip_above, old, new),
                (distilled, opt_state),
                kept,
            )
        if after is not None:
            aux = after(parametrisation.decode(distilled), key, aux, source)
        info = StepInfo(loss, optax.tree.norm(grads), jnp.exp(state.distilled.log_lr))
        return varying.alike(OuterState(distilled, opt_state, aux, state.step + 1)), info

    return Method(init, step, parametrisation.decode)


def _check_number(parametrisation: Parametrisation, distilled: DistilledSet) -> None:
    per_class = parametrisation.images_per_class
    num, k = distilled.label_logits.shape
    if per_class is not None and num != k * per_class:
        raise InputError(
            f"the distilled set has {num} images of {k} classes, and the parametrisation "
            f"takes {per_class} of each class; start with {k * per_class}"
        )


def _strong(x: Any) -> Array:
    """Makes weakly typed leaves strong: otherwise the second step would recompile."""
    x = jnp.asarray(x)
    return jax.lax.convert_element_type(x, x.dtype)
