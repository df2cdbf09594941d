"""The ledger of a queue."""

from distilljax.io import records
from experiments.lab.jobs import Spent
from experiments.lab.queue import Ledger, ledger_lines
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
    held = ledger_lines(tmp_path / "study.jsonl")[step.name]
    assert (held["seconds"], held["cpu_seconds"], held["finished"]) == (15.0, 12.0, True)


def test_what_was_not_measured_is_not_counted(tmp_path):
    """A line of an earlier version has no CPU seconds, nor has what adds to it."""
    step = fake_study.steps(tmp_path)[0]
    before = LINE | {"step": step.name, "finished": False, "identity": step.identity()}
    records.append(tmp_path / "study.jsonl", [before])
    Ledger(tmp_path / "study.jsonl").add(step, Spent(5.0, 4.0), finished=True)
    held = ledger_lines(tmp_path / "study.jsonl")[step.name]
    assert held["seconds"] == 6.5
    assert "cpu_seconds" not in held
