"""TODO."""

import functools
import math
import pathlib
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from distilljax.analysis import pools
from distilljax.analysis.pools import Predicted
from distilljax.io.files import replacing
from distilljax.training import evaluation
from distilljax.types import (
    Array,
    Batch,
    InputError,
    Key,
    Model,
    RealSet,
)
from experiments.agreement.options import EARLY, NAMES, SUBSET, Config
from experiments.lab.kept import digest
from experiments.lab.progress import CellProgress
from experiments.lab.table import Row, training_cost


class Piece(NamedTuple):
    """Networks that are trained in one dispatch, and kept together."""

    kind: str
    numbers: tuple[int, ...]  # which networks of its kind
    identity: str  # SHA-256 of all that settles them
    steps: int  # of training, all networks together

    @property
    def title(self) -> str:
        """In progress lines."""
        if len(self.numbers) == 1:
            return f"{self.kind}, number {self.numbers[0]}"
        return f"{self.kind}, {len(self.numbers)} of them"

    def path(self, workdir: pathlib.Path) -> pathlib.Path:
        """The file that it is kept in."""
        return workdir / "networks" / f"{self.identity[:16]}.npz"


class Kept(NamedTuple):
    """A piece as its file holds it."""

    classes: np.ndarray  # u8[m, ..., n]
    seconds: float  # of training


class Problem(NamedTuple):
    """What networks are trained on and tested on."""

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
    weight: float  # what a step costs, in images trained on
    program: Any  # jitted
    # Numbers of networks -> what the program is given. A piece with fewer than others has
    # some twice; the flags say which are wanted.
    given: Callable[[np.ndarray, np.ndarray], tuple[Any, ...]]

    def size(self) -> int:
        """Networks in a dispatch."""
        return max(len(piece.numbers) for piece in self.pieces)


def pool_name(name: str) -> str:
    return f"pool {name}"


def row_name(label: str) -> str:
    """Not the label itself: an artefact may be called as a pool is."""
    return f"networks on {label}"


def subset_group(config: Config, problem: Problem) -> Group:
    """The pool of networks trained on subsets, each piece with small and large ones."""
    names = ("subset_networks", "subset_low", "subset_high", "subset_epochs")
    subsets, described = problem.subsets, [SUBSET, *problem.described, _how(config, names)]
    steps = config.subset_epochs * -(-subsets.sizes // config.batch)
    by_size = np.argsort(-subsets.sizes, kind="stable")
    num_pieces = -(-config.subset_networks // config.piece)
    pieces = []
    for first in range(num_pieces):
        numbers = by_size[first::num_pieces]
        identity = digest([*described, numbers.tolist()])
        total = int(steps[numbers].sum())
        pieces.append(Piece(NAMES[SUBSET], tuple(numbers.tolist()), identity, total))

    @jax.jit
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
        )

    def given(numbers: np.ndarray, wanted: np.ndarray) -> tuple[Any, ...]:
        # A network that only fills a piece is not trained.
        sizes = np.where(wanted, subsets.sizes[numbers], 0)
        positions = subsets.positions[numbers]
        return problem.keys[1], numbers, positions, sizes, problem.real, problem.test

    mean = float(subsets.sizes.mean())
    weight = mean / math.ceil(mean / config.batch)
    return Group(pieces, weight, program, given)


def early_group(config: Config, problem: Problem) -> Group:
    """The pool of networks stopped early."""
    described = _how(config, ("early_iterations", "early_every"))

    @jax.jit
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
        )

    def given(numbers: np.ndarray, wanted: np.ndarray) -> tuple[Any, ...]:
        return problem.keys[2], numbers, problem.real, problem.test

    pieces = _in_turn(
        NAMES[EARLY],
        config.early_runs,
        config.together,
        [EARLY, *problem.described, described],
        config.early_iterations,
    )
    # To predict an image costs a third of training on it.
    weight = config.batch + len(problem.test.labels) / config.early_every / 3
    return Group(pieces, weight, program, given)


def row_groups(config: Config, problem: Problem) -> dict[str, Group]:
    """The networks trained on the sets of each row."""

    @functools.cache
    def program(protocol: evaluation.EvaluationProtocol) -> Any:
        @jax.jit
        def train(
            key: Key, numbers: Array, sets: Batch, test: RealSet, rate: Array
        ) -> Predicted:
            def one(given: tuple[Key, Batch]) -> Predicted:
                params = evaluation.train(
                    given[0], problem.model, given[1], protocol, learning_rate=rate
                )
                return pools.predicted(problem.model, params, test, config.chunk)

            batch_size = config.together if config.together > 1 else None
            return jax.lax.map(one, (_keys(key, numbers), sets), batch_size=batch_size)

        return train

    found = {}
    for row in problem.rows:
        num_images = row.sets.labels.shape[1]
        steps = row.protocol.num_steps(num_images)

        def given(
            numbers: np.ndarray, wanted: np.ndarray, row: Row = row
        ) -> tuple[Any, ...]:
            sets = jax.tree.map(lambda x: x[numbers], row.sets)
            return problem.keys[0], numbers, sets, row.test, row.learning_rate

        name = row_name(row.label)
        computed = [config.chunk, config.together]
        described = [row.identity, *problem.described, *computed]
        pieces = _in_turn(name, config.seeds, config.together, described, steps)
        weight = training_cost(num_images, row.protocol, len(row.test.labels)) / steps
        found[name] = Group(pieces, weight, program(row.protocol), given)
    return found


