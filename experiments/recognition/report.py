"""The part of the report on recognition: claims, tables, captions."""

import math
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distilljax.analysis.statistics import Interval, student
from experiments.lab import claims, parts
from experiments.lab.experiment import Experiment
from experiments.lab.html import Content, Markup, beside, data_table, el
from experiments.lab.paper import RECOGNITION, STAND_IN, WIDTH
from experiments.lab.records import paths_of
from experiments.recognition import study
from experiments.recognition.record import TEST, Summary

Records = Sequence[claims.Record[Summary]]
MakeReading = Callable[[claims.Record[Summary], str, str, str], claims.Reading]

OUTSIDE = 0.01  # share of pixel values beyond 0..1 by more than half a grey level

CHANCES = 2  # times chance is well above it


def _recognition(
    records: Records, methods: Sequence[str], make: MakeReading
) -> claims.Node:
    """Returns a reading of each method and architecture."""
    found: list[claims.Node] = [
        make(record, label, method, name)
        for record in records
        for label, method in claims.by_method(record.summary["rows"])
        if method in methods
        for name in claims.entry(
            record, "recognition", record.summary["recognition"], label
        )
    ]
    blank: dict[str, Any] = {"unit": "points", "threshold": 0.0, "above": True}
    return claims.Every(
        [*claims.in_order(found), *claims.absent_readings(methods, found, **blank)]
    )


def _ipc(record: claims.Record[Summary], label: str) -> int:
    row = record.summary["rows"][label]
    claims.entry(record, f"rows.{label}", row, "images_per_class")
    return row["images_per_class"]


def _recognised(
    record: claims.Record[Summary], label: str, method: str, name: str
) -> dict[str, Any]:
    about = claims.entry(record, "networks", record.summary["networks"], name)
    paper = RECOGNITION.get(name)
    width = paper.width if paper and paper.width else WIDTH
    epochs = f"{about['epochs']} epochs"
    if paper and paper.epochs and about["epochs"] != paper.epochs:
        epochs += f" (paper: {paper.epochs})"
    return {
        "method": method,
        "label": label,
        "where": name,
        "scale": f"{claims.describe_network(about, width)}, {epochs}; "
        f"{claims.per_class(_ipc(record, label))}",
        "folder": record.folder,
    }


