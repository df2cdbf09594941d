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
from typing import Any, Literal, NamedTuple

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from distilljax import data
from distilljax.analysis.statistics import spread
from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.io.files import write_json
from distilljax.types import Model
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.kept import digest
from experiments.lab.keys import fresh_key
from experiments.lab.networks import (
    ARCHITECTURES,
    OWN,
    own_network,
    parse_architectures,
    scaled_network,
    sized_model,
)
from experiments.lab.pictures import accuracy_dots
from experiments.lab.progress import CellProgress, duration
from experiments.lab.sets import Named, load_artefacts
from experiments.lab.table import CellTable, CellTrainer, Row, Training, make_rows
from experiments.lab.workdir import open_workdir, workdir_path


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the experiment."""

    artefacts: str = option("", "Distilled sets (.npz) of the same data, with commas.")
    models: str = option(
        "own,resnet18,vgg11,alexnet",
        f"Networks, with commas: own (the artefact's), {', '.join(ARCHITECTURES)}.",
    )
    width_scale: float = option(
        1.0, "Times the width of every network but `own`; below 1 for a CPU.", above=0
    )
    dataset: str | None = option(None, "Data to test on; none: those they were made of.")
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    protocol: Literal["own", "study", "dc", "dsa", "mtt"] = option(
        "own", "How networks are trained on a set; own: as it was made for."
    )
    seeds: int = option(5, "Networks trained in each cell.", low=2)
    together: int = option(
        1, "Networks trained side by side; more need more memory.", low=1
    )
    seed: int = option(0, "Settles everything random.", low=0, high=2**31 - 1)
    workdir: str | None = option(
        None, "Where the results go; none: a folder under runs/ named by the settings."
    )


class _Cell(NamedTuple):
    """One row under one architecture."""

    row: Row
    architecture: str
    network: str  # the settings behind that name; those of `own` may differ by row
    identity: str  # of the row and the network

    @property
    def kind(self) -> str:
        """Networks cost what their architecture does."""
        return self.architecture

    @property
    def title(self) -> str:
        """In progress lines."""
        return f"{self.architecture} on {self.row.label}"


class _Trainer(CellTrainer):
    """Trains the networks of cells."""

    def __init__(
        self,
        config: Config,
        models: Mapping[str, tuple[Model, int]],
        progress: CellProgress,
    ):
        keys = jax.random.split(fresh_key(config.seed), config.seeds)
        super().__init__(keys, config.together, progress)
        self._models = models

    def accuracies(self, cell: _Cell) -> list[float]:
        """Test accuracy of every network of the cell, trained as its row asks."""
        row = cell.row
        return self.train(
            cell,
            Training(
                cell.architecture,
                cell.network,
                *self._models[cell.network],
                lambda chosen: jax.tree.map(lambda x: x[chosen], row.sets),
                row,
            ),
        )


def run(config: Config) -> dict[str, Any]:
    """Fills the table; returns what `summary.json` holds.

    Raises:
      InputError: an artefact, architecture, data or working directory that cannot be
        used; artefacts of different data.
    """
    architectures = parse_architectures(config.models)
    artefacts = load_artefacts(config.artefacts)
    label = f"{next(iter(artefacts))}-{config.protocol}"
    workdir = workdir_path("experiments.cross_architecture", config, label)
    with open_workdir(workdir, "experiments.cross_architecture", config):
        summary = _run(config, architectures, artefacts, workdir)
    _show(summary, workdir)
    return summary


def _run(
    config: Config,
    architectures: Sequence[str],
    artefacts: Mapping[str, Named],
    workdir: pathlib.Path,
) -> dict[str, Any]:
    first = next(iter(artefacts.values()))
    loaded = load_data_of(first, config.dataset, config.data_dir)
    rows = make_rows(
        artefacts, loaded, config.protocol, config.seeds, own=OWN in architectures
    )

    models: dict[str, tuple[Model, int]] = {}
    wanted = []
    for name in architectures:
        for row in rows:
            network = (
                own_network(row.label, row.artefact)
                if name == OWN
                else scaled_network(name, config.width_scale)
            )
            described = json.dumps(network.described(), sort_keys=True)
            if described not in models:
                models[described] = sized_model(network, loaded)
            identity = digest([row.identity, name, described, config.seed])
            wanted.append(_Cell(row, name, described, identity))

    table = CellTable(workdir / "cells.jsonl", wanted, "network", config.seeds)
    trainer = _Trainer(config, models, table.progress)
    for cell in table.missing:
        began = time.perf_counter()
        accuracy = spread(trainer.accuracies(cell))
        record = {
            "row": cell.row.label,
            "architecture": cell.architecture,
            **accuracy,
            "parameters": models[cell.network][1],
            "seconds": time.perf_counter() - began,
        }
        table.finish(cell, record, f"{spelt_accuracy(accuracy)} %")
    return _summarise(config, workdir, loaded, table)


def _summarise(
    config: Config,
    workdir: pathlib.Path,
    loaded: data.Dataset,
    table: CellTable[_Cell],
) -> dict[str, Any]:
    accuracy: dict[str, dict[str, Any]] = {cell.row.label: {} for cell in table.cells}
    for cell in table.cells:
        record = table.record(cell)
        accuracy[cell.row.label][cell.architecture] = {
            name: record[name]
            for name in ("mean", "std", "seeds", "values", "parameters", "seconds")
        }
    summary: dict[str, Any] = {
        "accuracy": accuracy,
        "rows": {cell.row.label: cell.row.about for cell in table.cells},
        "architectures": {
            cell.architecture: json.loads(cell.network)
            for cell in table.cells
            if cell.architecture != OWN
        },
        "protocol": config.protocol,
        "dataset": describe_dataset(loaded),
        "seconds": table.seconds(),
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    write_json(workdir / "summary.json", summary)
    accuracy_dots(
        workdir / "accuracy.png",
        accuracy,
        _title(summary),
        soft=[row for row, about in summary["rows"].items() if about["path"] is None],
        chance=1 / loaded.num_classes,
    )
    return json.loads(json.dumps(summary))


def _title(summary: Mapping[str, Any]) -> str:
    return f"Test accuracy on {summary['dataset']['name']}, protocol {summary['protocol']}"


def _show(summary: Mapping[str, Any], workdir: pathlib.Path) -> None:
    accuracy = summary["accuracy"]
    names = list(next(iter(accuracy.values())))
    seeds = next(iter(accuracy.values()))[names[0]]["seeds"]
    table = Table(
        title=_title(summary),
        title_justify="left",
        caption=f"Percent: mean ± standard deviation of {seeds} networks.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("trained on")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for label, row in accuracy.items():
        table.add_row(label, *(spelt_accuracy(row[name]) for name in names))
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 40 + 14 * len(names))
    console.print(table)
    seconds = duration(summary["seconds"])
    print(f"{seconds}. summary.json, accuracy.png and cells.jsonl lie in {workdir}")


def main(config: Config) -> None:
    """Entry of the command line."""
    run(config)
