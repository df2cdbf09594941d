"""The part of the report on lines between networks: claims, table, captions."""

from collections.abc import Callable, Sequence

import numpy as np

from experiments.connectivity import study
from experiments.connectivity.record import REAL, Summary
from experiments.lab import claims
from experiments.lab.experiment import Experiment
from experiments.lab.html import Content, Markup, data_table
from experiments.lab.later import (
    CONNECTIVITY,
    networks_of,
    paired_reading,
    scale_of,
    sets_of,
    subjects_of,
    title_of,
)
from experiments.lab.parts import pictures_of, set_label, spelt_mean

Record = claims.Record[Summary]
SOURCE = "arXiv 2503.17905"
STABLE = 0.02  # of error; networks below are one basin to Frankle et al.


def _every(
    records: Sequence[Record],
    read: Callable[[Record, str, str], claims.Reading],
    unit: claims.Unit,
    threshold: float,
) -> claims.Node:
    """Returns a reading of each set, all of which have to be at most the threshold."""
    found: list[claims.Node] = [
        read(record, label, method)
        for record in records
        for label, method in claims.by_method(record.summary["rows"])
        if method in claims.METHODS
    ]
    about: dict[str, object] = {"unit": unit, "threshold": threshold, "above": False}
    return claims.Every([*found, *claims.absent_readings(claims.METHODS, found, **about)])


def _barrier(record: Record, label: str, method: str, *, of_real: bool) -> claims.Reading:
    orders = record.summary["orders"]
    values = orders[label]["barrier"]["values"]
    others = orders[REAL]["barrier"]["values"] if of_real else [0.0] * len(values)
    return paired_reading(
        record,
        method,
        values,
        others,
        f"orders.{label}.barrier",
        threshold=0.0 if of_real else STABLE,
        above=False,
        label=label,
        scale=scale_of(record, label),
    )


def _connected(records: Sequence[Record]) -> claims.Node:
    def read(record: Record, label: str, method: str) -> claims.Reading:
        return _barrier(record, label, method, of_real=False)

    return _every(records, read, "points", STABLE)


def _better_connected(records: Sequence[Record]) -> claims.Node:
    def read(record: Record, label: str, method: str) -> claims.Reading:
        return _barrier(record, label, method, of_real=True)

    return _every(records, read, "points", 0.0)


def _flatter(records: Sequence[Record]) -> claims.Node:
    def read(record: Record, label: str, method: str) -> claims.Reading:
        trace = record.summary["trace"]
        pairs = trace[label]["values"], trace[REAL]["values"]
        values, real = claims.paired(record, f"trace.{label}", *pairs)
        ratio = np.divide(values, real)
        return paired_reading(
            record,
            method,
            ratio.tolist(),
            [0.0] * len(ratio),
            f"trace.{label}",
            unit="ratio",
            threshold=1.0,
            above=False,
            label=label,
            scale=scale_of(record, label),
        )

    return _every(records, read, "ratio", 1.0)


def title(record: Record) -> str:
    """Returns the network, its training and the number of initialisations."""
    summary = record.summary
    seeds = summary["accuracy"][REAL]["seeds"]
    steps = f"{summary['steps']} steps of {summary['batch']} images"
    return f"{title_of(record, seeds, 'initialisations')}; {steps}"


def _tables(records: Sequence[Record]) -> list[Markup]:
    found: list[Markup] = []
    for record in records:
        summary = record.summary
        rows: list[list[Content]] = []
        for label, accuracy in summary["accuracy"].items():
            to_real, trace = summary["to_real"].get(label), summary["trace"][label]
            error = np.mean(np.square(summary["trace_error"][label])) ** 0.5
            rows.append(
                [
                    label
                    if label == REAL
                    else set_label(label, summary["rows"][label]["method"]),
                    spelt_mean(accuracy),
                    spelt_mean(summary["orders"][label]["barrier"]),
                    "" if to_real is None else spelt_mean(to_real["barrier"]),
                    f"{trace['mean']:.0f} ± {trace['std']:.0f} ({error:.0f})",
                ]
            )
        caption = (
            "Accuracy on test images; the barrier on the line between two orders, and on "
            "that to all real images, in percent points; trace of the Hessian of the loss "
            "on real training images. Mean ± standard deviation over initialisations; in "
            f"brackets the probes' standard error. {title(record)}."
        )
        head = ["trained on", "accuracy", "barrier, orders", "barrier, to real", "trace"]
        found.append(data_table(head, rows, caption))
        found += pictures_of(record, CAPTIONS, title(record))
    return found


CAPTIONS = {
    "connectivity.png": (
        "Test error along the line between two networks that began at the same weights; "
        "each initialisation thinly, their mean boldly"
    ),
}

CLAIMS = (
    claims.Claim(
        "connectivity_stable",
        CONNECTIVITY,
        "Networks trained on a distilled set in two orders are linearly connected.",
        "The barrier of test error between two orders of minibatches, from the same "
        f"initial weights, is at most {100 * STABLE:.0f} points, as in Frankle et al. "
        f"(arXiv 1912.05671). {claims.EVERY}",
        "what distilled data leave of a network is stable to the noise of SGD",
        "connectivity",
        "connectivity.png",
        _connected,
        SOURCE,
    ),
    claims.Claim(
        "connectivity_better",
        CONNECTIVITY,
        "They are better connected than networks trained on all real images.",
        "That barrier less the one on all real images, after as many steps, initialisation "
        f"by initialisation, is at most 0. {claims.EVERY}",
        "more stable than with real data",
        "connectivity",
        "connectivity.png",
        _better_connected,
        SOURCE,
    ),
    claims.Claim(
        "connectivity_flatter",
        CONNECTIVITY,
        "The loss on real images is flatter at networks trained on a distilled set.",
        "The trace of its Hessian there, over that at the network trained on all real "
        f"images from the same initial weights, is at most 1. {claims.EVERY}",
        "distilled data discard parameters that make the loss sharp",
        "connectivity",
        "connectivity.png",
        _flatter,
        SOURCE,
    ),
)

EXPERIMENT = Experiment(
    name="connectivity",
    summary=Summary,
    title=title,
    sets=sets_of,
    subjects=subjects_of,
    networks=networks_of,
    claims=CLAIMS,
    contents=((CONNECTIVITY, _tables),),
    captions=CAPTIONS,
    steps=study.steps,
)
