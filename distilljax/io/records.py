"""Flat records in a JSON-lines file: appended during a run, truncated on resume."""

import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distilljax import processes
from distilljax.disk.files import parse_json, replacing
from distilljax.types import InputError

Record = Mapping[str, Any]


def _line(record: Record) -> str:
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"


@processes.once
def append(path: pathlib.Path, records: Iterable[Record]) -> None:
    """Appends one line per record; a number that is not finite becomes null.

    >>> import pathlib
    >>> records.append(pathlib.Path("metrics.jsonl"), [{"step": 1, "loss": 0.5}])
    """
    with path.open("a", encoding="utf-8") as file:
        file.writelines(map(_line, records))


@processes.once
def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns all records; a last line torn by a kill is left out, no file is no records.

    >>> import pathlib
    >>> path = pathlib.Path("read.jsonl")
    >>> records.append(path, [{"step": 1, "loss": float("nan")}])
    >>> records.read(path)
    [{'step': 1, 'loss': None}]

    Raises:
      InputError: a line before the last is no JSON object.
    """
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        if not line:
            continue
        try:
            record = parse_json(line)
            if not isinstance(record, dict):
                raise ValueError("it holds no object")
        except ValueError as error:
            raise InputError(
                f"{path} has a damaged line ({error}); delete it, or choose another workdir"
            ) from None
        found.append(record)
    return found


@processes.once
def keep_until(path: pathlib.Path, step: int, by: Sequence[str] = ("step",)) -> int:
    """Leaves one record of each step up to `step`; a resumed run writes those after it.

    >>> import pathlib
    >>> path = pathlib.Path("cut.jsonl")
    >>> records.append(path, [{"step": step} for step in (1, 2, 3)])
    >>> records.keep_until(path, 2), records.read(path)
    (0, [{'step': 1}, {'step': 2}])

    Args:
      path: the file.
      step: the last that is kept.
      by: fields that tell records apart; of those that agree in them, the last is left.

    Returns:
      How many steps from 1 to `step` have no record: 0 unless the file was changed.

    Raises:
      InputError: a line that is no record of a step; the file is left as it is.
    """
    kept = {}
    for record in read(path):
        if type(record.get("step")) is not int or not {*by} <= record.keys():
            raise InputError(
                f"{path} has a record that is not of a step, as of another program; move "
                "that file, or choose another workdir"
            )
        if record["step"] <= step:
            kept[tuple(record[name] for name in by)] = record
    if path.exists():
        with replacing(path) as temporary:
            temporary.write_text("".join(map(_line, kept.values())), encoding="utf-8")
    return step - len({r["step"] for r in kept.values() if r["step"] >= 1})
