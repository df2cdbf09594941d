"""List the committed distilled sets, with their numbers.

    python -m experiments.gallery
    python -m experiments.gallery --dataset=cifar10 --ipc=1
    python -m experiments.gallery --cards

Each folder of `experiments/artefacts` is one distillation: the set with its preprocessing
(`distilled.npz`), its picture, every outer step, settings, command and numbers; a wheel
holds the numbers of all, and the files of the smallest. `--cards` writes a README.md into
each. A set is named by its folder wherever a command takes
`--artefacts`; `distilljax.io.load` takes the path of its file.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from distilljax import launch
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.disk.files import read_json, replacing
from distilljax.types import InputError
from experiments.lab.accuracy import TRAINED_ON, spelt_accuracy
from experiments.lab.experts import training_command
from experiments.lab.sets import GALLERY, RESULT
from experiments.lab.terminal import new_table, show_table

NAME = "experiments.gallery"
LICENCES = {
    "cifar10": "CIFAR-10 (Krizhevsky 2009), for which no licence is stated",
    "mnist": "MNIST (LeCun, Cortes and Burges), CC BY-SA 3.0",
    "fashion_mnist": "Fashion-MNIST, Copyright (c) 2017 Zalando SE, MIT licence",
    "embedded": "Fashion-MNIST, Copyright (c) 2017 Zalando SE, MIT licence",
}


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the command."""

    dataset: str | None = option(None, "Only sets of this data set; none: all.")
    ipc: int | None = option(None, "Only sets with so many images a class.", low=1)
    cards: bool = option(False, "Write a card, README.md, into each folder.")


class Entry(NamedTuple):
    """A committed set."""

    folder: pathlib.Path
    config: dict[str, Any]
    summary: dict[str, Any]
    command: str

    @property
    def here(self) -> bool:
        """Whether its file is here; a wheel has no room for the larger ones."""
        return (self.folder / RESULT).is_file()

    @property
    def network(self) -> str:
        """The network that it was made with, and its width."""
        name = self.config["model"]
        return f"{name}, width {self.config[name].get('width')}"


def entries(folder: pathlib.Path | None = None) -> list[Entry]:
    """Returns all sets of a folder, by default of the gallery, in order of their names.

    Raises:
      InputError: a folder whose files cannot be read.
    """
    found = []
    for place in sorted(path.parent for path in (folder or GALLERY).glob("*/config.json")):
        try:
            about, summary = (read_json(place / f"{n}.json") for n in ("config", "summary"))
            found.append(Entry(place, about["config"], summary, about["command"]))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{place}: its description is damaged ({error})") from None
    return found


def commands(entry: Entry) -> list[str]:
    """Returns what distils a set again: its command, after that of its experts."""
    if not (experts := entry.summary.get("experts")):
        return [entry.command]
    folder = "runs/experts"
    return [training_command(experts, folder), f"{entry.command} --experts_dir={folder}"]


def card(entry: Entry) -> str:
    """Returns the text that explains a set, in Markdown."""
    config, summary = entry.config, entry.summary
    accuracy = summary["accuracy"]["distilled"]
    data = LICENCES.get(config["dataset"], summary["dataset"]["source"])
    images = f"{config['ipc']} distilled image{'s' * (config['ipc'] > 1)}"
    lines = [
        f"# {entry.folder.name}",
        "",
        f"{images} a class of {summary['dataset']['name']}, by "
        f"`{config['method']}` with a {entry.network}; {summary['steps']:,} outer steps, "
        "one distillation, chosen on held-out training images.",
        "",
        "![The distilled images.](grid.png)",
        "",
        "| trained on | test accuracy, % | networks |",
        "|---|---|---|",
        *(
            f"| {TRAINED_ON[name]} | {spelt_accuracy(row)} | {row['seeds']} |"
            for name, row in summary["accuracy"].items()
        ),
        "",
        f"Protocol `{summary['protocol']['name']}`; mean and standard deviation over "
        f"{accuracy['seeds']} networks. Images of the data: {data}.",
        "",
        "```",
        *commands(entry),
        "```",
        "",
        "```python",
        "from distilljax import io",
        "",
        'artefact = io.load("distilled.npz")  # images, labels, preprocessing, protocol',
        "```",
    ]
    return "\n".join(lines) + "\n"


def run(config: Config) -> list[Entry]:
    """Prints the table of the sets asked for, and returns them.

    Raises:
      FieldError: there is none.
    """
    chosen = [
        entry
        for entry in entries()
        if config.dataset in (None, entry.config["dataset"])
        and config.ipc in (None, entry.config["ipc"])
    ]
    if not chosen:
        every = entries()
        data = [entry for entry in every if entry.config["dataset"] == config.dataset]
        field = "dataset" if config.dataset and not data else "ipc"
        there = sorted({entry.config[field] for entry in data or every})
        named = f" of --dataset={config.dataset}" * bool(data)
        reason = f"there is no such set{named}; there are {', '.join(map(str, there))}"
        raise FieldError(field, getattr(config, field), reason)
    columns = (
        "set",
        "network",
        "steps",
        "protocol",
        "accuracy, %",
        "random, %",
        "networks",
    )
    absent = [entry.folder.name for entry in chosen if not entry.here]
    if config.cards and absent:
        raise FieldError("cards", True, "cards are written in a clone of the repository")
    table = new_table("Distilled sets of experiments/artefacts", columns, left=columns[1:2])
    for entry in chosen:
        accuracy = entry.summary["accuracy"]
        random = accuracy.get("random")
        table.add_row(
            entry.folder.name + "*" * (not entry.here),
            entry.network,
            f"{entry.summary['steps']:,}",
            entry.summary["protocol"]["name"],
            spelt_accuracy(accuracy["distilled"]),
            "-" if random is None else spelt_accuracy(random),
            str(accuracy["distilled"]["seeds"]),
        )
        if config.cards:
            with replacing(entry.folder / "README.md") as temporary:
                temporary.write_text(card(entry), encoding="utf-8")
    show_table(table, 130)
    if absent:
        print(f"* The files of {len(absent)} sets are in a clone of the repository alone.")
    return chosen


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
