"""The part of the report on agreement: the claim, the table, captions."""

import math
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from distilljax.analysis.statistics import Interval
from distilljax.types import InputError
from experiments.agreement import study
from experiments.agreement.record import Difference, Matched, Summary, Unmatched
from experiments.lab import claims
from experiments.lab.experiment import Experiment
from experiments.lab.html import Content, Markup, beside, data_table, el
from experiments.lab.paper import AGREEMENT, PREDICTIONS, Modes
from experiments.lab.parts import as_theirs, pictures_of, set_label, spelt_mean
from experiments.lab.records import paths_of

Records = Sequence[claims.Record[Summary]]


def _interval(
    record: claims.Record[Summary], path: str, entry: Matched | Difference
) -> Interval | None:
    """Returns the interval of an entry; None where one of its errors is unknown."""
    ends = [end for end in entry["interval"] if end is not None]
    if len(ends) < len(entry["interval"]):
        return None
    freedom = math.inf if entry["freedom"] is None else entry["freedom"]
    return claims.recorded_interval(record, f"{path}.interval", ends, freedom)


def _reading(
    record: claims.Record[Summary], label: str, base: claims.Reading
) -> claims.Reading:
    """Returns the difference between the pools, on one set."""
    agreed = record.summary["agreement"][label]
    early, subset = agreed["early_stopped"], agreed["subset"]
    change = agreed["difference"]
    if "unmatched" in change:
        return base._replace(note=f"no network of equal accuracy: {change['unmatched']}")
    if "unmatched" in early or "unmatched" in subset:
        raise InputError(
            f"{record.folder}/summary.json: agreement.{label} has a difference, but a pool "
            "without members; run it again"
        )
    apart = early["value"] - subset["value"]
    if abs(change["value"] - apart) > 1e-4:
        raise InputError(
            f"{record.folder}/summary.json: agreement.{label}.difference is "
            f"{change['value']:+.3f}, but early-stopped less subset-trained is "
            f"{apart:+.3f}; run it again"
        )
    return base._replace(
        value=change["value"],
        interval=_interval(record, f"agreement.{label}.difference", change),
        where=f"at {100 * agreed['accuracy']['mean']:.1f} % accuracy",
        n=f"{agreed['accuracy']['seeds']} networks",
        note=(
            f"beside {early['num_members']} early-stopped and {subset['num_members']} "
            "subset-trained networks of that accuracy"
        ),
    )


def _agreement(records: Records) -> claims.Node:
    about: dict[str, Any] = {"unit": "points", "threshold": 0.0, "above": True}
    found: list[claims.Node] = []
    for record in records:
        summary = record.summary
        for label, method in claims.by_method(summary["rows"]):
            if method not in claims.METHODS:
                continue
            ipc = summary["rows"][label]["images_per_class"]
            paper = AGREEMENT[method]
            base = claims.Reading(
                method,
                **about,
                label=label,
                paper=claims.paper_value(paper.early_stopped - paper.subset, ipc),
                scale=(
                    f"{claims.describe_network(summary['model'])}; "
                    f"{claims.per_class(ipc)}; {summary['test_images']:,} test images"
                ),
                folder=record.folder,
            )
            found.append(_reading(record, label, base))
    return claims.Every(
        [*claims.in_order(found), *claims.absent_readings(claims.METHODS, found, **about)]
    )


def _sets(record: claims.Record[Summary]) -> list[str]:
    return paths_of(record.summary["rows"])


def _subjects(record: claims.Record[Summary]) -> set[Hashable]:
    return {os.path.normpath(path) for path in _sets(record)}


def _networks(record: claims.Record[Summary]) -> Iterator[Mapping[str, Any]]:
    yield record.summary["model"]


HEAD = (
    "set",
    "accuracy, %",
    "with subset-trained",
    "with early-stopped",
    "stopped at (median)",
    "difference",
)


