"""Claims about training on real images: recognition, curvature, tangent kernel."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distilljax.analysis.statistics import from_error, student
from distilljax.types import InputError
from experiments.dynamics.record import Curve, Summary
from experiments.lab import claims, paper
from experiments.lab.paper import BEYOND, CURVATURE, RECOGNITION_IN_TRAINING

Records = Sequence[claims.Record[Summary]]

ACCURACY, TRACE, KERNEL = (
    "accuracy.accuracy",
    "hessian_trace.hessian_trace",
    "ntk.distance",
)

RISE = range(30, 121)  # iterations in which curvature may rise above that on real images

RECOGNISED_AT, WHOLLY = 150, 0.98

TEST_GAIN = 0.02  # accuracy that test images still gain after `RECOGNISED_AT`

END = 250  # iteration from which on a look says where curvature or accuracy ends
NEAR = 30  # iterations by which a look may come before that of a claim

HALF = 0.5


def learning_real(records: Records) -> list[claims.Record[Summary]]:
    """Returns the runs in which a network learns real images."""
    return [record for record in records if record.summary["trained_on"] == "real"]


def _with_curve(records: Records, curve: str) -> list[claims.Record[Summary]]:
    """Returns the runs on real images that measured the curve."""
    return [r for r in learning_real(records) if curve in r.summary["curves"]]


def _looked_at(
    record: claims.Record[Summary], methods: Sequence[str]
) -> list[tuple[str, str]]:
    """Returns labels and methods of distilled sets."""
    return [one for one in claims.by_method(record.summary["sets"]) if one[1] in methods]


def curve_of(record: claims.Record[Summary], quantity: str, name: str) -> Curve:
    """Returns a quantity on a set along training.

    Raises:
      InputError: the record does not have it.
    """
    curves = record.summary["curves"]
    return claims.entry(record, f"curves.{quantity}", curves[quantity], name)


class Point(NamedTuple):
    """A curve at one iteration."""

    values: np.ndarray  # f64[runs]
    error: float  # of the probes, in one run
    num_probes: int


def point(
    record: claims.Record[Summary], quantity: str, name: str, iteration: int
) -> Point:
    """Returns a measurement at an iteration that was looked at.

    Raises:
      InputError: it is not there, or not finite.
    """
    curve, path = curve_of(record, quantity, name), f"curves.{quantity}.{name}"
    if iteration not in curve["iterations"]:
        wanted = f"a list with {iteration}, as on another set"
        raise claims.malformed(record, f"{path}.iterations", wanted, curve["iterations"])
    at = curve["iterations"].index(iteration)
    for field, rows in (
        ("values", curve["values"]),
        ("standard_error", [curve["standard_error"]]),
    ):
        if any(len(row) <= at for row in rows):
            wanted = "a number for each iteration"
            raise claims.malformed(record, f"{path}.{field}", wanted, rows)
    values = [row[at] for row in curve["values"]]
    if None in values:
        raise claims.malformed(record, f"{path}.values", "a finite number", None)
    error = curve["standard_error"][at]
    return Point(np.array(values, np.float64), error or 0.0, curve["num_probes"])


def _over_runs(
    values: np.ndarray, error: float, num_probes: int, grain: float = 0.0
) -> dict[str, Any]:
    """Returns value, interval, number and caveat of a quantity measured in each run.

    Args:
      values: f64[runs].
      error: in one run, the standard error that the probes leave.
      num_probes: random probes behind it; fewer than two are no estimate of an error.
      grain: see `student`.
    """
    found: dict[str, Any] = {"value": float(values.mean())}
    if len(values) > 1:
        interval = student(values, grain)
        note = "" if interval else claims.NO_SPREAD.replace("networks", "runs")
        return {**found, "interval": interval, "n": f"{len(values)} runs", "note": note}
    if num_probes < 2 or not error:
        return {**found, "n": "1 run", "note": claims.ONE_RUN_EXACT}
    interval = from_error(found["value"], error, num_probes - 1)
    return {
        **found,
        "interval": interval,
        "n": f"1 run, {num_probes} probes",
        "note": claims.ONE_RUN,
    }


def images_per_class(record: claims.Record[Summary], label: str) -> float:
    """Returns the images a class of a set."""
    dataset = record.summary["dataset"]
    claims.entry(record, "dataset", dataset, "num_classes")
    return record.summary["sets"][label]["images"] / dataset["num_classes"]


def _ipc(record: claims.Record[Summary], label: str) -> int:
    return round(images_per_class(record, label))


def network_of(record: claims.Record[Summary]) -> dict[str, Any]:
    """Returns the settings of the network, as `describe_network` takes them."""
    return {**record.summary["model"], "model": record.summary["model"]["name"]}


def _about(
    record: claims.Record[Summary], label: str, method: str, more: str = ""
) -> dict[str, Any]:
    more = more or claims.per_class(_ipc(record, label))
    return {
        "method": method,
        "label": label,
        "scale": f"{claims.describe_network(network_of(record))}; {more}",
        "folder": record.folder,
    }


def _last_by(measured: Sequence[int], iteration: int) -> int | None:
    """Returns the last iteration looked at by then, at most `NEAR` before it.

    None where there is none, or where the run is shorter.
    """
    near = [i for i in measured if iteration - NEAR <= i <= iteration]
    return max(near) if near and measured[-1] >= iteration else None


def _accuracy_images(record: claims.Record[Summary], label: str) -> int:
    """Returns the images of a set that the accuracy is of."""
    group = record.config.get("accuracy")
    chosen = group.get("images", "") if isinstance(group, Mapping) else ""
    if not (chosen is None or isinstance(chosen, int)):
        raise InputError(
            f"{record.folder}/config.json does not say how many images the accuracy is of "
            "(accuracy.images); run experiments.dynamics again"
        )
    images = claims.entry(record, "sets", record.summary["sets"], label)["images"]
    return images if chosen is None else min(chosen, images)


def _trained_at(name: str) -> float:
    """Returns the paper's accuracy at `RECOGNISED_AT`."""
    return paper.TRAINING[name][paper.TRAINING_ITERATIONS.index(RECOGNISED_AT)]


