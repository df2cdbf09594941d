"""The queue of published rows: its commands, and what the table says of each state."""

import json
import math

import pytest

from distilljax import io, launch
from distilljax.config import FieldError
from distilljax.types import InputError
from experiments.distill import presets
from experiments.distill.options import Config as DistillConfig
from experiments.lab.queue import ledger_lines
from experiments.reproduce import run as reproduce
from experiments.reproduce.rows import ROWS
from experiments.reproduce.table import EXPERIMENTS, entry, is_finished, verdict
from experiments.train_experts.run import Config as ExpertsConfig
from tests.experiments.helpers import write

ROW = ROWS[0]


def config(root, *argv):
    return launch.parse(reproduce.Config, [f"--workdir={root}", *argv])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_command_is_one_with_the_published_settings(row, tmp_path):
    *experts, last = reproduce.steps_of(row, tmp_path, "DIR")
    given = launch.parse(DistillConfig, last.argv(), presets=presets.PRESETS)
    assert (given.dataset, given.ipc, given.steps) == (row.dataset, row.ipc, row.steps)
    assert given.chosen("model")[1].to_dict()["width"] == 128
    assert given.chosen("method")[0] == row.method
    assert given.data_dir == "DIR"
    assert len(experts) == (row.method == "tm")
    for step in experts:
        made = launch.parse(ExpertsConfig, step.argv())
        assert made.preprocess == given.preprocess
        assert made.chosen("model") == given.chosen("model")
        assert last.needs == (step.name,)
        assert step.output.parent == tmp_path / f"{row.name}_experts"


def test_names_are_their_own():
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_a_row_is_within_two_standard_deviations_of_both():
    row = ROW._replace(published=0.5, published_std=0.03)
    spread = math.hypot(0.03, 0.04)
    assert verdict(row, 0.5 - 2 * spread + 1e-9, 0.04) == "within"
    assert verdict(row, 0.5 - 2 * spread - 1e-9, 0.04) == "below"
    assert verdict(row, 0.9, None) == "within"
    assert verdict(row._replace(published_std=None), 0.4999, 0.0) == "below"


def test_a_large_spread_ends_no_row_early():
    row = ROW._replace(published=0.5, published_std=0.03)
    assert verdict(row, 0.47 + 1e-9, 0.04, early=True) == "within"
    assert verdict(row, 0.47 - 1e-9, 0.04, early=True) == "not finished"
    assert verdict(row._replace(published_std=None), 0.5, None, early=True) == "within"


def summary(row, mean=0.9, steps=None, protocol=None):
    values = {"mean": mean, "std": 0.01, "seeds": 5, "values": [mean] * 5}
    return {
        "accuracy": {"distilled": values, "random": {**values, "mean": 0.3}},
        "protocol": {"name": protocol or row.protocol},
        "held_out_accuracy": 0.91,
        "steps": steps or row.steps,
        "seconds": {"total": 7200.0},
    }


