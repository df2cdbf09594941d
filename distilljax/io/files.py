"""Writing files so that a killed process leaves the old one or the new one, whole."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def replacing(path: pathlib.Path | str) -> Iterator[pathlib.Path]:
    """Gives a temporary name beside `path`, renamed to `path` on success."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: pathlib.Path | str, value: Any) -> None:
    """Writes indented JSON. NaN is refused: it is not JSON."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
