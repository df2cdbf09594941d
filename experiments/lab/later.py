"""What papers after the study lead one to expect: sections of the report, and readings.

Such a claim names its source (`Claim.source`) and is counted apart from those of the study.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distilljax.analysis.statistics import student
from distilljax.types import InputError
from experiments.lab import claims
from experiments.lab.grid import beside
from experiments.lab.paper import Section
from experiments.lab.records import paths_of

LATER = "later papers"

LABELS = Section(
    "labels",
    "Labels",
    "Are labels worth more than images?",
    "Random, herded and distilled images, each with hard labels and with the class "
    "probabilities that networks trained on real images give them: one stopped early, and "
    "the same one trained on. Networks of one number begin at the same weights.",
    6.1,
    LATER,
)
SUBSETS = Section(
    "subsets",
    "Subsets",
    "Is a part of a distilled set a smaller distilled set?",
    "Networks are trained on k images of each class of a distilled set, on a set that was "
    "distilled at k, and on k random real images.",
    6.2,
    LATER,
)
CONNECTIVITY = Section(
    "connectivity",
    "Connectivity",
    "Do networks trained on distilled sets lie in one basin?",
    "Two networks begin at the same weights and see the same set in two random orders, as "
    "many steps on real as on distilled images. Test error is followed along the straight "
    "line between them, and between the two that saw distilled and real images.",
    6.3,
    LATER,
)
SPECTRUM = Section(
    "spectrum",
    "Spectrum",
    "Which directions of feature space do the sets carry?",
    "Features X and labels Y of a set give XᵀY; its energy is divided among the "
    "eigenvectors of the feature correlations of real images. A small sample puts energy "
    "into weak directions by chance alone, so a set is compared with as many random real "
    "images.",
    6.4,
    LATER,
)


def scale_of(record: claims.Record, label: str) -> str:
    """Returns network and size of a set whose row a record holds under `rows`."""
    row = record.summary["rows"][label]
    size = claims.per_class(row["images_per_class"])
    return f"{claims.describe_network(row['network'])}; {size}"


def random_beside(record: claims.Record, label: str) -> str:
    """Returns the row of random images that has size and training of row `label`.

    Raises:
      InputError: there is none.
    """
    try:
        return beside(record.summary["rows"], label, "random")
    except KeyError:
        raise InputError(
            f"{record.folder}/summary.json: rows has no random images beside {label}; the "
            "file is damaged or of another version: run the experiment again"
        ) from None


def networks_of(record: claims.Record) -> Iterator[Mapping[str, Any]]:
    """Yields the networks of the rows of a record."""
    yield from (row["network"] for row in record.summary["rows"].values())


def title_of(record: claims.Record, seeds: int, noun: str = "networks") -> str:
    """Returns the networks of the rows of a record, and how many there are."""
    names = sorted({claims.describe_network(n) for n in networks_of(record)})
    return f"{'; '.join(names)}; {seeds} {noun}"


def sets_of(record: claims.Record) -> list[str]:
    """Returns the files of the distilled sets of a record."""
    return paths_of(record.summary["rows"])


def subjects_of(record: claims.Record) -> set[Hashable]:
    """Returns what a record is about: these sets."""
    return set(sets_of(record))


def paired_reading(
    record: claims.Record,
    method: str,
    ours: Sequence[float],
    others: Sequence[float],
    path: str,
    *,
    unit: claims.Unit = "points",
    threshold: float = 0.0,
    above: bool = True,
    label: str = "",
    where: str = "",
    scale: str = "",
) -> claims.Reading:
    """Returns the reading of a difference, network by network.

    Args:
      record: that holds the numbers.
      method: of the set.
      ours: a number for each network.
      others: what is subtracted, of the same networks.
      path: of `ours` in the record, for errors.
      unit: of the difference.
      threshold: of the claim.
      above: the claim's side.
      label: of the set.
      where: which numbers.
      scale: network and size.

    Raises:
      InputError: other networks.
    """
    first, second = claims.paired(record, path, ours, others)
    change = np.subtract(first, second)
    interval = student(change)
    return claims.Reading(
        method,
        unit,
        threshold,
        above,
        value=float(change.mean()),
        interval=interval,
        label=label,
        where=where,
        n=f"{len(change)} networks",
        scale=scale,
        note="" if interval else claims.NO_SPREAD,
        folder=record.folder,
    )