def leave(root, row, **files):
    folder = root / row.name
    folder.mkdir(parents=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def test_a_finished_row_is_judged(tmp_path):
    leave(tmp_path, ROW, summary=summary(ROW, 0.912), config={"command": "the command"})
    found = entry(ROW, tmp_path, "abc", 2.0)
    assert found["verdict"] == "within"
    assert (found["mean"], found["networks"], found["random"]) == (0.912, 5, 0.3)
    assert (found["cpu_hours"], found["steps"]) == (2.0, 1000)
    assert (found["command"], found["commit"]) == ("the command", "abc")
    low = tmp_path / "low"
    leave(low, ROW, summary=summary(ROW, 0.8), config={})
    assert entry(ROW, low, None)["verdict"] == "below"


def test_a_finished_row_says_how_it_differs(tmp_path):
    """Rows of grey images, whose network is not padded as the published one."""
    for row in ROWS:
        assert bool(row.note) == (row.dataset in ("mnist", "fashion_mnist"))
    leave(tmp_path, ROW, summary=summary(ROW, 0.912), config={})
    assert entry(ROW, tmp_path, None)["reason"] == "network pads by 1, not 3"
    held = json.loads((EXPERIMENTS / "results/reproduction/rows.json").read_text())
    for one, row in zip(held, ROWS, strict=True):
        assert one["name"] == row.name
        if one["verdict"] == "within" and one["steps"] == row.steps:
            assert one["reason"] == row.note


@pytest.mark.parametrize(
    ("mean", "expected"), [(0.8, "not finished"), (ROW.published, "within")]
)
def test_a_short_run_is_judged_where_it_reaches_the_number(tmp_path, mean, expected):
    leave(tmp_path, ROW, summary=summary(ROW, mean, steps=100), config={})
    found = entry(ROW, tmp_path, None)
    assert found["verdict"] == expected
    assert found["reason"] == "100 of 1,000 outer steps"
    assert not is_finished(ROW, tmp_path)


def test_a_row_that_runs_says_how_far_it_is(tmp_path, dataset):
    folder = leave(tmp_path, ROW, config={"command": "x"})
    assert entry(ROW, tmp_path, None)["reason"] == "not begun"
    lines = [{"step": step, "loss": 1.0} for step in range(1, 1201)]
    io.records.append(folder / "metrics.jsonl", lines)
    assert entry(ROW, tmp_path, None)["reason"] == "1,200 outer steps"
    notes = {"best_step": 1000, "held_out_accuracy": 0.5}
    write(folder / "so_far.npz", dataset, notes=notes)
    found = entry(ROW, tmp_path, None)
    assert found["held_out"] == 0.5
    assert "so_far.npz" in found["reason"]


def test_rows_distilled_before_are_shown_and_not_run_again(tmp_path, capsys):
    found = reproduce.run(
        config(tmp_path, "--list", "--rows=cifar10_dc_ipc1,cifar10_rat_ipc1")
    )
    assert [one["verdict"] for one in found] == ["within", "not finished"]
    assert "28.2 ± 0.5" in capsys.readouterr().out
    assert reproduce.run(config(tmp_path, "--plan", "--rows=cifar10_dc_ipc1")) == []
    assert "experiments.distill" not in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_queue_runs_and_writes_its_table(tmp_path, monkeypatch):
    """The steps only count; one fails."""
    from tests.experiments.study import fake_study

    monkeypatch.setattr(reproduce.os, "nice", lambda _: 0)
    steps = fake_study.steps(tmp_path)
    monkeypatch.setattr(reproduce, "steps_of", lambda *_: iter(steps))
    made = reproduce.run(config(tmp_path, "--rows=cifar10_rat_ipc10"))
    held = json.loads((tmp_path / "rows.json").read_text())
    assert held == made
    assert held[0]["reason"] == "not begun"
    took = ledger_lines(tmp_path / reproduce.LEDGER)
    assert took.keys() == {"a", "b", "c"}
    assert all(line["cpu_seconds"] > 0 for line in took.values())
    assert held[0]["cpu_hours"] is None  # of other steps
    failing = fake_study.steps(tmp_path / "again", failing="c")
    monkeypatch.setattr(reproduce, "steps_of", lambda *_: iter(failing))
    with pytest.raises(InputError, match=r"rows failed: c \(exit code 1\)"):
        reproduce.run(config(tmp_path / "again", "--rows=cifar10_rat_ipc10"))
    assert (tmp_path / "again" / "rows.json").exists()


def test_unknown_rows_are_refused(tmp_path):
    with pytest.raises(FieldError, match="unknown row 'cifar'; choose among mnist_dc_ipc1"):
        reproduce.run(config(tmp_path, "--rows=cifar"))


def begin(root):
    """Leaves step a of the fake study in its second unit of three, and what it took."""
    from tests.experiments.study import fake_study

    step = fake_study.steps(root)[0]
    folder = root / "a"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "units.txt").write_text("first\nsecond\n")
    took = {"seconds": 50.0, "cpu_seconds": 40.0}
    line = {"step": "a", "finished": False, "identity": step.identity(), "command": "x"}
    io.records.append(root / reproduce.LEDGER, [{**line, **took}])


