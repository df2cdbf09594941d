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
import hashlib
import json
import math
import pathlib
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from distilljax import data, io
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.core import distilled as distilled_set
from distilljax.core import expert
from distilljax.core.evaluate import PROTOCOLS, Protocol, fresh_accuracy
from distilljax.io import records
from distilljax.io.files import replacing, write_json
from distilljax.models import MODELS, alexnet, convnet, mlp, resnet, vgg
from distilljax.types import Array, Batch, InputError, Key, Model, RealSet, Transform
from experiments import common, evaluate, figures, launch, runs
from experiments.progress import SECONDS_BETWEEN_LINES, duration

ABOUT = ("images_per_class", "protocol", "learning_rate", "own")  # of a row
OWN = "own"  # the network that the artefact was made with
ARCHITECTURES: dict[str, tuple[str, Any]] = {  # name -> (key of MODELS, its Config)
    "convnet": ("convnet", convnet.Config()),
    "convnet16": ("convnet", convnet.Config(width=16)),
    "mlp": ("mlp", mlp.Config()),
    "resnet18": ("resnet", resnet.Config()),
    "resnet34": ("resnet", resnet.Config(depth=34)),
    "alexnet": ("alexnet", alexnet.Config()),
    "vgg11": ("vgg", vgg.Config()),
}


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


class _Network(NamedTuple):
    """An architecture with its settings."""

    key: str  # of MODELS
    config: Any

    def described(self) -> dict[str, Any]:
        """Its settings, flat."""
        return {"model": self.key, **self.config.to_dict()}


class _Row(NamedTuple):
    """A training set, and all that its cells depend on."""

    label: str
    sets: Batch  # images f32[s, n, h, w, c], labels f32[s, n, k]: one for each network
    test: RealSet
    protocol: Protocol
    learning_rate: Array  # f32[], where the protocol leaves it to the set
    artefact: io.Artefact  # the set, or the one that the random images stand beside
    identity: str  # SHA-256 of what was trained on, and how
    about: Mapping[str, Any]  # for `summary.json`


class _Cell(NamedTuple):
    """One row under one architecture."""

    row: _Row
    architecture: str
    network: str  # the settings behind that name; those of `own` may differ by row
    identity: str  # of the row and the network


def _names(config: Config, field: str) -> list[str]:
    names = [name.strip() for name in getattr(config, field).split(",") if name.strip()]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise FieldError(field, getattr(config, field), f"{twice[0]} is named twice")
    return names


def _architectures(config: Config) -> list[str]:
    names, known = _names(config, "models"), [OWN, *ARCHITECTURES]
    if not names or (unknown := [name for name in names if name not in known]):
        what = f"there is no architecture {unknown[0]!r}" if names else "name at least one"
        raise FieldError("models", config.models, f"{what}; known are {', '.join(known)}")
    return names


def _artefacts(config: Config) -> dict[str, tuple[str, io.Artefact]]:
    """Label -> (path, artefact); the label of runs/x/distilled.npz is x."""
    paths = _names(config, "artefacts")
    if not paths:
        reason = "name distilled sets, such as a/distilled.npz,b/distilled.npz"
        raise FieldError("artefacts", config.artefacts, reason)
    loaded = {path: io.load(path) for path in paths}

    def of(path: str) -> tuple[Any, ...]:
        made = loaded[path]
        shape = made.distilled.images.shape[1:]
        return made.dataset.get("fingerprint"), made.class_names, shape

    for path in paths[1:]:
        if of(path) != of(paths[0]):
            raise InputError(
                f"{paths[0]} was made of {loaded[paths[0]].dataset['name']}, {path} of "
                f"other data ({loaded[path].dataset['name']}); evaluate them apart"
            )
    places = [pathlib.Path(path).resolve() for path in paths]
    labels = [p.parent.name if p.stem == "distilled" else p.stem for p in places]
    if len(set(labels)) < len(labels):
        labels = paths
    return {label: (path, loaded[path]) for label, path in zip(labels, paths, strict=True)}


