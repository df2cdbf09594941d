"""TODO."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distilljax.analysis.statistics import ALPHA, Interval, quantile, student
from distilljax.types import InputError
from experiments.lab.claims import (
    MATCHING_DYNAMICS,
    NO_SPREAD,
    ONE_RUN,
    ONE_RUN_EXACT,
    Every,
    Node,
    Reading,
    Record,
    Some,
    absent_readings,
    by_method,
    describe_network,
    finite,
    in_order,
    malformed,
    paper_value,
    per_class,
)
from experiments.lab.html import Content, Markup, beside, data_table, el
from experiments.lab.paper import (
    IPC,
    SMOOTHING,
    TRACE,
    TRACE_ITERATIONS,
    TRAINING,
    TRAINING_ITERATIONS,
)
from experiments.lab.sections import pictures_of, set_label
from experiments.report.sections import title_of

RISE = range(30, 121)  # iterations in which curvature may rise above that on real images

RECOGNISED_AT, WHOLLY = 150, 0.98

TEST_GAIN = 0.02  # accuracy that test images still gain after `RECOGNISED_AT`

HALF = 0.5


def _on_real(records: Sequence[Record], curve: str) -> list[Record]:
    """Runs in which a network learns real images, and that measured the curve."""
    return [
        record
        for record in records
        if record.get("trained_on") == "real" and curve in record.get("curves")
    ]


def _looked_at(record: Record, methods: Sequence[str]) -> list[tuple[str, str]]:
    """Labels and methods of distilled sets."""
    sets = record.get("sets")
    return [one for one in by_method(sets, record, "sets") if one[1] in methods]


def iterations(record: Record, curve: str, name: str) -> list[int]:
    """At which a curve was measured."""
    return [int(i) for i in record.numbers("curves", curve, name, "iterations")]


class Point(NamedTuple):
    """A curve at one iteration."""

    values: np.ndarray  # f64[runs]
    error: float  # of the probes, in one run
    num_probes: int


def point(record: Record, curve: str, name: str, iteration: int) -> Point:
    """What was measured of a set at an iteration that was looked at."""
    at = iterations(record, curve, name).index(iteration)
    keys = "curves", curve, name
    rows = record.get(*keys, "values")
    for key in ("values", "standard_error"):
        column = rows if key == "values" else [record.get(*keys, key)]
        if not isinstance(column, list) or any(
            not isinstance(row, list) or len(row) <= at for row in column
        ):
            raise malformed(record, (*keys, key), "a number for each iteration", column)
    values = [finite(row[at], (*keys, "values"), record) for row in rows]
    error = record.get(*keys, "standard_error")[at]
    return Point(
        np.array(values),
        0.0 if error is None else finite(error, (*keys, "standard_error"), record),
        int(record.number(*keys, "num_probes")),
    )


def _over_runs(
    values: np.ndarray, error: float, num_probes: int, grain: float = 0.0
) -> dict[str, Any]:
    """Value, interval, number and caveat of something measured in each run.

    Args:
      values: f64[runs].
      error: in one run, the standard error that the probes leave.
      num_probes: random probes behind it; fewer than two are no estimate of an error.
      grain: see `student`.
    """
    found: dict[str, Any] = {"value": float(values.mean())}
    if len(values) > 1:
        interval = student(values, grain)
        note = "" if interval else NO_SPREAD.replace("networks", "runs")
        return {**found, "interval": interval, "n": f"{len(values)} runs", "note": note}
    if num_probes < 2 or not error:
        return {**found, "n": "1 run", "note": ONE_RUN_EXACT}
    half = quantile(ALPHA, num_probes - 1) * error
    interval = Interval(found["value"] - half, found["value"] + half, num_probes - 1)
    return {
        **found,
        "interval": interval,
        "n": f"1 run, {num_probes} probes",
        "note": ONE_RUN,
    }


def _ipc(record: Record, label: str) -> int:
    """Images a class of a set that `dynamics` looks at."""
    images = record.number("sets", label, "images")
    return round(images / record.number("dataset", "num_classes"))


def _dynamics(record: Record, label: str, method: str, more: str = "") -> dict[str, Any]:
    described = {**record.get("model"), "model": record.get("model", "name")}
    more = more or per_class(_ipc(record, label))
    return {
        "method": method,
        "label": label,
        "scale": f"{describe_network(described)}; {more}",
        "folder": record.folder,
    }


ACCURACY, TRACE, KERNEL = (
    "accuracy.accuracy",
    "hessian_trace.hessian_trace",
    "ntk.distance",
)


def _last_by(measured: Sequence[int], iteration: int) -> int | None:
    """The last that was looked at by then; none where the run is shorter than that."""
    if not measured or measured[-1] < iteration:
        return None
    return max(i for i in measured if i <= iteration)


def _accuracy_images(record: Record) -> float:
    """The most images of a set that the probe looks at."""
    group = record.config.get("accuracy")
    if not isinstance(group, Mapping) or not isinstance(group.get("images"), int):
        raise InputError(
            f"{record.folder}/config.json does not say how many images the accuracy is of "
            "(accuracy.images); run experiments.dynamics again"
        )
    return float(group["images"])


def _trained_at(name: str) -> float:
    """The paper's accuracy at `RECOGNISED_AT`."""
    return TRAINING[name][TRAINING_ITERATIONS.index(RECOGNISED_AT)]


