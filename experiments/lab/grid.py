"""A grid of test accuracies: fresh networks on the sets of a row, in several variants.

    accuracy = fill(workdir, cells, models, config.seeds, together, mesh, config.seed)

Each finished cell is kept in `cells.jsonl`. Networks of one number begin at the same
weights in every cell, so that differences are taken network by network.
"""

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from distilljax.analysis.statistics import SpreadInterval, spread, spread_interval
from distilljax.types import Batch, Model
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.keys import fresh_key
from experiments.lab.records import RowRecord
from experiments.lab.table import CellTable, CellTrainer, Row, Training, training_cost
from experiments.lab.terminal import new_table, show_table

Accuracies = dict[str, dict[str, SpreadInterval]]  # row -> column


class GridCell(NamedTuple):
    """A row in one of its variants; a `Cell`."""

    row: Row
    column: str
    sets: Callable[[np.ndarray], Batch]  # i[s], which networks -> a set for each
    num_images: int
    network: str  # its settings
    identity: str

    @property
    def kind(self) -> str:
        """Network and number of images."""
        return f"{self.network}, {self.num_images}"

    @property
    def title(self) -> str:
        """Name in progress lines."""
        return f"{self.row.label}, {self.column}"


class Filled(NamedTuple):
    """A finished grid."""

    accuracy: Accuracies
    seconds: float


def fill(
    workdir: pathlib.Path,
    cells: Sequence[GridCell],
    models: Mapping[str, tuple[Model, int]],
    seeds: int,
    together: int,
    mesh: Mesh | None,
    seed: int,
) -> Filled:
    """Trains and tests the networks of the cells that are missing; returns all accuracies.

    Args:
      workdir: where finished cells are kept.
      cells: all of the grid.
      models: settings of a network -> the model and its number of parameters.
      seeds: networks of a cell.
      together: most networks trained side by side on a device.
      mesh: devices that share the networks; None for one.
      seed: random seed.
    """
    weights = {
        cell.kind: training_cost(
            cell.num_images, cell.row.protocol, cell.row.test.labels.shape[0]
        )
        for cell in cells
    }
    table = CellTable(workdir / "cells.jsonl", cells, "network", seeds, weights=weights)
    keys = jax.random.split(fresh_key(seed), seeds)
    trainer = CellTrainer(keys, together, table.progress, mesh)
    for cell in table.missing:
        began = time.perf_counter()
        made = models[cell.network]
        training = Training("the network", cell.network, *made, cell.sets, cell.row)
        accuracy = spread(trainer.train(cell, training))
        about = {"row": cell.row.label, "column": cell.column}
        record = {**about, **accuracy, "seconds": time.perf_counter() - began}
        table.finish(cell, record, f"{spelt_accuracy(accuracy)} %")
    found: Accuracies = {cell.row.label: {} for cell in cells}
    for cell in cells:
        values = table.record(cell)["values"]
        found[cell.row.label][cell.column] = spread_interval(values)
    return Filled(found, table.seconds())


def difference(ours: SpreadInterval, others: SpreadInterval) -> SpreadInterval:
    """Returns ours less others, network by network."""
    return spread_interval(np.subtract(ours["values"], others["values"]))


def beside(rows: Mapping[str, RowRecord], label: str, method: str) -> str:
    """Returns the row of `method` that has the size and the training of row `label`.

    Raises:
      KeyError: there is none.
    """

    def needs(row: RowRecord) -> list[object]:
        names = ("images_per_class", "protocol", "learning_rate", "network")
        return [row.get(name) for name in names]

    for other, row in rows.items():
        if row["method"] == method and needs(row) == needs(rows[label]):
            return other
    raise KeyError(method)


def show_grid(title: str, head: str, accuracy: Accuracies) -> None:
    """Prints the grid in percent, a row a set."""
    columns = list(dict.fromkeys(name for row in accuracy.values() for name in row))
    seeds = next(iter(next(iter(accuracy.values())).values()))["seeds"]
    table = new_table(
        title,
        (head, *columns),
        caption=f"Percent: mean ± standard deviation of {seeds} networks.",
    )
    for name, row in accuracy.items():
        cells = (spelt_accuracy(row[one]) if one in row else "" for one in columns)
        table.add_row(name, *cells)
    show_table(table, 40 + 16 * len(columns))
