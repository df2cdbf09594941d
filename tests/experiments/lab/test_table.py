"""Tables of cells: what is computed and kept, what progress says; nothing is trained."""

import contextlib
import io
from typing import NamedTuple

import numpy as np
import pytest

from distilljax.analysis.statistics import spread_interval
from distilljax.config import FieldError
from distilljax.io import records
from distilljax.training.evaluation import EvaluationProtocol
from experiments.lab.kept import digest
from experiments.lab.networks import parse_architectures, scaled_network
from experiments.lab.progress import CellProgress
from experiments.lab.table import CellTable, training_cost


class Cell(NamedTuple):
    identity: str
    kind: str = "small"

    @property
    def title(self):
        return f"cell {self.identity}"


A, B, C = Cell("a"), Cell("b"), Cell("c", "large")


def table(path, *wanted):
    return CellTable(path / "cells.jsonl", wanted, "network", 2)


def compute(filled):
    """Computes what is missing; returns what that was."""
    for cell in filled.missing:
        filled.progress.trained(cell, 2, 1.0)
        filled.finish(cell, {"mean": 1.0, "seconds": 2.5}, "well")
    return list(filled.missing)


def test_a_cell_that_was_finished_is_not_computed_again(tmp_path, capsys):
    assert compute(table(tmp_path, A, B)) == [A, B]
    again = table(tmp_path, A, B, C)
    assert compute(again) == [C]
    assert "2 of 3 cells were finished before, in " in capsys.readouterr().out
    assert again.record(A) == {"mean": 1.0, "seconds": 2.5}
    assert again.seconds() == 7.5
    assert compute(table(tmp_path, A, B, C)) == []


def test_a_torn_line_and_what_is_not_asked_for_are_left_out(tmp_path):
    compute(table(tmp_path, A, B, C))
    path = tmp_path / "cells.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:15])
    cut = table(tmp_path, B, C)
    assert [line["identity"] for line in records.read(path)] == ["b"]
    assert compute(cut) == [C]
    assert [line["identity"] for line in records.read(path)] == ["b", "c"]


def test_equal_cells_are_computed_once(tmp_path):
    twice = table(tmp_path, A, Cell("a", "large"), B)
    assert compute(twice) == [A, B]
    assert twice.seconds() == 7.5


def test_a_new_table_says_nothing_before_it_begins(tmp_path, capsys):
    table(tmp_path, A)
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "cells.jsonl").exists()


def test_time_left_goes_by_the_last_of_a_kind_and_by_weight():
    weights = {"small": 10.0, "large": 40.0}
    progress = CellProgress([A, B, C], "network", [2, 3, 5], weights=weights)
    progress.trained(A, 1, 9.0)
    progress.trained(A, 1, 2.0)
    assert progress.seconds_left() == 3 * 2.0 + 5 * 2.0 * 4
    progress.trained(C, 2, 14.0)
    assert progress.seconds_left() == 3 * 2.0 + 3 * 7.0
    even = CellProgress([A, C], "network", 2)
    even.trained(C, 1, 3.0)
    assert even.seconds_left() == 3.0 + 2 * 3.0


def test_lines_come_after_silence_and_after_a_cell(monkeypatch):
    clock = iter([0.0, 5.0, 11.0, 11.0, 12.0, 30.0, 30.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        progress = CellProgress([A, C], "epoch", [3, 1], noun="run")
        progress.trained(A, 1, 90.0)
        progress.trained(A, 1, 60.0, "loss 2")
        progress.trained(A, 1, 60.0, "unheard, for the cell is whole")
        progress.finished(A, "loss 1")
    assert err.getvalue().splitlines() == [
        "run 0/2  epoch 2/4  60 s/epoch  about 2m00s left  cell a: loss 2",
        "run 1/2  epoch 3/4  60 s/epoch  about 1m00s left  cell a: loss 1",
    ]


def test_an_identity_hangs_on_all_that_is_given():
    arrays = [np.arange(3.0), np.zeros(2)]
    found = {
        digest({"a": 1, "b": 2}, arrays),
        digest({"a": 1, "b": 3}, arrays),
        digest({"a": 1, "b": 2}, [np.arange(3.0), np.ones(2)]),
        digest({"a": 1, "b": 2}),
    }
    assert len(found) == 4
    assert digest({"b": 2, "a": 1}, arrays) in found


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (EvaluationProtocol(steps=300), 300 * 100 + 20),
        (EvaluationProtocol(steps=None, epochs=3, batch=30), 3 * 4 * 25 + 20),
    ],
)
def test_what_a_network_costs(protocol, expected):
    assert training_cost(100, protocol, 60) == expected


def test_interval_of_a_mean():
    """Tables of Student's t: 12.706 with one degree of freedom, 2.776 with four."""
    two = spread_interval([0.2, 0.4])
    assert two["mean"] == pytest.approx(0.3)
    np.testing.assert_allclose(two["interval"], [0.3 - 1.2706, 0.3 + 1.2706], atol=1e-4)
    five = spread_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776 * 2.5**0.5 / 5**0.5
    np.testing.assert_allclose(five["interval"], [3 - half, 3 + half], atol=1e-3)
    assert (five["seeds"], five["std"]) == (5, pytest.approx(2.5**0.5))


def test_architectures_by_name():
    assert parse_architectures("own, mlp") == ["own", "mlp"]
    with pytest.raises(FieldError, match="nets='own': unknown architecture 'own'"):
        parse_architectures("own", "nets", own=False)
    network = scaled_network("resnet34", 0.25)
    assert network.described()["width"] == 16
    assert network.described()["depth"] == 34
    assert scaled_network("convnet16", 1e-3).config.width == 1