def _recognised_early(records: Records) -> claims.Node:
    found: list[claims.Node] = []
    for record in _with_curve(records, ACCURACY):
        for label, method in _looked_at(record, claims.MATCHING_DYNAMICS):
            at = _last_by(curve_of(record, ACCURACY, label)["iterations"], RECOGNISED_AT)
            if at is None:
                continue
            measured = point(record, ACCURACY, label, at)
            images = _accuracy_images(record, label)
            found.append(
                claims.Reading(
                    **_about(record, label, method),
                    unit="percent",
                    threshold=WHOLLY,
                    above=True,
                    **_over_runs(measured.values, measured.error, 0, 1 / images),
                    where=f"iteration {at}",
                    paper=claims.paper_value(_trained_at(method), _ipc(record, label)),
                )
            )
    about: dict[str, Any] = {"unit": "percent", "threshold": WHOLLY, "above": True}
    return claims.Every(
        [
            *claims.in_order(found),
            *claims.absent_readings(claims.MATCHING_DYNAMICS, found, **about),
        ]
    )


def _test_still_learning(records: Records) -> claims.Node:
    found: list[claims.Node] = []
    for record in _with_curve(records, ACCURACY):
        if "test" not in record.summary["curves"][ACCURACY]:
            continue
        measured = curve_of(record, ACCURACY, "test")["iterations"]
        at = _last_by(measured, RECOGNISED_AT)
        if at is None or measured[-1] < END:
            continue
        first, last = (point(record, ACCURACY, "test", i) for i in (at, measured[-1]))
        images = _accuracy_images(record, "test")
        shown = f"{images:,} test images"
        grain = math.sqrt(2) / images
        found.append(
            claims.Reading(
                **_about(record, "test", "test", shown),
                unit="points",
                threshold=TEST_GAIN,
                above=True,
                **_over_runs(last.values - first.values, 0.0, 0, grain),
                where=f"iteration {at} to {measured[-1]}",
                paper=paper.TRAINING["test"][-1] - _trained_at("test"),
            )
        )
    return claims.Every(found)


def _ratios(
    record: claims.Record[Summary], label: str, method: str, curve: str, iteration: int
) -> dict[str, Any]:
    """Returns a quantity on a set over that on real training images."""
    ours = point(record, curve, label, iteration)
    real = point(record, curve, "train", iteration)
    about = {**_about(record, label, method), "where": f"iteration {iteration}"}
    unclear = len(real.values) == 1 and real.values[0] < 4 * real.error
    if unclear or (real.values <= 0).any():
        return {**about, "note": "no ratio: that on real images is not clear of zero"}
    ratios = ours.values / real.values
    # To first order in both errors, which are taken as independent.
    relative = math.hypot(ours.error, float(ratios[0]) * real.error) / float(real.values[0])
    probes = min(ours.num_probes, real.num_probes)
    return {**about, **_over_runs(ratios, relative, probes)}


def _read_at(iteration: int, name: str) -> float:
    """Returns the paper's trace, interpolated between those that were read off."""
    return float(np.interp(iteration, paper.TRACE_ITERATIONS, paper.TRACE[name]))