def _digest(description: Any, arrays: Iterable[Any]) -> str:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for array in arrays:
        digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()


def _transform_digest(transform: Transform) -> str:
    kind, arrays = data.to_arrays(transform)
    return _digest([kind, sorted(arrays)], (arrays[name] for name in sorted(arrays)))


def _network(config: Config, name: str, label: str, artefact: io.Artefact) -> _Network:
    """The network that a name stands for.

    Raises:
      FieldError: `own`, where the artefact names no network that there is.
    """
    if name != OWN:
        key, group = ARCHITECTURES[name]
        width = max(1, round(group.width * config.width_scale))
        return _Network(key, dataclasses.replace(group, width=width))
    key = str(artefact.config.get("model"))
    if key not in MODELS:
        reason = f"{label} was made with the network {key!r}, which there is not"
        raise FieldError("models", config.models, f"{reason}; leave {OWN} out")
    return _Network(key, MODELS[key].Config.from_dict(artefact.config.get(key, {})))


def _rows(
    config: Config,
    architectures: Sequence[str],
    artefacts: Mapping[str, tuple[str, io.Artefact]],
    loaded: data.Dataset,
) -> list[_Row]:
    """The artefacts, then one row of random images for each kind that they need."""
    k = loaded.num_classes
    real = data.on_device(loaded.test, next(iter(artefacts.values()))[1].transform, k)
    distilled: list[_Row] = []
    random: dict[str, _Row] = {}
    for label, (path, artefact) in artefacts.items():
        protocol = PROTOCOLS.get(config.protocol, artefact.protocol)
        rate = jnp.exp(artefact.distilled.log_lr)
        ipc = common.stored_ipc(artefact)
        needs = {
            "images_per_class": ipc,
            "protocol": protocol.to_dict(),
            "learning_rate": float(rate) if protocol.lr is None else None,
            "transform": _transform_digest(artefact.transform),
            "data": loaded.fingerprint,
            "own": None,
        }
        if OWN in architectures:
            needs["own"] = _network(config, OWN, label, artefact).described()
        about = {name: value for name, value in needs.items() if name in ABOUT}
        row = _Row(
            label,
            common.repeated(distilled_set.as_batch(artefact.distilled), config.seeds),
            real._replace(transform=artefact.transform),
            protocol,
            rate,
            artefact,
            _digest(needs, artefact.distilled),
            {"path": path, "method": artefact.method, "version": artefact.version, **about},
        )
        distilled.append(row)
        if (kind := _digest(needs, ())) not in random:
            name = f"random, {ipc} per class"
            if any(name == other.label for other in random.values()):
                name += f", as for {label}"
            random[kind] = row._replace(
                label=name,
                sets=common.random_subsets(
                    loaded.train, ipc, config.seeds, artefact.transform
                ),
                identity=kind,
                about={"path": None, "method": "random", **about},
            )
    return [*distilled, *random.values()]


def _model(network: _Network, label: str, loaded: data.Dataset) -> tuple[Model, int]:
    """The model and its number of parameters.

    Raises:
      FieldError: the images do not fit it.
    """
    shape, k = loaded.image_shape, loaded.num_classes
    model = MODELS[network.key].make(network.config, shape, k)
    try:
        return model, expert.num_params(model)
    except ValueError as error:
        raise FieldError("models", label, str(error)) from None


