"""Follow the line between networks trained on distilled sets, and on real images.

    python -m experiments.connectivity --artefacts=a/distilled.npz,b/distilled.npz
    python -m experiments.connectivity --artefacts=set.npz --seeds=5 --steps=1000

McDermott & Parhi 2025 (arXiv 2503.17905) prune networks with distilled data and find what
is left stable under the noise of SGD, and flatter. Here nothing is pruned. From each of
`--seeds` initialisations networks are trained on each set, on as many random real images,
and on all real images, each in two random orders of minibatches, with as many steps and as
large batches on all of them. Test error is followed along the line between the two orders
(the stability of Frankle et al. 2020, arXiv 1912.05671), and along that from the first
order of a set to the first on all real images. At each first order the sharpness of the
loss on real training images is estimated, too: the trace of its Gauss-Newton matrix.

Numbers are per initialisation, and differences between sets are taken initialisation by
initialisation. The barrier is the largest rise of the error above the straight line
between the ends, see `distilljax.analysis.connectivity`.

Networks are kept in `networks/`, finished lines in `cells.jsonl`; the same command again
goes on where it was. `summary.json` has every error, `connectivity.png` the picture.
"""

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import data, launch
from distilljax.analysis import connectivity
from distilljax.analysis.statistics import SpreadInterval, spread_interval
from distilljax.config import FieldError, option
from distilljax.core import losses, parameters
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Array, Batch, Model, RealSet
from experiments.connectivity.figures import error_lines
from experiments.connectivity.record import REAL, Line, Summary
from experiments.connectivity.study import BATCH
from experiments.connectivity.train import ORDERS, Net, Subject, Trainer
from experiments.lab import keys, options
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.kept import Arrays, digest
from experiments.lab.networks import Network, own_network, shared_network, sized_model
from experiments.lab.progress import duration
from experiments.lab.records import RowRecord, write_summary
from experiments.lab.sets import Named, load_artefacts, shared_transform, transform_digest
from experiments.lab.table import CellTable, Row, make_rows
from experiments.lab.terminal import new_table, show_table
from experiments.lab.workdir import open_workdir, workdir_path

NAME = "experiments.connectivity"
ORDER, TO_REAL, SHARPNESS = "orders", "to real", "sharpness"


@dataclasses.dataclass(frozen=True)
class Config(
    options.WorkdirOption,
    options.SeedOption,
    options.RealDataOptions,
    options.LabelsOption,
    options.ArtefactsOption,
):
    """Options of the experiment."""

    seeds: int = option(3, "Initialisations.", low=2)
    steps: int = option(300, "Steps of each network, on any set.", low=1)
    batch: int = option(
        BATCH, "Images of a step; fewer than a set, or it has no order.", low=1
    )
    lr: float = option(0.01, "Learning rate.", above=0)
    points: int = option(11, "Points of a line, its ends among them.", low=3)
    test_images: int = option(2000, "Test images, as many of each class.", low=10)
    sharpness_images: int = option(
        1000, "Real training images of the sharpness, as many of each class.", low=10
    )


class _Cell(NamedTuple):
    """A line between two networks, or the sharpness at one."""

    what: str  # of ORDER, TO_REAL, SHARPNESS
    first: Net
    second: Net
    identity: str

    @property
    def kind(self) -> str:
        """All lines cost alike."""
        return SHARPNESS if self.what == SHARPNESS else "line"

    @property
    def title(self) -> str:
        """Name in progress lines."""
        return f"{self.what}: {self.first.title}"


def run(config: Config) -> Summary:
    """Trains and measures what is missing; returns the contents of `summary.json`.

    Raises:
      InputError: options, an artefact, data or a working directory that cannot be used;
        artefacts of different data, preprocessing or networks; training that diverges.
    """
    artefacts = load_artefacts(config.artefacts, data_dir=config.data_dir)
    shared_transform(artefacts)
    for label, (_, artefact) in artefacts.items():
        if config.batch >= (num := len(artefact.distilled.images)):
            reason = f"{label} has {num} images, so that all orders are one; lower it"
            raise FieldError("batch", config.batch, reason)
    network = shared_network(artefacts, own_network)
    workdir = workdir_path(NAME, config, next(iter(artefacts)))
    with open_workdir(workdir, NAME, config):
        summary = _run(config, network, artefacts, workdir)
    _show(summary, workdir)
    return summary


