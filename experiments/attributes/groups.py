"""Influences that `experiments.influence` left, and the groups of test images they make."""

import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from distilljax.config import FieldError
from experiments.attributes.options import Among
from experiments.lab.kept import Unusable, read_arrays

INFLUENCE = "experiments.influence"


class Influences(NamedTuple):
    """The result of a run of `experiments.influence`."""

    values: np.ndarray  # f[s, n, t]; positive where the image helped
    positions: np.ndarray  # i[t], in the test split
    noise_floor: np.ndarray  # f[t]
    artefact: str
    dataset: str | None  # its `--dataset`
    fingerprint: str  # SHA-256 of the data
    identity: str  # SHA-256 of data, preprocessing and set


def read_influences(path: pathlib.Path) -> Influences:
    """Reads a working directory of `experiments.influence`.

    Raises:
      FieldError: no such directory, one of something else, one of a run that is not
        finished, or damaged files.
    """

    def wrong(reason: str) -> FieldError:
        return FieldError("influence", str(path), reason)

    if not path.is_dir():
        raise wrong(
            "there is no such directory; give the --workdir of a finished python -m "
            f"{INFLUENCE}"
        )
    try:
        held = json.loads((path / "config.json").read_text(encoding="utf-8"))
        made_by, command = held["experiment"], held["command"]
        artefact, dataset = held["config"]["artefact"], held["config"]["dataset"]
        if made_by != INFLUENCE:
            raise ValueError(f"of {made_by}")
    except (OSError, ValueError, KeyError, TypeError):
        raise wrong(
            f"it is no working directory of {INFLUENCE}, or its config.json is damaged; "
            "give one that is"
        ) from None
    again = f"run this again with its --workdir: {command}"
    for name in ("influence.npz", "summary.json"):
        if not (path / name).exists():
            raise wrong(f"the run there is not finished, {name} is missing; {again}")
    try:
        identity, arrays = read_arrays(path / "influence.npz")
    except Unusable as error:
        raise wrong(f"influence.npz {error}; {again}") from None
    if fault := _fault(arrays):
        raise wrong(f"influence.npz is damaged ({fault}); {again}")
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        fingerprint = str(summary["dataset"]["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        raise wrong(f"summary.json is damaged; {again}") from None
    return Influences(
        arrays["influences"],
        arrays["test_positions"],
        arrays["noise_floor"],
        artefact,
        dataset,
        fingerprint,
        identity,
    )


def _fault(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Returns what is wrong with the arrays of `influence.npz`; None where nothing is."""
    for name in ("influences", "test_positions", "noise_floor"):
        if name not in arrays:
            return f"it has no {name}"
    values, positions = arrays["influences"], arrays["test_positions"]
    num = positions.shape
    if values.ndim != 3 or not values.size or positions.ndim != 1:
        return f"influences are {list(values.shape)}"
    if values.shape[2:] != num or arrays["noise_floor"].shape != num:
        return "its arrays do not belong together"
    if not np.isfinite(values).all() or len(np.unique(positions)) < num[0]:
        return "influences are not finite, or images come twice"
    return None


class Group(NamedTuple):
    """The test images that a distilled image acts on, and its class."""

    label: int
    members: np.ndarray  # i[m], among the class's test images; the most influenced first


def groups_of(
    influences: np.ndarray,
    labels: np.ndarray,
    classes: np.ndarray,
    top: int,
    among: Among,
) -> list[Group]:
    """Returns the group of each distilled image.

    Args:
      influences: f[n, t].
      labels: i[n], of distilled images.
      classes: i[t], of test images.
      top: number of test images.
      among: `class` or `all`, see `Config.among`.
    """
    found = []
    for row, label in zip(influences, labels.tolist(), strict=True):
        order = np.argsort(-row, kind="stable")
        own = classes[order] == label
        chosen = order[own][:top] if among == "class" else order[:top][own[:top]]
        place = np.cumsum(classes == label) - 1
        found.append(Group(label, place[chosen]))
    return found
