"""`experiments.distill --tensorboard --hook=...`."""

import sys

import numpy as np
import pytest

from distilljax import io, launch
from distilljax.config import FieldError
from distilljax.io import records
from distilljax.types import InputError
from experiments.distill import run as distill_run
from experiments.distill.watch import BOARD
from experiments.lab.workdir import command_of, identity_of
from tests.experiments.distill.test_run import BPTT, config
from tests.watching.test_watching import told_by

HOOK = """
from distilljax import Stop

told = []


def log(step, metrics, images):
    told.append((step, metrics, images))


def fails(step, metrics, images):
    if step == 7:
        raise RuntimeError("no network")


def ends(step, metrics, images):
    if step == 5:
        raise Stop
"""


@pytest.fixture
def hook_module(tmp_path, monkeypatch):
    """A module `watched_by` in the working directory."""
    (tmp_path / "watched_by.py").write_text(HOOK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "watched_by", raising=False)


def test_who_watches_is_no_setting_of_the_run():
    plain = launch.parse(distill_run.Config, [])
    watched = launch.parse(distill_run.Config, ["--tensorboard", "--hook=a.b:c"])
    assert identity_of(watched) == identity_of(plain)
    assert command_of("experiments.distill", watched) == "python -m experiments.distill"


def test_a_hook_is_looked_up_before_anything_else(tmp_path, hook_module):
    for name in ("watched_by:gone", "gone:f"):
        asked = config("no_such_data", tmp_path / "run", f"--hook={name}")
        with pytest.raises(FieldError, match=f"hook='{name}': .*gone"):
            distill_run.run(asked)
        with pytest.raises(FieldError, match="gone"):
            distill_run.run_several({"seed0": asked})
    assert not (tmp_path / "run").exists()


def test_without_the_package_for_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "distilljax.watching.events.importlib.util.find_spec", lambda n: None
    )
    with pytest.raises(FieldError, match="need tensorboardX: pip install tensorboardX"):
        distill_run.run(config("no_such_data", tmp_path / "run", "--tensorboard"))


@pytest.mark.slow
def test_a_watched_run_that_is_cut_by_its_hook(dataset, tmp_path, hook_module):
    pytest.importorskip("tensorboardX")
    workdir = tmp_path / "watched"

    def run(*more):
        return distill_run.run(config(dataset, workdir, *BPTT, *more))

    with pytest.raises(InputError, match=r"step 7 .*no network.*the same command goes on"):
        run("--tensorboard", "--hook=watched_by:fails")
    assert io.Checkpoints(workdir / "checkpoints").latest_step() in (7, 8, 9, 10)
    summary = run("--tensorboard", "--hook=watched_by:log")
    alone = distill_run.run(config(dataset, tmp_path / "alone", *BPTT))
    assert summary["accuracy"] == alone["accuracy"]
    history = records.read(workdir / "metrics.jsonl")
    losses = [(s, v) for s, n, v in told_by(workdir / BOARD) if n == "loss"]
    assert [s for s, _ in losses] == list(range(1, 13))
    np.testing.assert_allclose([v for _, v in losses], [r["loss"] for r in history])
    scored = [s for s, n, _ in told_by(workdir / BOARD) if n == "distilled"]
    assert scored[-1] == 12
    told = sys.modules["watched_by"].told
    assert [s for s, *_ in told] == list(range(told[0][0], 13))
    # Of a run that was not watched the curves are drawn afterwards.
    distill_run.run(config(dataset, tmp_path / "alone", *BPTT, "--tensorboard"))
    drawn = [(s, v) for s, n, v in told_by(tmp_path / "alone" / BOARD) if n == "loss"]
    assert drawn == losses


def test_a_run_that_its_hook_ends_is_one_of_the_steps_it_took(
    dataset, tmp_path, hook_module
):
    workdir = tmp_path / "ended"
    given = config(dataset, workdir, *BPTT, "--hook=watched_by:ends")
    summary = distill_run.run(given)
    taken = len(records.read(workdir / "metrics.jsonl"))
    assert summary["steps"] == taken < given.steps