def _shown_and_test(
    record: claims.Record[Summary], label: str, name: str
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Returns accuracies on the set and on test images, and the steps they come in."""

    def row(label: str) -> tuple[list[float], float]:
        recognised = claims.entry(
            record, "recognition", record.summary["recognition"], label
        )
        found = claims.entry(record, f"recognition.{label}", recognised, name)
        about = claims.entry(record, "rows", record.summary["rows"], label)
        return found["accuracy"]["values"], 1 / about["num_images"]

    (ours, grain), (test, test_grain) = row(label), row(TEST)
    values = claims.paired(record, f"recognition.{label}.{name}", ours, test)
    return (*values, grain, test_grain)


def _against_test(*, above: bool) -> MakeReading:
    """Returns what makes a reading of the accuracy less that on test images."""

    def make(
        record: claims.Record[Summary], label: str, method: str, name: str
    ) -> claims.Reading:
        ours, test, grain, test_grain = _shown_and_test(record, label, name)
        difference = ours - test
        interval = student(difference, math.hypot(grain, test_grain))
        paper = RECOGNITION.get(name)
        apart = None if paper is None else paper.sets[method] - paper.test
        return claims.Reading(
            **_recognised(record, label, method, name),
            unit="points",
            threshold=0.0,
            above=above,
            value=float(difference.mean()),
            interval=interval,
            n=f"{len(difference)} networks",
            paper=claims.paper_value(apart, _ipc(record, label)),
            note="" if interval else claims.NO_SPREAD,
        )

    return make


def _above_chance(
    record: claims.Record[Summary], label: str, method: str, name: str
) -> claims.Reading:
    ours, _, grain, _ = _shown_and_test(record, label, name)
    paper = RECOGNITION.get(name)
    shown = None if paper is None else paper.sets[method]
    interval = student(ours, grain)
    dataset = record.summary["dataset"]
    claims.entry(record, "dataset", dataset, "num_classes")
    return claims.Reading(
        **_recognised(record, label, method, name),
        unit="percent",
        threshold=CHANCES / dataset["num_classes"],
        above=True,
        value=float(ours.mean()),
        interval=interval,
        n=f"{len(ours)} networks",
        paper=claims.paper_value(shown, _ipc(record, label)),
        note="" if interval else claims.NO_SPREAD,
    )


def _pixels(records: Records) -> claims.Node:
    about: dict[str, Any] = {"unit": "percent", "threshold": OUTSIDE, "above": True}
    found: list[claims.Node] = []
    for record in records:
        for label, method in claims.by_method(record.summary["rows"]):
            if method not in claims.METHODS:
                continue
            value = claims.entry(record, "pixels", record.summary["pixels"], label)[
                "outside"
            ]
            found.append(
                claims.Reading(
                    method,
                    **about,
                    value=value,
                    interval=Interval(value, value),
                    label=label,
                    n="all pixels",
                    scale=claims.per_class(_ipc(record, label)),
                    note="a count of all values of the set, so there is no spread",
                    folder=record.folder,
                )
            )
    return claims.Every(
        [*claims.in_order(found), *claims.absent_readings(claims.METHODS, found, **about)]
    )


def _paper_width(name: str) -> int:
    paper = RECOGNITION.get(name)
    return paper.width if paper and paper.width else WIDTH


def title(record: claims.Record[Summary]) -> str:
    """Returns the networks."""
    about = record.summary["networks"]
    return "; ".join(
        f"{name}: {claims.describe_network(about[name], _paper_width(name))}"
        for name in about
    )


def _networks(record: claims.Record[Summary]) -> Iterator[Mapping[str, Any]]:
    """Yields the networks but `convnet16`, which the paper has as narrow."""
    for name, about in record.summary["networks"].items():
        if name != "convnet16":
            yield about


def _sets(record: claims.Record[Summary]) -> list[str]:
    return paths_of(record.summary["rows"])


def _subjects(record: claims.Record[Summary]) -> set[Hashable]:
    return {
        (os.path.normpath(path), name)
        for path in _sets(record)
        for name in record.summary["networks"]
    }


def _recognised_table(record: claims.Record[Summary]) -> Markup:
    rows, nets = record.summary["rows"], record.summary["networks"]
    recognition = record.summary["recognition"]
    table: list[list[Content]] = []
    for label, of_row in recognition.items():
        method = rows[label]["method"]
        cells: list[Content] = [parts.set_label(label, method)]
        for name in nets:
            paper = RECOGNITION.get(name)
            of_paper = None
            if paper and parts.as_theirs(rows[label]):
                of_paper = paper.test if method == "test" else paper.sets.get(method)
            theirs = parts.spelt_percent(of_paper, 0 if method != "test" else 1)
            cells.append(beside(parts.spelt_mean(of_row[name]["accuracy"]), theirs))
        table.append(cells)
    head: list[Content] = ["shown"]
    for name, about in nets.items():
        network = claims.describe_network(about, _paper_width(name))
        sub = el("span", f"{network}, {about['epochs']} epochs", class_="sub")
        head.append([name, sub])
    first = next(iter(recognition[next(iter(rows))].values()))
    caption = (
        "Recognised, in percent: mean ± standard deviation of "
        f"{first['accuracy']['seeds']} networks trained on real images."
    )
    return data_table(head, table, caption)


def _pixel_table(record: claims.Record[Summary]) -> Markup:
    rows = record.summary["rows"]
    table: list[list[Content]] = [
        [
            parts.set_label(label, rows[label]["method"]) if label in rows else label,
            *(parts.spelt_percent(x) for x in (one["outside"], one["below"], one["above"])),
            *(f"{one['quantiles'][q]:.2f}".replace("-", "−") for q in ("0.0", "1.0")),
        ]
        for label, one in record.summary["pixels"].items()
    ]
    head = ["pixel values of", "outside 0..1, %", "below, %", "above, %", "least", "most"]
    return data_table(head, table)


def _tables(records: Records) -> list[Markup]:
    found: list[Markup] = []
    for record in records:
        found += [_recognised_table(record), _pixel_table(record)]
        found += parts.pictures_of(record, CAPTIONS, title(record))
    return found


CAPTIONS = {
    "recognition.png": (
        "Share of each set that networks trained on real images recognise, a column of "
        "dots for each architecture"
    ),
    "pixels.png": (
        "Densities of pixel values, back in the range of images, of each set and of real "
        "images"
    ),
    "features.png": (
        "Features of test images and of distilled images in two dimensions, by the input "
        "of the last layer"
    ),
}

CLAIMS = (
    claims.Claim(
        "recognised_as_well",
        STAND_IN,
        "Networks trained on real images recognise BPTT and TM sets at least as well as "
        "test images.",
        "Accuracy on the set less that on test images, network by network, is at least 0 "
        f"for each set and architecture. {claims.EVERY}",
        "91 to 100 % of the images, at test accuracies of 68 to 93 %",
        "recognition",
        "recognition.png",
        lambda records: _recognition(
            records, claims.MATCHING_DYNAMICS, _against_test(above=True)
        ),
    ),
    claims.Claim(
        "recognised_less",
        STAND_IN,
        "Networks trained on real images recognise GM and DM sets less well than test "
        "images.",
        "Accuracy on the set less that on test images, network by network, is at most 0 "
        f"for each set and architecture. {claims.EVERY}",
        "36 to 71 % of the images, at test accuracies of 68 to 93 %",
        "recognition",
        "recognition.png",
        lambda records: _recognition(
            records, claims.MATCHING_STATISTICS, _against_test(above=False)
        ),
    ),
    claims.Claim(
        "recognised_above_chance",
        STAND_IN,
        "Networks trained on real images recognise GM and DM sets far above chance.",
        "Accuracy on the set is at least twice one over the number of classes, for each "
        f"set and architecture. {claims.EVERY}",
        "36 to 71 %, chance 10 %",
        "recognition",
        "recognition.png",
        lambda records: _recognition(records, claims.MATCHING_STATISTICS, _above_chance),
    ),
    claims.Claim(
        "pixels_leave_the_range",
        STAND_IN,
        "Pixels of distilled sets leave the range that images have.",
        "At least 1 % of a set's pixel values, back in the range of images, lie below 0 or "
        "above 1 by more than half of one of 255 grey levels, for each of the four "
        "methods. A count, so the number is its own interval.",
        "shown as densities, no number",
        "recognition",
        "pixels.png",
        _pixels,
    ),
)

EXPERIMENT = Experiment(
    name="recognition",
    summary=Summary,
    title=title,
    sets=_sets,
    subjects=_subjects,
    networks=_networks,
    claims=CLAIMS,
    contents=((STAND_IN, _tables),),
    captions=CAPTIONS,
    steps=study.steps,
)