def _run(
    config: Config, network: Network, artefacts: Mapping[str, Named], workdir: pathlib.Path
) -> Summary:
    first = next(iter(artefacts.values()))
    transform = first.artefact.transform
    loaded = load_data_of(first, config.dataset, config.data_dir)
    model, _ = sized_model(network, loaded, "artefacts")
    real = data.on_device(loaded.train, transform, loaded.num_classes)
    chosen = _subset(loaded.test, config.test_images)
    test = data.on_device(chosen, transform, loaded.num_classes)
    protocol = EvaluationProtocol(steps=config.steps, batch=config.batch, lr=config.lr)
    rows = make_rows(
        artefacts,
        loaded,
        "study",
        config.seeds,
        own=False,
        labels=config.labels,
        seed=config.seed,
    )
    shared = [network.described(), protocol.to_dict(), config.seed]
    subjects = [_subject(row, shared) for row in rows]
    identity = digest([loaded.fingerprint, transform_digest(transform), shared])
    subjects.append(Subject(REAL, real, identity))
    nets = {
        (place, number, order): Net(
            subject, number, order, place, digest([subject.identity, number, order])
        )
        for number in range(config.seeds)
        for order in range(ORDERS)
        for place, subject in enumerate(subjects)
    }
    trainer = Trainer(Arrays(workdir / "networks"), model, protocol)
    roots = jax.random.split(keys.fresh_key(config.seed), config.seeds)
    trainer.train([*nets.values()], roots)
    training = sum(trainer.seconds(net) for net in nets.values())
    cells = _cells(config, nets, len(subjects), loaded)
    table = CellTable(workdir / "cells.jsonl", cells, "cell", 1)
    shown = _subset(loaded.train, config.sharpness_images)
    _measure(config, table, trainer, model, transform(jnp.asarray(shown.images)), test)
    described = network.described()
    about: dict[str, RowRecord] = {
        row.label: {**row.about, "network": described} for row in rows
    }
    about[REAL] = {
        "path": None,
        "method": "real",
        "images_per_class": int(np.bincount(loaded.train.labels).min()),
        "network": described,
    }
    return _summarise(config, workdir, loaded, about, table, len(chosen.labels), training)


