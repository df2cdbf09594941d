"""TODO."""

from collections.abc import Sequence
from typing import Any

from distilljax.analysis.statistics import ALPHA
from experiments.lab.claims import (
    NAMES,
    Every,
    Node,
    Reading,
    Record,
    in_order,
    recorded_interval,
)
from experiments.lab.html import Markup, data_table, el
from experiments.lab.sections import pictures_of


def _attributed(record: Record) -> dict[str, Any]:
    return {
        "method": str(record.get("method")),
        "label": str(record.get("label")),
        "scale": f"{int(record.number('attributes', 'images'))} distilled images",
        "folder": record.folder,
    }


def _enriched(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in records:
        found.append(
            Reading(
                **_attributed(record),
                unit="p",
                threshold=ALPHA / 2,
                above=False,
                value=record.number("attributes", "p"),
                p=record.number("attributes", "p"),
                n=f"{int(record.number('attributes', 'tests')):,} tests",
                note=(
                    f"{record.number('attributes', 'significant'):g} findings, "
                    f"{record.number('attributes', 'expected_by_chance'):.3g} expected by "
                    f"chance; {record.number('attributes', 'images_with_finding'):g} of "
                    f"{record.number('attributes', 'images'):g} images have one"
                ),
            )
        )
    return Every(in_order(found))


def _coherent(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in records:
        found.append(
            Reading(
                **_attributed(record),
                unit="coherence",
                threshold=0.0,
                above=True,
                value=record.number("coherence", "mean"),
                interval=recorded_interval(
                    record,
                    "coherence",
                    "interval",
                    freedom=max(len(record.numbers("coherence", "p_values")) - 1, 1),
                ),
                n=f"{int(record.number('attributes', 'images'))} images",
                note=(
                    f"{record.number('coherence', 'images_above'):g} images are above "
                    "chance each by itself"
                ),
            )
        )
    return Every(in_order(found))


MOST_FINDINGS = 12


def _table(records: Sequence[Record]) -> list[Markup]:
    found = []
    for record in records:
        if record.experiment != "attributes":
            continue
        rows = sorted(record.get("enrichment"), key=lambda row: (row["p"], str(row)))
        table = []
        for row in rows[:MOST_FINDINGS]:
            rate = row.get("rate", row.get("mean"))
            table.append(
                [
                    [
                        el("strong", str(row["attribute"])),
                        el("span", str(row["annotator"]), class_="sub"),
                    ],
                    f"{row['image']} ({row['class']})",
                    *(f"{x:.3g}" for x in (rate, row["base"], row["effect"])),
                    *(_p(row[k]) for k in ("p", "p_holm", "q")),
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
        name = NAMES.get(str(record.get("method")), str(record.get("method")))
        caption = f"{name}, {record.get('label')}: attributes, {count}."
        if table:
            found.append(data_table(head, table, caption))
        found += pictures_of(record)
    return found


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


CLAIMS = (
    Claim(
        "attributes_enriched",
        "5",
        "The test images that a distilled image acts on share visible attributes.",
        "More attributes tell them from others of their class than chance allows: the "
        "one-sided p of their number "
        f"is at most {ALPHA / 2:g}, what a 95 % interval leaves on its side; refuted at "
        f"{1 - ALPHA / 2:g} or more. For each set.",
        "rates beside base rates, in pictures",
        "attributes",
        "attributes.png",
        _enriched,
    ),
    Claim(
        "attributes_coherent",
        "5",
        "The test images that a distilled image acts on resemble each other more than "
        "others of their class do.",
        "The mean similarity of their features, in a network trained on real images, less "
        f"that of random groups of the class is above 0 for each set. {EVERY}",
        "shown in pictures, no number",
        "attributes",
        "attributes.png",
        _coherent,
    ),
)
