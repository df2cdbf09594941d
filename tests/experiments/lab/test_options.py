"""Options that name files."""

import pytest

from distilljax.config import FieldError
from experiments.lab.options import expand, parse_integers, parse_paths


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_home_folder(home):
    assert expand("~/a.npz") == f"{home}/a.npz"
    assert expand("a~b") == "a~b"
    assert parse_paths("~/a.npz, b.npz", "artefacts") == [f"{home}/a.npz", "b.npz"]


def test_a_comma_may_be_part_of_a_file_that_is_there(home):
    (home / "a,b").mkdir()
    for name in ("a,b/set.npz", "c.npz"):
        (home / name).touch()
    text = f"{home}/c.npz,{home}/a,b/set.npz,{home}/gone.npz"
    found = [f"{home}/c.npz", f"{home}/a,b/set.npz", f"{home}/gone.npz"]
    assert parse_paths(text, "artefacts") == found


def test_none_and_twice(home):
    assert parse_paths("", "artefacts") == []
    assert parse_paths(" , ", "artefacts") == []
    with pytest.raises(FieldError, match="is named twice"):
        parse_paths("~/a.npz,~/a.npz", "artefacts")


@pytest.mark.parametrize("text", ["", "x", "0", "1,1", "2147483648", "1" * 5000])
def test_other_integers_are_refused(text):
    with pytest.raises(FieldError, match="expected different integers from 1"):
        parse_integers(text, "ipcs", low=1, example="1,10")
    assert parse_integers("10, 2147483647", "ipcs", low=1, example="") == [10, 2**31 - 1]