class _Progress:
    """Lines on stderr: after a cell, and after ten seconds of silence.

    The time left takes each network to cost what the last one of its architecture did;
    an architecture that is still to come, what the dearest one did so far.
    """

    def __init__(self, cells: Sequence[_Cell], seeds: int):
        self._seeds = seeds
        self._left = Counter[str]()
        for cell in cells:
            self._left[cell.architecture] += seeds
        self._seconds: dict[str, float] = {}
        self._num_cells = len(cells)
        self._num_networks = self._left.total()
        self._done = 0
        self._last_line = time.monotonic()

    def trained(self, cell: _Cell, num: int, seconds: float) -> None:
        """`num` networks more are trained, in `seconds`."""
        self._left[cell.architecture] -= num
        self._seconds[cell.architecture] = seconds / num
        whole = self._left[cell.architecture] % self._seeds == 0
        if not whole and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._print(cell, "")

    def finished(self, cell: _Cell, accuracy: Mapping[str, Any]) -> None:
        """A cell is whole."""
        self._done += 1
        self._print(cell, f": {common.percent(accuracy)} %")

    def _print(self, cell: _Cell, result: str) -> None:
        self._last_line = time.monotonic()
        dearest = max(self._seconds.values())
        left = sum(n * self._seconds.get(m, dearest) for m, n in self._left.items())
        trained = self._num_networks - self._left.total()
        print(
            f"cell {self._done}/{self._num_cells}  network {trained}/{self._num_networks}"
            f"  {self._seconds[cell.architecture]:.3g} s/network  about {duration(left)} "
            f"left  "
            f"{cell.architecture} on {cell.row.label}{result}",
            file=sys.stderr,
            flush=True,
        )


class _Trainer:
    """Trains the networks of cells; cells of like shapes share a compiled program."""

    def __init__(
        self, config: Config, models: Mapping[str, tuple[Model, int]], progress: _Progress
    ):
        self._models, self._progress = models, progress
        self._seeds = config.seeds
        # Dispatches of even size; the last is filled up with networks trained before.
        self._size = math.ceil(config.seeds / math.ceil(config.seeds / config.together))
        self._keys = jax.random.split(jax.random.key(config.seed), config.seeds)
        self._programs: dict[Any, Any] = {}

    def accuracies(self, cell: _Cell) -> list[float]:
        """Test accuracy of every network of the cell, trained as its row asks."""
        values: list[float] = []
        for first in range(0, self._seeds, self._size):
            chosen = np.arange(first, first + self._size) % self._seeds
            sets = jax.tree.map(lambda x, chosen=chosen: x[chosen], cell.row.sets)
            given = (self._keys[chosen], sets, cell.row.test, cell.row.learning_rate)
            program = self._program(cell, given)
            began = time.perf_counter()
            num = min(self._size, self._seeds - first)
            values += program(*given).tolist()[:num]
            self._progress.trained(cell, num, time.perf_counter() - began)
        return values

    def _program(self, cell: _Cell, given: tuple[Any, ...]) -> Any:
        leaves, structure = jax.tree.flatten(given)
        shapes = tuple(leaf.shape for leaf in leaves)
        which = (cell.network, cell.row.protocol, structure, shapes)
        if which not in self._programs:
            model, num_parameters = self._models[cell.network]
            print(
                f"compiling {cell.architecture}, {num_parameters:,} parameters, "
                f"{cell.row.sets.images.shape[1]} images",
                file=sys.stderr,
                flush=True,
            )

            def compute(keys: Key, sets: Batch, test: RealSet, rate: Array) -> Array:
                return fresh_accuracy(
                    keys,
                    model,
                    sets,
                    test,
                    cell.row.protocol,
                    learning_rate=rate,
                    stacked=True,
                    together=self._size,
                )

            self._programs[which] = jax.jit(compute).lower(*given).compile()
        return self._programs[which]


def _finished(path: pathlib.Path, cells: Sequence[_Cell]) -> dict[str, Any]:
    """Cell identity -> record, of those in the file that are still asked for."""
    wanted = {cell.identity for cell in cells}
    kept = [record for record in records.read(path) if record.get("identity") in wanted]
    if path.exists():
        with replacing(path) as temporary:
            records.append(temporary, kept)
    return {record["identity"]: record for record in kept}


