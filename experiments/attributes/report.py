"""The part of the report on attributes: claims, table, captions."""

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from distilljax.analysis.statistics import ALPHA
from experiments.attributes import study
from experiments.attributes.record import Summary, rate_or_mean
from experiments.lab import claims
from experiments.lab.experiment import Experiment
from experiments.lab.html import Content, Markup, data_table, el
from experiments.lab.paper import SHARED_ATTRIBUTES
from experiments.lab.parts import pictures_of

Records = Sequence[claims.Record[Summary]]

MOST_FINDINGS = 12


def _about(record: claims.Record[Summary]) -> dict[str, Any]:
    return {
        "method": record.summary["method"],
        "label": record.summary["label"],
        "scale": f"{record.summary['attributes']['images']} distilled images",
        "folder": record.folder,
    }


def _enriched(records: Records) -> claims.Node:
    found: list[claims.Node] = []
    for record in records:
        counts = record.summary["attributes"]
        found.append(
            claims.Reading(
                **_about(record),
                unit="p",
                threshold=ALPHA / 2,
                above=False,
                value=counts["p"],
                p=counts["p"],
                p_other=counts.get("p_fewer"),
                n=f"{counts['tests']:,} tests",
                note=(
                    f"{counts['significant']} findings, "
                    f"{counts['expected_by_chance']:.3g} expected by chance; "
                    f"{counts['images_with_finding']} of {counts['images']} images have one"
                ),
            )
        )
    return claims.Every(claims.in_order(found))


def _coherent(records: Records) -> claims.Node:
    found: list[claims.Node] = []
    for record in records:
        coherence = record.summary["coherence"]
        classes = coherence.get("classes", len(coherence["p_values"]))
        freedom = max(classes - 1, 1)
        ends = coherence["interval"]
        found.append(
            claims.Reading(
                **_about(record),
                unit="coherence",
                threshold=0.0,
                above=True,
                value=coherence["mean"],
                interval=claims.recorded_interval(
                    record, "coherence.interval", ends, freedom
                ),
                n=f"{record.summary['attributes']['images']} images",
                note=f"{coherence['images_above']} images are above chance each by itself",
            )
        )
    return claims.Every(claims.in_order(found))


def title(record: claims.Record[Summary]) -> str:
    """Returns the name of the set."""
    return claims.set_name(record.summary["artefact"])


def _networks(_: claims.Record[Summary]) -> Iterator[Mapping[str, Any]]:
    yield from ()


def _sets(record: claims.Record[Summary]) -> list[str]:
    return [record.summary["artefact"]]


def _subjects(record: claims.Record[Summary]) -> set[Hashable]:
    return {os.path.normpath(path) for path in _sets(record)}


def _tables(records: Records) -> list[Markup]:
    found: list[Markup] = []
    for record in records:
        summary = record.summary
        rows = sorted(summary["enrichment"], key=lambda row: (row["p"], str(row)))
        table: list[list[Content]] = []
        for row in rows[:MOST_FINDINGS]:
            table.append(
                [
                    [
                        el("strong", row["attribute"]),
                        el("span", row["annotator"], class_="sub"),
                    ],
                    f"{row['image']} ({row['class']})",
                    *(f"{x:.3g}" for x in (rate_or_mean(row), row["base"], row["effect"])),
                    *(_spelt_p(x) for x in (row["p"], row["p_holm"], row["q"])),
                ]
            )
        head = [
            "attribute",
            "image",
            "rate or mean",
            "base",
            "effect",
            "p",
            "p (Holm)",
            "q",
        ]
        count = f"the {len(table)} of smallest p of {len(rows)}"
        name = claims.NAMES.get(summary["method"], summary["method"])
        caption = f"{name}, {summary['label']}: attributes, {count}."
        if table:
            found.append(data_table(head, table, caption))
        found += pictures_of(record, CAPTIONS, title(record))
    return found


def _spelt_p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


CAPTIONS = {
    "attributes.png": (
        "Distilled images, each with the test images that it acts on and the attributes "
        "that tell those best from others of their class"
    ),
    "effects.png": (
        "How strongly each attribute tells the images that a distilled image acts on from "
        "others of their class"
    ),
}

CLAIMS = (
    claims.Claim(
        "attributes_enriched",
        SHARED_ATTRIBUTES,
        "The test images that a distilled image acts on share visible attributes.",
        "More attributes tell them from others of their class than chance allows: the "
        "one-sided p of their number "
        f"is at most {ALPHA / 2:g}, what a 95 % interval leaves on its side; refuted where "
        "that of so few is. For each set.",
        "rates beside base rates, in pictures",
        "attributes",
        "attributes.png",
        _enriched,
    ),
    claims.Claim(
        "attributes_coherent",
        SHARED_ATTRIBUTES,
        "The test images that a distilled image acts on resemble each other more than "
        "others of their class do.",
        "The mean similarity of their features, in a network trained on real images, less "
        f"that of random groups of the class is above 0 for each set. {claims.EVERY}",
        "shown in pictures, no number",
        "attributes",
        "attributes.png",
        _coherent,
    ),
)

EXPERIMENT = Experiment(
    name="attributes",
    summary=Summary,
    title=title,
    sets=_sets,
    subjects=_subjects,
    networks=_networks,
    claims=CLAIMS,
    contents=((SHARED_ATTRIBUTES, _tables),),
    captions=CAPTIONS,
    steps=study.steps,
)
