"""TODO."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distilljax.analysis.statistics import Interval, student
from experiments.lab.claims import (
    METHODS,
    NO_SPREAD,
    Every,
    Node,
    Reading,
    Record,
    absent_readings,
    by_method,
    check_paired,
    describe_network,
    in_order,
    paper_value,
    per_class,
)
from experiments.lab.html import Content, Markup, beside, data_table, el
from experiments.lab.paper import RECOGNITION, WIDTH
from experiments.lab.sections import (
    as_theirs,
    pictures_of,
    set_label,
    spelt_mean,
    spelt_percent,
)

OUTSIDE = 0.01  # share of pixel values beyond 0..1 by more than half a grey level

CHANCES = 2  # times chance is well above it

TEST_ROW = "test images"  # of experiments.recognition


def _recognition(
    records: Sequence[Record], methods: Sequence[str], make: Callable[..., Reading]
) -> Node:
    """A reading of each method and architecture."""
    found: list[Node] = [
        make(record, label, method, name)
        for record in records
        for label, method in by_method(record.get("rows"), record, "rows")
        if method in methods
        for name in record.get("recognition", label)
    ]
    blank: dict[str, Any] = {"unit": "points", "threshold": 0.0, "above": True}
    return Every([*in_order(found), *absent_readings(methods, found, **blank)])


def _recognised(record: Record, label: str, method: str, name: str) -> dict[str, Any]:
    about = record.get("networks", name)
    paper = RECOGNITION.get(name)
    width = paper.width if paper and paper.width else WIDTH
    epochs = f"{record.get('networks', name, 'epochs')} epochs"
    if paper and paper.epochs and epochs != f"{paper.epochs} epochs":
        epochs += f" (paper: {paper.epochs})"
    ipc = int(record.number("rows", label, "images_per_class"))
    return {
        "method": method,
        "label": label,
        "where": name,
        "scale": f"{describe_network(about, width)}, {epochs}; {per_class(ipc)}",
        "folder": record.folder,
    }


def _shown_and_test(
    record: Record, label: str, name: str
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Accuracies on the set and on test images, and the steps they are counted in."""
    keys = "accuracy", "values"
    ours = record.numbers("recognition", label, name, *keys)
    test = record.numbers("recognition", TEST_ROW, name, *keys)
    check_paired(record, f"recognition.{label}.{name}", ours, test)
    return (
        ours,
        test,
        1 / record.number("rows", label, "num_images"),
        1 / record.number("rows", TEST_ROW, "num_images"),
    )


def _against_test(above: bool) -> Callable[..., Reading]:
    def make(record: Record, label: str, method: str, name: str) -> Reading:
        ours, test, grain, test_grain = _shown_and_test(record, label, name)
        difference = ours - test
        interval = student(difference, math.hypot(grain, test_grain))
        paper = RECOGNITION.get(name)
        apart = None if paper is None else paper.sets[method] - paper.test
        return Reading(
            **_recognised(record, label, method, name),
            unit="points",
            threshold=0.0,
            above=above,
            value=float(difference.mean()),
            interval=interval,
            n=f"{len(difference)} networks",
            paper=paper_value(apart, record.number("rows", label, "images_per_class")),
            note="" if interval else NO_SPREAD,
        )

    return make


def _above_chance(record: Record, label: str, method: str, name: str) -> Reading:
    ours, _, grain, _ = _shown_and_test(record, label, name)
    paper = RECOGNITION.get(name)
    shown = None if paper is None else paper.sets[method]
    interval = student(ours, grain)
    return Reading(
        **_recognised(record, label, method, name),
        unit="percent",
        threshold=CHANCES / record.number("dataset", "num_classes"),
        above=True,
        value=float(ours.mean()),
        interval=interval,
        n=f"{len(ours)} networks",
        paper=paper_value(shown, record.number("rows", label, "images_per_class")),
        note="" if interval else NO_SPREAD,
    )


