"""Networks of the pools and of the rows: trained in pieces, each kept when finished."""

import functools
import math
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from distilljax import devices
from distilljax.analysis import pools
from distilljax.analysis.pools import Predicted
from distilljax.training import evaluation
from distilljax.types import Array, Batch, InputError, Key, Model, RealSet
from experiments.agreement.options import EARLY, NAMES, SUBSET, Config
from experiments.lab.kept import Arrays, digest
from experiments.lab.progress import CellProgress
from experiments.lab.table import Row, training_cost

FOLDER = "networks"  # of the working directory, where pieces are kept
ARRAYS = ("kind", "numbers", "classes", "seconds")


class Piece(NamedTuple):
    """Networks that are trained in one dispatch, and kept together."""

    kind: str
    numbers: tuple[int, ...]  # which networks of its kind
    identity: str  # SHA-256 of all that they depend on
    steps: int  # of training, all networks together

    @property
    def title(self) -> str:
        """Name in progress lines."""
        if len(self.numbers) == 1:
            return f"{self.kind}, number {self.numbers[0]}"
        return f"{self.kind}, {len(self.numbers)} of them"

    @property
    def name(self) -> str:
        """Name of the file that it is kept in."""
        return self.identity[:16]


class Trained(NamedTuple):
    """A finished piece."""

    classes: np.ndarray  # u8[m, ..., n], predictions
    seconds: float  # of training


class Problem(NamedTuple):
    """Training and test data of all networks."""

    model: Model
    num_parameters: int
    real: RealSet
    test: RealSet
    rows: list[Row]
    subsets: pools.Subsets
    described: list[Any]  # network, data, preprocessing, test images, seed
    keys: Key  # key[3], for the networks on sets, on subsets, and stopped early


class Group(NamedTuple):
    """A pool, or the networks of a row: pieces that one compiled program trains."""

    pieces: list[Piece]
    weight: float  # cost of a step, in images trained on
    program: Any  # of `devices.jit`
    # Numbers of networks -> arguments of the program. A piece with fewer than others has
    # some twice; the flags say which are wanted.
    given: Callable[[np.ndarray, np.ndarray], tuple[Any, ...]]
    mesh: Mesh | None = None  # devices that share the networks of a dispatch

    def size(self) -> int:
        """Returns the number of networks in a dispatch."""
        return max(len(piece.numbers) for piece in self.pieces)

    def files(self) -> list[str]:
        """Returns where the pieces are kept, relative to the working directory."""
        return [f"{FOLDER}/{piece.name}.npz" for piece in self.pieces]


def pool_name(name: str) -> str:
    """Returns the name of the group of a pool."""
    return f"pool {name}"


def row_name(label: str) -> str:
    """Returns the name of the group of a row; an artefact may be called as a pool is."""
    return f"networks on {label}"


