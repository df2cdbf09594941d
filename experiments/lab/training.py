"""The one trainer of networks on real data.

`EpochTrainer` trains whole epochs by a recipe (`distilljax.training.expert`). It keeps a
network in training every `SECONDS_BETWEEN_SAVES` seconds and resumes after that epoch.
`TrajectoryTrainer` trains by steps of SGD, and keeps the parameters at given iterations.

Both keep networks as pieces (`kept.Arrays`), tell progress by `CellProgress`, and raise
`InputError` where training diverges. All that is random in network number n follows from
`fold_in(root, n)`, with the root `fresh_key(seed)` or one that is given, so
it is the same in any company and after any resumption.
"""

import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from distilljax import data
from distilljax.core import inner, losses, parameters, sampling
from distilljax.core.inner import InnerState
from distilljax.training import expert
from distilljax.training.evaluation import EvaluationProtocol, optimizer
from distilljax.training.expert import Recipe
from distilljax.types import Array, Batch, InputError, Key, Model, RealSet, Transform
from experiments.lab.kept import Arrays, digest
from experiments.lab.keys import fresh_key
from experiments.lab.networks import Network
from experiments.lab.progress import CellProgress
from experiments.lab.sets import transform_digest

SECONDS_BETWEEN_SAVES = 30.0


class Net(NamedTuple):
    """A network to train for some epochs; a `Cell`."""

    network: Network
    number: int
    epochs: int
    identity: str  # SHA-256 of what it is trained on, and how
    file: str = "network"  # its name among the pieces

    @property
    def kind(self) -> str:
        """Epochs of one architecture cost alike."""
        return self.network.name

    @property
    def title(self) -> str:
        """Name in progress lines."""
        return f"{self.network.name} {self.number}"


def plan_net(
    loaded: data.Dataset,
    transform: Transform,
    network: Network,
    recipe: Recipe,
    epochs: int,
    seed: int,
    number: int = 0,
) -> Net:
    """Returns a network to train on the training images of `loaded`, with its identity."""
    trained_on = [loaded.fingerprint, transform_digest(transform)]
    how = [network.described(), recipe.to_dict(), epochs, seed]
    return Net(network, number, epochs, digest([*trained_on, *how, number]))


class Trained(NamedTuple):
    """A network as it is kept."""

    epoch: int  # that it has been through
    params: np.ndarray  # f32[p], see `parameters.flatten`
    optimizer: np.ndarray  # f32[q], empty once it is trained
    losses: np.ndarray  # f64[epoch], the mean training loss of each
    seconds: float  # of training


_UNTRAINED = Trained(0, np.zeros(0), np.zeros(0), np.zeros(0), 0.0)


