r"""Make an artefact of a distilled set that another program wrote.

    python -m experiments.import_set res_DC_CIFAR10_ConvNet_1ipc.pt --dataset=cifar10 \
        --data_dir=DATA --preprocess=published --protocol=dc --out=runs/dc_ipc1
    python -m experiments.import_set --file=RaT-BPTT_cifar10_IPC_1.h5 --dataset=cifar10 \
        --preprocess=zca_normed --protocol=rat --labels=in_order --out=runs/rat --check=2

Layouts: see `distilljax.io.foreign`. Reading a file executes nothing in it. Where a file
lacks information, an error names the flag that gives it, and the answer is checked against
real images where that is possible; nothing is guessed. `--check=N` also trains N networks
by the protocol, to be compared with the number that the authors state.

`--out` then holds the set (`distilled.npz`), its picture (`grid.png`), `config.json` with
the command, and `summary.json`. It is an artefact like any other: `evaluate`,
`recognition`, `mixing` and the rest take it. The same command resumes after an
interruption.
"""

import dataclasses
import pathlib
import sys
import typing
from collections.abc import Sequence

import jax.numpy as jnp

from distilljax import data, io, launch
from distilljax.analysis.statistics import Spread
from distilljax.comparison.accuracy import compare_accuracies
from distilljax.comparison.real import validation_images
from distilljax.config import FieldError, option
from distilljax.disk.files import read_json
from distilljax.io import foreign
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.training.evaluation import PROTOCOLS
from experiments.import_set.record import Summary
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.data import describe_dataset
from experiments.lab.keys import fresh_key
from experiments.lab.networks import own_network, sized_model
from experiments.lab.options import SeedOption, refuse_unread
from experiments.lab.pictures import image_grid
from experiments.lab.protocols import batch_of
from experiments.lab.records import describe_protocol, finished_summary, write_summary
from experiments.lab.sets import displayable
from experiments.lab.workdir import CONFIG, LOCK, identity_of, open_workdir

NAME = "experiments.import_set"
LABELS = ("in_order", "classes", "logits", "probabilities", "targets")


@dataclasses.dataclass(frozen=True)
class Config(SeedOption):
    """Options of the command."""

    file: str = option("", "The file or folder of the set; also the first argument.")
    out: str = option("", "New folder for the artefact.")
    dataset: str = option("", "Data that it was distilled from, such as cifar10.")
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    preprocess: str = option("", f"What its images went through: {', '.join(data.KINDS)}.")
    protocol: str = option("", f"How its authors evaluate it: {', '.join(PROTOCOLS)}.")
    labels: str = option(
        "", f"Its labels, where the file does not tell: {', '.join(LABELS)}."
    )
    layout: str = option(
        "", f"Layout: {', '.join(foreign.LAYOUTS)}; empty: as the file shows it."
    )
    snapshot: int = option(-1, "Of a file with several; -1: the last.")
    learning_rate: float | None = option(
        None, "Learned rate, where the protocol needs one and the file holds none.", above=0
    )
    width: int | None = option(
        None, "Channels of the ConvNet; none: those of the protocol.", low=1
    )
    method: str = option("imported", "Name of the method, for tables.")
    unchecked: bool = option(False, "Take the answers though the images seem to deny them.")
    check: int = option(0, "Networks trained by the protocol, to compare.", low=0)


def run(config: Config) -> Summary:
    """Reads the file and writes the artefact; returns the contents of `summary.json`.

    Raises:
      InputError: a file, an answer or a folder that cannot be used; nothing is written.
    """
    _check_answers(config)
    if not config.check:
        refuse_unread(config, "seed", "--check=0 trains no networks")
    loaded = data.load(config.dataset, config.data_dir)
    artefact = foreign.read(
        config.file,
        loaded,
        preprocess=config.preprocess,
        protocol=config.protocol,
        labels=typing.cast(foreign.Labels | None, config.labels or None),
        layout=config.layout or None,
        snapshot=config.snapshot,
        learning_rate=config.learning_rate,
        method=config.method,
        width=config.width,
        unchecked=config.unchecked,
    )
    # The name by which `data.load` finds the data again.
    artefact = artefact._replace(dataset={**artefact.dataset, "name": config.dataset})
    workdir = pathlib.Path(config.out).expanduser()
    with open_workdir(workdir, NAME, _settings(config)):
        summary = finished_summary(workdir, Summary, "import_set")
        if summary is None:
            summary = _write(config, artefact, loaded, workdir)
        elif summary["imported"]["sha256"] != artefact.notes["imported"]["sha256"]:
            reason = "holds the set of another file of this name; name a new folder"
            raise FieldError("out", config.out, reason)
    _show(config, summary, workdir)
    return summary


def _settings(config: Config) -> Config:
    """Returns the options without the names of places on this machine."""
    return config.replace({"file": pathlib.Path(config.file).name, "out": ""})


