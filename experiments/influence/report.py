"""TODO."""

from collections.abc import Sequence
from typing import Any

from distilljax.analysis.statistics import ALPHA, Interval, quantile, student, wilson
from experiments.lab.claims import (
    NO_SPREAD,
    Every,
    Node,
    Reading,
    Record,
    finite,
    in_order,
    malformed,
    per_class,
    set_name,
)
from experiments.lab.html import Markup, data_table
from experiments.lab.sections import pictures_of, set_label
from experiments.report.sections import title_of


def _influenced(record: Record) -> dict[str, Any]:
    """What all readings of a run of `influence` share."""
    images = int(record.number("images"))
    k = int(record.number("dataset", "num_classes"))
    return {
        "method": str(record.get("artefact", "method")),
        "label": set_name(str(record.get("artefact", "path"))),
        "scale": (
            f"{int(record.number('parameters')):,} parameters; {per_class(images // k)}; "
            f"{int(record.number('test_images')):,} test images"
        ),
        "folder": record.folder,
    }


def _own_class(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in records:
        share = record.number("same_class_among_top_nine")
        images = int(record.number("images"))
        found.append(
            Reading(
                **_influenced(record),
                unit="percent",
                threshold=1 / record.number("dataset", "num_classes"),
                above=True,
                value=share,
                interval=wilson(share, images),
                n=f"{images} images",
                note="Wilson's interval, each distilled image and its nine as one draw",
            )
        )
    return Every(in_order(found))


def _reliability(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in records:
        value = record.number("reliability", "value")
        seeds = int(record.number("reliability", "seeds"))
        error = record.get("reliability", "standard_error")
        interval, note = None, "no interval: a jackknife over seeds needs three that differ"
        if error and seeds > 2:
            error = finite(error, ("reliability", "standard_error"), record)
            half = quantile(ALPHA, seeds - 1) * error
            interval, note = Interval(value - half, value + half, seeds - 1), ""
        found.append(
            Reading(
                **_influenced(record),
                unit="correlation",
                threshold=0.0,
                above=True,
                value=value,
                interval=interval,
                n=f"{seeds} seeds",
                note=note,
            )
        )
    return Every(in_order(found))


def _above_noise(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in records:
        floor = record.number("mean_noise_floor")
        if floor <= 0:
            raise malformed(record, ("mean_noise_floor",), "a positive number", floor)
        about = _influenced(record)
        seeds = int(record.number("reliability", "seeds"))
        if "influence_over_noise" in record.summary:
            values = record.numbers("influence_over_noise", "values")
            value, interval = float(values.mean()), student(values)
            note = "" if interval else NO_SPREAD.replace("networks", "seeds")
        else:
            value = record.number("mean_absolute_influence") / floor
            interval, note = None, "no interval: the record does not hold it seed by seed"
        found.append(
            Reading(
                **about,
                unit="ratio",
                threshold=1.0,
                above=True,
                value=value,
                interval=interval,
                n=f"{seeds} seeds",
                note=note,
            )
        )
    return Every(in_order(found))


ESTIMATES = {"gauss_newton": "influence functions", "ntk": "NTK"}


def _estimates(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in records:
        for name in record.get("estimates"):
            keys = "estimates", name, "with_the_same_initialisation", "values"
            values = record.numbers(*keys)
            interval = student(values)
            found.append(
                Reading(
                    **_influenced(record),
                    unit="correlation",
                    threshold=0.0,
                    above=True,
                    value=float(values.mean()),
                    interval=interval,
                    where=ESTIMATES.get(name, name),
                    n=f"{len(values)} seeds",
                    note="" if interval else NO_SPREAD.replace("networks", "seeds"),
                )
            )
    return Every(in_order(found))


def _table(records: Sequence[Record]) -> list[Markup]:
    runs = [record for record in records if record.experiment == "influence"]
    if not runs:
        return []
    table = []
    for record in runs:
        method = str(record.get("artefact", "method"))
        estimates = record.get("estimates")
        of = "with_the_same_initialisation"
        told = [
            f"{ESTIMATES.get(name, name)} "
            f"{record.number('estimates', name, of, 'mean'):.2f}"
            for name in estimates
        ]
        table.append(
            [
                set_label(title_of(record), method),
                f"{record.number('networks'):.0f}",
                f"{record.number('mean_absolute_influence'):.3g}",
                f"{record.number('mean_noise_floor'):.3g}",
                f"{record.number('reliability', 'value'):.2f}",
                f"{100 * record.number('same_class_among_top_nine'):.0f} %",
                "; ".join(told) or "–",
            ]
        )
    head = [
        "set",
        "networks",
        "mean |influence|",
        "noise floor",
        "correlation between seeds",
        "own class among nine",
        "correlation of estimates",
    ]
    found = [data_table(head, table, "Leave-one-out influence on test losses.")]
    for record in runs:
        found += pictures_of(record)
    return found


CLAIMS = (
    Claim(
        "influence_above_noise",
        "5.2",
        "Leaving out one distilled image changes test losses by more than other initial "
        "weights do.",
        "The mean absolute influence of a seed, over the standard deviation of a test loss "
        f"between seeds, is above 1 for each set. {EVERY}",
        "one initialisation, so no noise floor",
        "influence",
        "influence.png",
        _above_noise,
    ),
    Claim(
        "influence_reliable",
        "5.2",
        "Which test images a distilled image acts on is not a matter of initial weights.",
        "Rank correlation, over test images, of influences from different seeds is above 0 "
        f"for each set; the interval is the jackknife's over seeds. {EVERY}",
        "one initialisation",
        "influence",
        "influence.png",
        _reliability,
    ),
    Claim(
        "influence_own_class",
        "5.2",
        "Each distilled image speaks for real images of its own class.",
        "The share of the nine most influenced test images that are of the distilled "
        "image's class is above one over the number of classes, for each set. "
        f"{EVERY}",
        "shown in pictures, no number",
        "influence",
        "influence.png",
        _own_class,
    ),
    Claim(
        "estimates_predict",
        "beyond",
        "Influence functions and the neural tangent kernel tell what leaving an image out "
        "does, without training again.",
        "Rank correlation, over test images, of each estimate with leave-one-out from the "
        f"same initial weights is above 0 for each set. {EVERY}",
        "not in the paper",
        "influence",
        "influence.png",
        _estimates,
    ),
)