class EpochTrainer:
    """Trains networks for whole epochs and keeps them."""

    def __init__(self, pieces: Arrays, recipe: Recipe, seed: int, key: Key | None = None):
        """Ready to train.

        Args:
          pieces: where the networks are kept.
          recipe: how they are trained.
          seed: random seed.
          key: root of all that is random, made from the seed; `fresh_key(seed)` if absent.
        """
        self._pieces, self._recipe = pieces, recipe
        self._key = fresh_key(seed) if key is None else key

    def trained(self, net: Net) -> Trained:
        """Returns a network that `train` left.

        Raises:
          InputError: its file was changed since.
        """
        found = self._read(net)
        if found.epoch < net.epochs:
            raise _changed(self._pieces, net.file)
        return found

    def train(
        self, nets: Sequence[Net], models: Mapping[str, tuple[Model, int]], real: RealSet
    ) -> None:
        """Trains the networks that are not trained yet.

        Args:
          nets: those of one kind together.
          models: kind -> model and its number of parameters.
          real: what they are trained on.

        Raises:
          InputError: training diverges.
        """
        kept = {net: self._read(net) for net in nets}
        left = {net: net.epochs - kept[net].epoch for net in nets}
        todo = [net for net in nets if left[net]]
        if done := len(nets) - len(todo):
            folder = self._pieces.path(nets[0].file).parent
            print(f"{done} of {len(nets)} networks were trained before, in {folder}")
        units = [left[net] for net in todo]
        progress = CellProgress(todo, "epoch", units, noun="network")
        for kind, of_kind in itertools.groupby(todo, lambda net: net.kind):
            model, size = models[kind]
            print(f"compiling {kind}, {size:,} parameters", file=sys.stderr, flush=True)
            begin, advance = _epoch_programs(self._key, model, self._recipe, real)
            print(f"training {kind}: a line after each epoch", file=sys.stderr, flush=True)
            for net in of_kind:
                state = begin(expert.epoch_key(self._key, net.number, 0))
                if kept[net].epoch:
                    print(f"{net.title} goes on after epoch {kept[net].epoch}")
                    state = _restored(model, state, kept[net])
                self._train(net, kept[net], state, advance, real, progress)

    def _train(
        self,
        net: Net,
        kept: Trained,
        state: InnerState,
        advance: Callable[..., Any],
        real: RealSet,
        progress: CellProgress,
    ) -> None:
        values, seconds = kept.losses.tolist(), kept.seconds
        saved = time.monotonic()
        for epoch in range(kept.epoch + 1, net.epochs + 1):
            began = time.perf_counter()
            key = expert.epoch_key(self._key, net.number, epoch)
            state, loss = advance(key, state, real)
            values.append(float(loss))
            took = time.perf_counter() - began
            seconds += took
            if not np.isfinite(values[-1]):
                where = f"at epoch {epoch}, its training loss is {values[-1]}"
                raise _diverged(net.title, where, "recipe.lr")
            progress.trained(net, 1, took, f"loss {values[-1]:.3g}")
            last = epoch == net.epochs
            if last or time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
                saved = time.monotonic()
                rest = np.asarray(ravel_pytree(() if last else state.opt_state)[0])
                params = np.asarray(parameters.flatten(state.params))
                now = Trained(epoch, params, rest, np.array(values), seconds)
                self._pieces.write(net.file, net.identity, **now._asdict())
        progress.finished(net, f"loss {values[-1]:.3g}")

    def _read(self, net: Net) -> Trained:
        held = self._pieces.read(net.file, net.identity, Trained._fields)
        if held is None:
            return _UNTRAINED
        return Trained(
            int(held["epoch"]),
            held["params"],
            held["optimizer"],
            held["losses"],
            float(held["seconds"]),
        )


def _epoch_programs(
    key: Key, model: Model, recipe: Recipe, real: RealSet
) -> tuple[Callable[[Key], InnerState], Callable[..., Any]]:
    """Compiles key -> state at epoch 0, and (key, state, real) -> (state, loss)."""

    def compute(key: Key, state: InnerState, real: RealSet) -> tuple[InnerState, Array]:
        return expert.epoch(key, model, real, recipe, state)

    begin = jax.jit(lambda key: expert.init(key, model, recipe))
    given = key, jax.eval_shape(begin, key), real
    return begin, jax.jit(compute).lower(*given).compile()


def _restored(model: Model, like: InnerState, kept: Trained) -> InnerState:
    restore = ravel_pytree(like.opt_state)[1]
    return InnerState(
        parameters.unflatten(model)(jnp.asarray(kept.params)),
        restore(jnp.asarray(kept.optimizer)),
    )


class Descent(NamedTuple):
    """How a `TrajectoryTrainer` trains: SGD at a constant rate."""

    iterations: int
    learning_rate: float
    momentum: float
    batch: int  # images a step of a real set; a distilled set is taken whole
    seed: int


class _Run(NamedTuple):
    """One network of a `TrajectoryTrainer`; a `Cell`."""

    number: int
    identity: str
    kind: str = "run"

    @property
    def title(self) -> str:
        """Name in progress lines; that of its file, too, without the space."""
        return f"run {self.number}"

    @property
    def file(self) -> str:
        """Its name among the pieces."""
        return f"run{self.number}"


