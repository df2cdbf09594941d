"""Archives of strangers: nothing is taken that is no plain array, and no more than fits."""

import io
import struct
import zipfile

import numpy as np
import pytest

from distilljax import memory
from distilljax.disk import archives
from distilljax.types import InputError

FORM = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"
HEADERS = {
    "a huge shape": FORM % ("<f4", "(1000000000000, 8, 8, 1)"),
    "beyond 64 bits": FORM % ("<f4", "(99999999999999999999999,)"),
    "negative": FORM % ("<f4", "(-1,)"),
    "cut Python": "{",
    "deep": "-" * 5000 + "1",
    "brackets": "(" * 3000,
    "no shape": FORM % ("<f4", "(1.5,)"),
    "no mapping": "[1, 2]",
    "objects inside": "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (2,), }",
}


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + b"1234"


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_hostile_headers_are_refused(header):
    with pytest.raises(InputError, match=r"^images "):
        archives.array("images", npy(header))


@pytest.mark.parametrize("data", [b"", b"no array", b"\x93NUMPY\x07\x00"])
def test_other_bytes_are_refused(data):
    with pytest.raises(InputError, match=r"images is no \.npy array"):
        archives.array("images", data)


@pytest.mark.parametrize("dtype", ["c8", "S4", "M8[s]", "V4"])
def test_other_values_are_refused(dtype):
    file = io.BytesIO()
    np.save(file, np.zeros(3, dtype))
    with pytest.raises(InputError, match="no real numbers"):
        archives.array("images", file.getvalue())


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_does(order):
    values = np.asarray(np.arange(24, dtype=">f4").reshape(2, 3, 4), order=order)
    file = io.BytesIO()
    np.save(file, values)
    found = archives.array("images", file.getvalue())
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype


def test_what_unfolds_beyond_the_memory_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", bytes(1 << 20))
        archive.writestr("more.npy", b"")
    monkeypatch.setattr(memory, "available", lambda: 1 << 19)
    with (
        pytest.raises(InputError, match=r"bomb\.npz: what it unfolds to needs 1\.0 MiB"),
        archives.opened(path, "set") as archive,
    ):
        archives.npz_arrays(archive, ["images"])
    with archives.opened(path, "set") as archive:
        assert archives.members(archive, ["more.npy"]) == {"more.npy": b""}
