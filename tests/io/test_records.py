"""Records: what is appended is read, whatever a kill left at the end."""

import json
import math

import pytest

from distilljax.io import records
from distilljax.types import InputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def rows(*steps):
    return [{"step": step, "loss": 1 / step} for step in steps]


def test_appended_records_are_read_in_order(path):
    records.append(path, rows(1, 2))
    records.append(path, [])
    records.append(path, iter(rows(3)))
    assert records.read(path) == rows(1, 2, 3)
    assert path.read_text().count("\n") == 3


def test_values_come_back_to_the_bit(path):
    row = {"step": 1, "a": 0.1 + 0.2, "b": 5e-324, "c": True, "d": None, "e": "é\n\u2028"}
    records.append(path, [row])
    assert records.read(path) == [row]
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize("line", ["{", "[1]", "NaN", '{"step": 1} 2', "\udcff"])
def test_a_damaged_line_before_the_last_is_refused(path, line):
    records.append(path, rows(1))
    damaged = line.encode("utf-8", "surrogateescape") + b"\n"
    path.write_bytes(path.read_bytes() + damaged)
    records.append(path, rows(2))
    with pytest.raises(InputError, match=r"has a damaged line .*; delete it, or choose"):
        records.read(path)


def test_no_file_is_no_records(path):
    assert records.read(path) == []
    records.keep_until(path, 5)
    assert records.read(path) == []


def test_numbers_that_are_not_finite_become_null(path):
    records.append(
        path, [{"step": 1, "a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.0}]
    )
    assert records.read(path) == [{"step": 1, "a": None, "b": None, "c": None, "d": 0.0}]

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads(path.read_text(), parse_constant=refuse)


def test_numbers_within_a_value_must_be_finite(path):
    with pytest.raises(ValueError, match="JSON compliant"):
        records.append(path, [{"step": 1, "rates": [0.5, math.nan]}])
    assert records.read(path) == []


def test_a_torn_last_line_is_left_out(path):
    records.append(path, rows(1, 2))
    whole = path.read_text()
    records.append(path, rows(3))
    text = path.read_text()
    for end in range(len(whole), len(text)):
        path.write_text(text[:end])
        assert records.read(path) == rows(1, 2)
    path.write_text(text)
    assert records.read(path) == rows(1, 2, 3)


@pytest.mark.parametrize(
    ("step", "kept"), [(0, ()), (2, (1, 2)), (3, (1, 2, 3)), (9, (1, 2, 3))]
)
def test_keep_until(path, step, kept):
    records.append(path, rows(1, 2, 3))
    records.keep_until(path, step)
    assert records.read(path) == rows(*kept)
    assert list(path.parent.iterdir()) == [path]


def test_a_resumed_run_goes_on_after_a_torn_line(path):
    """The torn line is dropped from the file, so that the next one starts fresh."""
    records.append(path, [{"step": 1, "loss": math.nan}, *rows(2, 3)])
    path.write_text(path.read_text()[:-4])
    records.keep_until(path, 2)
    records.append(path, rows(3, 4))
    assert records.read(path) == [{"step": 1, "loss": None}, *rows(2, 3, 4)]


def test_no_file_stays_no_file(path):
    assert records.keep_until(path, 3) == 3
    assert not path.exists()


def test_records_of_a_step_are_told_apart_by_further_fields(path):
    rows = [{"step": s, "expert": e} for s in range(3) for e in (1, 0)]
    records.append(path, [*rows, rows[-1]])
    assert records.keep_until(path, 1, by=("step", "expert")) == 0
    assert records.read(path) == rows[:4]
    assert records.keep_until(path, 2, by=("step", "expert")) == 1
    assert records.keep_until(path, 1) == 0
    assert records.read(path) == [rows[1], rows[3]]


def test_keep_until_that_fails_leaves_the_file(path):
    records.append(path, [*rows(1, 2), {"loss": 1.0}])
    before = path.read_text()
    with pytest.raises(InputError, match="a record that is not of a step"):
        records.keep_until(path, 1)
    assert path.read_text() == before