def _is_taken(config: Config, out: pathlib.Path) -> bool:
    """Whether a place holds anything but this command, cut or finished."""
    if not out.is_dir():
        return out.exists()
    if not (out / CONFIG).exists():
        return any(entry.name != LOCK for entry in out.iterdir())
    try:
        held = read_json(out / CONFIG)
    except (OSError, ValueError):
        return True
    ours = identity_of(_settings(config))
    return (held.get("experiment"), held.get("config")) != (NAME, ours)


def _check_answers(config: Config) -> None:
    """Refuses what no file tells and was not said.

    Raises:
      FieldError: of the first option that is missing.
    """
    for name, reason in (
        ("file", "name the file or folder of the set"),
        ("dataset", "a file does not tell what it was distilled from; name the data"),
        ("out", "name a new folder for the artefact"),
    ):
        if not getattr(config, name):
            raise FieldError(name, "", reason)
    if config.labels not in ("", *LABELS):
        reason = f"unknown; choose one of {', '.join(LABELS)}"
        raise FieldError("labels", config.labels, reason)
    out = pathlib.Path(config.out).expanduser()
    if _is_taken(config, out):
        raise FieldError("out", config.out, "is there already; name a new folder")
    for name, known, reason in (
        ("preprocess", data.KINDS, "a file does not tell what its images went through"),
        ("protocol", PROTOCOLS, "a file does not tell how its authors evaluate it"),
    ):
        value = getattr(config, name)
        if value not in known:
            why = reason if not value else "unknown"
            raise FieldError(name, value, f"{why}; choose one of {', '.join(known)}")


def _write(
    config: Config, artefact: io.Artefact, loaded: data.Dataset, workdir: pathlib.Path
) -> Summary:
    io.save(workdir / "distilled.npz", artefact)
    num, k = artefact.distilled.label_logits.shape
    image_grid(
        workdir / "grid.png",
        displayable(artefact.transform, artefact.distilled.images),
        artefact.class_names,
        f"{artefact.method} on {loaded.name}, {num // k} per class",
    )
    accuracy = _accuracy(config, artefact, loaded) if config.check else None
    if accuracy is not None:
        notes = {**artefact.notes, "check": {"accuracy": accuracy, "seed": config.seed}}
        artefact = artefact._replace(notes=notes)
        io.save(workdir / "distilled.npz", artefact)
    summary: Summary = {
        "images": num,
        "images_per_class": num // k,
        "labels": str(artefact.config["labels"]),
        "learning_rate": float(jnp.exp(artefact.distilled.log_lr)),
        "method": artefact.method,
        "preprocess": config.preprocess,
        "protocol": describe_protocol(config.protocol, artefact.protocol),
        "network": own_network("the set", artefact).described(),
        "imported": dict(artefact.notes["imported"]),
        "dataset": describe_dataset(loaded),
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    if accuracy is not None:
        summary["accuracy"] = accuracy
    return write_summary(workdir, Summary, summary)


def _accuracy(config: Config, artefact: io.Artefact, loaded: data.Dataset) -> Spread:
    """Returns the test accuracy of networks trained by the authors' protocol."""
    protocol, k = artefact.protocol, loaded.num_classes
    batch_of("the set", artefact, protocol)
    model, size = sized_model(own_network("the set", artefact), loaded)
    what = f"training {config.check} networks of {size:,} parameters"
    print(what, file=sys.stderr, flush=True)
    return compare_accuracies(
        fresh_key(config.seed),
        config.check,
        model,
        artefact.distilled,
        {},
        data.on_device(loaded.test, artefact.transform, k),
        protocol,
        targets=artefact.targets,
        validation=validation_images(protocol, loaded.train, artefact.transform, k),
    )["distilled"]


def _show(config: Config, summary: Summary, workdir: pathlib.Path) -> None:
    print(
        f"{summary['images']} images of {summary['dataset']['name']}, "
        f"{summary['images_per_class']} of each class, labels: {summary['labels']}"
    )
    if summary["imported"].get("order") == "as given":
        print("the largest labels are not as many of each class: the order is the file's")
    checks = summary["imported"]["checks"]
    if config.unchecked:
        print("nothing was checked against real images")
    else:
        fit, order = checks["preprocess"], checks["labels"]
        print(
            f"preprocessing {summary['preprocess']} fits: spread {fit['spread']:.2g} and "
            f"roughness {fit['roughness']:.2g} times that of real images; "
            f"{order['as_good']} of {order['shuffles']} shuffles of the labels fit as well"
        )
    if "accuracy" in summary:
        found = summary["accuracy"]
        print(
            f"{spelt_accuracy(found)} % of test images, {found['seeds']} networks, "
            f"protocol {config.protocol}; compare that with what its authors state"
        )
    print(f"the artefact is {workdir / 'distilled.npz'}, its picture grid.png beside it")


def with_file(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with a first one that is no flag as `--file`."""
    if argv and not argv[0].startswith("-"):
        return [f"--file={argv[0]}", *argv[1:]]
    return list(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    given = with_file(sys.argv[1:] if argv is None else argv)
    launch.main(Config, run, module=NAME, summary=__doc__, argv=given)
