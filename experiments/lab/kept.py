"""The one store of finished pieces: what a run has computed survives the run.

A piece has a name, an identity (SHA-256 of all that it depends on, see `digest`) and its
content with a checksum. `Arrays` keeps pieces of arrays, a file each; `Lines` keeps small
records, a line of a file each. Both write atomically, and both treat a piece that cannot
be used alike: one line on stderr says which and why, the piece counts as missing and is
computed again, and nothing else is lost.
"""

import hashlib
import json
import pathlib
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from distilljax import processes
from distilljax.disk.files import parse_json, replacing
from distilljax.io import records

IDENTITY, CHECKSUM = "identity", "checksum"
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,  # a damaged header that says encrypted, or another compression
    zipfile.BadZipFile,
    zlib.error,
)


def digest(description: Any, arrays: Iterable[Any] = ()) -> str:
    """Returns the SHA-256, hex, of what JSON can hold and of arrays."""
    found = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for array in arrays:
        found.update(np.asarray(array).tobytes())
    return found.hexdigest()


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    described = [[n, a.dtype.str, list(a.shape)] for n, a in sorted(arrays.items())]
    return digest(described, (arrays[name] for name in sorted(arrays)))


def _say(what: object, why: str) -> None:
    print(f"{what} {why}; computed again", file=sys.stderr, flush=True)


class Unusable(Exception):
    """A file of arrays that cannot be used; the message says why."""


@processes.once
def write_arrays(path: pathlib.Path, identity: str, **arrays: Any) -> None:
    """Writes one piece: arrays with their identity and checksum, atomically."""
    held: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    proof = {IDENTITY: np.array(identity), CHECKSUM: np.array(_checksum(held))}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{**proof, **held})


def read_arrays(path: pathlib.Path) -> tuple[str, dict[str, np.ndarray]]:
    """Returns the identity and the arrays of one piece.

    Raises:
      Unusable: a file that is missing, damaged, or none of `write_arrays`.
    """
    try:
        # NumPy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        identity, checksum = (str(arrays.pop(n)) for n in (IDENTITY, CHECKSUM))
    except FileNotFoundError:
        raise Unusable("is missing") from None
    except _UNREADABLE as error:
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        raise Unusable(f"cannot be read ({first})") from None
    if checksum != _checksum(arrays):
        raise Unusable("is damaged (its checksum differs)")
    return identity, arrays


class Arrays:
    """A folder of pieces, a file of arrays each."""

    def __init__(self, folder: pathlib.Path):
        """Makes the folder where it is missing."""
        processes.once(folder.mkdir)(parents=True, exist_ok=True)
        self._folder = folder

    def path(self, name: str) -> pathlib.Path:
        """Returns the file of a piece."""
        return self._folder / f"{name}.npz"

    def write(self, name: str, identity: str, **arrays: Any) -> None:
        """Keeps a piece; replaces one of the same name."""
        write_arrays(self.path(name), identity, **arrays)

    @processes.once
    def read(
        self, name: str, identity: str, wanted: Iterable[str] | None = None
    ) -> dict[str, np.ndarray] | None:
        """Returns the arrays of a piece; None where it has to be computed.

        Args:
          name: of the piece.
          identity: which the piece must have.
          wanted: names of the arrays that it must hold; None for any.
        """
        path = self.path(name)
        if not path.exists():
            return None
        try:
            found, arrays = read_arrays(path)
        except Unusable as error:
            _say(path, str(error))
            return None
        if found != identity:
            _say(path, "holds another piece")
            return None
        if wanted is not None and set(wanted) != arrays.keys():
            _say(path, "is of another version")
            return None
        return arrays


def _line_checksum(line: Mapping[str, Any]) -> str:
    return digest({name: value for name, value in line.items() if name != CHECKSUM})


class Lines:
    """A file of small records, a line each, by identity.

    A second, hidden file holds their number, by which records that are gone are known.
    """

    def __init__(self, path: pathlib.Path, wanted: Iterable[str] | None):
        """Reads the file; it is left with the records of these identities; None: of any."""
        self._path = path
        self._counted = path.with_name(f".{path.name}.count")
        self._kept: dict[str, dict[str, Any]] = {}
        identities, damaged = None if wanted is None else set(wanted), 0
        for line in read_lines(path):
            if line is None or line.get(CHECKSUM) != _line_checksum(line):
                damaged += 1
            elif identities is None or line.get(IDENTITY) in identities:
                self._kept[str(line.get(IDENTITY))] = line
        found = [f"has {_records(damaged, 'damaged record')}"] * (damaged > 0)
        if (gone := self._count() - len(self._kept) - damaged) > 0:
            found.append(f"lacks {_records(gone, 'record')} of this run")
        if found:
            _say(path, " and ".join(found))
        if path.exists():
            with replacing(path) as temporary:
                records.append(temporary, self._kept.values())
            self._write_count()

    def _count(self) -> int:
        """Returns the number of records that were kept; 0 where it is not known."""
        try:
            return int(self._counted.read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def _write_count(self) -> None:
        with replacing(self._counted) as temporary:
            temporary.write_text(f"{len(self._kept)}\n", "ascii")

    def __contains__(self, identity: str) -> bool:
        """Whether a record of that identity is kept."""
        return identity in self._kept

    def __getitem__(self, identity: str) -> dict[str, Any]:
        """Returns the record of that identity, as it was given to `write`."""
        line = self._kept[identity]
        return {n: value for n, value in line.items() if n not in (IDENTITY, CHECKSUM)}

    def write(self, identity: str, record: Mapping[str, Any]) -> None:
        """Keeps a record."""
        line: dict[str, Any] = {**record, IDENTITY: identity}
        line = json.loads(json.dumps(line))
        line[CHECKSUM] = _line_checksum(line)
        records.append(self._path, [line])
        self._kept[identity] = line
        self._write_count()


def _records(num: int, noun: str) -> str:
    return f"a {noun}" if num == 1 else f"{num} {noun}s"


def read_lines(path: pathlib.Path) -> Iterable[dict[str, Any] | None]:
    """Yields the objects of a file of JSON lines, None for a line that holds none.

    No file is no lines.
    """
    if not path.exists():
        return
    for text in path.read_bytes().split(b"\n"):
        if not text:
            continue
        try:
            line = parse_json(text)
        except ValueError:
            line = None
        yield line if isinstance(line, dict) else None
