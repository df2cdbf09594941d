"""The part of the report on influence: claims, table, captions."""

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from distilljax.analysis.statistics import (
    Interval,
    from_error,
    from_relative_error,
    std_bias,
    student,
    wilson,
)
from distilljax.types import InputError
from experiments.influence import study
from experiments.influence.record import Reliability, Summary
from experiments.lab import claims
from experiments.lab.experiment import Experiment
from experiments.lab.html import Content, Markup, data_table
from experiments.lab.paper import BEYOND, SINGLE_IMAGES
from experiments.lab.parts import pictures_of, set_label

Records = Sequence[claims.Record[Summary]]
NO_SPREAD_OF_SEEDS = claims.NO_SPREAD.replace("networks", "seeds")
ESTIMATES = {"gauss_newton": "influence functions", "ntk": "NTK", "trak": "TRAK"}
CLAIMED = ("gauss_newton", "ntk")  # by `estimates_predict`


def _num_classes(record: claims.Record[Summary]) -> int:
    found = record.summary["dataset"].get("num_classes")
    if found is None:
        raise InputError(
            f"{record.folder}/summary.json has no dataset.num_classes, so another version "
            "of experiments.influence wrote it; run that again"
        )
    return found


def _about(record: claims.Record[Summary]) -> dict[str, Any]:
    """Returns the fields that all readings of a run share."""
    summary = record.summary
    ipc = summary["images"] // _num_classes(record)
    return {
        "method": summary["artefact"]["method"],
        "label": title(record),
        "scale": (
            f"{summary['parameters']:,} parameters; {claims.per_class(ipc)}; "
            f"{summary['test_images']:,} test images"
        ),
        "folder": record.folder,
    }


def _own_class(records: Records) -> claims.Node:
    found: list[claims.Node] = []
    for record in records:
        share = record.summary["same_class_among_top_nine"]
        images = record.summary["images"]
        found.append(
            claims.Reading(
                **_about(record),
                unit="percent",
                threshold=1 / _num_classes(record),
                above=True,
                value=share,
                interval=wilson(share, images),
                n=f"{images} images",
                note="Wilson's interval, each distilled image and its nine as one draw",
            )
        )
    return claims.Every(claims.in_order(found))


def _reliability(records: Records) -> claims.Node:
    found: list[claims.Node] = []
    for record in records:
        reliability = record.summary["reliability"]
        value, interval, note = _jackknifed(reliability)
        found.append(
            claims.Reading(
                **_about(record),
                unit="correlation",
                threshold=0.0,
                above=True,
                value=value,
                interval=interval,
                n=f"{reliability['seeds']} seeds",
                note=note,
            )
        )
    return claims.Every(claims.in_order(found))


def _jackknifed(found: Reliability) -> tuple[float, Interval | None, str]:
    """Returns a value, its interval over seeds, and what is to be noted of it."""
    value, error, seeds = found["value"], found["standard_error"], found["seeds"]
    if error and seeds > 2:
        return value, from_error(value, error, seeds - 1), ""
    return value, None, "no interval: a jackknife over seeds needs three that differ"


def _above_noise(records: Records) -> claims.Node:
    found: list[claims.Node] = []
    for record in records:
        summary = record.summary
        floor = summary["mean_noise_floor"]
        if floor <= 0:
            raise claims.malformed(record, "mean_noise_floor", "a positive number", floor)
        if "over_noise" in summary:
            over = summary["over_noise"]
            value, interval, note = _jackknifed(over)
            error = over["standard_error"]
            if interval and error:  # of the logarithm, see `leave_one_out.over_noise`
                interval = from_relative_error(value, error / value, interval.freedom)
        elif "influence_over_noise" in summary:
            values = summary["influence_over_noise"]["values"]
            value = float(np.mean(values)) * std_bias(len(values))
            interval, note = None, "no interval: the record has no error of its noise floor"
        else:
            value = summary["mean_absolute_influence"] / floor
            interval, note = None, "no interval: the record does not hold it seed by seed"
        found.append(
            claims.Reading(
                **_about(record),
                unit="ratio",
                threshold=1.0,
                above=True,
                value=value,
                interval=interval,
                n=f"{summary['reliability']['seeds']} seeds",
                note=note,
            )
        )
    return claims.Every(claims.in_order(found))


def _estimates(records: Records) -> claims.Node:
    found: list[claims.Node] = []
    for record in records:
        estimates = record.summary["estimates"]
        for name, row in estimates.items():
            if name not in CLAIMED:
                continue
            values = np.array(row["with_the_same_initialisation"]["values"])
            interval = student(values)
            found.append(
                claims.Reading(
                    **_about(record),
                    unit="correlation",
                    threshold=0.0,
                    above=True,
                    value=float(values.mean()),
                    interval=interval,
                    where=ESTIMATES.get(name, name),
                    n=f"{len(values)} seeds",
                    note="" if interval else NO_SPREAD_OF_SEEDS,
                )
            )
    return claims.Every(claims.in_order(found))