def _trace(
    methods: Sequence[str], *, rises: bool, threshold: float, above: bool
) -> Callable[[Records], claims.Node]:
    """Returns the readings of a claim about the trace, early in training or at its end."""

    def read(records: Records) -> claims.Node:
        found: list[claims.Node] = []
        for record in _with_curve(records, TRACE):
            if "train" not in record.summary["curves"][TRACE]:
                continue
            measured = curve_of(record, TRACE, "train")["iterations"]
            if rises:
                chosen = [i for i in measured if i in RISE]
            else:
                # A run that was cut short does not say where curvature ends.
                chosen = measured[-1:] if measured[-1] >= END else []
            for label, method in _looked_at(record, methods):
                parts = [
                    claims.Reading(
                        **_ratios(record, label, method, TRACE, i),
                        unit="ratio",
                        threshold=threshold,
                        above=above,
                        paper=claims.paper_value(
                            _read_at(i, method) / _read_at(i, "real"), _ipc(record, label)
                        ),
                    )
                    for i in chosen
                ]
                if parts:
                    found.append(claims.Some(parts) if rises else claims.Every(parts))
        about: dict[str, Any] = {"unit": "ratio", "threshold": threshold, "above": above}
        return claims.Every(
            [*claims.in_order(found), *claims.absent_readings(methods, found, **about)]
        )

    return read


KERNEL_METHODS = (*claims.MATCHING_DYNAMICS, "gm")


def _kernel(records: Records) -> claims.Node:
    about: dict[str, Any] = {"unit": "ratio", "threshold": 1.0, "above": False}
    found: list[claims.Node] = []
    for record in _with_curve(records, KERNEL):
        if "train" not in record.summary["curves"][KERNEL]:
            continue
        last = curve_of(record, KERNEL, "train")["iterations"][-1]
        for label, method in _looked_at(record, KERNEL_METHODS):
            ratio = _ratios(record, label, method, KERNEL, last)
            found.append(claims.Reading(**ratio, **about))
    return claims.Every(
        [*claims.in_order(found), *claims.absent_readings(KERNEL_METHODS, found, **about)]
    )


CLAIMS = (
    claims.Claim(
        "recognised_early",
        RECOGNITION_IN_TRAINING,
        "A network that learns real images recognises BPTT and TM sets wholly by iteration "
        "150.",
        "Accuracy on the set, at the last look by iteration 150, is at least 98 % for each "
        f"set. {claims.EVERY}",
        "100 % of both at iteration 150",
        "dynamics",
        "dynamics.png",
        _recognised_early,
    ),
    claims.Claim(
        "test_still_learning",
        RECOGNITION_IN_TRAINING,
        "At iteration 150 the network has much left to learn about test images.",
        "Accuracy on test images at the end less that at iteration 150 is at least 2 "
        "points.",
        "60 % at iteration 150, 67 % at 298",
        "dynamics",
        "dynamics.png",
        _test_still_learning,
    ),
    claims.Claim(
        "curvature_rises",
        CURVATURE,
        "Early in training the loss is sharper on BPTT and TM sets than on real images.",
        "For each set there is an iteration from 30 to 120 at which the trace of the "
        "Hessian is above that on real training images. The best of m iterations is "
        "picked, so its interval is widened to level 1 − 0.05 / m; refuted only if it is "
        "below at every one.",
        "twice as sharp around iteration 75",
        "dynamics",
        "dynamics.png",
        _trace(claims.MATCHING_DYNAMICS, rises=True, threshold=1.0, above=True),
    ),
    claims.Claim(
        "curvature_vanishes",
        CURVATURE,
        "At the end of training the loss is much flatter on BPTT and TM sets than on real "
        "images.",
        "The trace of the Hessian at the last look (iteration 250 or later) is at most "
        f"half of that on real training images, for each set. {claims.EVERY}",
        "450 (BPTT) and 740 (TM) against 1,790",
        "dynamics",
        "dynamics.png",
        _trace(claims.MATCHING_DYNAMICS, rises=False, threshold=HALF, above=False),
    ),
    claims.Claim(
        "curvature_stays",
        CURVATURE,
        "At the end of training the loss is not flat on GM and DM sets.",
        "The trace of the Hessian at the last look (iteration 250 or later) is at least "
        f"half of that on real training images, for each set. {claims.EVERY}",
        "2,060 (GM) and 2,330 (DM) against 1,790",
        "dynamics",
        "dynamics.png",
        _trace(claims.MATCHING_STATISTICS, rises=False, threshold=HALF, above=True),
    ),
    claims.Claim(
        "kernel_moves_less",
        BEYOND,
        "While a network learns real images, its tangent kernel changes less on BPTT, TM "
        "and GM sets than on the real images.",
        "Distance of the kernel from that at the start, at the last look, over the same on "
        f"real training images is below 1 for each set. {claims.EVERY}",
        "not in the paper",
        "dynamics",
        "dynamics.png",
        _kernel,
    ),
)
