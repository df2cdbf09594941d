"""TODO."""

from collections.abc import Sequence
from typing import Any

from distilljax.types import InputError
from experiments.lab.claims import (
    METHODS,
    Every,
    Node,
    Reading,
    Record,
    Unit,
    absent_readings,
    by_method,
    describe_network,
    in_order,
    paper_value,
    per_class,
    recorded_interval,
    spelt,
    spelt_interval,
)
from experiments.lab.html import Content, Markup, beside, data_table, el
from experiments.lab.paper import AGREEMENT
from experiments.lab.sections import as_theirs, pictures_of, set_label, spelt_mean


def _agreement(records: Sequence[Record]) -> Node:
    about: dict[str, Any] = {"unit": "points", "threshold": 0.0, "above": True}
    found: list[Node] = []
    for record in records:
        for label, method in by_method(record.get("rows"), record, "rows"):
            if method not in METHODS:
                continue
            ipc = int(record.number("rows", label, "images_per_class"))
            paper = AGREEMENT[method]
            base = Reading(
                method,
                **about,
                label=label,
                paper=paper_value(paper.early_stopped - paper.subset, ipc),
                scale=(
                    f"{describe_network(record.get('model'))}; {per_class(ipc)}; "
                    f"{record.number('test_images'):,.0f} test images"
                ),
                folder=record.folder,
            )
            found.append(_agreed(record, label, base))
    return Every([*in_order(found), *absent_readings(METHODS, found, **about)])


def unmatched(record: Record, *keys: str) -> str | None:
    """Why a set has no agreement at equal accuracy; None where it has."""
    entry = record.get(*keys)
    return str(entry["unmatched"]) if "unmatched" in entry else None


def _agreed(record: Record, label: str, base: Reading) -> Reading:
    at = "agreement", label
    for keys in (at, (*at, "difference")):
        if why := unmatched(record, *keys):
            return base._replace(note=f"no network of equal accuracy: {why}")
    value = record.number(*at, "difference", "value")
    apart = record.number(*at, "early_stopped", "value")
    apart -= record.number(*at, "subset", "value")
    if abs(value - apart) > 1e-4:
        raise InputError(
            f"{record.folder}/summary.json: agreement.{label}.difference is {value:+.3f}, "
            f"but early-stopped less subset-trained is {apart:+.3f}; run it again"
        )
    seeds = int(record.number(*at, "accuracy", "seeds"))
    interval = None
    if None not in record.get(*at, "difference", "interval"):
        freedom = record.number(*at, "difference", "freedom")
        interval = recorded_interval(record, *at, "difference", "interval", freedom=freedom)
    members = [
        record.number(*at, pool, "num_members") for pool in ("early_stopped", "subset")
    ]
    accuracy = record.number(*at, "accuracy", "mean")
    return base._replace(
        value=value,
        interval=interval,
        where=f"at {100 * accuracy:.1f} % accuracy",
        n=f"{seeds} networks",
        note=(
            f"beside {members[0]:.0f} early-stopped and {members[1]:.0f} subset-trained "
            "networks of that accuracy"
        ),
    )


def _table(records: Sequence[Record]) -> list[Markup]:
    found = []
    for record in records:
        if record.experiment != "agreement":
            continue
        rows = record.get("rows")
        table = []
        for label in record.get("agreement"):
            method = str(rows[label]["method"])
            cells: list[Content] = [set_label(label, method)]
            if why := unmatched(record, "agreement", label):
                table.append([*cells, f"not matched: {why}", "–", "–", "–", "–"])
                continue
            paper = AGREEMENT.get(method) if as_theirs(rows[label]) else None
            early = record.get("agreement", label, "early_stopped")
            at = early.get("iteration")
            stopped = beside(
                "–" if at is None else f"{at:.0f}", str(paper.iteration) if paper else None
            )
            cells += [
                spelt_mean(record.get("agreement", label, "accuracy")),
                _cell(record, label, "subset", paper.subset if paper else None),
                _cell(
                    record, label, "early_stopped", paper.early_stopped if paper else None
                ),
                stopped,
                _cell(
                    record,
                    label,
                    "difference",
                    paper.early_stopped - paper.subset if paper else None,
                ),
            ]
            table.append(cells)
        head = [
            "set",
            "accuracy, %",
            "with subset-trained",
            "with early-stopped",
            "stopped at (median)",
            "difference",
        ]
        caption = (
            "Equal test predictions at equal accuracy, with 95 % intervals; κ is Cohen's, "
            "d the difference in standard deviations. The paper's are the modes of its "
            f"distributions. {describe_network(record.get('model'))}."
        )
        found.append(data_table(head, table, caption))
        found += pictures_of(record)
    return found


def _cell(record: Record, label: str, what: str, paper: float | None) -> Content:
    """A cell of the table of agreement: one pool, or the difference."""
    at = "agreement", label, what
    if why := unmatched(record, *at):
        return f"not matched: {why}"
    unit: Unit = "points" if what == "difference" else "percent"
    entry = record.get(*at)
    below = []
    if None not in record.get(*at, "interval"):
        interval = recorded_interval(record, *at, "interval")
        below.append(spelt_interval(interval.low, interval.high, unit))
    if what == "difference":
        size = entry.get("cohen_d")
        below += [] if size is None else [f"d {size:.1f}"]
    else:
        kappa = entry.get("kappa")
        below += [] if kappa is None else [f"κ {kappa:.2f}"]
        below.append(f"{record.number(*at, 'num_members'):.0f} networks")
    return beside(
        [
            spelt(record.number(*at, "value"), unit),
            el("span", "; ".join(below), class_="sub"),
        ],
        None if paper is None else spelt(paper, unit),
    )


CLAIMS = (
    Claim(
        "agrees_with_early_stopped",
        "4.1",
        "A network trained on a distilled set predicts more like a network stopped early "
        "on all real images than like one trained on a subset of them.",
        "At matched accuracy, the share of equal test predictions with early-stopped "
        "networks less that with subset-trained ones is above 0 for each of the four "
        f"methods. {EVERY}",
        "closer by 3.8 (BPTT), 6 (TM), 7 (GM) and 10.5 points (DM)",
        "agreement",
        "agreement.png",
        _agreement,
    ),
)