def test_a_row_begun_elsewhere_goes_on(tmp_path, monkeypatch, capsys):
    from tests.experiments.study import fake_study

    monkeypatch.setattr(reproduce.os, "nice", lambda _: 0)
    here, begun = tmp_path / "here", tmp_path / "begun"
    begin(begun)
    monkeypatch.setattr(reproduce, "steps_of", lambda *_: iter(fake_study.steps(here)))
    argv = ("--rows=cifar10_rat_ipc10", f"--begun={begun}")
    reproduce.run(config(here, *argv))
    assert f"a goes on from its folder in {begun}" in capsys.readouterr().out
    assert (here / "a" / "units.txt").read_text().split() == ["first", "second", "2"]
    assert (here / "b" / "units.txt").read_text().split() == ["0", "1", "2"]
    took = ledger_lines(here / reproduce.LEDGER)["a"]
    assert took["finished"]
    assert 40 < took["cpu_seconds"] < 90
    assert (begun / "a" / "units.txt").read_text().split() == ["first", "second"]
    (begun / "a" / "units.txt").write_text("other\n")
    reproduce.run(config(here, *argv))
    assert "goes on from" not in capsys.readouterr().out
    assert (here / "a" / "units.txt").read_text().split() == ["first", "second", "2"]


def test_plan_and_list_know_of_rows_begun_elsewhere(tmp_path, capsys):
    here, begun = tmp_path / "here", tmp_path / "begun"
    folder = begun / "cifar10_rat_ipc1"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"command": "x"}')
    io.records.append(folder / "metrics.jsonl", [{"step": 7, "loss": 1.0}])
    line = {"step": "cifar10_rat_ipc1", "finished": False, "identity": "", "command": "x"}
    took = {"seconds": 50.0, "cpu_seconds": 7200.0}
    io.records.append(begun / reproduce.LEDGER, [{**line, **took}])
    argv = ("--rows=cifar10_rat_ipc1,cifar10_rat_ipc10", f"--begun={begun}")
    [first, second] = reproduce.run(config(here, *argv, "--list"))
    assert (first["steps"], first["cpu_hours"]) == (7, 2.0)
    assert (second["steps"], second["cpu_hours"]) == (0, None)
    assert reproduce.run(config(here, *argv, "--plan")) == []
    assert f"cifar10_rat_ipc1 goes on from its folder in {begun}" in capsys.readouterr().out
    (here / "cifar10_rat_ipc1").mkdir(parents=True)
    [first, _] = reproduce.run(config(here, *argv, "--list"))
    assert first["steps"] == 0
    assert not (here / reproduce.LEDGER).exists()


@pytest.mark.parametrize("also", [(), ("--list",), ("--plan",)])
def test_a_folder_that_holds_none_of_the_rows_is_refused(tmp_path, monkeypatch, also):
    monkeypatch.setattr(reproduce.os, "nice", lambda _: 0)
    argv = ("--rows=cifar10_rat_ipc1", f"--begun={tmp_path / 'nothing'}", *also)
    with pytest.raises(InputError, match="has no folder of cifar10_rat_ipc1; name the"):
        reproduce.run(config(tmp_path / "here", *argv))
    assert not (tmp_path / "here" / "cifar10_rat_ipc1").exists()


def test_a_folder_that_cannot_be_copied_is_told(tmp_path, monkeypatch):
    from tests.experiments.study import fake_study

    monkeypatch.setattr(reproduce.os, "nice", lambda _: 0)
    here, begun = tmp_path / "here", tmp_path / "begun"
    begin(begun)
    (begun / "a" / "metrics.jsonl").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(reproduce, "steps_of", lambda *_: iter(fake_study.steps(here)))
    with pytest.raises(InputError, match="cannot copy"):
        reproduce.run(config(here, "--rows=cifar10_rat_ipc10", f"--begun={begun}"))
    assert not (here / "a").exists()