class TrajectoryTrainer:
    """Trains networks step by step and keeps their parameters along the way."""

    def __init__(
        self,
        pieces: Arrays,
        identity: str,
        model: Model,
        on: Batch | RealSet,
        how: Descent,
        at: Sequence[int],
    ):
        """Ready to train.

        Args:
          pieces: where the trajectories are kept, as `run0` and so on.
          identity: SHA-256 of what they are trained on, and of the model.
          model: the network.
          on: what it is trained on.
          how: how it is trained.
          at: iterations at which parameters are kept, rising, 0 and the last among them.
        """
        self._pieces, self._identity = pieces, identity
        self._on, self._how, self._at = on, how, list(at)
        self._start, self._advance = _step_programs(model, on, how)

    def train(self, numbers: Sequence[int]) -> None:
        """Trains the networks of these numbers that are not trained yet.

        Raises:
          InputError: training diverges.
        """
        todo = [run for n in numbers if self._read(run := self._run(n)) is None]
        progress = CellProgress(todo, "iteration", self._how.iterations, noun="run")
        for run in todo:
            params = self._train(run, progress)
            self._pieces.write(run.file, run.identity, params=params)
            progress.finished(run, "")

    def trained(self, number: int) -> np.ndarray:
        """Returns the parameters at each iteration kept, f32[i, p], that `train` left.

        Raises:
          InputError: the file was changed since.
        """
        run = self._run(number)
        found = self._read(run)
        if found is None:
            raise _changed(self._pieces, run.file)
        return found

    def _run(self, number: int) -> _Run:
        about = [self._identity, self._how._asdict(), self._at, number]
        return _Run(number, digest(about))

    def _read(self, run: _Run) -> np.ndarray | None:
        held = self._pieces.read(run.file, run.identity, ("params",))
        return None if held is None else held["params"]

    def _train(self, run: _Run, progress: CellProgress) -> np.ndarray:
        how, num = self._how, self._on.labels.shape[0]
        init_key, order_key = jax.random.split(
            jax.random.fold_in(fresh_key(how.seed), run.number)
        )
        size = min(how.batch, num)
        positions = sampling.epochs(order_key, num, size, how.iterations)
        state = self._start(init_key)
        rows = [np.asarray(parameters.flatten(state.params))]
        for first, last in itertools.pairwise(self._at):
            began = time.perf_counter()
            state, row = self._advance(state, positions, first, last, self._on)
            rows.append(np.asarray(row))
            if not np.isfinite(rows[-1]).all():
                raise _diverged(run.title, f"between iterations {first} and {last}", "lr")
            progress.trained(run, last - first, time.perf_counter() - began)
        return np.stack(rows)


def _step_programs(
    model: Model, on: Batch | RealSet, how: Descent
) -> tuple[Callable[[Key], InnerState], Callable[..., Any]]:
    """Compiles the start, and the steps from one iteration to another."""
    protocol = EvaluationProtocol(
        steps=how.iterations, lr=how.learning_rate, momentum=how.momentum
    )
    rule = optimizer(protocol, how.iterations, how.learning_rate)
    loss_fn = losses.cross_entropy(model.apply)
    whole = isinstance(on, Batch)

    def start(key: Key) -> InnerState:
        return inner.init(model.init(key), rule)

    def advance(
        state: InnerState, positions: Array, first: Array, last: Array, on: Any
    ) -> tuple[InnerState, Array]:
        def step(i: Array, state: InnerState) -> InnerState:
            batch = on if whole else sampling.take(on, positions[i])
            return inner.step(loss_fn, rule, state, batch)[0]

        state = jax.lax.fori_loop(first, last, step, state)
        return state, parameters.flatten(state.params)

    return jax.jit(start), jax.jit(advance)


def _diverged(title: str, where: str, field: str) -> InputError:
    return InputError(f"training of {title} diverged {where}; lower --{field}")


def _changed(pieces: Arrays, name: str) -> InputError:
    return InputError(
        f"{pieces.path(name)} was changed while this command ran; run it again"
    )