def subset_group(config: Config, problem: Problem) -> Group:
    """Returns the pool of networks trained on subsets.

    Each piece has small and large subsets, so that all pieces cost alike.
    """
    names = ("subset_networks", "subset_low", "subset_high", "subset_epochs")
    described = [SUBSET, *problem.described, _settings(config, names)]
    subsets = problem.subsets
    steps = config.subset_epochs * -(-subsets.sizes // config.batch)
    mesh = devices.mesh(config.devices)
    by_size = np.argsort(-subsets.sizes, kind="stable")
    num_pieces = -(-config.subset_networks // config.piece)
    pieces = []
    for first in range(num_pieces):
        numbers = by_size[first::num_pieces]
        identity = digest([*described, numbers.tolist()])
        total = int(steps[numbers].sum())
        pieces.append(Piece(NAMES[SUBSET], tuple(numbers.tolist()), identity, total))

    def program(
        key: Key,
        numbers: Array,
        positions: Array,
        sizes: Array,
        real: RealSet,
        test: RealSet,
    ) -> Predicted:
        return pools.subset_trained(
            _keys(key, numbers),
            problem.model,
            real,
            positions,
            sizes,
            test,
            epochs=config.subset_epochs,
            batch=config.batch,
            optimizer=_optimizer(config),
            chunk=config.chunk,
            together=config.together,
            mesh=mesh,
        )

    def given(numbers: np.ndarray, wanted: np.ndarray) -> tuple[Any, ...]:
        # A network that only fills a piece is not trained.
        sizes = np.where(wanted, subsets.sizes[numbers], 0)
        positions = subsets.positions[numbers]
        return problem.keys[1], numbers, positions, sizes, problem.real, problem.test

    mean = float(subsets.sizes.mean())
    weight = mean / math.ceil(mean / config.batch)
    return Group(pieces, weight, devices.jit(program, mesh), given, mesh)


def early_group(config: Config, problem: Problem) -> Group:
    """Returns the pool of networks stopped early."""
    described = _settings(config, ("early_iterations", "early_every"))
    mesh = devices.mesh(config.devices)

    def program(key: Key, numbers: Array, real: RealSet, test: RealSet) -> Predicted:
        return pools.early_stopped(
            _keys(key, numbers),
            problem.model,
            real,
            test,
            iterations=config.early_iterations,
            every=config.early_every,
            batch=config.batch,
            optimizer=_optimizer(config),
            chunk=config.chunk,
            together=config.together,
            mesh=mesh,
        )

    def given(numbers: np.ndarray, wanted: np.ndarray) -> tuple[Any, ...]:
        return problem.keys[2], numbers, problem.real, problem.test

    pieces = _equal_pieces(
        NAMES[EARLY],
        config.early_runs,
        config.together,
        [EARLY, *problem.described, described],
        config.early_iterations,
    )
    # To predict an image costs a third of training on it.
    weight = config.batch + len(problem.test.labels) / config.early_every / 3
    return Group(pieces, weight, devices.jit(program, mesh), given, mesh)


def row_groups(config: Config, problem: Problem) -> dict[str, Group]:
    """Returns the networks trained on the sets of each row."""
    mesh = devices.mesh(config.devices)

    @functools.cache
    def program(protocol: evaluation.EvaluationProtocol) -> Any:
        def train(
            key: Key,
            numbers: Array,
            sets: Batch,
            test: RealSet,
            rate: Array,
            validation: RealSet | None,
        ) -> Predicted:
            network = evaluation.network(problem.model, protocol)

            def one(given: tuple[Key, Batch]) -> Predicted:
                params = evaluation.train(
                    given[0],
                    problem.model,
                    given[1],
                    protocol,
                    learning_rate=rate,
                    validation=validation,
                )
                return pools.predicted(network, params, test, config.chunk)

            given = _keys(key, numbers), sets
            return devices.spread(one, given, mesh, together=config.together)

        return devices.jit(train, mesh)

    found = {}
    for row in problem.rows:
        num_images = row.sets.labels.shape[1]
        steps = row.protocol.num_steps(num_images)

        def given(
            numbers: np.ndarray, wanted: np.ndarray, row: Row = row
        ) -> tuple[Any, ...]:
            sets = jax.tree.map(lambda x: x[numbers], row.sets)
            about = row.test, row.learning_rate, row.validation
            return problem.keys[0], numbers, sets, *about

        name = row_name(row.label)
        computed = [config.chunk, config.together]
        described = [row.identity, *problem.described, *computed]
        pieces = _equal_pieces(name, config.seeds, config.together, described, steps)
        weight = training_cost(num_images, row.protocol, len(row.test.labels)) / steps
        found[name] = Group(pieces, weight, program(row.protocol), given, mesh)
    return found


def _settings(config: Config, names: Sequence[str]) -> dict[str, Any]:
    """Returns the options that the networks of a pool depend on."""
    everywhere = ("batch", "lr", "momentum", "chunk", "together")
    return {name: getattr(config, name) for name in (*names, *everywhere)}


def _keys(key: Key, numbers: Array) -> Key:
    """Returns a key for each network, by its number alone."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)


def _equal_pieces(
    kind: str, num: int, together: int, described: Sequence[Any], steps: int
) -> list[Piece]:
    """Returns pieces of `together` networks, each of which takes as many steps."""
    return [
        Piece(
            kind,
            numbers := tuple(range(first, min(first + together, num))),
            digest([*described, list(numbers)]),
            steps * len(numbers),
        )
        for first in range(0, num, together)
    ]


def _optimizer(config: Config) -> optax.GradientTransformation:
    return optax.sgd(config.lr, momentum=config.momentum or None)


class _Store:
    """The finished pieces of a working directory."""

    def __init__(self, workdir: pathlib.Path):
        self._arrays = Arrays(workdir / FOLDER)

    def read(self, piece: Piece) -> Trained | None:
        held = self._arrays.read(piece.name, piece.identity, ARRAYS)
        if held is None:
            return None
        return Trained(held["classes"], float(held["seconds"]))

    def write(self, piece: Piece, trained: Trained) -> None:
        about = {"kind": piece.kind, "numbers": piece.numbers}
        self._arrays.write(piece.name, piece.identity, **about, **trained._asdict())


class _Programs:
    """The compiled programs; groups with arguments of like shapes share one."""

    def __init__(self, num_parameters: int):
        self._num_parameters = num_parameters
        self._compiled: dict[Any, jax.stages.Compiled] = {}

    def run(self, group: Group, piece: Piece) -> tuple[Predicted, float]:
        """Returns the predictions of a dispatch, and the seconds it took."""
        numbers = np.resize(np.array(piece.numbers), group.size())
        given = group.given(numbers, np.arange(len(numbers)) < len(piece.numbers))
        given = devices.everywhere(given, group.mesh)
        which = group.program, tuple(leaf.shape for leaf in jax.tree.leaves(given))
        if which not in self._compiled:
            print(
                f"compiling {piece.kind}, {self._num_parameters:,} parameters; the next "
                f"line comes when the first {len(piece.numbers)} are trained, "
                f"{piece.steps:,} steps",
                file=sys.stderr,
                flush=True,
            )
            self._compiled[which] = group.program.lower(*given).compile()
        began = time.perf_counter()
        found = jax.device_get(self._compiled[which](*given))
        return found, time.perf_counter() - began


def train(
    groups: Mapping[str, Group], num_parameters: int, workdir: pathlib.Path
) -> dict[str, tuple[np.ndarray, float]]:
    """Trains the networks whose piece is not kept.

    Returns:
      Predictions of the networks of each group in the order of their numbers, and the
      seconds of their training.

    Raises:
      InputError: a network whose logits are not finite.
    """
    store = _Store(workdir)
    pieces = [(name, piece) for name, group in groups.items() for piece in group.pieces]
    trained = {
        piece.identity: held
        for _, piece in pieces
        if (held := store.read(piece)) is not None
    }
    missing = [(name, piece) for name, piece in pieces if piece.identity not in trained]
    num = sum(len(piece.numbers) for _, piece in pieces)
    if done := num - sum(len(piece.numbers) for _, piece in missing):
        print(f"{done} of {num} networks were trained before, in {workdir}")
    progress = CellProgress(
        [piece for _, piece in missing],
        "step",
        [piece.steps for _, piece in missing],
        noun="piece",
        weights={group.pieces[0].kind: group.weight for group in groups.values()},
    )
    programs = _Programs(num_parameters)
    for name, piece in missing:
        found, seconds = programs.run(groups[name], piece)
        size = len(piece.numbers)
        _check_finite(name, piece, found.finite[:size])
        trained[piece.identity] = Trained(np.asarray(found.classes[:size]), seconds)
        store.write(piece, trained[piece.identity])
        progress.trained(piece, piece.steps, seconds)
        progress.finished(piece, "")
    return {name: _collected(group, trained) for name, group in groups.items()}


def _check_finite(group: str, piece: Piece, finite: Array) -> None:
    if np.all(finite):
        return
    remedy = (
        "lower --lr"
        if group in map(pool_name, NAMES)
        else "choose another --protocol, or leave that set out"
    )
    raise InputError(
        f"{piece.title}: a network's predictions are not finite, its training diverged; "
        f"{remedy}"
    )


def _collected(group: Group, trained: Mapping[str, Trained]) -> tuple[np.ndarray, float]:
    """Returns the predictions of a group by number, and the seconds of its training."""
    numbers = np.concatenate([piece.numbers for piece in group.pieces])
    parts = [trained[piece.identity] for piece in group.pieces]
    classes = np.concatenate([part.classes for part in parts])
    return classes[np.argsort(numbers)], sum(part.seconds for part in parts)