def run(config: Config) -> dict[str, Any]:
    """Fills the table; returns what `summary.json` holds.

    Raises:
      InputError: an artefact, architecture, data or working directory that cannot be
        used; artefacts of different data.
    """
    architectures, artefacts = _architectures(config), _artefacts(config)
    label = f"{next(iter(artefacts))}-{config.protocol}"
    workdir = runs.directory("experiments.cross_architecture", config, label)
    with runs.opened(workdir, "experiments.cross_architecture", config):
        summary = _run(config, architectures, artefacts, workdir)
    _show(summary, workdir)
    return summary


def _run(
    config: Config,
    architectures: Sequence[str],
    artefacts: Mapping[str, tuple[str, io.Artefact]],
    workdir: pathlib.Path,
) -> dict[str, Any]:
    path, artefact = next(iter(artefacts.values()))
    place = evaluate.Config(artefact=path, dataset=config.dataset, data_dir=config.data_dir)
    loaded = evaluate._data(place, artefact)
    rows = _rows(config, architectures, artefacts, loaded)

    models: dict[str, tuple[Model, int]] = {}
    cells = []
    for name in architectures:
        for row in rows:
            network = _network(config, name, row.label, row.artefact)
            described = json.dumps(network.described(), sort_keys=True)
            if described not in models:
                models[described] = _model(network, name, loaded)
            identity = _digest([row.identity, name, described], ())
            cells.append(_Cell(row, name, described, identity))

    file = workdir / "cells.jsonl"
    done = _finished(file, cells)
    if done:
        print(f"{len(done)} of {len(cells)} cells were finished before, in {workdir}")
    missing = [cell for cell in cells if cell.identity not in done]
    progress = _Progress(missing, config.seeds)
    trainer = _Trainer(config, models, progress)
    for cell in missing:
        began = time.perf_counter()
        accuracy = runs.spread(trainer.accuracies(cell))
        done[cell.identity] = {
            "row": cell.row.label,
            "architecture": cell.architecture,
            **accuracy,
            "parameters": models[cell.network][1],
            "seconds": time.perf_counter() - began,
            "identity": cell.identity,
        }
        records.append(file, [done[cell.identity]])
        progress.finished(cell, accuracy)
    return _summarise(config, workdir, loaded, cells, done)


def _summarise(
    config: Config,
    workdir: pathlib.Path,
    loaded: data.Dataset,
    cells: Sequence[_Cell],
    done: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    accuracy: dict[str, dict[str, Any]] = {cell.row.label: {} for cell in cells}
    for cell in cells:
        record = done[cell.identity]
        accuracy[cell.row.label][cell.architecture] = {
            name: record[name]
            for name in ("mean", "std", "seeds", "values", "parameters", "seconds")
        }
    summary = {
        "accuracy": accuracy,
        "rows": {cell.row.label: cell.row.about for cell in cells},
        "architectures": {
            cell.architecture: json.loads(cell.network)
            for cell in cells
            if cell.architecture != OWN
        },
        "protocol": config.protocol,
        "dataset": {
            "name": loaded.name,
            "source": loaded.source,
            "fingerprint": loaded.fingerprint,
            "num_classes": loaded.num_classes,
        },
        "seconds": sum(done[cell.identity]["seconds"] for cell in cells),
        "peak_memory_bytes": runs.peak_memory_bytes(),
        "environment": runs.environment(),
    }
    write_json(workdir / "summary.json", summary)
    figures.accuracy_dots(
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
        table.add_row(label, *(common.percent(row[name]) for name in names))
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 40 + 14 * len(names))
    console.print(table)
    seconds = duration(summary["seconds"])
    print(f"{seconds}. summary.json, accuracy.png and cells.jsonl lie in {workdir}")


def main(config: Config) -> None:
    """Entry of the command line."""
    run(config)


if __name__ == "__main__":
    launch.main(Config, main)
