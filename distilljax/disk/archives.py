"""Reading of zip archives (.npz, PyTorch's .pt) that may be damaged or hostile.

What an archive says it unfolds to is compared with a bound before anything is read, and
arrays are made from bytes alone: nothing is executed, no pickle is opened here.
"""

import contextlib
import io
import math
import pathlib
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np

from distilljax import memory
from distilljax.types import InputError

LIMIT = 4 << 30  # bytes unfolded; the matrices of a ZCA of 64 x 64 x 3 pixels are 1.2 GB

_UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def opened(
    path: pathlib.Path,
    what: str,
    advice: str = "it may be truncated, or made by another program",
) -> Iterator[zipfile.ZipFile]:
    """Gives the archive; all that goes wrong while it is read is an `InputError`.

    Args:
      path: of the file.
      what: the file should be, for messages: 'distilled set'.
      advice: what to do about a file that is none.
    """

    def unreadable(why: object) -> InputError:
        return InputError(f"{path}: not a readable {what} ({why}); {advice}")

    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                raise unreadable("it is no zip archive")
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                yield archive
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; name the file in it") from None
    except InputError as error:
        text = str(error)
        raise InputError(
            text if text.startswith(str(path)) else f"{path}: {text}"
        ) from None
    except _UNREADABLE as error:
        raise unreadable(str(error) or type(error).__name__) from None


def members(
    archive: zipfile.ZipFile, names: Iterable[str], limit: int = LIMIT
) -> dict[str, bytes]:
    """Returns the bytes of the named members.

    Raises:
      InputError: together they unfold to more than `limit` bytes, or than the machine has.
      KeyError: a member that is not there.
    """
    infos = [archive.getinfo(name) for name in names]
    size = sum(info.file_size for info in infos)
    if size > limit:
        raise InputError(
            f"it unfolds to {size} bytes, and at most {limit} are read; it may be made to "
            "exhaust memory"
        )
    memory.require(size, "what it unfolds to", "it may be made to exhaust memory")
    return {info.filename: archive.read(info) for info in infos}


def array(name: str, data: bytes) -> np.ndarray:
    """Returns the array of an .npy member; real numbers or text, never objects.

    Raises:
      InputError: another kind of value, or a header that does not fit the bytes.
    """
    file = io.BytesIO(data)
    shape, fortran, dtype = _header(name, file)
    if dtype.hasobject:
        raise InputError(f"{name} holds pickled objects, which could run code when read")
    if dtype.kind not in "fiubU":
        raise InputError(f"{name} holds {dtype}, no real numbers")
    rest = data[file.tell() :]
    if len(rest) != math.prod(shape) * dtype.itemsize:
        raise InputError(f"{name} has {len(rest)} bytes for {dtype}{list(shape)}")
    if not rest:
        return np.zeros(shape, dtype)
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")


def _header(name: str, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns shape, order and type as an .npy file states them."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise ValueError(f"version {version} is not read")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a header written by Python 2
            return readers[version](file)
    except Exception as error:  # NumPy parses Python source, which fails in many ways
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"{name} is no .npy array ({first[:100]})") from None


def npz_names(archive: zipfile.ZipFile) -> list[str]:
    """Returns the names of the arrays of an .npz archive."""
    return [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]


def npz_arrays(
    archive: zipfile.ZipFile, names: Iterable[str], limit: int = LIMIT
) -> dict[str, np.ndarray]:
    """Returns the named arrays of an .npz archive, and reads no other; see `members`."""
    held = members(archive, [f"{name}.npy" for name in names], limit)
    return {
        name.removesuffix(".npy"): array(name.removesuffix(".npy"), data)
        for name, data in held.items()
    }
