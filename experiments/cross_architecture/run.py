"""Train fresh networks of several architectures on distilled sets, and compare them.

    python -m experiments.cross_architecture --artefacts=runs/a/distilled.npz
    python -m experiments.cross_architecture --artefacts=a.npz,b.npz --models=own,resnet18
    python -m experiments.cross_architecture --artefacts=set.npz --width_scale=0.25

One table: a row for each artefact and one for as many random real images, a column for
each architecture; `summary.json` holds it with every network's accuracy, and
`accuracy.png` draws it. Where artefacts differ in what random images stand beside (their
number, the preprocessing, the protocol, the network under `own`), each kind has a random
row of its own. Rows that train the same network start from the same initial weights.

Each finished cell is kept in `cells.jsonl`; the same command again computes only those
that are missing, or whose artefact has changed.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from distilljax import data, devices, launch
from distilljax.analysis.statistics import spread
from distilljax.config import option
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.types import Batch, Model
from experiments.cross_architecture.record import CellRecord, Summary
from experiments.lab import networks, options
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.kept import digest
from experiments.lab.keys import fresh_key
from experiments.lab.pictures import accuracy_dots
from experiments.lab.progress import duration
from experiments.lab.protocols import chosen_network
from experiments.lab.records import write_summary
from experiments.lab.sets import Named, load_artefacts
from experiments.lab.table import CellTable, CellTrainer, Row, Training, make_rows
from experiments.lab.terminal import new_table, show_table
from experiments.lab.workdir import open_workdir, workdir_path

NAME = "experiments.cross_architecture"


@dataclasses.dataclass(frozen=True)
class Config(
    options.WorkdirOption,
    options.NetworksOption,
    options.SeedOption,
    options.TogetherOption,
    options.RealDataOptions,
    options.LabelsOption,
    options.ArtefactsOption,
):
    """Options of the experiment."""

    models: str = option(
        "own,resnet18,vgg11,alexnet",
        "Networks, with commas: own (the artefact's), "
        f"{', '.join(networks.ARCHITECTURES)}.",
    )
    width_scale: float = option(
        1.0, "Width multiplier of every network but `own`; below 1 for a CPU.", above=0
    )
    protocol: options.ProtocolOrOwn = option(
        "own", "Training of the networks; own: as each set was made for."
    )
    seeds: int = option(5, "Networks trained in each cell.", low=2)


class _Cell(NamedTuple):
    """A row with an architecture."""

    row: Row
    architecture: str
    network: str  # its settings; those of `own` may differ by row
    identity: str  # of the row and the network

    @property
    def kind(self) -> str:
        """Architecture."""
        return self.architecture

    @property
    def title(self) -> str:
        """Name in progress lines."""
        return f"{self.architecture} on {self.row.label}"


Models = dict[str, tuple[Model, int]]  # settings -> model, number of parameters


def run(config: Config) -> Summary:
    """Fills the table; returns the contents of `summary.json`.

    Raises:
      InputError: an artefact, architecture, data or working directory that cannot be
        used; artefacts of different data.
    """
    architectures = networks.parse_architectures(config.models)
    networks.check_width_scale(config, architectures)
    artefacts = load_artefacts(config.artefacts, data_dir=config.data_dir)
    label = f"{next(iter(artefacts))}-{config.protocol}"
    workdir = workdir_path(NAME, config, label)
    with open_workdir(workdir, NAME, config):
        summary = _run(config, architectures, artefacts, workdir)
    _show(summary, workdir)
    return summary


def _run(
    config: Config,
    architectures: Sequence[str],
    artefacts: Mapping[str, Named],
    workdir: pathlib.Path,
) -> Summary:
    first = next(iter(artefacts.values()))
    loaded = load_data_of(first, config.dataset, config.data_dir)
    rows = make_rows(
        artefacts,
        loaded,
        config.protocol,
        config.seeds,
        own=options.OWN in architectures,
        labels=config.labels,
        seed=config.seed,
    )
    models, cells = _cells(config, architectures, rows, loaded)
    table = CellTable(workdir / "cells.jsonl", cells, "network", config.seeds)
    keys = jax.random.split(fresh_key(config.seed), config.seeds)
    trainer = CellTrainer(
        keys, config.together, table.progress, devices.mesh(config.devices)
    )
    for cell in table.missing:
        began = time.perf_counter()

        def sets(chosen: np.ndarray, cell: _Cell = cell) -> Batch:
            return jax.tree.map(lambda x: x[chosen], cell.row.sets)

        model, size = models[cell.network]
        training = Training(cell.architecture, cell.network, model, size, sets, cell.row)
        accuracy = spread(trainer.train(cell, training))
        record = {
            "row": cell.row.label,
            "architecture": cell.architecture,
            **accuracy,
            "parameters": size,
            "seconds": time.perf_counter() - began,
        }
        table.finish(cell, record, f"{spelt_accuracy(accuracy)} %")
    return _summarise(config, workdir, loaded, table)


def _cells(
    config: Config, architectures: Sequence[str], rows: Sequence[Row], loaded: data.Dataset
) -> tuple[Models, list[_Cell]]:
    """Returns the models by their settings, and the cells of the table, in order."""
    models: Models = {}
    cells = []
    for name in architectures:
        for row in rows:
            network = (
                chosen_network(config.protocol, row.label, row.artefact)
                if name == options.OWN
                else networks.scaled_network(name, config.width_scale)
            )
            described = json.dumps(network.described(), sort_keys=True)
            if described not in models:
                models[described] = networks.sized_model(network, loaded)
            identity = digest([row.identity, name, described, config.seed])
            cells.append(_Cell(row, name, described, identity))
    return models, cells


def _summarise(
    config: Config,
    workdir: pathlib.Path,
    loaded: data.Dataset,
    table: CellTable[_Cell],
) -> Summary:
    accuracy: dict[str, dict[str, CellRecord]] = {c.row.label: {} for c in table.cells}
    for cell in table.cells:
        record = table.record(cell)
        accuracy[cell.row.label][cell.architecture] = {
            **spread(record["values"]),
            "parameters": record["parameters"],
            "seconds": record["seconds"],
        }
    summary: Summary = {
        "accuracy": accuracy,
        "rows": {cell.row.label: cell.row.about for cell in table.cells},
        "architectures": {
            cell.architecture: json.loads(cell.network)
            for cell in table.cells
            if cell.architecture != options.OWN
        },
        "protocol": config.protocol,
        "dataset": describe_dataset(loaded),
        "seconds": table.seconds(),
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    accuracy_dots(
        workdir / "accuracy.png",
        accuracy,
        _title(summary),
        soft=[row for row, about in summary["rows"].items() if about["path"] is None],
        chance=1 / loaded.num_classes,
    )
    return write_summary(workdir, Summary, summary)


def _title(summary: Summary) -> str:
    return f"Test accuracy on {summary['dataset']['name']}, protocol {summary['protocol']}"


def _show(summary: Summary, workdir: pathlib.Path) -> None:
    accuracy = summary["accuracy"]
    names = list(next(iter(accuracy.values())))
    seeds = next(iter(accuracy.values()))[names[0]]["seeds"]
    table = new_table(
        _title(summary),
        ("trained on", *names),
        caption=f"Percent: mean ± standard deviation of {seeds} networks.",
    )
    for label, row in accuracy.items():
        table.add_row(label, *(spelt_accuracy(row[name]) for name in names))
    show_table(table, 40 + 14 * len(names))
    seconds = duration(summary["seconds"])
    print(f"{seconds}. summary.json, accuracy.png and cells.jsonl lie in {workdir}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
