"""A table of cells, computed one after another; each is kept as soon as it is finished.

A cell is whatever has an identity, the SHA-256 of all that it depends on. A finished one
is a line of a file under that identity, so that the same command again computes only the
cells that are missing, or of which something has changed.

    table = Table(workdir / "cells.jsonl", cells, "network", config.seeds)
    for cell in table.missing:
        table.finish(cell, {"mean": ...}, "what it came to")  # table.progress in between
    table.record(cell)
"""

import math
import pathlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import data, io
from distilljax.core import distilled as distilled_set
from distilljax.core import sampling
from distilljax.io import records
from distilljax.io.files import replacing
from distilljax.training import evaluation
from distilljax.types import Array, Batch, Key, Model, RealSet
from experiments import common
from experiments.progress import SECONDS_BETWEEN_LINES, duration


class Cell(Protocol):
    """What a table needs to know of a cell."""

    @property
    def identity(self) -> str:
        """SHA-256 of all that the cell depends on, see `common.digest`."""

    @property
    def title(self) -> str:
        """What progress lines call it."""

    @property
    def kind(self) -> str:
        """What its time depends on; cells of one kind cost alike."""


AnyCell = TypeVar("AnyCell", bound=Cell)


class Progress:
    """Lines on stderr: after a cell, and after ten seconds of silence.

    A cell consists of equal units, such as networks. The time left takes each unit to
    cost what the last of its kind did; of a kind that is still to come, what the dearest
    did so far, by weight.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        unit: str,
        units: int | Sequence[int],
        *,
        noun: str = "cell",
        weights: Mapping[str, float] | None = None,
    ):
        """Before the first.

        Args:
          cells: that are to be computed.
          unit: what a cell consists of.
          units: how many, of all cells or of each.
          noun: what a cell is called.
          weights: kind -> what a unit costs, in any measure; else all cost alike.
        """
        self._unit, self._noun = unit, noun
        self._weights = weights or {}
        self._left = Counter[str]()  # kind -> units
        numbers = [units] * len(cells) if isinstance(units, int) else units
        self._left_of_cell: dict[str, int] = {}
        for cell, number in zip(cells, numbers, strict=True):
            self._left[cell.kind] += number
            self._left_of_cell[cell.identity] = number
        self._num_units, self._num_cells = self._left.total(), len(cells)
        self._cells_done = 0
        self._seconds: dict[str, float] = {}  # kind -> of its last unit
        self._silent_since = time.monotonic()

    def trained(self, cell: Cell, num: int, seconds: float, result: str = "") -> None:
        """`num` units more of the cell are done, in `seconds` together."""
        self._left[cell.kind] -= num
        self._left_of_cell[cell.identity] -= num
        self._seconds[cell.kind] = seconds / num
        whole = self._left_of_cell[cell.identity] == 0
        if not whole and time.monotonic() - self._silent_since > SECONDS_BETWEEN_LINES:
            self._print(cell, result)

    def finished(self, cell: Cell, result: str) -> None:
        """A cell is whole; something of its kind was trained before."""
        self._cells_done += 1
        self._print(cell, result)

    def seconds_left(self) -> float:
        """An estimate, once there is a unit to go by."""
        dearest = max(s / self._weights.get(k, 1) for k, s in self._seconds.items())
        return sum(
            num * self._seconds.get(kind, dearest * self._weights.get(kind, 1))
            for kind, num in self._left.items()
        )

    def _print(self, cell: Cell, result: str) -> None:
        self._silent_since = time.monotonic()
        done = self._num_units - self._left.total()
        print(
            f"{self._noun} {self._cells_done}/{self._num_cells}  "
            f"{self._unit} {done}/{self._num_units}  "
            f"{self._seconds[cell.kind]:.3g} s/{self._unit}  "
            f"about {duration(self.seconds_left())} left  "
            f"{cell.title}{': ' * bool(result)}{result}",
            file=sys.stderr,
            flush=True,
        )


class Table(Generic[AnyCell]):
    """Cells and the file of those that are finished.

    Attributes:
      cells: all of them.
      missing: the cells to compute, in order; of equal ones the first.
      progress: of these.
    """

    def __init__(
        self,
        path: pathlib.Path,
        cells: Sequence[AnyCell],
        unit: str,
        units: int,
        *,
        weights: Mapping[str, float] | None = None,
    ):
        """Reads the file, and says on stdout how many cells it held.

        Args:
          path: of the file; it is left with these cells and no others.
          cells: all of the table.
          unit: see `Progress`.
          units: see `Progress`.
          weights: see `Progress`.

        Raises:
          InputError: a file with a damaged line.
        """
        self._path, self.cells = path, cells
        wanted = {cell.identity for cell in cells}
        kept = [line for line in records.read(path) if line.get("identity") in wanted]
        if path.exists():
            with replacing(path) as temporary:
                records.append(temporary, kept)
        self._done = {line["identity"]: line for line in kept}
        finished = sum(cell.identity in self._done for cell in cells)
        if finished:
            print(
                f"{finished} of {len(cells)} cells were finished before, in {path.parent}"
            )
        first = {cell.identity: cell for cell in reversed(cells)}
        self.missing = [
            cell
            for cell in cells
            if cell.identity not in self._done and cell is first[cell.identity]
        ]
        self.progress = Progress(self.missing, unit, units, weights=weights)

    def finish(self, cell: AnyCell, record: Mapping[str, Any], result: str) -> None:
        """Keeps what a cell came to; `result` is that in a few words."""
        line = {**record, "identity": cell.identity}
        records.append(self._path, [line])
        self._done[cell.identity] = line
        self.progress.finished(cell, result)

    def record(self, cell: AnyCell) -> dict[str, Any]:
        """What was kept of a finished cell."""
        return self._done[cell.identity]

    def seconds(self) -> float:
        """What all cells took together: the sum of `seconds` in their records."""
        return sum(self.record(cell)["seconds"] for cell in self.cells)


class Row(NamedTuple):
    """Training sets of a row of cells, and how networks are trained on them."""

    label: str
    sets: Batch  # images f32[s, n, h, w, c], labels f32[s, n, k]: one for each network
    test: RealSet
    protocol: evaluation.EvaluationProtocol
    learning_rate: Array  # f32[], where the protocol leaves it to the set
    artefact: io.Artefact  # the set, or the one that the random images stand beside
    identity: str  # SHA-256 of all this, without the label
    about: Mapping[str, Any]  # for `summary.json`


_ABOUT = ("images_per_class", "protocol", "learning_rate", "own")


def rows(
    artefacts: Mapping[str, common.Named],
    loaded: data.Dataset,
    protocol: str,
    seeds: int,
    *,
    own: bool,
) -> list[Row]:
    """The artefacts, then one row of random real images for each kind that they need.

    Artefacts share a random row if they agree in what it stands for: as many images, the
    same preprocessing, the same training.

    Args:
      artefacts: by label.
      loaded: the data, see `common.data_of`.
      protocol: a key of `PROTOCOLS`; else each artefact's own.
      seeds: number of networks, each with random images of its own.
      own: whether each artefact's own network is trained on its row and on the random one.

    Raises:
      FieldError: there is no such network.
    """
    first = next(iter(artefacts.values())).artefact
    real = data.on_device(loaded.test, first.transform, loaded.num_classes)
    distilled: list[Row] = []
    random: dict[str, Row] = {}
    for label, (path, artefact) in artefacts.items():
        trained = evaluation.PROTOCOLS.get(protocol, artefact.protocol)
        rate = jnp.exp(artefact.distilled.log_lr)
        ipc = common.stored_ipc(artefact)
        needs: dict[str, Any] = {
            "images_per_class": ipc,
            "protocol": trained.to_dict(),
            "learning_rate": float(rate) if trained.lr is None else None,
            "transform": common.transform_digest(artefact.transform),
            "data": loaded.fingerprint,
            "own": common.own_network(label, artefact).described() if own else None,
            "seeds": seeds,
        }
        about = {name: value for name, value in needs.items() if name in _ABOUT}
        row = Row(
            label,
            common.repeated(distilled_set.as_batch(artefact.distilled), seeds),
            real._replace(transform=artefact.transform),
            trained,
            rate,
            artefact,
            common.digest(needs, artefact.distilled),
            {"path": path, "method": artefact.method, "version": artefact.version, **about},
        )
        distilled.append(row)
        if (kind := common.digest(needs)) not in random:
            name = f"random, {ipc} per class"
            if any(name == other.label for other in random.values()):
                name += f", as for {label}"
            random[kind] = row._replace(
                label=name,
                sets=common.random_subsets(loaded.train, ipc, seeds, artefact.transform),
                identity=kind,
                about={"path": None, "method": "random", **about},
            )
    return [*distilled, *random.values()]


def cost(num_images: int, protocol: evaluation.EvaluationProtocol, num_test: int) -> float:
    """What a network costs, in images trained on; testing one costs a third."""
    size, _ = sampling.even_batches(num_images, protocol.batch)
    return protocol.num_steps(num_images) * size + num_test / 3


class Training(NamedTuple):
    """How the networks of a cell come about."""

    name: str  # of the architecture
    network: str  # all that settles the model; what shares a compiled program
    model: Model
    num_parameters: int
    sets: Callable[[np.ndarray], Batch]  # i[s], which networks -> [s, ...], a set for each
    row: Row  # what they are tested on, and how they are trained


class Trainer:
    """Trains and tests the networks of cells; those of like shapes share a program."""

    def __init__(self, keys: Key, together: int, progress: Progress):
        """Ready to train.

        Args:
          keys: key[s], one for each network of a cell.
          together: most networks trained side by side.
          progress: what is told of every network.
        """
        self._keys, self._progress = keys, progress
        num = keys.shape[0]
        # Dispatches of even size; the last is filled up with networks trained before.
        self._size = math.ceil(num / math.ceil(num / together))
        self._programs: dict[Any, Any] = {}

    def train(self, cell: Cell, training: Training) -> list[float]:
        """Test accuracy of every network of the cell."""
        num, values = self._keys.shape[0], list[float]()
        for first in range(0, num, self._size):
            chosen = np.arange(first, first + self._size) % num
            sets = training.sets(chosen)
            row = training.row
            given = (self._keys[chosen], sets, row.test, row.learning_rate)
            program = self._program(training, given)
            began = time.perf_counter()
            new = min(self._size, num - first)
            values += program(*given).tolist()[:new]
            self._progress.trained(cell, new, time.perf_counter() - began)
        return values

    def _program(self, training: Training, given: tuple[Any, ...]) -> Any:
        leaves, structure = jax.tree.flatten(given)
        shapes = tuple(leaf.shape for leaf in leaves)
        protocol = training.row.protocol
        which = (training.network, protocol, structure, shapes)
        if which not in self._programs:
            print(
                f"compiling {training.name}, {training.num_parameters:,} parameters, "
                f"{given[1].images.shape[1]} images",
                file=sys.stderr,
                flush=True,
            )

            def compute(keys: Key, sets: Batch, test: RealSet, rate: Array) -> Array:
                return evaluation.fresh_accuracy(
                    keys,
                    training.model,
                    sets,
                    test,
                    protocol,
                    learning_rate=rate,
                    stacked=True,
                    together=self._size,
                )

            self._programs[which] = jax.jit(compute).lower(*given).compile()
        return self._programs[which]
