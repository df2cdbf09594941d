"""The outer loop: a distillation method as a pair of pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from distilljax.types import Array, DistilledSet, Key


class OuterState(NamedTuple):
    """What the next outer step needs."""

    distilled: DistilledSet
    opt_state: optax.OptState
    aux: Any  # what a method carries along, such as an ageing network
    step: Array  # i32[], outer steps taken


class StepInfo(NamedTuple):
    """What a person reads."""

    loss: Array  # f32[], outer loss before the step
    grad_norm: Array  # f32[], norm of the meta-gradient over all that is learned
    learning_rate: Array  # f32[], inner learning rate before the step


Source = Any  # real data on the device, or expert trajectories
OuterLoss = Callable[[DistilledSet, Key, Any, Source], tuple[Array, Any]]


class Method(NamedTuple):
    """A dataset-distillation method; `jit` belongs to the caller."""

    init: Callable[[Key, DistilledSet], OuterState]
    step: Callable[[Key, OuterState, Source], tuple[OuterState, StepInfo]]


class FieldRules(NamedTuple):
    """An optax transformation of `DistilledSet`s, and the fields that it learns."""

    init: Callable[[Any], optax.OptState]
    update: Callable[..., tuple[Any, optax.OptState]]
    learned: tuple[str, ...]


def per_field(
    images: optax.GradientTransformation | None = None,
    label_logits: optax.GradientTransformation | None = None,
    log_lr: optax.GradientTransformation | None = None,
    *,
    clip: float | None = None,
) -> FieldRules:
    """An optimizer with its own rule for each field of a `DistilledSet`.

    A field without a rule is not learned: its gradient is neither taken nor counted.

    Args:
      images: the rule of the images.
      label_logits: the rule of the label logits.
      log_lr: the rule of the log of the inner learning rate.
      clip: largest norm of the gradient over all that is learned; None for no limit.
    """
    given = dict(zip(DistilledSet._fields, (images, label_logits, log_lr), strict=True))
    fields: Any = DistilledSet._fields
    rules = optax.partition(
        {name: rule or optax.set_to_zero() for name, rule in given.items()},
        DistilledSet(*fields),
    )
    if clip is not None:
        rules = optax.chain(optax.clip_by_global_norm(clip), rules)
    return FieldRules(rules.init, rules.update, tuple(n for n in given if given[n]))


def from_outer_loss(
    outer_loss: OuterLoss,
    optimizer: FieldRules | optax.GradientTransformation,
    init_aux: Callable[[Key], Any] = lambda key: (),
) -> Method:
    """A method that descends an outer loss with respect to the distilled set.

    Args:
      outer_loss: (distilled, key, aux, source) -> (f32[], aux); the loss is
        differentiated with respect to what is learned, and the new aux is carried on.
      optimizer: `per_field` rules, or an optax transformation that learns everything.
      init_aux: key -> aux before the first step.

    Returns:
      A `Method` whose step needs no host input but a key: one jit serves a Python
      loop, a `lax.scan` over many outer steps and a `vmap` over many sets.
    """
    learned = getattr(optimizer, "learned", DistilledSet._fields)

    def only_learned(
        distilled: DistilledSet, key: Key, aux: Any, source: Source
    ) -> tuple[Array, Any]:
        constant = {
            name: jax.lax.stop_gradient(value)
            for name, value in distilled._asdict().items()
            if name not in learned
        }
        return outer_loss(distilled._replace(**constant), key, aux, source)

    def init(key: Key, distilled: DistilledSet) -> OuterState:
        state = OuterState(
            distilled, optimizer.init(distilled), init_aux(key), jnp.zeros((), jnp.int32)
        )
        return jax.tree.map(_strong, state)

    def step(key: Key, state: OuterState, source: Source) -> tuple[OuterState, StepInfo]:
        (loss, aux), grads = jax.value_and_grad(only_learned, has_aux=True)(
            state.distilled, key, state.aux, source
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.distilled)
        distilled = optax.apply_updates(state.distilled, updates)
        info = StepInfo(loss, optax.tree.norm(grads), jnp.exp(state.distilled.log_lr))
        return OuterState(distilled, opt_state, aux, state.step + 1), info

    return Method(init, step)


def _strong(x: Any) -> Array:
    """A weakly typed leaf would change type after one step and compile it twice."""
    x = jnp.asarray(x)
    return jax.lax.convert_element_type(x, x.dtype)
