"""Evaluate the sets that others published, and print their numbers beside ours.

    python -m experiments.published --folder=DIR --data_dir=DATA
    python -m experiments.published --folder=DIR --rows=dc_ipc1,rat_ipc1 --seeds=5

`rows.py` lists the files that are known, with the answers that `experiments.import_set`
asks for and the number that the authors state. Those that lie in the folder are made
artefacts (`sets/NAME/distilled.npz`), and networks of the authors' kind are trained on
each by the authors' protocol. `summary.json` and `table.md` hold the table published /
recorded / ours; recorded is what the authors' file itself holds.

Each network is kept in `networks.jsonl` when it is trained; the same command resumes,
and more `--seeds` or other `--rows` add to it. Those on sets that are not in the folder are
kept too, and shown again when the sets are there. Networks take one core and, on a CPU,
from a minute to many hours each: the time left is shown after the first. RFAD's, of width
1,024, takes 1.8 s of one core for a step and 5 min to score 5,000 images: 1.4 h for 1,000
of its up to 20,000 steps.
"""

import dataclasses
import functools
import hashlib
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import data, devices, io, launch
from distilljax.analysis.statistics import Spread, spread
from distilljax.comparison.real import validation_images
from distilljax.config import FieldError, option
from distilljax.disk.files import replacing
from distilljax.io import foreign
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.training.evaluation import PROTOCOLS, fresh_accuracy
from distilljax.types import Array, InputError
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.data import describe_dataset
from experiments.lab.kept import Lines, digest
from experiments.lab.keys import fresh_key
from experiments.lab.networks import own_network, sized_model
from experiments.lab.options import (
    NetworksOption,
    SeedOption,
    WorkdirOption,
    parse_choices,
)
from experiments.lab.progress import CellProgress, duration
from experiments.lab.protocols import batch_of
from experiments.lab.records import describe_protocol, write_summary
from experiments.lab.table import training_cost
from experiments.lab.terminal import new_table, show_table
from experiments.lab.workdir import open_workdir, workdir_path
from experiments.published.record import RowRecord, Summary
from experiments.published.rows import ROWS, Published

NAME = "experiments.published"
MOST = 1000  # networks of a row that are kept
ANEW = ("folder", "rows", "seeds")  # options that no single network depends on


@dataclasses.dataclass(frozen=True)
class Config(WorkdirOption, NetworksOption, SeedOption):
    """Options of the experiment."""

    folder: str = option("", "Where the files of the authors lie.")
    rows: str = option(
        "", f"Rows to compute, with commas: {', '.join(r.name for r in ROWS)}; empty: all."
    )
    seeds: int = option(5, "Networks trained on each set.", low=1, high=MOST)
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")


class _Cell(NamedTuple):
    """A network trained on a set."""

    row: Published
    number: int
    identity: str

    @property
    def kind(self) -> str:
        """Networks on one set cost alike."""
        return self.row.name

    @property
    def title(self) -> str:
        """Name in progress lines."""
        return f"{self.row.name}, network {self.number}"


class _File(NamedTuple):
    """A row whose file is there."""

    row: Published
    path: pathlib.Path
    sha256: str
    cells: list[_Cell]


def run(config: Config) -> Summary:
    """Fills the table; returns the contents of `summary.json`.

    Raises:
      InputError: a folder, a file, data or a working directory that cannot be used.
    """
    known = [row.name for row in ROWS]
    chosen = parse_choices(config.rows, "rows", known, "row", least=0) or known
    folder = pathlib.Path(config.folder)
    if not config.folder or not folder.is_dir():
        reason = f"name the folder with files such as {ROWS[0].file}"
        raise FieldError("folder", config.folder, reason)
    there = [row for row in ROWS if (folder / row.file).is_file()]
    if not [row for row in there if row.name in chosen]:
        wanted = ", ".join(row.file for row in ROWS if row.name in chosen)
        raise FieldError("folder", config.folder, f"holds none of {wanted}")
    place = config.replace({name: getattr(Config(), name) for name in ANEW})
    workdir = workdir_path(NAME, place, "table")
    with open_workdir(workdir, NAME, place):
        summary = _run(config, there, chosen, folder, workdir)
    _show(summary, workdir)
    return summary


