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


def from_outer_loss(
    outer_loss: OuterLoss,
    optimizer: optax.GradientTransformation,
    init_aux: Callable[[Key], Any] = lambda key: (),
) -> Method:
    """A method that descends an outer loss with respect to the distilled set.

    Args:
      outer_loss: (distilled, key, aux, source) -> (f32[], aux); the loss is
        differentiated with respect to `distilled`, and the new aux is carried on.
      optimizer: an optax transformation of `DistilledSet`s, see `per_field`.
      init_aux: key -> aux before the first step.

    Returns:
      A `Method` whose step needs no host input but a key: one jit serves a Python
      loop, a `lax.scan` over many outer steps and a `vmap` over many sets.
    """

    def init(key: Key, distilled: DistilledSet) -> OuterState:
        state = OuterState(
            distilled, optimizer.init(distilled), init_aux(key), jnp.zeros((), jnp.int32)
        )
        return jax.tree.map(_strong, state)

    def step(key: Key, state: OuterState, source: Source) -> tuple[OuterState, StepInfo]:
        (loss, aux), grads = jax.value_and_grad(outer_loss, has_aux=True)(
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


def per_field(
    images: optax.GradientTransformation,
    label_logits: optax.GradientTransformation | None = None,
    log_lr: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """An optimizer with its own rule for each field of a `DistilledSet`.

    A field without a rule is not learned.
    """
    labels: Any = DistilledSet._fields
    rules = {
        "images": images,
        "label_logits": label_logits or optax.set_to_zero(),
        "log_lr": log_lr or optax.set_to_zero(),
    }
    return optax.partition(rules, DistilledSet(*labels))
