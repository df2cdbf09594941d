"""Pieces that are kept: read back as written, and computed again where they are damaged."""

import json

import numpy as np
import pytest

from experiments.lab import kept
from experiments.lab.kept import Arrays, Lines, Unusable, digest, read_arrays, write_arrays

FLOATS = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_digest_depends_on_description_and_arrays():
    same = digest({"b": 1, "a": [2]}, [FLOATS])
    assert same == digest({"a": [2], "b": 1}, [FLOATS.copy()])
    assert same != digest({"a": [2], "b": 2}, [FLOATS])
    assert same != digest({"a": [2], "b": 1}, [FLOATS + 1])


def test_arrays_are_read_as_they_were_written(tmp_path):
    store = Arrays(tmp_path / "pieces")
    store.write("a", "one", x=FLOATS, names=np.array(["x", "yz"]), seconds=1.5)
    found = store.read("a", "one", ["x", "names", "seconds"])
    assert found is not None
    np.testing.assert_array_equal(found["x"], FLOATS)
    assert found["x"].dtype == np.float32
    assert found["names"].tolist() == ["x", "yz"]
    assert float(found["seconds"]) == 1.5
    assert store.read("b", "one") is None
    assert sorted(p.name for p in (tmp_path / "pieces").iterdir()) == ["a.npz"]


def flip(content: bytes) -> bytes:
    """One bit of the array's data flipped."""
    at = content.index(FLOATS.tobytes()) + 5
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda content: content[:200], "cannot be read"),
        (lambda content: b"", "cannot be read"),
        (lambda content: b"some text", "cannot be read"),
        (flip, "Bad CRC-32|checksum differs"),
    ],
    ids=["cut", "emptied", "foreign", "a bit flipped"],
)
def test_a_damaged_piece_is_named_and_computed_again(tmp_path, capsys, damage, why):
    store = Arrays(tmp_path)
    store.write("a", "one", x=FLOATS)
    store.write("b", "two", x=FLOATS)
    path = store.path("a")
    path.write_bytes(damage(path.read_bytes()))
    assert store.read("a", "one") is None
    assert store.read("b", "two") is not None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(str(path))
    assert line.endswith("; computed again")
    with pytest.raises(Unusable, match=why):
        read_arrays(path)


def test_the_checksum_is_over_contents_not_over_the_archive(tmp_path):
    """An archive that is whole, with another array under the same proof."""
    path = tmp_path / "a.npz"
    write_arrays(path, "one", x=FLOATS)
    with np.load(path) as held:
        arrays = {name: held[name] for name in held.files}
    with path.open("wb") as file:
        np.savez(file, **{**arrays, "x": FLOATS + 1})
    with pytest.raises(Unusable, match="checksum differs"):
        read_arrays(path)


def test_a_piece_of_something_else_is_computed_again(tmp_path, capsys):
    store = Arrays(tmp_path)
    store.write("a", "one", x=FLOATS)
    store.write("b", "two", x=FLOATS)
    store.path("b").replace(store.path("a"))
    assert store.read("a", "one") is None
    assert "holds another piece; computed again" in capsys.readouterr().err
    store.write("a", "one", x=FLOATS)
    assert store.read("a", "one", ["x", "y"]) is None
    assert "is of another version; computed again" in capsys.readouterr().err


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.savez(file, identity="one", checksum="x", y=np.array([{}], object))
    with pytest.raises(Unusable, match="cannot be read"):
        read_arrays(path)


def test_a_missing_file_is_unusable_and_without_proof_too(tmp_path):
    with pytest.raises(Unusable, match="is missing"):
        read_arrays(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=FLOATS)
    with pytest.raises(Unusable, match="cannot be read"):
        read_arrays(tmp_path / "b.npz")


def test_lines_are_kept_by_identity(tmp_path):
    path = tmp_path / "cells.jsonl"
    lines = Lines(path, ["a", "b"])
    assert "a" not in lines
    lines.write("a", {"mean": 0.5, "values": (1, 2)})
    lines.write("c", {"mean": 1.0})
    assert lines["a"] == {"mean": 0.5, "values": [1, 2]}
    again = Lines(path, ["a", "b"])
    assert again["a"] == {"mean": 0.5, "values": [1, 2]}
    assert "c" not in again
    assert [json.loads(t)["identity"] for t in path.read_text().splitlines()] == ["a"]


def test_lines_of_any_identity(tmp_path):
    path = tmp_path / "cells.jsonl"
    Lines(path, None).write("c", {"mean": 1.0})
    again = Lines(path, None)
    assert again["c"] == {"mean": 1.0}
    assert "a" not in again


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("0.5", "0.6"),
        lambda text: text[:20] + "\n",
        lambda text: "[1, 2]\n",
        lambda text: '{"identity": "a", "mean": 0.5}\n',
        lambda text: "\udcff\n",
    ],
    ids=["a number changed", "cut", "no object", "no checksum", "no text"],
)
def test_a_damaged_line_is_named_and_dropped(tmp_path, capsys, damage):
    path = tmp_path / "cells.jsonl"
    lines = Lines(path, ["a", "b"])
    lines.write("a", {"mean": 0.5})
    lines.write("b", {"mean": 0.7})
    first, second = path.read_text().splitlines(keepends=True)
    path.write_bytes((damage(first) + second).encode("utf-8", "surrogateescape"))
    again = Lines(path, ["a", "b"])
    assert "a" not in again
    assert again["b"] == {"mean": 0.7}
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{path} has a damaged record; computed again"
    Lines(path, ["a", "b"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        (lambda path: path.unlink(), "3 records"),
        (lambda path: path.write_text(""), "3 records"),
        (lambda path: path.write_text(path.read_text().split("\n")[0] + "\n"), "2 records"),
        (
            lambda path: path.write_bytes((path.parent / "other.jsonl").read_bytes()),
            "3 records",
        ),
    ],
    ids=["deleted", "emptied", "cut between lines", "another run's"],
)
def test_records_that_are_gone_are_said(tmp_path, capsys, change, gone):
    path = tmp_path / "cells.jsonl"
    assert "a" not in Lines(path, "abc")
    Lines(tmp_path / "other.jsonl", "xyzu").write("x", {"mean": 1.0})
    lines = Lines(path, "abc")
    for name in "abc":
        lines.write(name, {"mean": 0.5})
    assert all(name in Lines(path, "abc") for name in "abc")
    assert capsys.readouterr().err == ""
    change(path)
    again = Lines(path, "abc")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{path} lacks {gone} of this run; computed again"
    for name in "abc":
        again.write(name, {"mean": 0.5})
    Lines(path, "abc")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("count", ["", "x", "\udcff", "1"])
def test_a_damaged_count_loses_nothing(tmp_path, capsys, count):
    path = tmp_path / "cells.jsonl"
    lines = Lines(path, "ab")
    lines.write("a", {"mean": 0.5})
    lines.write("b", {"mean": 0.6})
    (hidden,) = (p for p in tmp_path.iterdir() if p != path)
    hidden.write_bytes(count.encode("utf-8", "surrogateescape"))
    again = Lines(path, "ab")
    assert [again[name]["mean"] for name in "ab"] == [0.5, 0.6]
    assert hidden.read_text() == "2\n"
    assert capsys.readouterr().err == ""


def test_a_killed_write_leaves_the_old_piece(tmp_path, monkeypatch):
    store = Arrays(tmp_path)
    store.write("a", "one", x=FLOATS)

    def killed(*args, **arrays):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(kept.np, "savez", killed)
        with pytest.raises(KeyboardInterrupt):
            store.write("a", "two", x=FLOATS)
    assert store.read("a", "one") is not None
