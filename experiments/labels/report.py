"""The part of the report on labels: claims, table, captions."""

from collections.abc import Sequence
from typing import Any

from experiments.lab import claims
from experiments.lab.experiment import Experiment
from experiments.lab.html import Content, Markup, data_table
from experiments.lab.later import (
    LABELS,
    networks_of,
    paired_reading,
    random_beside,
    scale_of,
    sets_of,
    subjects_of,
    title_of,
)
from experiments.lab.parts import pictures_of, set_label, spelt_mean
from experiments.labels import study
from experiments.labels.record import EARLY, HARD, LATE, Summary

Record = claims.Record[Summary]
SOURCES = "arXiv 2406.10485 and 2604.18811"


def _difference(
    record: Record,
    method: str,
    first: tuple[str, str],
    second: tuple[str, str],
    **fields: Any,
) -> claims.Reading:
    """Returns the accuracy in one cell, (row, labels), less that in another."""
    accuracy = record.summary["accuracy"]
    (ours, labels), (others, other_labels) = first, second
    return paired_reading(
        record,
        method,
        accuracy[ours][labels]["values"],
        accuracy[others][other_labels]["values"],
        f"accuracy.{ours}",
        scale=scale_of(record, ours),
        **fields,
    )


def _epochs(record: Record, name: str) -> str:
    epochs = record.summary["experts"][name]["epochs"]
    return f"{name} expert, {epochs} epoch{'s' * (epochs != 1)}"


def _gains(record: Record, label: str, method: str) -> claims.Node:
    """Returns what random images gain more than these do, by each expert."""
    gain, found = record.summary["gain"], []
    random = random_beside(record, label)
    for name in (EARLY, LATE):
        found.append(
            paired_reading(
                record,
                method,
                gain[random][name]["values"],
                gain[label][name]["values"],
                f"gain.{label}",
                label=label,
                where=_epochs(record, name),
                scale=scale_of(record, label),
            )
        )
    return claims.Some(found)


def _random_gains(records: Sequence[Record]) -> claims.Node:
    methods = (*claims.METHODS, "herding")
    found = [
        _gains(record, label, method)
        for record in records
        for label, method in claims.by_method(record.summary["rows"])
        if method in methods
    ]
    absent = claims.absent_readings(
        methods, found, unit="points", threshold=0.0, above=True
    )
    return claims.Every([*found, *absent])


def _random_rows(record: Record) -> list[str]:
    rows = record.summary["rows"]
    return [label for label, row in rows.items() if row["method"] == "random"]


def _early_better(records: Sequence[Record]) -> claims.Node:
    return claims.Every(
        [
            _difference(
                record, "random", (row, EARLY), (row, LATE), where="early less late"
            )
            for record in records
            for row in _random_rows(record)
        ]
    )


def _as_good(records: Sequence[Record]) -> claims.Node:
    found: list[claims.Node] = []
    for record in records:
        rows = record.summary["rows"]
        for label, method in claims.by_method(rows):
            if method in claims.METHODS:
                random = random_beside(record, label)
                found.append(
                    claims.Some(
                        [
                            _difference(
                                record,
                                method,
                                (random, name),
                                (label, HARD),
                                label=label,
                                where=_epochs(record, name),
                            )
                            for name in (EARLY, LATE)
                        ]
                    )
                )
    absent = claims.absent_readings(
        claims.METHODS, found, unit="points", threshold=0.0, above=True
    )
    return claims.Every([*found, *absent])


def title(record: Record) -> str:
    """Returns the network and the number of them."""
    first = next(iter(record.summary["accuracy"].values()))
    return title_of(record, first[HARD]["seeds"])


def _tables(records: Sequence[Record]) -> list[Markup]:
    found: list[Markup] = []
    for record in records:
        summary = record.summary
        names = [HARD, *summary["experts"]]
        rows: list[list[Content]] = [
            [
                set_label(label, summary["rows"][label]["method"]),
                *(spelt_mean(of_row[name]) for name in names),
            ]
            for label, of_row in summary["accuracy"].items()
        ]
        experts = "; ".join(
            f"{_epochs(record, name)}, {about['accuracy']:.1%} of test images"
            for name, about in summary["experts"].items()
        )
        caption = (
            "Test accuracy in percent, mean ± standard deviation, by the labels of the "
            f"images. The {experts}. {title(record)}."
        )
        found.append(data_table(["images", *names], rows, caption))
        found += pictures_of(record, CAPTIONS, title(record))
    return found


CAPTIONS = {
    "labels.png": "Test accuracy by the labels of the images, with 95 % intervals",
}
_BEST = "The better of two experts is picked, so its interval is widened. "

CLAIMS = (
    claims.Claim(
        "labels_random_gain",
        LABELS,
        "Labels of an expert raise random real images more than distilled or herded ones.",
        "The gain over hard labels that random images have, less that of each set, network "
        f"by network, is at least 0 by one of the experts. {_BEST}{claims.EVERY}",
        "random images gain most",
        "labels",
        "labels.png",
        _random_gains,
        SOURCES,
    ),
    claims.Claim(
        "labels_early",
        LABELS,
        "For random images an expert stopped early gives the better labels.",
        "Test accuracy of networks trained on random images under the labels of the early "
        "expert, less that under those of the late one, is at least 0.",
        "with few images labels of early experts are best",
        "labels",
        "labels.png",
        _early_better,
        "arXiv 2406.10485",
    ),
    claims.Claim(
        "labels_as_good",
        LABELS,
        "Under labels of an expert random images are worth what distilled ones are with "
        "hard labels.",
        "Test accuracy on random images under the labels of one of the experts, less that "
        f"on each set with hard labels, is at least 0. {_BEST}{claims.EVERY}",
        "random images with soft labels come close to distilled sets",
        "labels",
        "labels.png",
        _as_good,
        "arXiv 2406.10485",
    ),
)

EXPERIMENT = Experiment(
    name="labels",
    summary=Summary,
    title=title,
    sets=sets_of,
    subjects=subjects_of,
    networks=networks_of,
    claims=CLAIMS,
    contents=((LABELS, _tables),),
    captions=CAPTIONS,
    steps=study.steps,
)
