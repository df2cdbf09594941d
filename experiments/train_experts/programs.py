"""Compiled programs that train several experts for an epoch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from distilljax import devices
from distilljax.core import losses, parameters
from distilljax.core.inner import InnerState
from distilljax.training import evaluation, expert
from distilljax.training.expert import Recipe
from distilljax.types import Array, Key, Model, RealSet


class Trained(NamedTuple):
    """Experts after an epoch, as they leave the device."""

    params: Array  # f32[m, p]
    loss: Array | np.ndarray  # f32[m], mean over the epoch; NaN at initialisation
    accuracy: Array  # f32[m], on held-out images


class Programs:
    """The programs, one for each number of experts that are trained together."""

    def __init__(
        self,
        key: Key,
        model: Model,
        recipe: Recipe,
        real: RealSet,
        held_out: RealSet,
        *,
        at_once: bool,
        mesh: Mesh | None = None,
        scores: Array | np.ndarray | None = None,
    ):
        """Compiles nothing yet.

        Args:
          key: of all experts.
          model: the network.
          recipe: how it is trained.
          real: what it is trained on.
          held_out: what it is tested on.
          at_once: whether the experts of a program take each step at once (vmap), or are
            trained one after another (map).
          mesh: devices that share the experts of a program; None for one.
          scores: f32[n], difficulty of each image, for the curriculum of the recipe.
        """
        self._key, self._model, self._recipe = key, model, recipe
        given = devices.everywhere((real, held_out, scores), mesh)
        self._real, self._held_out, self._scores = given
        self._at_once, self._mesh = at_once, mesh
        self._begin = devices.jit(self._begin_all, mesh)
        self._advance: dict[int, Any] = {}  # number of experts -> program

    def dispatches(self, experts: range) -> list[range]:
        """Returns the experts of each program, in order.

        All at once; or, where experts are trained one after another, one for each device.
        """
        size = len(experts) if self._at_once else devices.size(self._mesh)
        return [experts[i : i + size] for i in range(0, len(experts), size)]

    def begin(self, experts: range) -> tuple[InnerState, Trained]:
        """Returns the experts of these numbers at epoch 0."""
        given = devices.everywhere((self._key, jnp.asarray(experts)), self._mesh)
        state, begun = self._begin(*given, self._held_out)
        # On the host: JAX_DEBUG_NANS stops a program that makes a NaN.
        return state, begun._replace(loss=np.full(len(experts), np.nan, np.float32))

    def compile(self, num_experts: int) -> None:
        """Makes `advance` ready for so many experts, if it is not."""
        if num_experts in self._advance:
            return
        experts = range(num_experts)
        state, _ = jax.eval_shape(
            self._begin_all, self._key, jnp.asarray(experts), self._held_out
        )
        given = self._given(experts, 1, state)
        program = devices.jit(self._advance_all, self._mesh)
        self._advance[num_experts] = program.lower(*given).compile()

    def advance(
        self, experts: range, epoch: int, state: InnerState
    ) -> tuple[InnerState, Trained]:
        """Returns the experts of a dispatch after `epoch`, from their state before it."""
        return self._advance[len(experts)](*self._given(experts, epoch, state))

    def _given(self, experts: range, epoch: int, state: Any) -> tuple[Any, ...]:
        given = self._key, jnp.asarray(experts), jnp.asarray(epoch)
        ours = devices.everywhere((given, state), self._mesh)
        return *ours[0], ours[1], self._real, self._held_out, self._scores

    def _begin_all(
        self, key: Key, numbers: Array, held_out: RealSet
    ) -> tuple[InnerState, Trained]:
        def one(given: tuple[Array]) -> tuple[InnerState, Trained]:
            own_key = expert.epoch_key(key, given[0], 0)
            state = expert.init(own_key, self._model, self._recipe)
            return state, self._measure(state, jnp.zeros(()), held_out)

        return self._each(one, (numbers,))

    def _advance_all(
        self,
        key: Key,
        numbers: Array,
        epoch: Array,
        state: InnerState,
        real: RealSet,
        held_out: RealSet,
        scores: Array | None,
    ) -> tuple[InnerState, Trained]:
        included = None if scores is None else expert.taking_part(scores, epoch)

        def one(given: tuple[Array, InnerState]) -> tuple[InnerState, Trained]:
            number, state = given
            own_key = expert.epoch_key(key, number, epoch)
            state, loss = expert.epoch(
                own_key, self._model, real, self._recipe, state, included
            )
            return state, self._measure(state, loss, held_out)

        return self._each(one, (numbers, state))

    def _measure(self, state: InnerState, loss: Array, held_out: RealSet) -> Trained:
        logits = evaluation.predict(self._model.apply, state.params, held_out)
        accuracy = losses.accuracy(logits, held_out.labels)
        return Trained(parameters.flatten(state.params), loss, accuracy)

    def _each(self, one: Callable[[Any], Any], given: Any) -> Any:
        num = jax.tree.leaves(given)[0].shape[0]
        share = -(-num // devices.size(self._mesh))
        together = share if self._at_once else 1
        return devices.spread(one, given, self._mesh, together=together)
