"""TODO."""

import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from distilljax import io
from distilljax.analysis.statistics import student
from experiments.lab.accuracy import TRAINED_ON
from experiments.lab.claims import (
    METHODS,
    NAMES,
    NO_SPREAD,
    Every,
    Node,
    Reading,
    Record,
    absent_readings,
    check_paired,
    configured_network,
    in_order,
    paper_value,
    per_class,
    set_name,
)
from experiments.lab.html import Content, Markup, beside, data_table, el, picture
from experiments.lab.paper import IPC, MIXING, STANDARD
from experiments.lab.pictures import image_grid
from experiments.lab.sections import listed, set_label, spelt_mean, spelt_percent
from experiments.lab.sets import displayable


def _beats_random(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    about: dict[str, Any] = {"unit": "points", "threshold": 0.0, "above": True}
    for record in records:
        method, ipc = str(record.config.get("method")), int(record.config.get("ipc") or 0)
        if method not in METHODS or "random" not in record.get("accuracy"):
            continue
        ours, random = (
            record.numbers("accuracy", name, "values") for name in ("distilled", "random")
        )
        check_paired(record, "accuracy", ours, random)
        difference, interval = ours - random, student(ours - random)
        found.append(
            Reading(
                method,
                **about,
                value=float(difference.mean()),
                interval=interval,
                label=record.folder.rpartition("/")[2],
                where=per_class(ipc),
                n=f"{len(difference)} networks",
                paper=paper_value(STANDARD[method] - MIXING["random"][0], ipc),
                scale=configured_network(record),
                note="" if interval else NO_SPREAD,
                folder=record.folder,
            )
        )
    return Every([*in_order(found), *absent_readings(METHODS, found, **about)])


def grid(record: Record) -> Markup | None:
    """The set that a run distilled; None where neither it nor its picture is there."""
    folder = pathlib.Path(record.folder)
    name, ipc = _set_name(record), record.config.get("ipc")
    accuracy = record.get("accuracy", "distilled")
    caption = [
        el("strong", name),
        f", {per_class(int(ipc or 0))}: {spelt_mean(accuracy)} % of test images. ",
        el("span", configured_network(record), class_="scale"),
    ]
    alt = f"The images that {name} distilled, a row or a column for each class"
    if (folder / "grid.png").exists():
        return picture(folder / "grid.png", alt, caption)
    if not (folder / "distilled.npz").exists():
        return None
    artefact = io.load(folder / "distilled.npz")
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch, "grid.png")
        shown = displayable(artefact.transform, artefact.distilled.images)
        title = f"{artefact.method} on {artefact.dataset['name']}"
        image_grid(path, shown, artefact.class_names, title)
        return picture(path, alt, caption)


def _set_name(record: Record) -> str:
    method = str(record.config.get("method"))
    return NAMES.get(method, method)


def _size_and_method(record: Record) -> tuple[int, int, str]:
    """Large sets first, methods in the order of the claims."""
    method = str(record.config.get("method"))
    known = METHODS
    at = known.index(method) if method in known else len(known)
    return -int(record.config.get("ipc") or 0), at, record.folder


def _standard(records: Sequence[Record]) -> list[Markup]:
    made = sorted(
        (record for record in records if record.experiment == "distill"),
        key=_size_and_method,
    )
    if not made:
        return []
    names = [n for n in TRAINED_ON if any(n in r.get("accuracy") for r in made)]
    rows = []
    for record in made:
        accuracy = record.get("accuracy")
        method, ipc = record.config.get("method"), int(record.config.get("ipc") or 0)
        cells: list[Content] = [
            set_label(set_name(f"{record.folder}/distilled.npz"), method),
            str(ipc),
        ]
        for name in names:
            paper = None
            if ipc == IPC and name == "distilled":
                paper = spelt_percent(STANDARD.get(str(method)))
            if ipc == IPC and name == "random":
                paper = spelt_percent(MIXING["random"][0])
            held = accuracy.get(name)
            cells.append(beside(spelt_mean(held) if held else "–", paper if held else None))
        protocol = record.get("protocol", "name")
        cells.append(f"{configured_network(record)}; {protocol}")
        rows.append(cells)
    head = ["set", "images per class", *(TRAINED_ON[n] for n in names), "network"]
    seeds = sorted({int(r.number("accuracy", "distilled", "seeds")) for r in made})
    caption = (
        f"Test accuracy in percent: mean ± standard deviation of {listed(seeds)} networks."
    )
    found: list[Content] = [grid(record) for record in made]
    return [
        data_table(head, rows, caption),
        el("h3", "The sets"),
        el("div", found, class_="gallery"),
    ]


CLAIMS = (
    Claim(
        "beats_random",
        "standard",
        "Networks trained on a distilled set are more accurate than networks trained on as "
        "many random real images.",
        "Test accuracy on the set less that on random real images, network by network, is "
        f"above 0 for each set of the four methods. {EVERY}",
        "58.9 (BPTT), 53.6 (TM), 46.0 (GM), 42.7 % (DM) against 27.3 %",
        "distill",
        "grid.png",
        _beats_random,
    ),
)