def _pixels(records: Sequence[Record]) -> Node:
    about: dict[str, Any] = {"unit": "percent", "threshold": OUTSIDE, "above": True}
    found: list[Node] = []
    for record in records:
        for label, method in by_method(record.get("rows"), record, "rows"):
            if method not in METHODS:
                continue
            value = record.number("pixels", label, "outside")
            ipc = int(record.number("rows", label, "images_per_class"))
            found.append(
                Reading(
                    method,
                    **about,
                    value=value,
                    interval=Interval(value, value),
                    label=label,
                    n="all pixels",
                    scale=per_class(ipc),
                    note="a count of all values of the set, so there is no spread",
                    folder=record.folder,
                )
            )
    return Every([*in_order(found), *absent_readings(METHODS, found, **about)])


def _paper_width(name: str) -> int:
    paper = RECOGNITION.get(name)
    return paper.width if paper and paper.width else WIDTH


def _table(records: Sequence[Record]) -> list[Markup]:
    found = []
    for record in records:
        if record.experiment != "recognition":
            continue
        rows, nets = record.get("rows"), list(record.get("networks"))
        table: list[list[Content]] = []
        for label in record.get("recognition"):
            method = rows[label]["method"]
            cells: list[Content] = [set_label(label, method)]
            for name in nets:
                paper = RECOGNITION.get(name)
                of_paper = None
                if paper and as_theirs(rows[label]):
                    of_paper = paper.test if method == "test" else paper.sets.get(method)
                ours = spelt_mean(record.get("recognition", label, name, "accuracy"))
                cells.append(
                    beside(ours, spelt_percent(of_paper, 0 if method != "test" else 1))
                )
            table.append(cells)
        seeds = int(
            record.number("recognition", next(iter(rows)), nets[0], "accuracy", "seeds")
        )
        head: list[Content] = ["shown"]
        for name in nets:
            about = describe_network(record.get("networks", name), _paper_width(name))
            epochs = record.get("networks", name, "epochs")
            head.append([name, el("span", f"{about}, {epochs} epochs", class_="sub")])
        caption = (
            f"Recognised, in percent: mean ± standard deviation of {seeds} networks "
            "trained on real images."
        )
        found.append(data_table(head, table, caption))
        pixels = record.get("pixels")
        table = [
            [
                set_label(label, rows[label]["method"]) if label in rows else label,
                *(spelt_percent(one[side]) for side in ("outside", "below", "above")),
                *(f"{one['quantiles'][q]:.2f}".replace("-", "−") for q in ("0.0", "1.0")),
            ]
            for label, one in pixels.items()
        ]
        head = [
            "pixel values of",
            "outside 0..1, %",
            "below, %",
            "above, %",
            "least",
            "most",
        ]
        found.append(data_table(head, table))
        found += pictures_of(record)
    return found


CLAIMS = (
    Claim(
        "recognised_as_well",
        "3",
        "Networks trained on real images recognise BPTT and TM sets at least as well as "
        "test images.",
        "Accuracy on the set less that on test images, network by network, is at least 0 "
        f"for each set and architecture. {EVERY}",
        "91 to 100 % of the images, at test accuracies of 68 to 93 %",
        "recognition",
        "recognition.png",
        lambda records: _recognition(records, MATCHING_DYNAMICS, _against_test(True)),
    ),
    Claim(
        "recognised_less",
        "3",
        "Networks trained on real images recognise GM and DM sets less well than test "
        "images.",
        "Accuracy on the set less that on test images, network by network, is at most 0 "
        f"for each set and architecture. {EVERY}",
        "36 to 71 % of the images, at test accuracies of 68 to 93 %",
        "recognition",
        "recognition.png",
        lambda records: _recognition(records, MATCHING_STATISTICS, _against_test(False)),
    ),
    Claim(
        "recognised_above_chance",
        "3",
        "Networks trained on real images recognise GM and DM sets far above chance.",
        "Accuracy on the set is at least twice one over the number of classes, for each "
        f"set and architecture. {EVERY}",
        "36 to 71 %, chance 10 %",
        "recognition",
        "recognition.png",
        lambda records: _recognition(records, MATCHING_STATISTICS, _above_chance),
    ),
    Claim(
        "pixels_leave_the_range",
        "3",
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
