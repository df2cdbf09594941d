"""The part of the report on the sets themselves: claim, table, pictures."""

import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from distilljax.analysis.statistics import student
from distilljax.comparison.accuracy import TRAINED_ON
from experiments.distill import study
from experiments.distill.record import Summary
from experiments.lab import claims, parts
from experiments.lab.experiment import Experiment, Fact
from experiments.lab.html import Content, Markup, beside, data_table, el, picture
from experiments.lab.paper import IPC, MIXING, STANDARD, WORTH
from experiments.lab.pictures import image_grid
from experiments.lab.sets import displayable, load

Records = Sequence[claims.Record[Summary]]


def _method(record: claims.Record[Summary]) -> str:
    return str(record.config.get("method"))


def _ipc(record: claims.Record[Summary]) -> int:
    return int(record.config.get("ipc") or 0)


def _beats_random(records: Records) -> claims.Node:
    found: list[claims.Node] = []
    about: dict[str, Any] = {"unit": "points", "threshold": 0.0, "above": True}
    for record in records:
        accuracy, method = record.summary["accuracy"], _method(record)
        if method not in claims.METHODS or "random" not in accuracy:
            continue
        ours, random = claims.paired(
            record,
            "accuracy",
            accuracy["distilled"]["values"],
            accuracy["random"]["values"],
        )
        difference, interval = ours - random, student(ours - random)
        found.append(
            claims.Reading(
                method,
                **about,
                value=float(difference.mean()),
                interval=interval,
                label=record.folder.rpartition("/")[2],
                where=claims.per_class(_ipc(record)),
                n=f"{len(difference)} networks",
                paper=claims.paper_value(
                    STANDARD[method] - MIXING["random"][0], _ipc(record)
                ),
                scale=claims.configured_network(record),
                note="" if interval else claims.NO_SPREAD,
                folder=record.folder,
            )
        )
    return claims.Every(
        [*claims.in_order(found), *claims.absent_readings(claims.METHODS, found, **about)]
    )


def grid(record: claims.Record[Summary]) -> Markup | None:
    """Returns a picture of the set; None where neither it nor the set is there.

    Raises:
      InputError: an artefact that cannot be read.
    """
    folder = pathlib.Path(record.folder)
    name = claims.NAMES.get(_method(record), _method(record))
    accuracy = parts.spelt_mean(record.summary["accuracy"]["distilled"])
    caption = [
        el("strong", name),
        f", {claims.per_class(_ipc(record))}: {accuracy} % of test images. ",
        el("span", claims.configured_network(record), class_="scale"),
    ]
    alt = f"The images that {name} distilled, a row or a column for each class"
    if (folder / "grid.png").exists():
        return picture(folder / "grid.png", alt, caption)
    if not (folder / "distilled.npz").exists():
        return None
    artefact = load(str(folder / "distilled.npz"))
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch, "grid.png")
        shown = displayable(artefact.transform, artefact.distilled.images)
        title = f"{artefact.method} on {artefact.dataset['name']}"
        image_grid(path, shown, artefact.class_names, title)
        return picture(path, alt, caption)


def _size_and_method(record: claims.Record[Summary]) -> tuple[int, int, str]:
    """Large sets first, methods in the order of the claims."""
    method = _method(record)
    at = claims.METHODS.index(method) if method in claims.METHODS else len(claims.METHODS)
    return -_ipc(record), at, record.folder


def _row(record: claims.Record[Summary], names: Sequence[str]) -> list[Content]:
    """Returns a row of the table: the accuracies by training set, with the paper's."""
    accuracy, ipc = record.summary["accuracy"], _ipc(record)
    label = claims.set_name(f"{record.folder}/distilled.npz")
    paper = {}
    if ipc == IPC:
        paper["distilled"] = parts.spelt_percent(STANDARD.get(_method(record)))
        paper["random"] = parts.spelt_percent(MIXING["random"][0])
    cells: list[Content] = [parts.set_label(label, record.config.get("method")), str(ipc)]
    for name in names:
        if name in accuracy:
            cells.append(beside(parts.spelt_mean(accuracy[name]), paper.get(name)))
        else:
            cells.append(beside("–", None))
    protocol = record.summary["protocol"]["name"]
    return [*cells, f"{claims.configured_network(record)}; {protocol}"]


def _tables(records: Records) -> list[Markup]:
    records = sorted(records, key=_size_and_method)
    if not records:
        return []
    accuracies = [record.summary["accuracy"] for record in records]
    names = [name for name in TRAINED_ON if any(name in of for of in accuracies)]
    head = ["set", "images per class", *(TRAINED_ON[n] for n in names), "network"]
    seeds = sorted({of["distilled"]["seeds"] for of in accuracies})
    caption = (
        "Test accuracy in percent: mean ± standard deviation of "
        f"{parts.listed(seeds)} networks."
    )
    pictures: list[Content] = [grid(record) for record in records]
    return [
        data_table(head, [_row(record, names) for record in records], caption),
        el("h3", "The sets"),
        el("div", pictures, class_="gallery"),
    ]


def title(record: claims.Record[Summary]) -> str:
    """Returns the network that the set was made with."""
    return claims.configured_network(record) if "model" in record.config else record.folder


def _facts(records: Records) -> list[Fact]:
    methods = {_method(record) for record in records}
    named = ", ".join(
        claims.NAMES[method] for method in claims.METHODS if method in methods
    )
    ipcs = parts.listed(sorted({_ipc(record) for record in records}))
    return [("Sets", f"{named}; {ipcs} per class" if named else "–")]


CLAIMS = (
    claims.Claim(
        "beats_random",
        WORTH,
        "Networks trained on a distilled set are more accurate than networks trained on as "
        "many random real images.",
        "Test accuracy on the set less that on random real images, network by network, is "
        f"above 0 for each set of the four methods. {claims.EVERY}",
        "58.9 (BPTT), 53.6 (TM), 46.0 (GM), 42.7 % (DM) against 27.3 %",
        "distill",
        "grid.png",
        _beats_random,
    ),
)

EXPERIMENT = Experiment(
    name="distill",
    summary=Summary,
    title=title,
    sets=lambda _: [],
    subjects=parts.whole_config,
    networks=parts.configured_networks,
    claims=CLAIMS,
    contents=((WORTH, _tables),),
    facts=_facts,
    make_sets=study.make_sets,
)