def _how(config: Config, names: Sequence[str]) -> dict[str, Any]:
    """What else settles the networks of a pool."""
    everywhere = ("batch", "lr", "momentum", "chunk", "together")
    return {name: getattr(config, name) for name in (*names, *everywhere)}


def _keys(key: Key, numbers: Array) -> Key:
    """A key for each network, by its number alone."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)


def _in_turn(
    kind: str, num: int, together: int, described: Sequence[Any], steps: int
) -> list[Piece]:
    """Pieces of `together` networks, each of which takes as many steps."""
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


def train(
    groups: Mapping[str, Group], num_parameters: int, workdir: pathlib.Path
) -> dict[str, tuple[np.ndarray, float]]:
    """Trains what is not in its file.

    Returns:
      Predictions of the networks of each group in the order of their numbers, and how long
      their training took.

    Raises:
      InputError: a network whose logits are not finite; a file that cannot be read.
    """
    kept = {
        piece.identity: _read(piece, workdir)
        for group in groups.values()
        for piece in group.pieces
        if piece.path(workdir).exists()
    }
    todo = [
        (name, piece)
        for name, group in groups.items()
        for piece in group.pieces
        if piece.identity not in kept
    ]
    num = sum(len(piece.numbers) for group in groups.values() for piece in group.pieces)
    if done := num - sum(len(piece.numbers) for _, piece in todo):
        print(f"{done} of {num} networks were trained before, in {workdir}")
    progress = CellProgress(
        [piece for _, piece in todo],
        "step",
        [piece.steps for _, piece in todo],
        noun="piece",
        weights={group.pieces[0].kind: group.weight for group in groups.values()},
    )
    programs: dict[Any, Any] = {}
    for name, piece in todo:
        group = groups[name]
        size = len(piece.numbers)
        numbers = np.resize(np.array(piece.numbers), group.size())
        given = group.given(numbers, np.arange(len(numbers)) < size)
        which = group.program, tuple(leaf.shape for leaf in jax.tree.leaves(given))
        if which not in programs:
            title = f"compiling {piece.kind}, {num_parameters:,} parameters"
            print(title, file=sys.stderr, flush=True)
            programs[which] = group.program.lower(*given).compile()
        began = time.perf_counter()
        found = jax.device_get(programs[which](*given))
        seconds = time.perf_counter() - began
        if not found.finite[:size].all():
            remedy = (
                "lower --lr"
                if name in map(pool_name, NAMES)
                else "choose another --protocol, or leave that set out"
            )
            raise InputError(
                f"{piece.title}: a network's predictions are not finite, its training "
                f"diverged; {remedy}"
            )
        kept[piece.identity] = Kept(found.classes[:size], seconds)
        _write(piece, kept[piece.identity], workdir)
        progress.trained(piece, piece.steps, seconds)
        progress.finished(piece, "")
    return {name: _collected(group, kept) for name, group in groups.items()}


def _collected(group: Group, kept: Mapping[str, Kept]) -> tuple[np.ndarray, float]:
    numbers = np.concatenate([piece.numbers for piece in group.pieces])
    parts = [kept[piece.identity] for piece in group.pieces]
    classes = np.concatenate([part.classes for part in parts])
    return classes[np.argsort(numbers)], sum(part.seconds for part in parts)


def _read(piece: Piece, workdir: pathlib.Path) -> Kept:
    """What is kept of a piece.

    Raises:
      InputError: a file that cannot be read, or holds other networks.
    """
    path = piece.path(workdir)
    try:
        with np.load(path, allow_pickle=False) as held:
            if str(held["identity"]) != piece.identity:
                raise ValueError("it holds other networks")
            return Kept(held["classes"], float(held["seconds"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read ({error}); delete it to train its networks again"
        ) from None


def _write(piece: Piece, kept: Kept, workdir: pathlib.Path) -> None:
    with replacing(piece.path(workdir)) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            identity=np.array(piece.identity),
            kind=np.array(piece.kind),
            numbers=np.array(piece.numbers),
            classes=kept.classes,
            seconds=np.array(kept.seconds),
        )
