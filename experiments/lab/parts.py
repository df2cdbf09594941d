"""Parts of the report that experiments share: pictures of a run, cells of its tables."""

import json
import pathlib
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from distilljax.analysis.statistics import Spread
from experiments.lab.claims import NAMES, Record
from experiments.lab.html import Content, Markup, el, picture
from experiments.lab.paper import IPC


def pictures_of(
    record: Record[Any], captions: Mapping[str, str], about: str
) -> list[Markup]:
    """Returns all pictures of a run.

    Args:
      record: the run.
      captions: file -> text, in the order of the page; other pictures come after them.
      about: the run in a few words, below each picture.
    """
    order = list(captions)
    files = sorted(
        pathlib.Path(record.folder).glob("*.png"),
        key=lambda p: (order.index(p.name) if p.name in order else len(order), p.name),
    )
    found = []
    for file in files:
        text = captions.get(file.name, file.stem.replace("_", " "))
        caption = [f"{text}. ", el("span", about, class_="scale")]
        found.append(picture(file, f"{text} ({about})", caption))
    return found


def spelt_mean(spread: Spread, digits: int = 1) -> str:
    """Returns mean and standard deviation in percent."""
    mean, std = 100 * spread["mean"], spread["std"]
    deviation = "" if std is None else f" ± {100 * std:.{digits}f}"
    return f"{mean:.{digits}f}{deviation}"


def spelt_percent(value: float | None, digits: int = 1) -> str | None:
    """Returns a share in percent, without the sign."""
    return None if value is None else f"{100 * value:.{digits}f}"


def set_label(label: str, method: object) -> Content:
    """Returns the head of a row: the method, and the set's own name below."""
    if method in (None, "random", "test"):
        return label
    return [
        el("strong", NAMES.get(str(method), str(method))),
        el("span", label, class_="sub"),
    ]


def configured_networks(record: Record[Any]) -> list[Mapping[str, Any]]:
    """Returns the network that `config.json` names, with its settings, if it names one."""
    name = record.config.get("model")
    group = record.config.get(str(name))
    return [{**group, "model": name}] if isinstance(group, Mapping) else []


def whole_config(record: Record[Any]) -> set[Hashable]:
    """Returns the subject of a run of which there is one for each configuration."""
    return {json.dumps(record.config, sort_keys=True)}


def listed(values: Iterable[object]) -> str:
    """Returns alternatives in words."""
    return " or ".join(map(str, values))


def as_theirs(row: Mapping[str, Any]) -> bool:
    """Whether a set has the paper's size; test images have none."""
    return row.get("images_per_class", IPC) == IPC
