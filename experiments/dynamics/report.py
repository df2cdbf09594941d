"""The part of the report on training: tables, captions, title."""

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from experiments.dynamics import study
from experiments.dynamics.claims import (
    ACCURACY,
    CLAIMS,
    TRACE,
    Records,
    curve_of,
    images_per_class,
    learning_real,
    network_of,
    point,
)
from experiments.dynamics.record import Summary
from experiments.lab import paper
from experiments.lab.claims import Record, describe_network, set_name
from experiments.lab.experiment import Experiment
from experiments.lab.html import Content, Markup, beside, data_table, el
from experiments.lab.paper import CURVATURE, IPC, RECOGNITION_IN_TRAINING, SMOOTHING
from experiments.lab.parts import pictures_of, set_label
from experiments.lab.records import paths_of


def smoothed(iterations: Sequence[int], values: Sequence[float]) -> list[float]:
    """Returns the paper's exponential moving average, an iteration at a time.

    Between two looks the quantity is taken as it is at the second, so that a look k
    iterations later keeps 0.9^k of what was there before.
    """
    found: list[float] = []
    for number, value in enumerate(values):
        if number == 0:
            found.append(value)
            continue
        keep = SMOOTHING ** (iterations[number] - iterations[number - 1])
        found.append(keep * found[-1] + (1 - keep) * value)
    return found


NEAR = 10  # iterations between a look of ours and one of the paper's, at most


def _nearest(measured: Sequence[int], iteration: int) -> int | None:
    found = min(measured, key=lambda i: (abs(i - iteration), i))
    return found if abs(found - iteration) <= NEAR else None


def _along(
    record: Record[Summary],
    quantity: str,
    at: Sequence[int],
    theirs: Mapping[str, Sequence[float]],
    shown: Callable[[float], str],
    caption: str,
    *,
    smooth: bool,
) -> list[Markup]:
    """Returns a table of a quantity on every set, at the iterations of the paper."""
    sets, curves = record.summary["sets"], record.summary["curves"]
    if quantity not in curves:
        return []
    measured = curve_of(record, quantity, next(iter(curves[quantity])))["iterations"]
    ours = [_nearest(measured, i) for i in at]
    head: list[Content] = ["set"]
    for iteration, look in zip(at, ours, strict=True):
        differs = look is not None and look != iteration
        sub = el("span", f"ours {look}", class_="sub") if differs else None
        head.append([str(iteration), sub])
    table: list[list[Content]] = []
    names = {"train": "real", "test": "test", "random": "random"}
    for label in curves[quantity]:
        method = sets[label]["method"]
        values = [float(point(record, quantity, label, i).values.mean()) for i in measured]
        if smooth:
            values = smoothed(measured, values)
        as_theirs = method is None or images_per_class(record, label) == IPC
        row = theirs.get(method or names.get(label, label)) if as_theirs else None
        cells: list[Content] = [set_label(REAL_LABELS.get(label, label), method)]
        for column, look in enumerate(ours):
            number = "–" if look is None else shown(values[measured.index(look)])
            cells.append(beside(number, shown(row[column]) if row else None))
        table.append(cells)
    return [data_table(head, table, caption)]


REAL_LABELS = {
    "train": "real training images",
    "test": "test images",
    "random": "random real images",
}


def _recognised_along(records: Records) -> list[Markup]:
    return [
        table
        for record in learning_real(records)
        for table in _along(
            record,
            ACCURACY,
            paper.TRAINING_ITERATIONS,
            paper.TRAINING,
            lambda x: f"{100 * x:.0f}",
            f"Accuracy in percent along training. {title(record)}.",
            smooth=False,
        )
    ]


def _curvature(records: Records) -> list[Markup]:
    found: list[Markup] = []
    for record in learning_real(records):
        found += _along(
            record,
            TRACE,
            paper.TRACE_ITERATIONS,
            paper.TRACE,
            lambda x: f"{x:,.0f}".replace("-", "−"),
            "Trace of the Hessian along training, smoothed as in the paper (0.9 of what "
            "was there before is kept each iteration). A trace grows with the number of "
            f"parameters, so compare rows, not with the paper. {title(record)}.",
            smooth=True,
        )
        found += pictures_of(record, CAPTIONS, title(record))
    for record in records:
        if record.summary["trained_on"] != "real":
            found.append(el("h3", f"The reverse: {title(record)}"))
            found += pictures_of(record, CAPTIONS, title(record))
    return found


def title(record: Record[Summary]) -> str:
    """Returns the network, what it learns and the number of runs."""
    number, on = record.summary["runs"], record.summary["trained_on"]
    learned = "real images" if on == "real" else f"the distilled set {set_name(on)}"
    runs = f"{number} run{'s' * (number > 1)}"
    return f"{describe_network(network_of(record))}, learning {learned}, {runs}"


def _sets(record: Record[Summary]) -> list[str]:
    return paths_of(record.summary["sets"])


def _subjects(record: Record[Summary]) -> set[Hashable]:
    paths = [os.path.normpath(path) for path in _sets(record)] or ["real images alone"]
    return {
        (path, record.summary["trained_on"], quantity)
        for path in paths
        for quantity in record.summary["curves"]
    }


def _networks(record: Record[Summary]) -> Iterator[Mapping[str, Any]]:
    yield network_of(record)


def _notes(records: Records) -> list[str]:
    """Returns a sentence on what was followed in a single run."""
    followed = {
        "real images" if record.summary["trained_on"] == "real" else "a distilled set"
        for record in records
        if record.summary["runs"] == 1
    }
    if not followed:
        return []
    on = " and on ".join(sorted(followed, reverse=True))
    return [
        f"Training on {on} was followed in a single run; intervals there are those of the "
        "probes, and do not hold what another run would change."
    ]


CAPTIONS = {
    "dynamics.png": (
        "What probes see on each set along training: accuracy, loss, curvature and kernel "
        "against the iteration"
    ),
    "spectrum.png": (
        "Spectral densities of the Hessian on each set, a panel for each iteration"
    ),
}

EXPERIMENT = Experiment(
    name="dynamics",
    summary=Summary,
    title=title,
    sets=_sets,
    subjects=_subjects,
    networks=_networks,
    claims=CLAIMS,
    contents=((RECOGNITION_IN_TRAINING, _recognised_along), (CURVATURE, _curvature)),
    captions=CAPTIONS,
    notes=_notes,
    steps=study.steps,
)
