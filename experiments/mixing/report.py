"""The part of the report on mixing: claims, table, captions."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from distilljax.analysis.statistics import student
from experiments.lab import claims
from experiments.lab.experiment import Experiment
from experiments.lab.html import Content, Markup, beside, data_table
from experiments.lab.paper import MIXING, REAL_PER_CLASS, STAND_IN
from experiments.lab.parts import (
    as_theirs,
    pictures_of,
    set_label,
    spelt_mean,
    spelt_percent,
)
from experiments.lab.records import paths_of
from experiments.mixing import study
from experiments.mixing.record import Summary

Records = Sequence[claims.Record[Summary]]


def _effects(
    record: claims.Record[Summary], label: str, method: str, *, lowers: bool
) -> list[claims.Reading]:
    """Returns the change by each number of real images, network by network."""
    accuracy, row = record.summary["accuracy"][label], record.summary["rows"][label]
    ipc = row["images_per_class"]
    found = []
    for number in sorted(int(n) for n in accuracy if n != "0"):
        values, alone = claims.paired(
            record,
            f"accuracy.{label}",
            accuracy[str(number)]["values"],
            accuracy["0"]["values"],
        )
        difference, interval = values - alone, student(values - alone)
        paper = None
        if number in REAL_PER_CLASS and method in MIXING:
            of_method = MIXING[method]
            paper = of_method[REAL_PER_CLASS.index(number)] - of_method[0]
        found.append(
            claims.Reading(
                method,
                "points",
                0.0,
                above=not lowers,
                value=float(difference.mean()),
                interval=interval,
                label=label,
                where=f"+{number} per class",
                n=f"{len(difference)} networks",
                paper=claims.paper_value(paper, ipc),
                scale=f"{claims.describe_network(row['network'])}; {claims.per_class(ipc)}",
                note="" if interval else claims.NO_SPREAD,
                folder=record.folder,
            )
        )
    return found


def _mixing(methods: Sequence[str], *, lowers: bool) -> Callable[[Records], claims.Node]:
    """Returns the readings of a claim that accuracy falls, or that it does not."""

    def read(records: Records) -> claims.Node:
        found: list[claims.Node] = []
        for record in records:
            for label, method in claims.by_method(record.summary["rows"]):
                if method in methods:
                    parts = _effects(record, label, method, lowers=lowers)
                    if parts:
                        found.append((claims.Some if lowers else claims.Every)(parts))
        about: dict[str, Any] = {"unit": "points", "threshold": 0.0, "above": not lowers}
        return claims.Every(
            [*claims.in_order(found), *claims.absent_readings(methods, found, **about)]
        )

    return read


def title(record: claims.Record[Summary]) -> str:
    """Returns the networks and their number."""
    networks = sorted({claims.describe_network(n) for n in _networks(record)})
    first = next(iter(record.summary["accuracy"].values()))
    return f"{'; '.join(networks)}; {first['0']['seeds']} networks"


def _networks(record: claims.Record[Summary]) -> Iterator[Mapping[str, Any]]:
    yield from (row["network"] for row in record.summary["rows"].values())


def _sets(record: claims.Record[Summary]) -> list[str]:
    return paths_of(record.summary["rows"])


def _subjects(record: claims.Record[Summary]) -> set[Hashable]:
    return set(_sets(record))


def _tables(records: Records) -> list[Markup]:
    found: list[Markup] = []
    for record in records:
        accuracy, rows = record.summary["accuracy"], record.summary["rows"]
        numbers = list(next(iter(accuracy.values())))
        table = []
        for label, of_row in accuracy.items():
            method = rows[label]["method"]
            paper = MIXING.get(method) if as_theirs(rows[label]) else None
            cells: list[Content] = [set_label(label, method)]
            for number in numbers:
                theirs = None
                if paper and int(number) in REAL_PER_CLASS:
                    theirs = spelt_percent(paper[REAL_PER_CLASS.index(int(number))])
                cells.append(beside(spelt_mean(of_row[number]), theirs))
            table.append(cells)
        caption = (
            "Test accuracy in percent, mean ± standard deviation, with so many real images "
            f"added to each class. {title(record)}."
        )
        head = ["set", *(f"+{number}" for number in numbers)]
        found.append(data_table(head, table, caption))
        found += pictures_of(record, CAPTIONS, title(record))
    return found


CAPTIONS = {
    "mixing.png": (
        "Test accuracy against the number of real images added to each class, a line for "
        "each set, with 95 % intervals"
    ),
}

CLAIMS = (
    claims.Claim(
        "mixing_lowers",
        STAND_IN,
        "Adding real images to a BPTT or TM set lowers the accuracy.",
        "For each set there is a number of added real images with which test accuracy, "
        "network by network, is below that of the set alone. The best of m numbers is "
        "picked, so its interval is widened to level 1 − 0.05 / m; refuted only if "
        "accuracy rises with every number.",
        "down by 8.9 (BPTT) and 7.9 points (TM) with ten per class",
        "mixing",
        "mixing.png",
        _mixing(claims.MATCHING_DYNAMICS, lowers=True),
    ),
    claims.Claim(
        "mixing_random",
        STAND_IN,
        "Adding real images to random real images never lowers the accuracy.",
        "With every number of added real images test accuracy, network by network, is at "
        f"least that without. {claims.EVERY}",
        "up by 1.4, 5.3, 17.9 and 31.2 points",
        "mixing",
        "mixing.png",
        _mixing(("random",), lowers=False),
    ),
)

EXPERIMENT = Experiment(
    name="mixing",
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
