"""Typed records: the `summary.json` of each experiment, written and read by one type.

Each experiment declares a `TypedDict` in its `record.py`. It is checked when the record is
written and when it is read back, so that what the report indexes is there, with the right
type, and finite.
"""

import hashlib
import json
import math
import pathlib
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, Required, TypedDict, TypeVar

from distilljax import processes
from distilljax.disk.files import read_json, write_json
from distilljax.io.environment import Environment
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import InputError
from experiments.lab.workdir import CONFIG

SUMMARY, CHECKSUM = "summary.json", "sha256"
FORMAT = 1  # of every record; one without the key is of format 1
AnySummary = TypeVar("AnySummary", bound=Mapping[str, Any])


class DatasetRecord(TypedDict):
    """The real data of a record."""

    name: str
    source: str
    fingerprint: str  # SHA-256
    num_classes: NotRequired[int]


class Origin(TypedDict):
    """Version, memory and machine of every record."""

    format: NotRequired[int]
    peak_memory_bytes: int
    environment: Environment


class Common(Origin):
    """What every record on one data set holds."""

    dataset: DatasetRecord


class ProtocolRecord(TypedDict):
    """How networks were trained on a set, see `evaluation.EvaluationProtocol`."""

    name: str
    steps: int | None
    epochs: int | None
    batch: int | None
    lr: float | None
    momentum: float
    weight_decay: float
    decay_at: float | None
    augment: str
    # Records of before 2026-11-28 lack these; such networks had the defaults.
    augment_each: NotRequired[bool]
    optimizer: NotRequired[str]
    warmup: NotRequired[int]
    cosine_to: NotRequired[float | None]
    loss: NotRequired[str]
    label_scale: NotRequired[float]
    centre: NotRequired[bool]
    flips: NotRequired[bool]
    average: NotRequired[float]
    check_every: NotRequired[int | None]
    patience: NotRequired[int]


def describe_protocol(name: str, protocol: EvaluationProtocol) -> ProtocolRecord:
    """Returns a protocol as records hold it."""
    return typing.cast(ProtocolRecord, {"name": name, **protocol.to_dict()})


class RowRecord(TypedDict):
    """A distilled set, or as many random real images, that networks are trained on."""

    path: str | None  # of the artefact; None of random images
    method: str  # `random` of random images
    version: NotRequired[str]
    images_per_class: int
    protocol: NotRequired[dict[str, Any]]
    learning_rate: NotRequired[float | None]
    own: NotRequired[dict[str, Any] | None]
    network: NotRequired[dict[str, Any]]


