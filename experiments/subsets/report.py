"""The part of the report on parts of sets: claims, table, captions."""

from collections.abc import Sequence

from experiments.lab import claims
from experiments.lab.experiment import Experiment
from experiments.lab.html import Content, Markup, data_table
from experiments.lab.later import (
    SUBSETS,
    networks_of,
    paired_reading,
    scale_of,
    sets_of,
    subjects_of,
    title_of,
)
from experiments.lab.parts import pictures_of, set_label, spelt_mean
from experiments.subsets import study
from experiments.subsets.record import Comparison, Summary

Record = claims.Record[Summary]
SOURCE = "arXiv 2403.06075"


def _reading(record: Record, one: Comparison, *, half: bool) -> claims.Reading:
    """Returns a part less a set distilled at its size, or less half of its advantage."""
    accuracy, size = record.summary["accuracy"], one["per_class"]
    part = accuracy[one["whole"]][size]["values"]
    path = f"accuracy.{one['whole']}.{size}"
    other = accuracy[one["distilled"]][size]["values"]
    if half:
        random = accuracy[one["random"]][size]["values"]
        first, second = claims.paired(record, path, other, random)
        other = ((first + second) / 2).tolist()
    return paired_reading(
        record,
        record.summary["rows"][one["whole"]]["method"],
        part,
        other,
        path,
        above=False,
        label=one["whole"],
        where=f"{size} of {record.summary['rows'][one['whole']]['images_per_class']}",
        scale=scale_of(record, one["whole"]),
    )


def _read(records: Sequence[Record], *, half: bool) -> claims.Node:
    found: list[claims.Node] = [
        _reading(record, one, half=half)
        for record in records
        for one in record.summary["comparisons"]
    ]
    about: dict[str, object] = {"unit": "points", "threshold": 0.0, "above": False}
    absent = claims.absent_readings(claims.METHODS, found, **about)
    return claims.Every([*claims.in_order(found), *absent])


def _worse(records: Sequence[Record]) -> claims.Node:
    return _read(records, half=False)


def _much_worse(records: Sequence[Record]) -> claims.Node:
    return _read(records, half=True)


def title(record: Record) -> str:
    """Returns the network and the number of them."""
    first = next(iter(record.summary["accuracy"].values()))
    return title_of(record, next(iter(first.values()))["seeds"])


def _tables(records: Sequence[Record]) -> list[Markup]:
    found: list[Markup] = []
    for record in records:
        accuracy, rows = record.summary["accuracy"], record.summary["rows"]
        sizes = sorted({size for row in accuracy.values() for size in row}, key=int)
        cells: list[list[Content]] = [
            [
                set_label(label, rows[label]["method"]),
                *(spelt_mean(row[size]) if size in row else "" for size in sizes),
            ]
            for label, row in accuracy.items()
        ]
        caption = (
            "Test accuracy in percent, mean ± standard deviation, on so many images of "
            f"each class: parts of the larger sets, smaller ones whole. {title(record)}."
        )
        found.append(data_table(["images", *sizes], cells, caption))
        found += pictures_of(record, CAPTIONS, title(record))
    return found


CAPTIONS = {
    "subsets.png": (
        "Parts of each distilled set, random real images, and sets distilled at the size "
        "of the part, with 95 % intervals"
    ),
}

CLAIMS = (
    claims.Claim(
        "subsets_worse",
        SUBSETS,
        "A part of a distilled set is worse than a set distilled at its size.",
        "Test accuracy on k random images of each class of the larger set, network by "
        "network, less that on the set distilled at k, is at most 0. " + claims.EVERY,
        "a part is much less representative than a set condensed at its size",
        "subsets",
        "subsets.png",
        _worse,
        SOURCE,
    ),
    claims.Claim(
        "subsets_much_worse",
        SUBSETS,
        "A part loses at least half of the advantage over random real images.",
        "Test accuracy on the part lies, network by network, at or below the middle of "
        "that on the set distilled at its size and that on as many random real images. "
        + claims.EVERY,
        "a part is much less representative than a set condensed at its size",
        "subsets",
        "subsets.png",
        _much_worse,
        SOURCE,
    ),
)

EXPERIMENT = Experiment(
    name="subsets",
    summary=Summary,
    title=title,
    sets=sets_of,
    subjects=subjects_of,
    networks=networks_of,
    claims=CLAIMS,
    contents=((SUBSETS, _tables),),
    captions=CAPTIONS,
    steps=study.steps,
)
