"""Networks of one initialisation, on several sets and in two orders; kept as pieces."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax.core import parameters
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Array, Batch, InputError, Key, Model, Params, RealSet
from experiments.lab.kept import Arrays
from experiments.lab.progress import CellProgress

ORDERS = 2


class Subject(NamedTuple):
    """What networks are trained on."""

    label: str
    on: Sequence[Batch] | RealSet  # one for each initialisation, or one for all
    identity: str  # SHA-256 of it and of how it is trained on

    def of(self, number: int) -> Batch | RealSet:
        """Returns what the networks of an initialisation are trained on."""
        return self.on if isinstance(self.on, RealSet) else self.on[number]


class Net(NamedTuple):
    """A network; a `Cell`."""

    subject: Subject
    number: int  # of the initialisation
    order: int
    place: int  # of the subject, for the name of the file
    identity: str

    @property
    def kind(self) -> str:
        """Real sets are read from bytes, and cost more."""
        return "real" if isinstance(self.subject.on, RealSet) else "small"

    @property
    def title(self) -> str:
        """Name in progress lines."""
        return f"{self.subject.label}, start {self.number}, order {self.order}"

    @property
    def file(self) -> str:
        """Its name among the pieces."""
        return f"{self.place}_{self.number}_{self.order}"


def start_and_order(key: Key, model: Model, order: Array | int) -> tuple[Params, Key]:
    """Returns initial weights that all orders share, and the key of one order."""
    start = model.init(jax.random.fold_in(key, 0))
    return start, jax.random.fold_in(key, 1 + order)


class Trainer:
    """Trains networks and keeps them."""

    def __init__(self, pieces: Arrays, model: Model, protocol: EvaluationProtocol):
        """Ready to train.

        Args:
          pieces: where networks are kept.
          model: the network.
          protocol: how to train.
        """
        self._pieces, self._model, self._protocol = pieces, model, protocol
        self._programs: dict[Any, Any] = {}

    def trained(self, net: Net) -> np.ndarray | None:
        """Returns the weights of a network, f32[p]; None where it has to be trained."""
        found = self._pieces.read(net.file, net.identity, ("params",))
        return None if found is None else found["params"]

    def train(self, nets: Sequence[Net], keys: Key) -> None:
        """Trains the networks that are missing.

        Args:
          nets: all of them.
          keys: key[s], one for each initialisation.

        Raises:
          InputError: training diverges.
        """
        missing = [net for net in nets if self.trained(net) is None]
        if done := len(nets) - len(missing):
            print(f"{done} of {len(nets)} networks were trained before")
        progress = CellProgress(missing, "network", 1, noun="network")
        for net in missing:
            on = net.subject.of(net.number)
            program = self._program(keys[net.number], on)
            began = time.perf_counter()
            vector = np.asarray(program(keys[net.number], jnp.int32(net.order), on))
            if not np.isfinite(vector).all():
                raise InputError(f"training on {net.title} diverged; lower --lr")
            self._pieces.write(net.file, net.identity, params=vector)
            progress.trained(net, 1, time.perf_counter() - began)
            progress.finished(net, "")

    def _program(self, key: Key, on: Batch | RealSet) -> Any:
        leaves, structure = jax.tree.flatten(on)
        which = structure, tuple(leaf.shape for leaf in leaves)

        def compute(key: Key, order: Array, on: Batch | RealSet) -> Array:
            start, order_key = start_and_order(key, self._model, order)
            params = evaluation.train(
                order_key, self._model, on, self._protocol, start=start
            )
            return parameters.flatten(params)

        if which not in self._programs:
            given = key, jnp.int32(0), on
            self._programs[which] = jax.jit(compute).lower(*given).compile()
        return self._programs[which]
