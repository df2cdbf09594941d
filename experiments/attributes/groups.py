"""TODO."""

import json
import pathlib
import zipfile
from typing import NamedTuple

import numpy as np

from distilljax.config import FieldError

UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


class Influences(NamedTuple):
    """What a run of experiments.influence left."""

    values: np.ndarray  # f[s, n, t]; positive where the image helped
    positions: np.ndarray  # i[t], in the test split
    noise_floor: np.ndarray  # f[t]
    artefact: str
    dataset: str | None  # its `--dataset`
    fingerprint: str  # of the data
    digest: str | None  # of data and set, where its pieces are still there


def read_influences(path: pathlib.Path) -> Influences:
    """Reads a working directory of experiments.influence.

    Raises:
      InputError: no such directory, one of something else, one of a run that is not
        finished, or damaged files.
    """
    if not path.is_dir():
        raise FieldError(
            "influence",
            str(path),
            "there is no such directory; give the --workdir of a finished python -m "
            "experiments.influence",
        )
    described = path / "config.json"
    try:
        held = json.loads(described.read_text(encoding="utf-8"))
        made_by, command = held["experiment"], held["command"]
        artefact, dataset = held["config"]["artefact"], held["config"]["dataset"]
        if made_by != "experiments.influence":
            raise ValueError(f"of {made_by}")
    except (OSError, ValueError, KeyError, TypeError):
        raise FieldError(
            "influence",
            str(path),
            "it is no working directory of experiments.influence, or its config.json is "
            "damaged; give one that is",
        ) from None
    again = f"run this again with its --workdir: {command}"
    for name in ("influence.npz", "summary.json"):
        if not (path / name).exists():
            reason = f"the run there is not finished, {name} is missing; {again}"
            raise FieldError("influence", str(path), reason)
    try:
        with np.load(path / "influence.npz", allow_pickle=False) as arrays:
            values, positions = arrays["influences"], arrays["test_positions"]
            floor = arrays["noise_floor"]
        num = positions.shape
        if values.ndim != 3 or not values.size or positions.ndim != 1:
            raise ValueError(f"influences are {list(values.shape)}")
        if values.shape[2:] != num or floor.shape != num:
            raise ValueError("its arrays do not belong together")
        if not np.isfinite(values).all() or len(np.unique(positions)) < num[0]:
            raise ValueError("influences are not finite, or images come twice")
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        fingerprint = str(summary["dataset"]["fingerprint"])
        digest, piece = None, path / "pieces" / "0.npz"
        if piece.exists():
            with np.load(piece, allow_pickle=False) as arrays:
                digest = str(arrays["digest"])
    except (*UNREADABLE, TypeError) as error:
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        reason = f"its files are damaged ({first}); delete it, then {again}"
        raise FieldError("influence", str(path), reason) from None
    return Influences(values, positions, floor, artefact, dataset, fingerprint, digest)


class Group(NamedTuple):
    """The test images that a distilled image acts on, and its class."""

    label: int
    members: np.ndarray  # i[m], among the class's test images; the most influenced first


def groups_of(
    influences: np.ndarray, labels: np.ndarray, classes: np.ndarray, top: int, among: str
) -> list[Group]:
    """The group of each distilled image.

    Args:
      influences: f[n, t].
      labels: i[n], of distilled images.
      classes: i[t], of test images.
      top: how many.
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