def _tables(records: Records) -> list[Markup]:
    found: list[Markup] = []
    for record in records:
        summary = record.summary
        caption = (
            "Equal test predictions at equal accuracy, with 95 % intervals; κ is Cohen's, "
            "d the difference in standard deviations. The paper's are the modes of its "
            f"distributions. {claims.describe_network(summary['model'])}."
        )
        rows = [_row(record, label) for label in summary["agreement"]]
        found.append(data_table(HEAD, rows, caption))
        found += pictures_of(record, CAPTIONS, claims.configured_network(record))
    return found


def _row(record: claims.Record[Summary], label: str) -> list[Content]:
    agreed, about = record.summary["agreement"][label], record.summary["rows"][label]
    method = about["method"]
    paper: Modes | None = AGREEMENT.get(method) if as_theirs(about) else None
    early, change = agreed["early_stopped"], agreed["difference"]
    iteration = None if "unmatched" in early else early.get("iteration")
    return [
        set_label(label, method),
        spelt_mean(agreed["accuracy"]),
        _pool_cell(record, f"{label}.subset", agreed["subset"], paper and paper.subset),
        _pool_cell(record, f"{label}.early_stopped", early, paper and paper.early_stopped),
        beside(
            "–" if iteration is None else f"{iteration:.0f}",
            None if paper is None else str(paper.iteration),
        ),
        _difference_cell(
            record,
            f"{label}.difference",
            change,
            paper and paper.early_stopped - paper.subset,
        ),
    ]


def _pool_cell(
    record: claims.Record[Summary],
    path: str,
    entry: Matched | Unmatched,
    paper: float | None,
) -> Content:
    """Returns the cell of agreement with one pool."""
    if "unmatched" in entry:
        return _unmatched(entry)
    details = [] if entry["kappa"] is None else [f"κ {entry['kappa']:.2f}"]
    details.append(f"{entry['num_members']} networks")
    return _matched(record, path, entry, paper, "percent", details)


def _difference_cell(
    record: claims.Record[Summary],
    path: str,
    entry: Difference | Unmatched,
    paper: float | None,
) -> Content:
    """Returns the cell of the difference between the pools."""
    if "unmatched" in entry:
        return _unmatched(entry)
    details = [] if entry["cohen_d"] is None else [f"d {entry['cohen_d']:.1f}"]
    return _matched(record, path, entry, paper, "points", details)


def _unmatched(entry: Unmatched) -> Content:
    return f"not matched: {entry['unmatched']}"


def _matched(
    record: claims.Record[Summary],
    path: str,
    entry: Matched | Difference,
    paper: float | None,
    unit: claims.Unit,
    details: Sequence[str],
) -> Content:
    """Returns a value over its interval and details, beside the paper's."""
    interval = _interval(record, f"agreement.{path}", entry)
    below = list(details)
    if interval is not None:
        below.insert(0, claims.spelt_interval(interval.low, interval.high, unit))
    value = claims.spelt(entry["value"], unit)
    return beside(
        [value, el("span", "; ".join(below), class_="sub")],
        None if paper is None else claims.spelt(paper, unit),
    )


CAPTIONS = {
    "agreement.png": (
        "Agreement of networks trained on each set with early-stopped and with "
        "subset-trained networks"
    ),
}

CLAIMS = (
    claims.Claim(
        "agrees_with_early_stopped",
        PREDICTIONS,
        "A network trained on a distilled set predicts more like a network stopped early "
        "on all real images than like one trained on a subset of them.",
        "At matched accuracy, the share of equal test predictions with early-stopped "
        "networks less that with subset-trained ones is above 0 for each of the four "
        f"methods. {claims.EVERY}",
        "closer by 3.8 (BPTT), 6 (TM), 7 (GM) and 10.5 points (DM)",
        "agreement",
        "agreement.png",
        _agreement,
    ),
)

EXPERIMENT = Experiment(
    name="agreement",
    summary=Summary,
    title=claims.configured_network,
    sets=_sets,
    subjects=_subjects,
    networks=_networks,
    claims=CLAIMS,
    contents=((PREDICTIONS, _tables),),
    captions=CAPTIONS,
    steps=study.steps,
)