def _recognised_early(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in _on_real(records, ACCURACY):
        for label, method in _looked_at(record, MATCHING_DYNAMICS):
            at = _last_by(iterations(record, ACCURACY, label), RECOGNISED_AT)
            if at is None:
                continue
            measured = point(record, ACCURACY, label, at)
            images = min(_accuracy_images(record), record.number("sets", label, "images"))
            found.append(
                Reading(
                    **_dynamics(record, label, method),
                    unit="percent",
                    threshold=WHOLLY,
                    above=True,
                    **_over_runs(measured.values, measured.error, 0, 1 / images),
                    where=f"iteration {at}",
                    paper=paper_value(_trained_at(method), _ipc(record, label)),
                )
            )
    about: dict[str, Any] = {"unit": "percent", "threshold": WHOLLY, "above": True}
    return Every([*in_order(found), *absent_readings(MATCHING_DYNAMICS, found, **about)])


def _test_still_learning(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in _on_real(records, ACCURACY):
        if "test" not in record.get("curves", ACCURACY):
            continue
        measured = iterations(record, ACCURACY, "test")
        at = _last_by(measured, RECOGNISED_AT)
        if at is None or at == measured[-1]:
            continue
        first, last = (point(record, ACCURACY, "test", i) for i in (at, measured[-1]))
        images = min(_accuracy_images(record), record.number("sets", "test", "images"))
        shown = f"{images:,.0f} test images"
        grain = math.sqrt(2) / images
        found.append(
            Reading(
                **_dynamics(record, "test", "test", shown),
                unit="points",
                threshold=TEST_GAIN,
                above=True,
                **_over_runs(last.values - first.values, 0.0, 0, grain),
                where=f"iteration {at} to {measured[-1]}",
                paper=TRAINING["test"][-1] - _trained_at("test"),
            )
        )
    return Every(found)


def _ratios(
    record: Record, label: str, method: str, curve: str, iteration: int
) -> dict[str, Any]:
    """A quantity on a set over that on real training images, at one iteration."""
    ours = point(record, curve, label, iteration)
    real = point(record, curve, "train", iteration)
    about = {**_dynamics(record, label, method), "where": f"iteration {iteration}"}
    unclear = len(real.values) == 1 and real.values[0] < 4 * real.error
    if unclear or (real.values <= 0).any():
        return {**about, "note": "no ratio: that on real images is not clear of zero"}
    ratios = ours.values / real.values
    # To first order in both errors, which are taken as independent.
    relative = math.hypot(ours.error, float(ratios[0]) * real.error) / float(real.values[0])
    probes = min(ours.num_probes, real.num_probes)
    return {**about, **_over_runs(ratios, relative, probes)}


def _read_at(iteration: int, name: str) -> float:
    """The paper's trace at an iteration, between those that were read off."""
    row = TRACE[name]
    return float(np.interp(iteration, TRACE_ITERATIONS, row))


def _trace(
    methods: Sequence[str], *, rises: bool, threshold: float, above: bool
) -> Callable[[Sequence[Record]], Node]:
    def read(records: Sequence[Record]) -> Node:
        found: list[Node] = []
        for record in _on_real(records, TRACE):
            if "train" not in record.get("curves", TRACE):
                continue
            measured = iterations(record, TRACE, "train")
            if rises:
                chosen = [i for i in measured if i in RISE]
            else:
                # A run that was cut short does not say where curvature ends.
                chosen = measured[-1:] if measured[-1] >= 250 else []
            for label, method in _looked_at(record, methods):
                parts = [
                    Reading(
                        **_ratios(record, label, method, TRACE, i),
                        unit="ratio",
                        threshold=threshold,
                        above=above,
                        paper=paper_value(
                            _read_at(i, method) / _read_at(i, "real"), _ipc(record, label)
                        ),
                    )
                    for i in chosen
                ]
                if parts:
                    found.append(Some(parts) if rises else Every(parts))
        about: dict[str, Any] = {"unit": "ratio", "threshold": threshold, "above": above}
        return Every([*in_order(found), *absent_readings(methods, found, **about)])

    return read


KERNEL_METHODS = (*MATCHING_DYNAMICS, "gm")


def _kernel(records: Sequence[Record]) -> Node:
    about: dict[str, Any] = {"unit": "ratio", "threshold": 1.0, "above": False}
    found: list[Node] = []
    for record in _on_real(records, KERNEL):
        if "train" not in record.get("curves", KERNEL):
            continue
        last = iterations(record, KERNEL, "train")[-1]
        for label, method in _looked_at(record, KERNEL_METHODS):
            ratio = _ratios(record, label, method, KERNEL, last)
            found.append(Reading(**ratio, **about))
    return Every([*in_order(found), *absent_readings(KERNEL_METHODS, found, **about)])


def smoothed(iterations: Sequence[int], values: Sequence[float]) -> list[float]:
    """The paper's exponential moving average, an iteration at a time.

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
    record: Record,
    curve: str,
    at: Sequence[int],
    paper: Mapping[str, Sequence[float]],
    shown: Callable[[float], str],
    caption: str,
    smooth: bool,
) -> Markup | None:
    """A curve of every set at the iterations of the paper."""
    if curve not in record.get("curves"):
        return None
    sets = record.get("sets")
    measured = iterations(record, curve, next(iter(record.get("curves", curve))))
    ours = [_nearest(measured, i) for i in at]
    head: list[Content] = ["set"]
    for iteration, look in zip(at, ours, strict=True):
        differs = look is not None and look != iteration
        sub = el("span", f"ours {look}", class_="sub") if differs else None
        head.append([str(iteration), sub])
    table = []
    names = {"train": "real", "test": "test", "random": "random"}
    for label in record.get("curves", curve):
        own = names.get(label, label)
        method = str(sets[label]["method"] or own)
        values = [point(record, curve, label, i).values.mean() for i in measured]
        if smooth:
            values = smoothed(measured, values)
        cells: list[Content] = [
            set_label(REAL_LABELS.get(label, label), sets[label]["method"])
        ]
        for column, look in enumerate(ours):
            number = "–" if look is None else shown(float(values[measured.index(look)]))
            size = sets[label]["images"] / record.number("dataset", "num_classes")
            theirs = sets[label]["method"] is None or size == IPC
            row = paper.get(method) if theirs else None
            cells.append(beside(number, shown(row[column]) if row else None))
        table.append(cells)
    return data_table(head, table, caption)


REAL_LABELS = {
    "train": "real training images",
    "test": "test images",
    "random": "random real images",
}


def _learning_real(records: Sequence[Record]) -> list[Record]:
    return [
        r for r in records if r.experiment == "dynamics" and r.get("trained_on") == "real"
    ]


def _recognised_along(records: Sequence[Record]) -> list[Markup]:
    found = [
        _along(
            record,
            ACCURACY,
            TRAINING_ITERATIONS,
            TRAINING,
            lambda x: f"{100 * x:.0f}",
            f"Accuracy in percent along training. {title_of(record)}.",
            smooth=False,
        )
        for record in _learning_real(records)
    ]
    return [table for table in found if table is not None]


def _curvature(records: Sequence[Record]) -> list[Markup]:
    found: list[Markup] = []
    for record in _learning_real(records):
        table = _along(
            record,
            TRACE,
            TRACE_ITERATIONS,
            TRACE,
            lambda x: f"{x:,.0f}".replace("-", "−"),
            "Trace of the Hessian along training, smoothed as in the paper (0.9 of what "
            "was there before is kept each iteration). A trace grows with the number of "
            f"parameters, so compare rows, not with the paper. {title_of(record)}.",
            smooth=True,
        )
        found += [table] if table is not None else []
        found += pictures_of(record)
    learned = [
        record
        for record in records
        if record.experiment == "dynamics" and record.get("trained_on") != "real"
    ]
    for record in learned:
        found += [el("h3", f"The reverse: {title_of(record)}"), *pictures_of(record)]
    return found


CLAIMS = (
    Claim(
        "recognised_early",
        "4.2",
        "A network that learns real images recognises BPTT and TM sets wholly by iteration "
        "150.",
        "Accuracy on the set, at the last look by iteration 150, is at least 98 % for each "
        f"set. {EVERY}",
        "100 % of both at iteration 150",
        "dynamics",
        "dynamics.png",
        _recognised_early,
    ),
    Claim(
        "test_still_learning",
        "4.2",
        "At iteration 150 the network has much left to learn about test images.",
        "Accuracy on test images at the end less that at iteration 150 is at least 2 "
        "points.",
        "60 % at iteration 150, 67 % at 298",
        "dynamics",
        "dynamics.png",
        _test_still_learning,
    ),
    Claim(
        "curvature_rises",
        "4.3",
        "Early in training the loss is sharper on BPTT and TM sets than on real images.",
        "For each set there is an iteration from 30 to 120 at which the trace of the "
        "Hessian is above that on real training images. The best of m iterations is "
        "picked, so its interval is widened to level 1 − 0.05 / m; refuted only if it is "
        "below at every one.",
        "twice as sharp around iteration 75",
        "dynamics",
        "dynamics.png",
        _trace(MATCHING_DYNAMICS, rises=True, threshold=1.0, above=True),
    ),
    Claim(
        "curvature_vanishes",
        "4.3",
        "At the end of training the loss is much flatter on BPTT and TM sets than on real "
        "images.",
        "The trace of the Hessian at the last look (iteration 250 or later) is at most "
        f"half of that on real training images, for each set. {EVERY}",
        "450 (BPTT) and 740 (TM) against 1,790",
        "dynamics",
        "dynamics.png",
        _trace(MATCHING_DYNAMICS, rises=False, threshold=HALF, above=False),
    ),
    Claim(
        "curvature_stays",
        "4.3",
        "At the end of training the loss is not flat on GM and DM sets.",
        "The trace of the Hessian at the last look (iteration 250 or later) is at least "
        f"half of that on real training images, for each set. {EVERY}",
        "2,060 (GM) and 2,330 (DM) against 1,790",
        "dynamics",
        "dynamics.png",
        _trace(MATCHING_STATISTICS, rises=False, threshold=HALF, above=True),
    ),
    Claim(
        "kernel_moves_less",
        "beyond",
        "While a network learns real images, its tangent kernel changes less on BPTT, TM "
        "and GM sets than on the real images.",
        "Distance of the kernel from that at the start, at the last look, over the same on "
        f"real training images is below 1 for each set. {EVERY}",
        "not in the paper",
        "dynamics",
        "dynamics.png",
        _kernel,
    ),
)
