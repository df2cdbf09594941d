"""Test chosen real images: random ones, herding and k-centre, in one table.

    python -m experiments.coresets --dataset=embedded --ipcs=1,10
    python -m experiments.coresets --baselines=herding --ipcs=50 --protocol=dc

One row for each way to choose, one column for each number of images per class;
`summary.json` holds it with every network's accuracy, the pictures show the images.
Networks with the same number train from the same initial weights.

`random` draws anew for each network, from the whole training split, as the random
baseline of `distill` does, so its spread is that of sets and networks. `herding` and
`k_centre` choose once by preprocessed pixels, from the training images that are not held
out, so theirs is that of networks alone. At one image per class both take the image that
is nearest to the mean of its class. (The papers choose by the features of a network
trained on the whole set; methods that need training runs, such as forgetting, are left
out.)

Each finished cell is kept in `cells.jsonl`; the same command again computes only those
that are missing.
"""

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from distilljax import data, devices, launch
from distilljax.analysis.statistics import Spread, spread
from distilljax.comparison.real import (
    BASELINES,
    RANDOM,
    real_labels,
    select_baselines,
    validation_images,
)
from distilljax.config import FieldError, chooses, option
from distilljax.core import parameters
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.models import MODELS
from distilljax.training.evaluation import PROTOCOLS
from distilljax.types import Batch
from experiments.coresets.record import Summary
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.baselines import parse_baselines
from experiments.lab.choices import ModelChoice
from experiments.lab.data import (
    DataOptions,
    Prepared,
    describe_dataset,
    prepare,
    short_name,
)
from experiments.lab.kept import digest
from experiments.lab.keys import fresh_key, images_of
from experiments.lab.networks import model_of
from experiments.lab.options import (
    NetworksOption,
    ProtocolName,
    SeedOption,
    WorkdirOption,
    parse_integers,
)
from experiments.lab.pictures import image_grid
from experiments.lab.progress import duration
from experiments.lab.records import describe_protocol, write_summary
from experiments.lab.sets import displayable
from experiments.lab.table import CellTable, CellTrainer, Plan, Training, training_cost
from experiments.lab.terminal import new_table, show_table
from experiments.lab.workdir import identity_of, open_workdir, workdir_path

NAME = "experiments.coresets"


@chooses(
    "model",
    MODELS,
    "convnet",
    "Network that is trained on the chosen images.",
    changed={"convnet": {"width": 32}},
)
@dataclasses.dataclass(frozen=True)
class Config(WorkdirOption, NetworksOption, SeedOption, DataOptions, ModelChoice):
    """Options of the experiment."""

    ipcs: str = option("1,10", "Images per class, with commas.")
    baselines: str = option(
        ",".join(BASELINES), f"Ways to choose, with commas: {', '.join(BASELINES)}."
    )
    protocol: ProtocolName = option("study", "Training of the networks.")
    seeds: int = option(5, "Networks trained in each cell.", low=2)


class _Cell(NamedTuple):
    """A way to choose with a number of images per class."""

    baseline: str
    ipc: int
    identity: str

    @property
    def kind(self) -> str:
        """Number of images."""
        return str(self.ipc)

    @property
    def title(self) -> str:
        """Name in progress lines."""
        return f"{self.baseline}, {self.ipc} per class"


def run(config: Config) -> Summary:
    """Fills the table; returns the contents of `summary.json`.

    Raises:
      InputError: options, data or a working directory that cannot be used.
    """
    names = parse_baselines(config.baselines)
    ipcs = parse_integers(config.ipcs, "ipcs", low=1, example="1,10")
    if PROTOCOLS[config.protocol].lr is None:
        reason = "takes the rate of a distilled set, and real images have none; choose dsa"
        raise FieldError("protocol", config.protocol, reason)
    numbers = "-".join(map(str, ipcs))
    label = f"{short_name(config.dataset)}-{config.protocol}-ipc{numbers}"
    workdir = workdir_path(NAME, config, label)
    with open_workdir(workdir, NAME, config):
        summary = _run(config, names, ipcs, workdir)
    _show(summary, workdir)
    return summary


