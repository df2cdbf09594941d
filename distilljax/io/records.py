"""Flat records in a JSON-lines file: appended during a run, truncated on resume."""

import json
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from distilljax.io.files import replacing
from distilljax.types import InputError

Record = Mapping[str, Any]


def _line(record: Record) -> str:
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"


def append(path: pathlib.Path, records: Iterable[Record]) -> None:
    """Appends one line per record; a number that is not finite becomes null."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(map(_line, records))


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns all records; an incomplete last line is ignored, no file is no records.

    Raises:
      InputError: a line before the last is not JSON.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    try:
        return [json.loads(line) for line in lines[:-1] if line]
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} has a damaged line ({error}); delete it, or choose another workdir"
        ) from None


def keep_until(path: pathlib.Path, step: int) -> None:
    """Drops the records after `step`, which a resumed run writes again."""
    kept = [record for record in read(path) if record["step"] <= step]
    with replacing(path) as temporary:
        temporary.write_text("".join(map(_line, kept)), encoding="utf-8")