def paths_of(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the files of the distilled sets among the rows of a record."""
    return [row["path"] for row in rows.values() if row["path"]]


class Mismatch(Exception):
    """A value that does not have its type."""

    def __init__(self, path: Sequence[str], wanted: str, found: Any, *, absent: bool):
        super().__init__(path, wanted, found)
        self.path, self.wanted, self.found = ".".join(path), wanted, found
        self.absent = absent


def check(kind: Any, value: Any, path: Sequence[str] = ()) -> None:
    """Checks a value of JSON against a type.

    Args:
      kind: a `TypedDict`, `dict[str, T]`, `Mapping[str, T]`, `list[T]`, a union, a
        `Literal`, `float`, `int`, `str`, `bool`, `None` or `Any`. Keys that a `TypedDict`
        does not name are let through; an int passes for a float; numbers must be finite.
      value: what was read.
      path: keys that lead to it.

    Raises:
      Mismatch: the first value that does not fit.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or kind is object:
        return
    if origin in (Required, NotRequired):
        check(arguments[0], value, path)
    elif origin in (typing.Union, types.UnionType):
        _check_union(arguments, value, path)
    elif origin is Literal:
        if value not in arguments:
            raise Mismatch(
                path, f"one of {', '.join(map(str, arguments))}", value, absent=False
            )
    elif typing.is_typeddict(kind):
        _check_fields(kind, value, path)
    elif origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise Mismatch(path, "an object", value, absent=False)
        for name, one in value.items():
            check(arguments[1], one, (*path, str(name)))
    elif origin in (list, Sequence):
        if not isinstance(value, list):
            raise Mismatch(path, "a list", value, absent=False)
        for number, one in enumerate(value):
            check(arguments[0], one, (*path, str(number)))
    else:
        _check_leaf(kind, value, path)


def _check_union(kinds: Sequence[Any], value: Any, path: Sequence[str]) -> None:
    failures = []
    for kind in kinds:
        try:
            return check(kind, value, path)
        except Mismatch as error:
            failures.append(error)
    # The failure that lies deepest says most.
    raise max(failures, key=lambda error: error.path.count("."))


def _check_fields(kind: Any, value: Any, path: Sequence[str]) -> None:
    if not isinstance(value, Mapping):
        raise Mismatch(path, "an object", value, absent=False)
    hints = typing.get_type_hints(kind, include_extras=True)
    for name, hint in hints.items():
        if name in value:
            check(hint, value[name], (*path, name))
        elif name in kind.__required_keys__:
            raise Mismatch((*path, name), "a value", None, absent=True)


_WORDS = {
    float: "a finite number",
    int: "an integer",
    str: "a string",
    bool: "true or false",
    types.NoneType: "null",
}


def _check_leaf(kind: Any, value: Any, path: Sequence[str]) -> None:
    kind = types.NoneType if kind is None else kind
    if kind not in _WORDS:
        raise TypeError(f"{kind} cannot be a part of a record")
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number and math.isfinite(value)
    elif kind is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    else:
        fits = isinstance(value, kind)
    if not fits:
        raise Mismatch(path, _WORDS[kind], value, absent=False)


@processes.once
def write_summary(
    workdir: pathlib.Path, kind: type[AnySummary], summary: AnySummary
) -> AnySummary:
    """Writes `summary.json` and returns what a reader will find in it.

    Raises:
      TypeError: a summary that its own type refuses, a mistake in the experiment.
    """
    plain = json.loads(json.dumps({**summary, "format": FORMAT}))
    try:
        check(kind, plain)
    except Mismatch as error:
        raise TypeError(
            f"{kind.__name__}.{error.path} is {error.found!r}, expected {error.wanted}"
        ) from None
    write_json(workdir / SUMMARY, plain | {CHECKSUM: _seal(workdir, plain)})
    return typing.cast(AnySummary, plain)


def _seal(workdir: pathlib.Path, summary: Mapping[str, Any]) -> str:
    """Returns the SHA-256, hex, of a record and of the settings of its run."""
    try:
        config = read_json(workdir / CONFIG)
    except FileNotFoundError:
        config = {}
    told = [config.get("experiment"), config.get("config"), dict(summary)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def open_sealed(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the contents of `summary.json` without their checksum.

    A record of before 2026-11-28 has none, and is taken as it is.

    Raises:
      ValueError: no JSON object, one that was changed, or the record of another run.
      OSError: the file cannot be read.
    """
    found = read_json(workdir / SUMMARY)
    checksum = found.pop(CHECKSUM, None)
    if checksum is not None and checksum != _seal(workdir, found):
        raise ValueError("it was changed, or another run wrote it")
    return found


def read_of_run(path: pathlib.Path) -> dict[str, Any]:
    """Returns the contents of a JSON file in the folder of a run.

    Raises:
      ValueError: no JSON object; or a record that `open_sealed` refuses.
      OSError: the file cannot be read.
    """
    return open_sealed(path.parent) if path.name == SUMMARY else read_json(path)


@processes.once
def finished_summary(
    workdir: pathlib.Path, kind: type[AnySummary], experiment: str
) -> AnySummary | None:
    """Returns the record of a finished run; None where the run has to be done.

    A record that cannot be read counts as missing, and one line on stderr says so.

    Args:
      workdir: of the run.
      kind: the type of the record.
      experiment: whose record it is.

    Raises:
      InputError: a record of another version.
    """
    path = workdir / SUMMARY
    try:
        found = open_sealed(workdir)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = f"{path} cannot be read ({error}); computed again"
        print(why, file=sys.stderr, flush=True)
        return None
    return checked(kind, found, str(workdir), experiment)


def checked(
    kind: type[AnySummary], found: Mapping[str, Any], folder: str, experiment: str
) -> AnySummary:
    """Returns a record that was read, of its type.

    Args:
      kind: the type.
      found: the contents of `summary.json`.
      folder: where it lies, for errors.
      experiment: whose record it is.

    Raises:
      InputError: a record of another version, or a damaged one.
    """
    held = found.get("format", FORMAT)
    if held != FORMAT:
        raise InputError(
            f"{folder}/{SUMMARY} is a record of format {held!r} of "
            f"experiments.{experiment}, and this version reads format {FORMAT}; run the "
            "experiment again"
        )
    try:
        check(kind, found)
    except Mismatch as error:
        if error.absent:
            raise InputError(
                f"{folder}/{SUMMARY} has no {error.path}, so another version of "
                f"experiments.{experiment} wrote it; run that again"
            ) from None
        raise InputError(
            f"{folder}/{SUMMARY}: {error.path} is {str(error.found)[:40]!r}, expected "
            f"{error.wanted}; the file is damaged or of another version: run the "
            "experiment again"
        ) from None
    return typing.cast(AnySummary, found)
