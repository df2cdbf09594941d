"""Replacing a file: the old one or the new one, whole."""

import json

import pytest

from distilljax.disk.files import parse_json, replacing, write_json


def test_the_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "set.npz"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path  # one file system, so the rename is atomic
        assert temporary.suffix == ".npz"
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "config.json"
    path.write_text("old")

    def write_half():
        with replacing(str(path)) as temporary:
            temporary.write_text("half of the n")
            assert path.read_text() == "old"
            raise error("the disk is full")

    with pytest.raises(error, match="disk is full"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json(tmp_path):
    path, value = tmp_path / "config.json", {"a": [1, None, 0.1], "é": {"b": "ü\n"}}
    write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == value
    assert path.read_text(encoding="utf-8").endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1j}])
def test_what_is_not_json_is_refused_and_the_old_file_stays(tmp_path, value):
    path = tmp_path / "config.json"
    write_json(path, {"a": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"a": value})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, b"NaN", b'{"a": Infinity}', b'"\\ud800"', b"\xff", b"", b"{} x"],
)
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(text)


def test_characters_of_two_halves_are_read():
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"