def _subset(split: data.Split, num: int) -> data.Split:
    """Returns about `num` images, as many of each class, and no more than there are."""
    sizes = np.bincount(split.labels)
    return data.subset(split, min(max(1, num // len(sizes)), int(sizes.min())), 0)


def _subject(row: Row, shared: Sequence[Any]) -> Subject:
    sets = [Batch(*one) for one in zip(*row.sets, strict=True)]
    return Subject(row.label, sets, digest([row.identity, *shared]))


def _cells(
    config: Config,
    nets: Mapping[tuple[int, int, int], Net],
    num_subjects: int,
    loaded: data.Dataset,
) -> list[_Cell]:
    """Returns all lines and sharpnesses; the last subject is all real images."""
    found = []

    def add(what: str, first: Net, second: Net, *settings: Any) -> None:
        ends = [first.identity, second.identity, loaded.fingerprint]
        found.append(_Cell(what, first, second, digest([what, *ends, *settings])))

    line = config.points, config.test_images
    for number in range(config.seeds):
        real = nets[num_subjects - 1, number, 0]
        for place in range(num_subjects):
            first, second = (nets[place, number, order] for order in range(ORDERS))
            add(ORDER, first, second, *line)
            if place < num_subjects - 1:
                add(TO_REAL, first, real, *line)
            add(SHARPNESS, first, first, config.sharpness_images, config.seed)
    return found


def _measure(
    config: Config,
    table: CellTable[_Cell],
    trainer: Trainer,
    model: Model,
    images: Array,
    test: RealSet,
) -> None:
    """Fills the cells that are missing."""
    restore = parameters.unflatten(model)
    shares = connectivity.points(config.points)
    draw_key = keys.probes(config.seed, "connectivity")

    @jax.jit
    def errors(first: Array, second: Array, test: RealSet) -> Array:
        def error(vector: Array) -> Array:
            logits = evaluation.predict(model.apply, restore(vector), test)
            return 1 - losses.accuracy(logits, test.labels)

        return connectivity.along(error, first, second, shares)

    @jax.jit
    def sharpness(vector: Array, images: Array) -> tuple[Array, Array]:
        found = connectivity.sharpness(model.apply, restore(vector), images, draw_key)
        return found.value, found.standard_error

    for cell in table.missing:
        began = time.perf_counter()
        first, second = trainer.trained(cell.first), trainer.trained(cell.second)
        record: dict[str, Any] = {"what": cell.what, "of": cell.first.title}
        if cell.what == SHARPNESS:
            value, error = map(float, sharpness(first, images))
            record |= {"value": value, "standard_error": error}
            said = f"{value:.3g} ± {error:.2g}"
        else:
            found = np.asarray(errors(first, second, test))
            record |= {"error": found.tolist()}
            said = f"barrier {100 * connectivity.barrier(found, np.asarray(shares)):.1f}"
        took = record["seconds"] = time.perf_counter() - began
        table.progress.trained(cell, 1, took)
        table.finish(cell, record, said)


def _lines(table: CellTable[_Cell], what: str, shares: np.ndarray) -> dict[str, Line]:
    found: dict[str, list[list[float]]] = {}
    for cell in table.cells:
        if cell.what == what:
            errors = found.setdefault(cell.first.subject.label, [])
            errors.append(table.record(cell)["error"])
    return {
        label: {
            "error": errors,
            "barrier": spread_interval(connectivity.barrier(np.array(errors), shares)),
        }
        for label, errors in found.items()
    }


def _summarise(
    config: Config,
    workdir: pathlib.Path,
    loaded: data.Dataset,
    about: dict[str, RowRecord],
    table: CellTable[_Cell],
    num_test: int,
    training: float,
) -> Summary:
    shares = np.asarray(connectivity.points(config.points))
    orders = _lines(table, ORDER, shares)
    sharp: dict[str, list[dict[str, Any]]] = {}
    for cell in table.cells:
        if cell.what == SHARPNESS:
            sharp.setdefault(cell.first.subject.label, []).append(table.record(cell))
    accuracy: dict[str, SpreadInterval] = {
        label: spread_interval([1 - error[0] for error in line["error"]])
        for label, line in orders.items()
    }
    summary: Summary = {
        "shares": shares.tolist(),
        "orders": orders,
        "to_real": _lines(table, TO_REAL, shares),
        "accuracy": accuracy,
        "sharpness": {
            label: spread_interval([one["value"] for one in of])
            for label, of in sharp.items()
        },
        "sharpness_error": {
            label: [one["standard_error"] for one in of] for label, of in sharp.items()
        },
        "rows": about,
        "steps": config.steps,
        "batch": config.batch,
        "test_images": num_test,
        "dataset": describe_dataset(loaded),
        "seconds": table.seconds() + training,
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    error_lines(
        workdir / "connectivity.png",
        summary["shares"],
        {
            "between two orders of the images": orders,
            "from a set to all real images": summary["to_real"],
        },
        soft=[label for label, row in about.items() if row["path"] is None],
    )
    return write_summary(workdir, Summary, summary)


def _show(summary: Summary, workdir: pathlib.Path) -> None:
    seeds = next(iter(summary["accuracy"].values()))["seeds"]
    columns = "accuracy", "barrier of orders", "barrier to real", "sharpness"
    table = new_table(
        f"{summary['steps']} steps on {summary['dataset']['name']}",
        ("trained on", *columns),
        caption=f"Mean ± standard deviation of {seeds} initialisations; percent, points.",
    )
    for label, accuracy in summary["accuracy"].items():
        lines = [summary["orders"].get(label), summary["to_real"].get(label)]
        barriers = [line["barrier"] if line else None for line in lines]
        sharp = summary["sharpness"][label]
        table.add_row(
            label,
            *("" if one is None else spelt_accuracy(one) for one in (accuracy, *barriers)),
            f"{sharp['mean']:.3g} ±{sharp['std']:.2g}",
        )
    show_table(table, 110)
    seconds = duration(summary["seconds"])
    print(f"{seconds}. summary.json, connectivity.png and cells.jsonl lie in {workdir}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
