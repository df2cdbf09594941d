"""The part of the report on directions of feature space: claims, table, captions."""

from collections.abc import Sequence

import numpy as np

from distilljax.analysis.statistics import SpreadInterval
from experiments.lab import claims
from experiments.lab.experiment import Experiment
from experiments.lab.html import Content, Markup, data_table
from experiments.lab.later import (
    SPECTRUM,
    networks_of,
    paired_reading,
    random_beside,
    scale_of,
    sets_of,
    subjects_of,
    title_of,
)
from experiments.lab.parts import pictures_of, set_label, spelt_mean
from experiments.spectrum import study
from experiments.spectrum.record import INITIAL, REAL, STAGES, Summary

Record = claims.Record[Summary]
SOURCE = "arXiv 2503.01212"
HIGH = ("tm",)  # the method of the study that keeps weak directions


def _ratio(
    record: Record,
    stage: str,
    method: str,
    label: str,
    other: str,
    *,
    above: bool,
    where: str,
) -> claims.Reading:
    """Returns the weak energy of a set over that of another, network by network."""
    weak, path = (
        record.summary["stages"][stage]["weak_energy"],
        f"stages.{stage}.weak_energy.{label}",
    )
    pairs = weak[label]["values"], weak[other]["values"]
    ours, others = claims.paired(record, path, *pairs)
    if not (others > 0).all():
        where_others = f"stages.{stage}.weak_energy.{other}"
        raise claims.malformed(record, where_others, "energies above zero", others.min())
    ratio = np.divide(ours, others)
    return paired_reading(
        record,
        method,
        ratio.tolist(),
        [0.0] * len(ratio),
        path,
        unit="ratio",
        threshold=1.0,
        above=above,
        label=label,
        where=where,
        scale=scale_of(record, label),
    )


def _beside_random(
    records: Sequence[Record], methods: Sequence[str], *, above: bool
) -> claims.Node:
    found: list[claims.Node] = [
        _ratio(
            record,
            stage,
            method,
            label,
            random_beside(record, label),
            above=above,
            where=f"{stage} networks",
        )
        for record in records
        for label, method in claims.by_method(record.summary["rows"])
        if method in methods
        for stage in STAGES
    ]
    about: dict[str, object] = {"unit": "ratio", "threshold": 1.0, "above": above}
    return claims.Every([*found, *claims.absent_readings(methods, found, **about)])


def _low(records: Sequence[Record]) -> claims.Node:
    return _beside_random(records, claims.MATCHING_STATISTICS, above=False)


def _high(records: Sequence[Record]) -> claims.Node:
    return _beside_random(records, HIGH, above=True)


def _order(records: Sequence[Record]) -> claims.Node:
    """Returns each high-pass set over each low-pass one; a blank for what is missing."""
    found: list[claims.Node] = []
    methods = set[str]()
    for record in records:
        rows = claims.by_method(record.summary["rows"])
        methods |= {method for _, method in rows}
        for label, method in rows:
            for other, statistics in rows:
                if method in HIGH and statistics in claims.MATCHING_STATISTICS:
                    found += [
                        _ratio(
                            record,
                            stage,
                            method,
                            label,
                            other,
                            above=True,
                            where=f"over {claims.NAMES[statistics]}, {stage} networks",
                        )
                        for stage in STAGES
                    ]
    absent = [
        claims.Reading(method, "ratio", 1.0, above=True)
        for method in (*HIGH, *claims.MATCHING_STATISTICS)
        if method not in methods
    ]
    return claims.Every([*found, *absent])


def title(record: Record) -> str:
    """Returns the network, the number of them and the directions."""
    summary = record.summary
    stage = summary["stages"][INITIAL]
    share = f"{100 * summary['share']:.0f} % of the variance is strong"
    return f"{title_of(record, len(stage['strong']))}; {share}"


def _times(spread: SpreadInterval) -> str:
    return f"{spread['mean']:.1f} ± {spread['std']:.1f}"


def _tables(records: Sequence[Record]) -> list[Markup]:
    found: list[Markup] = []
    for record in records:
        summary = record.summary
        stages = [summary["stages"][stage] for stage in STAGES]
        rows: list[list[Content]] = [
            [
                label
                if label == REAL
                else set_label(label, summary["rows"][label]["method"]),
                *(
                    cell
                    for stage in stages
                    for cell in (
                        _times(stage["weak_energy"][label]),
                        spelt_mean(stage["weak"][label]),
                    )
                ),
            ]
            for label in stages[0]["weak"]
        ]
        caption = (
            "Energy in weak directions, over that of all real images, and its share of all "
            f"energy in percent; mean ± standard deviation. {title(record)}."
        )
        head = [
            "images",
            *(f"{stage}, {of}" for stage in STAGES for of in ("energy", "share")),
        ]
        found.append(data_table(head, rows, caption))
        found += pictures_of(record, CAPTIONS, title(record))
    return found


CAPTIONS = {
    "spectrum.png": (
        "Energy of the class moments in octaves of directions, over that of all real "
        "images; the band spans the networks"
    ),
}
_RULE = (
    "A set's energy in weak directions, over that of {other}, network by network, "
    "is at {side} 1, at initialisation and after training. "
)
_PAPER = "DM and gradient matching are low-pass filters, MTT and kernel methods high-pass"

CLAIMS = (
    claims.Claim(
        "spectrum_low",
        SPECTRUM,
        "GM and DM sets hold less in weak directions than random real images do.",
        _RULE.format(other="as many random real images", side="most") + claims.EVERY,
        _PAPER,
        "spectrum",
        "spectrum.png",
        _low,
        SOURCE,
    ),
    claims.Claim(
        "spectrum_high",
        SPECTRUM,
        "TM sets hold more in weak directions than random real images do.",
        _RULE.format(other="as many random real images", side="least") + claims.EVERY,
        _PAPER,
        "spectrum",
        "spectrum.png",
        _high,
        SOURCE,
    ),
    claims.Claim(
        "spectrum_order",
        SPECTRUM,
        "TM sets hold more in weak directions than GM and DM sets do.",
        _RULE.format(other="the other set", side="least") + claims.EVERY,
        _PAPER,
        "spectrum",
        "spectrum.png",
        _order,
        SOURCE,
    ),
)

EXPERIMENT = Experiment(
    name="spectrum",
    summary=Summary,
    title=title,
    sets=sets_of,
    subjects=subjects_of,
    networks=networks_of,
    claims=CLAIMS,
    contents=((SPECTRUM, _tables),),
    captions=CAPTIONS,
    steps=study.steps,
)
