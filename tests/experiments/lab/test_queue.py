"""The ledger of a queue."""

from distilljax.io import records
from experiments.lab.jobs import Spent
from experiments.lab.queue import Ledger, steps_of
from tests.experiments.study import fake_study

LINE = {
    "step": "a",
    "finished": True,
    "identity": "0" * 64,
    "command": "python -m a",
    "seconds": 1.5,
}


def test_damaged_lines_are_said_and_left_out(tmp_path, capsys):
    path = tmp_path / "study.jsonl"
    records.append(path, [LINE, {**LINE, "step": "b", "seconds": "x"}, {"step": "c"}])
    with path.open("ab") as file:
        file.write(b"\xff\n[]\n" + b"[" * 100_000 + b"\n")
    assert Ledger(path).lines == {"a": LINE}
    assert "has 5 damaged lines; those steps are tried again" in capsys.readouterr().err
    assert records.read(path) == [LINE]
    assert Ledger(path).lines == {"a": LINE}
    assert not capsys.readouterr().err


def test_no_ledger_is_an_empty_one(tmp_path):
    assert Ledger(tmp_path / "study.jsonl").lines == {}


def test_the_starts_of_a_step_add_up(tmp_path):
    step = fake_study.steps(tmp_path)[0]
    ledger = Ledger(tmp_path / "study.jsonl")
    ledger.add(step, Spent(10.0, 8.0), finished=False)
    ledger.add(step, Spent(5.0, 4.0), finished=True)
    held = steps_of(tmp_path / "study.jsonl")[step.name]
    assert (held["seconds"], held["cpu_seconds"], held["finished"]) == (15.0, 12.0, True)