def _run(
    config: Config, names: Sequence[str], ipcs: Sequence[int], workdir: pathlib.Path
) -> Summary:
    mesh = devices.mesh(config.devices)
    prepared = prepare(config)
    loaded = prepared.data
    smallest = int(prepared.real.class_sizes.min())
    if max(ipcs) > smallest:
        reason = f"the smallest class has {smallest} training images besides the held-out"
        raise FieldError("ipcs", config.ipcs, reason)
    model = model_of(config, loaded.image_shape, loaded.num_classes)
    test = data.on_device(loaded.test, prepared.transform, loaded.num_classes)
    protocol = PROTOCOLS[config.protocol]

    table = CellTable(
        workdir / "cells.jsonl",
        _cells(config, names, ipcs, loaded.fingerprint),
        "network",
        config.seeds,
        weights={
            str(n): training_cost(n * loaded.num_classes, protocol, len(loaded.test.labels))
            for n in ipcs
        },
    )
    keys = jax.random.split(fresh_key(config.seed), config.seeds)
    trainer = CellTrainer(keys, 1, table.progress, mesh)
    validation = validation_images(
        protocol, prepared.rest, prepared.transform, loaded.num_classes
    )
    plan = Plan(test, protocol, validation)
    for ipc in ipcs:
        sets = select_baselines(
            names, loaded.train, prepared.real, ipc, config.seeds, config.seed
        )
        _draw(workdir, ipc, prepared, sets)
        for cell in (cell for cell in table.missing if cell.ipc == ipc):
            began = time.perf_counter()
            chosen = sets[cell.baseline]
            read = chosen._replace(labels=real_labels(chosen.labels, protocol))

            def of(networks: np.ndarray, read: Batch = read) -> Batch:
                return jax.tree.map(lambda x: x[networks], read)

            network = "the network", "the network", model, parameters.num_params(model)
            accuracy = spread(trainer.train(cell, Training(*network, of, plan)))
            seconds = time.perf_counter() - began
            record = {"baseline": cell.baseline, "ipc": ipc, "seconds": seconds, **accuracy}
            table.finish(cell, record, f"{spelt_accuracy(accuracy)} %")
    return _summarise(config, workdir, prepared, table)


def _cells(
    config: Config, names: Sequence[str], ipcs: Sequence[int], fingerprint: str
) -> list[_Cell]:
    elsewhere = ("ipcs", "baselines", "dataset")  # in the cell, and the fingerprint
    settings = {n: v for n, v in identity_of(config).items() if n not in elsewhere}
    return [
        _Cell(
            name,
            ipc,
            digest([name, ipc, fingerprint, settings, *images_of(config.seed)]),
        )
        for ipc in ipcs
        for name in names
    ]


def _draw(
    workdir: pathlib.Path, ipc: int, prepared: Prepared, sets: Mapping[str, Batch]
) -> None:
    """Draws one picture, a row a baseline, at one image a class; else one for each."""
    loaded = prepared.data
    shown = {
        name: displayable(prepared.transform, stack.images[0])
        for name, stack in sets.items()
    }
    if ipc == 1:
        image_grid(
            workdir / "ipc1.png",
            np.concatenate([*shown.values()]),
            list(shown),
            f"{loaded.name}, 1 per class",
        )
        return
    for name, images in shown.items():
        image_grid(
            workdir / f"{name}_ipc{ipc}.png",
            images,
            loaded.class_names,
            f"{name} on {loaded.name}, {ipc} per class",
        )


def _summarise(
    config: Config,
    workdir: pathlib.Path,
    prepared: Prepared,
    table: CellTable[_Cell],
) -> Summary:
    accuracy: dict[str, dict[str, Spread]] = {cell.baseline: {} for cell in table.cells}
    for cell in table.cells:
        values = table.record(cell)["values"]
        accuracy[cell.baseline][str(cell.ipc)] = spread(values)
    loaded = prepared.data
    summary: Summary = {
        "accuracy": accuracy,
        "chosen_from": {
            name: len((loaded.train if name == RANDOM else prepared.rest).labels)
            for name in accuracy
        },
        "protocol": describe_protocol(config.protocol, PROTOCOLS[config.protocol]),
        "dataset": describe_dataset(loaded),
        "seconds": table.seconds(),
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    return write_summary(workdir, Summary, summary)


def _show(summary: Summary, workdir: pathlib.Path) -> None:
    accuracy = summary["accuracy"]
    ipcs = list(next(iter(accuracy.values())))
    seeds = next(iter(accuracy.values()))[ipcs[0]]["seeds"]
    table = new_table(
        f"Test accuracy on {summary['dataset']['name']}, protocol "
        f"{summary['protocol']['name']}",
        ("chosen by", *(f"{ipc} per class" for ipc in ipcs)),
        caption=f"Percent: mean ± standard deviation of {seeds} networks.",
    )
    for name, row in accuracy.items():
        table.add_row(name, *(spelt_accuracy(row[ipc]) for ipc in ipcs))
    show_table(table, 40 + 14 * len(ipcs))
    seconds = duration(summary["seconds"])
    print(f"{seconds}. summary.json, cells.jsonl and the pictures lie in {workdir}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
