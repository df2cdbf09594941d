"""A table of cells, computed one after another; each is kept as soon as it is finished.

A cell is whatever has an identity, the SHA-256 of all that it depends on. A finished one
is a line of a file under that identity, so that the same command again computes only the
cells that are missing, or of which something has changed.

    table = CellTable(workdir / "cells.jsonl", cells, "network", config.seeds)
    for cell in table.missing:
        table.finish(cell, {"mean": ...}, "what it came to")  # table.progress in between
    table.record(cell)
"""

import math
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from distilljax import data, devices, io
from distilljax.comparison.real import (
    random_subsets,
    real_labels,
    repeated,
    validation_images,
)
from distilljax.core import distilled as distilled_set
from distilljax.core import sampling
from distilljax.training import evaluation
from distilljax.types import Array, Batch, Key, Model, RealSet
from experiments.lab.kept import Lines, digest
from experiments.lab.keys import images_of
from experiments.lab.options import Labels
from experiments.lab.progress import Cell, CellProgress
from experiments.lab.protocols import batch_of, chosen_network, chosen_protocol
from experiments.lab.records import RowRecord
from experiments.lab.sets import Named, stored_ipc, transform_digest

AnyCell = TypeVar("AnyCell", bound=Cell)


class CellTable(Generic[AnyCell]):
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
          unit: see `CellProgress`.
          units: see `CellProgress`.
          weights: see `CellProgress`.
        """
        self.cells = cells
        self._kept = Lines(path, {cell.identity for cell in cells})
        finished = sum(cell.identity in self._kept for cell in cells)
        if finished:
            print(
                f"{finished} of {len(cells)} cells were finished before, in {path.parent}"
            )
        first = {cell.identity: cell for cell in reversed(cells)}
        self.missing = [
            cell
            for cell in cells
            if cell.identity not in self._kept and cell is first[cell.identity]
        ]
        self.progress = CellProgress(self.missing, unit, units, weights=weights)

    def finish(self, cell: AnyCell, record: Mapping[str, Any], result: str) -> None:
        """Keeps the record of a cell; `result` is that in a few words."""
        self._kept.write(cell.identity, record)
        self.progress.finished(cell, result)

    def record(self, cell: AnyCell) -> dict[str, Any]:
        """Returns the record of a finished cell."""
        return self._kept[cell.identity]

    def seconds(self) -> float:
        """Returns the sum of `seconds` in the records of all cells."""
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
    about: RowRecord  # for `summary.json`
    validation: RealSet | None = None  # held-out images, where the protocol looks at some


def make_rows(
    artefacts: Mapping[str, Named],
    loaded: data.Dataset,
    protocol: str,
    seeds: int,
    *,
    own: bool,
    labels: Labels = "own",
    seed: int,
) -> list[Row]:
    """Returns the artefacts, then a row of random real images for each kind they need.

    Artefacts share a random row if they agree in what it stands for: as many images, the
    same preprocessing, the same training.

    Args:
      artefacts: by label.
      loaded: the data, see `load_data_of`.
      protocol: a key of `PROTOCOLS`; else each artefact's own.
      seeds: number of networks, each with random images of its own.
      own: whether each artefact's own network, or that of the protocol, is trained on its
        row and on the random one.
      labels: of the artefacts: their own, or hard ones.
      seed: draws the random images.

    Raises:
      FieldError: there is no such network; the loss cannot read the labels.
    """
    first = next(iter(artefacts.values())).artefact
    real = data.on_device(loaded.test, first.transform, loaded.num_classes)
    distilled: list[Row] = []
    random: dict[str, Row] = {}
    for label, (path, artefact) in artefacts.items():
        trained = chosen_protocol(protocol, artefact)
        batch = batch_of(label, artefact, trained, labels)
        rate = jnp.exp(artefact.distilled.log_lr)
        ipc = stored_ipc(artefact)
        needs: dict[str, Any] = {
            "images_per_class": ipc,
            "protocol": trained.to_dict(),
            "learning_rate": float(rate) if trained.lr is None else None,
            "transform": transform_digest(artefact.transform),
            "data": loaded.fingerprint,
            "own": (chosen_network(protocol, label, artefact).described() if own else None),
            "seeds": seeds,
        }
        about: RowRecord = {
            "path": path,
            "method": artefact.method,
            "version": artefact.version,
            "images_per_class": ipc,
            "protocol": needs["protocol"],
            "learning_rate": needs["learning_rate"],
            "own": needs["own"],
        }
        row = Row(
            label,
            repeated(batch, seeds),
            real._replace(transform=artefact.transform),
            trained,
            rate,
            artefact,
            digest(needs, _labelled(artefact, labels)),
            about,
            validation_images(
                trained, loaded.train, artefact.transform, loaded.num_classes
            ),
        )
        distilled.append(row)
        if (kind := digest(needs)) not in random:
            name = f"random, {ipc} per class"
            if any(name == other.label for other in random.values()):
                name += f", as for {label}"
            real_sets = random_subsets(loaded.train, ipc, seeds, artefact.transform, seed)
            random[kind] = row._replace(
                label=name,
                sets=real_sets._replace(labels=real_labels(real_sets.labels, trained)),
                identity=digest([kind, *images_of(seed)]) if seed else kind,
                about=_of_random(about),
            )
    return [*distilled, *random.values()]


def _labelled(artefact: io.Artefact, labels: Labels) -> tuple[Array, ...]:
    """Returns the arrays of a set that tell it from others under these labels."""
    if labels == "hard":
        hard = distilled_set.hard_labels(artefact.distilled)
        return artefact.distilled.images, hard, artefact.distilled.log_lr
    targets = () if artefact.targets is None else (artefact.targets,)
    return (*artefact.distilled, *targets)


def _of_random(about: RowRecord) -> RowRecord:
    """Returns the record of the random images that stand beside a set."""
    found: RowRecord = {**about, "path": None, "method": "random"}
    found.pop("version")
    return found


def training_cost(
    num_images: int, protocol: evaluation.EvaluationProtocol, num_test: int
) -> float:
    """Returns the cost of a network, in images trained on; testing one costs a third."""
    size, _ = sampling.even_batches(num_images, protocol.batch)
    return protocol.num_steps(num_images) * size + num_test / 3


class Plan(NamedTuple):
    """How networks are trained and tested, as of a `Row`, on images of no distilled set."""

    test: RealSet
    protocol: evaluation.EvaluationProtocol
    validation: RealSet | None
    learning_rate: Array | float = 0.0  # not read: the protocol has one


class Training(NamedTuple):
    """Model and training sets of the networks of a cell."""

    name: str  # of the architecture
    network: str  # all that settles the model; what shares a compiled program
    model: Model
    num_parameters: int
    sets: Callable[[np.ndarray], Batch]  # i[s], which networks -> [s, ...], a set for each
    row: Row | Plan  # what they are tested on, and how they are trained


class CellTrainer:
    """Trains and tests the networks of cells; those of like shapes share a program."""

    def __init__(
        self, keys: Key, together: int, progress: CellProgress, mesh: Mesh | None = None
    ):
        """Ready to train.

        Args:
          keys: key[s], one for each network of a cell.
          together: most networks trained side by side on a device.
          progress: told of every network.
          mesh: devices that share the networks; None for one.
        """
        self._keys, self._progress, self._mesh = keys, progress, mesh
        num, most = keys.shape[0], together * devices.size(mesh)
        # Dispatches of even size; the last is filled up with networks trained before.
        self._size = math.ceil(num / math.ceil(num / most))
        self._together = math.ceil(self._size / devices.size(mesh))
        self._programs: dict[Any, Any] = {}

    def train(self, cell: Cell, training: Training) -> list[float]:
        """Returns the test accuracy of every network of the cell."""
        num, values = self._keys.shape[0], list[float]()
        for first in range(0, num, self._size):
            chosen = np.arange(first, first + self._size) % num
            sets = training.sets(chosen)
            row = training.row
            about = row.test, row.learning_rate, row.validation
            given = devices.everywhere((self._keys[chosen], sets, *about), self._mesh)
            program = self._program(training, given)
            began = time.perf_counter()
            new = min(self._size, num - first)
            values += program(*given).tolist()[:new]
            self._progress.trained(cell, new, time.perf_counter() - began)
        return values

    def _program(self, training: Training, given: tuple[Any, ...]) -> Any:
        leaves, structure = jax.tree.flatten(given)
        shapes = tuple(jnp.shape(leaf) for leaf in leaves)
        protocol = training.row.protocol
        which = (training.network, protocol, structure, shapes)
        if which not in self._programs:
            print(
                f"compiling {training.name}, {training.num_parameters:,} parameters, "
                f"{given[1].images.shape[1]} images",
                file=sys.stderr,
                flush=True,
            )

            def compute(
                keys: Key,
                sets: Batch,
                test: RealSet,
                rate: Array | float,
                validation: RealSet | None,
            ) -> Array:
                return evaluation.fresh_accuracy(
                    keys,
                    training.model,
                    sets,
                    test,
                    protocol,
                    learning_rate=rate,
                    stacked=True,
                    together=self._together,
                    validation=validation,
                    mesh=self._mesh,
                )

            program = devices.jit(compute, self._mesh)
            self._programs[which] = program.lower(*given).compile()
        return self._programs[which]
