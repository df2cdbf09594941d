"""The command `distilljax NAME`, as the wheel starts it."""

import importlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from distilljax import commands, flags

ROOT = pathlib.Path(__file__).parents[1]


def start(place, *words):
    return subprocess.run(
        [sys.executable, "-c", "from distilljax.commands import main; main()", *words],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def shadow(tmp_path):
    """A working directory with a package `experiments` that ends the program."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise SystemExit('shadowed')")
    return tmp_path


def test_every_folder_with_a_command_is_listed(capsys):
    place = commands.folder()
    assert place == ROOT / "experiments"
    assert {"compare", "distill", "study"} < set(commands.names(place))
    commands.main(["--help"])
    shown = capsys.readouterr().out
    assert "  compare              Compare finished runs:" in shown
    assert '"""' not in shown


def test_a_folder_called_experiments_shadows_nothing(shadow):
    done = start(shadow, "distill", "--help", "--method=dm")
    assert done.returncode == 0, done.stderr
    assert "usage: distilljax distill [--option=value ...]" in done.stdout
    assert "--dm.image_lr" in done.stdout
    assert "--bptt.unroll" not in done.stdout


CHOICES = {
    "method": ["gm", "dm", "tm", "kernel"],
    "model": ["mlp", "resnet", "alexnet", "vgg"],
    "parametrisation": ["memory", "multi_formation"],
}


@pytest.mark.parametrize("name", commands.names(ROOT / "experiments"))
def test_the_help_of_a_command_is_a_page_to_read(name, monkeypatch, capsys):
    """About 110 lines at the most; `--helpfull` has all."""
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, getattr(sys, stream))
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    monkeypatch.setenv("COLUMNS", "100")
    run = importlib.import_module(f"experiments.{name}.run")
    lengths = {}
    for choice in [
        "",
        *(f"--{n}={v}" for n, values in CHOICES.items() for v in values),
    ]:
        run.main(["--help", choice])
        lengths[choice] = len(capsys.readouterr().out.splitlines())
        if name != "distill":
            break
    assert max(lengths.values()) <= 112, lengths


def test_commands_that_are_not_there(capsys):
    with pytest.raises(SystemExit):
        commands.main(["distil"])
    assert "there is no command 'distil'; did you mean distill?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        commands.main(["xyz"])
    assert "there is no command 'xyz'; there are agreement, " in capsys.readouterr().err


def test_commands_are_told_as_they_were_typed(monkeypatch):
    assert flags.program("experiments.study") == ["python", "-m", "experiments.study"]
    assert flags.process("experiments.study") == ["-m", "experiments.study"]
    monkeypatch.setattr(flags, "by_command", True)
    assert flags.program("experiments.study") == ["distilljax", "study"]
    assert flags.process("experiments.study") == ["-P", "-m", "distilljax", "study"]
    assert flags.program("benchmarks.x") == ["python", "-m", "benchmarks.x"]