def _run(
    config: Config,
    there: Sequence[Published],
    chosen: Sequence[str],
    folder: pathlib.Path,
    workdir: pathlib.Path,
) -> Summary:
    loaded = {
        name: data.load(name, config.data_dir)
        for name in dict.fromkeys(row.dataset for row in there)
    }
    kept = Lines(workdir / "networks.jsonl", None)
    opened = [_open(config, row, folder / row.file, loaded[row.dataset]) for row in there]
    files = [
        file
        for file in opened
        if file.row.name in chosen or any(cell.identity in kept for cell in file.cells)
    ]
    missing = {
        file.row.name: [c for c in file.cells[: config.seeds] if c.identity not in kept]
        for file in files
        if file.row.name in chosen
    }
    artefacts = {
        file.row.name: _artefact(file, loaded[file.row.dataset], workdir) for file in files
    }
    progress = CellProgress(
        [cell for cells in missing.values() for cell in cells],
        "network",
        1,
        weights=_weights(files, artefacts, loaded),
    )
    for file in files:
        if cells := missing.get(file.row.name):
            named = artefacts[file.row.name]
            _train(config, cells, named, loaded[file.row.dataset], kept, progress)
    return _summarise(config, files, artefacts, loaded, kept, workdir)


def _open(
    config: Config, row: Published, path: pathlib.Path, loaded: data.Dataset
) -> _File:
    """Returns a file with the identities of its networks.

    Raises:
      InputError: another file of the same name.
    """
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if row.sha256 not in (None, found):
        raise InputError(
            f"{path}: not the file that is known by this name (its SHA-256 differs); "
            "take it away, and use experiments.import_set"
        )
    protocol = PROTOCOLS[row.protocol].to_dict()
    about = [found, row.preprocess, row.labels, protocol, loaded.fingerprint, config.seed]
    cells = [_Cell(row, n, digest([*about, n])) for n in range(MOST)]
    return _File(row, path, found, cells)


def _artefact(file: _File, loaded: data.Dataset, workdir: pathlib.Path) -> io.Artefact:
    """Returns the set of a file; made once, since to fit a ZCA takes a minute."""
    row, path = file.row, workdir / "sets" / file.row.name / "distilled.npz"
    if path.exists():
        try:
            held = io.load(path)
        except InputError as error:
            print(f"{error}; made again", file=sys.stderr, flush=True)
        else:
            same = held.notes.get("imported", {}).get("sha256") == file.sha256
            fits = held.dataset["fingerprint"] == loaded.fingerprint
            asked = held.config.get("preprocess"), held.config.get("protocol")
            if same and fits and asked == (row.preprocess, row.protocol):
                return held
    print(f"reading {file.path}", file=sys.stderr, flush=True)
    artefact = foreign.read(
        file.path,
        loaded,
        preprocess=row.preprocess,
        protocol=row.protocol,
        labels=row.labels,
        method=row.method,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    io.save(path, artefact)
    return artefact


def _weights(
    files: Sequence[_File],
    artefacts: Mapping[str, io.Artefact],
    loaded: Mapping[str, data.Dataset],
) -> dict[str, float]:
    """Returns the cost of a network on each set: images times parameters."""
    found = {}
    for file in files:
        artefact, of = artefacts[file.row.name], loaded[file.row.dataset]
        _, size = sized_model(own_network(file.row.name, artefact), of)
        num = artefact.distilled.images.shape[0] * (1 + artefact.protocol.flips)
        found[file.row.name] = size * training_cost(
            num, artefact.protocol, len(of.test.labels)
        )
    return found


def _train(
    config: Config,
    cells: Sequence[_Cell],
    artefact: io.Artefact,
    loaded: data.Dataset,
    kept: Lines,
    progress: CellProgress,
) -> None:
    """Trains the networks of one row and keeps each."""
    name, k = cells[0].row.name, loaded.num_classes
    model, size = sized_model(own_network(name, artefact), loaded)
    protocol = artefact.protocol
    given = (
        batch_of(name, artefact, protocol),
        data.on_device(loaded.test, artefact.transform, k),
        validation_images(protocol, loaded.train, artefact.transform, k),
        jnp.exp(artefact.distilled.log_lr),
    )
    key = fresh_key(config.seed)

    mesh = devices.mesh(config.devices)
    num = min(devices.size(mesh), len(cells))  # networks of a dispatch
    keys = jax.random.split(key, num)

    def accuracy(keys: Array, batch: Any, test: Any, validation: Any, rate: Array) -> Array:
        return fresh_accuracy(
            keys,
            model,
            batch,
            test,
            protocol,
            learning_rate=rate,
            validation=validation,
            mesh=mesh,
        )

    given = devices.everywhere(given, mesh)
    print(f"compiling {name}, {size:,} parameters", file=sys.stderr, flush=True)
    program = devices.jit(accuracy, mesh)
    compute = program.lower(devices.everywhere(keys, mesh), *given).compile()
    for first in range(0, len(cells), num):
        some = cells[first : first + num]
        numbers = np.resize(np.array([cell.number for cell in some]), num)
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)
        began = time.perf_counter()
        values = np.asarray(compute(devices.everywhere(keys, mesh), *given))
        seconds = (time.perf_counter() - began) / len(some)
        for cell, value in zip(some, values.tolist(), strict=False):
            about = {"row": name, "network": cell.number}
            kept.write(cell.identity, {**about, "accuracy": value, "seconds": seconds})
            progress.trained(cell, 1, seconds)
            progress.finished(cell, f"{100 * value:.2f} %")