def title(record: claims.Record[Summary]) -> str:
    """Returns the name of the set."""
    return claims.set_name(record.summary["artefact"]["path"])


def _sets(record: claims.Record[Summary]) -> list[str]:
    return [record.summary["artefact"]["path"]]


def _subjects(record: claims.Record[Summary]) -> set[Hashable]:
    return {os.path.normpath(path) for path in _sets(record)}


def _networks(_: claims.Record[Summary]) -> Iterable[Mapping[str, Any]]:
    return ()  # the record names none, but for the number of parameters


HEAD = (
    "set",
    "networks",
    "mean |influence|",
    "noise floor",
    "correlation between seeds",
    "own class among nine",
    "correlation of estimates",
)


def _tables(records: Records) -> list[Markup]:
    if not records:
        return []
    rows = [_row(record) for record in records]
    found = [data_table(HEAD, rows, "Leave-one-out influence on test losses.")]
    if scored := [row for record in records for row in _scores(record)]:
        caption = (
            "Linear datamodelling score (arXiv 2303.14186): rank correlation, over random "
            "halves of the set, of test losses with the sum of the influences of a half's "
            "images; mean over test images, mean ± standard deviation over seeds."
        )
        head = ["set", "halves", "influence by", "a seed", "means over seeds"]
        found.append(data_table(head, scored, caption))
    for record in records:
        found += pictures_of(record, CAPTIONS, title(record))
    return found


def _scores(record: claims.Record[Summary]) -> list[list[Content]]:
    """Returns a row for each kind of influence; none where no subsets were trained on."""
    summary = record.summary
    subsets = summary.get("subsets")
    if subsets is None:
        return []
    scores = {"leave-one-out": subsets["leave_one_out"], **subsets["estimates"]}
    return [
        [
            set_label(title(record), summary["artefact"]["method"]),
            str(subsets["number"]),
            ESTIMATES.get(name, name),
            f"{score['mean']:.2f} ± {score['std']:.2f}",
            f"{score['of_means']:.2f}",
        ]
        for name, score in scores.items()
    ]


def _row(record: claims.Record[Summary]) -> list[Content]:
    summary = record.summary
    correlations = [
        f"{ESTIMATES.get(name, name)} {row['with_the_same_initialisation']['mean']:.2f}"
        for name, row in summary["estimates"].items()
    ]
    return [
        set_label(title(record), summary["artefact"]["method"]),
        str(summary["networks"]),
        f"{summary['mean_absolute_influence']:.3g}",
        f"{summary['mean_noise_floor']:.3g}",
        f"{summary['reliability']['value']:.2f}",
        f"{100 * summary['same_class_among_top_nine']:.0f} %",
        "; ".join(correlations) or "–",
    ]


CAPTIONS = {
    "influence.png": (
        "Distilled images, each with the nine test images whose loss rises most when it is "
        "left out"
    ),
}

CLAIMS = (
    claims.Claim(
        "influence_above_noise",
        SINGLE_IMAGES,
        "Leaving out one distilled image changes test losses by more than other initial "
        "weights do.",
        "The mean absolute influence of a seed, over the standard deviation of a test loss "
        f"between seeds, is above 1 for each set. {claims.EVERY}",
        "one initialisation, so no noise floor",
        "influence",
        "influence.png",
        _above_noise,
    ),
    claims.Claim(
        "influence_reliable",
        SINGLE_IMAGES,
        "Which test images a distilled image acts on is not a matter of initial weights.",
        "Rank correlation, over test images, of influences from different seeds is above 0 "
        f"for each set; the interval is the jackknife's over seeds. {claims.EVERY}",
        "one initialisation",
        "influence",
        "influence.png",
        _reliability,
    ),
    claims.Claim(
        "influence_own_class",
        SINGLE_IMAGES,
        "Each distilled image speaks for real images of its own class.",
        "The share of the nine most influenced test images that are of the distilled "
        "image's class is above one over the number of classes, for each set. "
        f"{claims.EVERY}",
        "shown in pictures, no number",
        "influence",
        "influence.png",
        _own_class,
    ),
    claims.Claim(
        "estimates_predict",
        BEYOND,
        "Influence functions and the neural tangent kernel tell what leaving an image out "
        "does, without training again.",
        "Rank correlation, over test images, of each estimate with leave-one-out from the "
        f"same initial weights is above 0 for each set. {claims.EVERY}",
        "not in the paper",
        "influence",
        "influence.png",
        _estimates,
    ),
)

EXPERIMENT = Experiment(
    name="influence",
    summary=Summary,
    title=title,
    sets=_sets,
    subjects=_subjects,
    networks=_networks,
    claims=CLAIMS,
    contents=((SINGLE_IMAGES, _tables),),
    captions=CAPTIONS,
    steps=study.steps,
)
