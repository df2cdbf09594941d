"""Atomic file writes: after a kill a file holds the old content or the new, complete."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import re
import secrets
from collections.abc import Iterator
from typing import Any, NoReturn

# A full disk, a full quota, a limit on the size of files.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# A place of another kind, without permission, or on a disk that fails.
UNUSABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EIO,
    errno.ESTALE,
)
_TEMPORARY = re.compile(r"^\..+\.[0-9a-f]{16}\.tmp(\.\w+)?$")


@contextlib.contextmanager
def replacing(path: pathlib.Path | str) -> Iterator[pathlib.Path]:
    """Gives a new, empty file beside `path`, renamed to `path` on success.

    Its name cannot be foretold, and its contents are on the disk before it is renamed, so
    that a machine that loses power has the old file or the new one. A link at `path` is
    replaced, never followed.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp{path.suffix}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        with contextlib.suppress(OSError):  # a file system without it
            _to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def locked(path: pathlib.Path) -> int | None:
    """Returns the descriptor of a lock file, to be closed; None where another has it.

    Raises:
      OSError: it cannot be made, or is a link, which is not followed.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def is_temporary(name: str) -> bool:
    """Whether a file has a name of `replacing`: a killed process left it."""
    return _TEMPORARY.match(name) is not None


def advice(error: OSError) -> str:
    """Returns what to do about a file that cannot be written."""
    if error.errno == errno.EFBIG:
        return "raise the limit on the size of files (ulimit -f)"
    return "make room" if error.errno in NO_SPACE else "choose another place"


def write_json(path: pathlib.Path | str, value: Any) -> None:
    """Writes indented JSON. NaN is refused: it is not JSON."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def parse_json(text: str | bytes) -> Any:
    """Returns the value of a JSON text.

    Raises:
      ValueError: no text, no JSON (NaN is none), or brackets nested too deep.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        found = json.loads(text, parse_constant=_refuse)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()  # half a character is no text
        return found
    except RecursionError:
        raise ValueError("brackets are nested too deep") from None


def read_json(path: pathlib.Path | str) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
      ValueError: see `parse_json`; or another value than an object.
      OSError: the file cannot be read.
    """
    found = parse_json(pathlib.Path(path).read_bytes())
    if not isinstance(found, dict):
        raise ValueError("it holds no object")
    return found