def _recorded(artefact: io.Artefact) -> Spread | None:
    """Returns the accuracies of ConvNets that the authors' file holds."""
    held = artefact.notes["imported"].get("recorded_accuracy", {}).get("ConvNet")
    return spread(held) if held else None


def _summarise(
    config: Config,
    files: Sequence[_File],
    artefacts: Mapping[str, io.Artefact],
    loaded: Mapping[str, data.Dataset],
    kept: Lines,
    workdir: pathlib.Path,
) -> Summary:
    rows: dict[str, RowRecord] = {}
    by_name = {file.row.name: file for file in files}
    for row in ROWS:
        found: RowRecord = {
            "file": row.file,
            "method": row.method,
            "dataset": row.dataset,
            "images_per_class": row.ipc,
            "preprocess": row.preprocess,
            "protocol": row.protocol,
            "published": row.accuracy / 100,
            "source": row.source,
            "recorded": None,
            "ours": None,
            "seconds": 0.0,
        }
        if file := by_name.get(row.name):
            artefact = artefacts[row.name]
            held = [kept[c.identity] for c in file.cells if c.identity in kept]
            found["sha256"] = file.sha256
            found["recorded"] = _recorded(artefact)
            found["settings"] = describe_protocol(row.protocol, artefact.protocol)
            found["network"] = own_network(row.name, artefact).described()
            found["seconds"] = sum(one["seconds"] for one in held)
            if held:
                found["ours"] = spread([one["accuracy"] for one in held])
        rows[row.name] = found
    summary: Summary = {
        "rows": rows,
        "datasets": {name: describe_dataset(one) for name, one in loaded.items()},
        "seconds": sum(found["seconds"] for found in rows.values()),
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    with replacing(workdir / "table.md") as temporary:
        temporary.write_text(markdown(summary), encoding="utf-8")
    return write_summary(workdir, Summary, summary)


_HEAD = (
    "set",
    "data",
    "images per class",
    "protocol",
    "published",
    "recorded",
    "ours",
    "networks",
)


def _lines(summary: Summary) -> list[tuple[str, ...]]:
    """Returns the cells of the table, percent."""
    return [
        (
            row["method"],
            row["dataset"],
            str(row["images_per_class"]),
            row["protocol"],
            f"{100 * row['published']:.1f}",
            "–" if row["recorded"] is None else spelt_accuracy(row["recorded"]),
            "–" if row["ours"] is None else spelt_accuracy(row["ours"]),
            "0" if row["ours"] is None else str(row["ours"]["seeds"]),
        )
        for row in summary["rows"].values()
    ]


def markdown(summary: Summary) -> str:
    """Returns the table as Markdown."""
    rows = [_HEAD, ("---",) * len(_HEAD), *_lines(summary)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _show(summary: Summary, workdir: pathlib.Path) -> None:
    table = new_table(
        "Published sets: test accuracy",
        _HEAD,
        caption="Percent: mean ± standard deviation of networks. Recorded: in the file.",
        left=("data", "protocol"),
    )
    for cells in _lines(summary):
        table.add_row(*cells)
    show_table(table, 110)
    print(f"{duration(summary['seconds'])} of training. The table lies in {workdir}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
