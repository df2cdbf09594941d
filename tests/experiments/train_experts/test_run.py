"""Training experts, end to end on a tiny data set."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
import pytest

from distilljax import data, io, launch
from distilljax.core import losses, parameters
from distilljax.io import records, trajectories
from distilljax.models import mlp
from distilljax.training import evaluation, expert
from distilljax.types import InputError
from experiments.lab.data import prepare
from experiments.lab.experts import identify_experts
from experiments.lab.records import open_sealed
from experiments.train_experts import run as train_experts_run
from tests.cases import some
from tests.experiments.helpers import damage

ROOT = pathlib.Path(__file__).parents[3]
FILES = {
    "config.json",
    "experts.json",
    "experts.png",
    "metrics.jsonl",
    "summary.json",
    "trajectories.npy",
}
# One expert after the other: six steps in all.
TINY = [
    "--model=mlp",
    "--mlp.width=8",
    "--mlp.depth=1",
    "--held_out=5",
    "--experts=2",
    "--together=1",
    "--epochs=2",
    "--recipe.batch=20",
    "--recipe.augment=flip",
    "--recipe.momentum=0.9",
    "--recipe.lr=0.05",
]


def flags(dataset, workdir, *more):
    return [f"--dataset={dataset}", f"--workdir={workdir}", *TINY, *more]


def config(dataset, workdir, *more):
    return launch.parse(train_experts_run.Config, flags(dataset, workdir, *more))


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """A finished run: (workdir, summary)."""
    workdir = tmp_path_factory.mktemp("run") / "experts"
    return workdir, train_experts_run.run(config(dataset, workdir))


def history(workdir):
    """The records, without what depends on the clock."""
    kept = records.read(workdir / "metrics.jsonl")
    return [{n: v for n, v in record.items() if n != "seconds"} for record in kept]


def assert_same_run(workdir, finished):
    name = trajectories.DATA
    assert (workdir / name).read_bytes() == (finished[0] / name).read_bytes()
    assert trajectories.open(workdir).rows_done.tolist() == [3, 3]
    assert history(workdir) == history(finished[0])
    summary = json.loads((workdir / "summary.json").read_text())
    for field in ("held_out_accuracy", "training_loss"):
        assert summary[field] == finished[1][field]


def test_leaves_everything_a_person_needs(finished):
    workdir, summary = finished
    assert {path.name for path in workdir.iterdir()} == FILES | {".lock"}
    assert open_sealed(workdir) == summary
    assert (workdir / "experts.png").read_bytes().startswith(b"\x89PNG")
    rows = history(workdir)
    assert [(row["expert"], row["epoch"]) for row in rows] == [
        (e, t) for e in range(2) for t in range(3)
    ]
    assert [row["loss"] is None for row in rows] == [row["epoch"] == 0 for row in rows]
    last = [row["accuracy"] for row in rows if row["epoch"] == 2]
    assert summary["held_out_accuracy"]["values"] == last
    assert summary["held_out_accuracy"]["seeds"] == 2
    assert summary["held_out_accuracy"]["mean"] == pytest.approx(np.mean(last))
    assert (summary["num_images"], summary["num_held_out"]) == (105, 15)
    assert summary["seconds"]["training"] > 0


def test_the_store_holds_the_experts_that_the_core_trains(finished, dataset):
    """Of the same key, on the images that are not held out; and they are as good."""
    chosen = config(dataset, finished[0])
    prepared = prepare(chosen)
    model = mlp.make(mlp.Config(width=8, depth=1), (8, 8, 1), 3)
    key, number = jax.random.key(0), 1
    begin = jax.jit(lambda key: expert.init(key, model, chosen.recipe))
    state = begin(expert.epoch_key(key, number, 0))
    rows = [parameters.flatten(state.params)]
    advance = jax.jit(
        lambda key, state, real: expert.epoch(key, model, real, chosen.recipe, state)
    )
    for epoch in (1, 2):
        own_key = expert.epoch_key(key, number, epoch)
        state, _ = advance(own_key, state, prepared.real)
        rows.append(parameters.flatten(state.params))
    held = trajectories.open(finished[0]).read(2).params
    np.testing.assert_allclose(held[number], np.stack(rows), rtol=0, atol=1e-6)
    assert np.abs(held[number, 2] - held[number, 0]).max() > 1e-2

    params = parameters.unflatten(model)(held[number, 2])
    logits = evaluation.predict(model.apply, params, prepared.held_out)
    accuracy = float(losses.accuracy(logits, prepared.held_out.labels))
    assert accuracy == pytest.approx(finished[1]["held_out_accuracy"]["values"][number])


def test_nothing_on_the_device_is_a_nan(dataset, tmp_path):
    with jax.debug_nans(True), jax.debug_infs(True):
        train_experts_run.run(config(dataset, tmp_path / "run"))
    assert len(history(tmp_path / "run")) > 1


def test_the_store_says_what_the_experts_are(finished, dataset):
    store = trajectories.open(finished[0])
    chosen = config(dataset, finished[0])
    prepared = prepare(chosen)
    store.check(identify_experts(chosen, prepared))
    described = store.description
    assert described.dataset["fingerprint"] == data.load(str(dataset)).fingerprint
    assert described.recipe == chosen.recipe.to_dict()
    other = config(dataset, "x", "--mlp.width=9", "--held_out=6", "--preprocess=none")
    with pytest.raises(InputError) as caught:
        store.check(identify_experts(other, prepare(other)))
    for part in ("model.config.width is 8", "held_out is 5", "preprocessing is normalise"):
        assert part in str(caught.value)


def test_a_finished_run_is_shown_again(finished, dataset, capsys):
    assert train_experts_run.run(config(dataset, finished[0])) == finished[1]
    assert "trained before" in capsys.readouterr().out


def test_a_damaged_summary_is_made_again(finished, dataset, tmp_path, capsys):
    workdir = tmp_path / "experts"
    shutil.copytree(finished[0], workdir)
    (workdir / "summary.json").write_bytes(b"{")
    train_experts_run.run(config(dataset, workdir))
    assert_same_run(workdir, finished)
    said = [line for line in capsys.readouterr().err.splitlines() if "again" in line]
    (line,) = said
    assert line.endswith("computed again")
    assert "summary.json cannot be read" in line


@pytest.mark.parametrize("name", [trajectories.DATA, trajectories.DESCRIBED])
@pytest.mark.parametrize("how", ["flipped", "cut", "deleted"])
@pytest.mark.parametrize("ended", some([True, False], True))
def test_damaged_experts_are_trained_again(
    finished, dataset, tmp_path, capsys, name, how, ended
):
    workdir = tmp_path / "experts"
    shutil.copytree(finished[0], workdir)
    if not ended:
        (workdir / "summary.json").unlink()
    path = workdir / name
    held = bytearray(path.read_bytes())
    if how == "flipped":
        # A weight, or a digit of a checksum.
        at = len(held) - 9 if name == trajectories.DATA else held.rfind(b"]", 0, -20) - 20
        held[at] ^= 1
    path.write_bytes(held[: len(held) // (2 if how == "cut" else 1)])
    if how == "deleted":
        path.unlink()
    train_experts_run.run(config(dataset, workdir))
    assert_same_run(workdir, finished)
    said = [line for line in capsys.readouterr().err.splitlines() if "again" in line]
    unseen = name == trajectories.DESCRIBED and how == "deleted" and not ended
    assert len(said) == (not unseen)


@pytest.mark.parametrize("ended", [True, False])
def test_experts_of_a_newer_format_are_kept(finished, dataset, tmp_path, ended):
    workdir = tmp_path / "experts"
    shutil.copytree(finished[0], workdir)
    if not ended:
        (workdir / "summary.json").unlink()
    path = workdir / trajectories.DESCRIBED
    newer = json.dumps(json.loads(path.read_text()) | {"format": trajectories.FORMAT + 1})
    path.write_text(newer)
    with pytest.raises(InputError, match=r"format 3 of experts .*; upgrade distilljax$"):
        train_experts_run.run(config(dataset, workdir))
    assert path.read_text() == newer
    held = [(w / trajectories.DATA).read_bytes() for w in (workdir, finished[0])]
    assert held[0] == held[1]


def test_a_summary_of_another_version_is_refused(finished, dataset, tmp_path):
    workdir = tmp_path / "experts"
    shutil.copytree(finished[0], workdir)
    path = workdir / "summary.json"
    path.write_text(json.dumps({**finished[1], "format": 0}))
    with pytest.raises(InputError, match=r"format 0 of experiments\.train_experts, and"):
        train_experts_run.run(config(dataset, workdir))
    assert json.loads(path.read_text())["format"] == 0


class Killed(BaseException):
    pass


def dies(monkeypatch, owner, name, call, *, after=False):
    """The n-th call of a function is the last thing that happens, done or not."""
    function, calls = getattr(owner, name), 0

    def dying(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise Killed
        result = function(*args, **kwargs)
        if calls == call:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, dying)


def test_cut_again_and_again_it_is_the_same_run_bit_for_bit(
    finished, dataset, tmp_path, monkeypatch, capsys
):
    for owner, name, call, after, resumed in (
        (trajectories.Store, "write", 2, False, None),
        (records, "append", 1, False, "experts 1 after epoch 0"),  # a row alone
        (io.Checkpoints, "save", 1, False, "experts 1 after epoch 0"),  # and its record
        (io.Checkpoints, "save", 2, True, "experts 1 after epoch 0"),
        (trajectories.Store, "write", 2, False, "experts 1 after epoch 2"),
        (train_experts_run, "expert_curves", 1, False, "experts 2 after epoch 0"),
    ):
        with monkeypatch.context() as patched:
            dies(patched, owner, name, call, after=after)
            with pytest.raises(Killed):
                train_experts_run.run(config(dataset, tmp_path))
        assert not (tmp_path / "summary.json").exists()
        assert (resumed or "2 experts x") in capsys.readouterr().out
    train_experts_run.run(config(dataset, tmp_path))
    assert "experts 2 after epoch 2" in capsys.readouterr().out
    assert_same_run(tmp_path, finished)


def cut(monkeypatch, dataset, workdir, *more, saves=3):
    """A run that dies when it has saved so many epochs."""
    with monkeypatch.context() as patched:
        dies(patched, io.Checkpoints, "save", saves, after=True)
        with pytest.raises(Killed):
            train_experts_run.run(config(dataset, workdir, *more))


@pytest.mark.parametrize("how", some(["truncated", "emptied", "deleted"], "truncated"))
def test_experts_whose_history_is_lost_are_trained_again(
    finished, dataset, tmp_path, monkeypatch, capsys, how
):
    """A summary of the records that are left would be one of fewer experts."""
    cut(monkeypatch, dataset, tmp_path, saves=4)
    metrics = tmp_path / "metrics.jsonl"
    damage(how, metrics, metrics)
    capsys.readouterr()
    train_experts_run.run(config(dataset, tmp_path))
    assert_same_run(tmp_path, finished)
    said = [line for line in capsys.readouterr().err.splitlines() if "again" in line]
    (line,) = said
    assert line.startswith(f"{metrics} lacks ")
    assert line.endswith(" records; computed again")


def test_a_broken_history_is_refused_by_name(dataset, tmp_path, monkeypatch):
    cut(monkeypatch, dataset, tmp_path)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("{" + metrics.read_text())
    with pytest.raises(InputError, match=r"metrics\.jsonl has a damaged line .* delete it"):
        train_experts_run.run(config(dataset, tmp_path))


@pytest.mark.slow
def test_experts_side_by_side_keep_a_record_each_when_cut(dataset, tmp_path, monkeypatch):
    more = ["--experts=3", "--together=2"]
    straight = (
        tmp_path / "straight",
        train_experts_run.run(config(dataset, tmp_path / "straight", *more)),
    )
    cut(monkeypatch, dataset, tmp_path / "cut", *more, saves=2)
    summary = train_experts_run.run(config(dataset, tmp_path / "cut", *more))
    assert summary["held_out_accuracy"] == straight[1]["held_out_accuracy"]
    assert summary["held_out_accuracy"]["seeds"] == 3
    assert history(tmp_path / "cut") == history(straight[0])


@pytest.mark.slow
def test_progress_is_told_after_each_dispatch(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_experts_run, "SECONDS_BETWEEN_LINES", 0)
    more = ["--experts=3", "--together=3", "--epochs=1"]
    for arrangement, groups in (("map", ["1", "2", "3"]), ("vmap", ["1-3"])):
        place = tmp_path / arrangement
        train_experts_run.run(config(dataset, place, *more, f"--arrangement={arrangement}"))
        said = re.findall(r"^experts (\S+) of 3, epoch 1/1 ", capsys.readouterr().err, re.M)
        assert said == groups


@pytest.mark.slow
def test_a_curriculum_is_kept_and_the_run_resumed(dataset, tmp_path, monkeypatch, capsys):
    pad = "--recipe.curriculum=pad"
    straight = (
        tmp_path / "straight",
        train_experts_run.run(config(dataset, tmp_path / "straight", pad)),
    )
    workdir = tmp_path / "cut"
    cut(monkeypatch, dataset, workdir, pad)
    scores = (workdir / "difficulty.npz").read_bytes()
    (workdir / "difficulty.npz").write_bytes(scores[: len(scores) // 2])
    capsys.readouterr()
    train_experts_run.run(config(dataset, workdir, pad))
    assert "difficulty.npz cannot be read" in capsys.readouterr().err
    assert_same_run(workdir, straight)


def test_a_run_is_not_resumed_on_other_data(dataset, tmp_path, monkeypatch):
    moved = tmp_path / "moved.npz"
    moved.write_bytes(dataset.read_bytes())
    cut(monkeypatch, moved, tmp_path / "run")
    with np.load(dataset) as held:
        arrays = dict(held)
    np.savez(moved, **arrays | {"test_images": 255 - arrays["test_images"]})
    with pytest.raises(InputError, match="holds a run on other data"):
        train_experts_run.run(config(moved, tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_resumed_is_the_same_run_bit_for_bit(dataset, tmp_path, how):
    more = ["--epochs=40"]
    straight = (
        tmp_path / "straight",
        train_experts_run.run(config(dataset, tmp_path / "straight", *more)),
    )
    workdir = tmp_path / "cut"
    argv = [sys.executable, "-m", "experiments.train_experts"]
    argv += flags(dataset, workdir, *more)
    start = {"cwd": ROOT, "env": os.environ | {"JAX_PLATFORMS": "cpu"}, "text": True}
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, **start)
    deadline = time.monotonic() + 120
    while not any(path.name.isdigit() for path in workdir.glob("checkpoints/*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == (-how if how == signal.SIGKILL else 130), stderr
    assert not (workdir / "summary.json").exists()

    again = subprocess.run(argv, capture_output=True, timeout=300, **start)
    assert again.returncode == 0, again.stderr
    assert "resuming in" in again.stdout
    held = [(w / trajectories.DATA).read_bytes() for w in (workdir, straight[0])]
    assert held[0] == held[1]
    assert history(workdir) == history(straight[0])


def test_chunks_and_arrangements_change_nothing(finished, dataset, tmp_path):
    """But the last bits; the last chunk here is smaller than the first."""
    more = ["--experts=3", "--together=2", "--arrangement=vmap", "--dtype=bfloat16"]
    summary = train_experts_run.run(config(dataset, tmp_path, *more))
    assert summary["held_out_accuracy"]["seeds"] == 3
    ours = np.asarray(trajectories.open(tmp_path).read(3).params, np.float32)
    theirs = np.asarray(trajectories.open(finished[0]).read(2).params)
    np.testing.assert_allclose(ours[:2], theirs, rtol=2.0**-8, atol=1e-5)
    assert np.abs(ours[2] - ours[1]).max() > 1e-2


def test_a_disk_that_is_too_small_is_refused(dataset, tmp_path, monkeypatch, capsys):
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10_000))
    with pytest.raises(InputError) as caught:
        train_experts_run.run(config(dataset, tmp_path / "run"))
    assert "the experts need 25.6 KiB, and " in str(caught.value)
    assert "has 9.8 KiB left; make room" in str(caught.value)
    assert "2 experts x 3 epochs x 547 parameters: 12.8 KiB on disk" in (
        capsys.readouterr().out
    )
    assert not (tmp_path / "run").exists(), "a mistake must not claim the place"


def test_an_expert_that_diverges_is_refused(dataset, tmp_path):
    with pytest.raises(InputError, match=r"expert 0 at epoch 1 .* lower its learning rate"):
        train_experts_run.run(config(dataset, tmp_path, "--recipe.lr=1e38"))


def test_experts_of_other_settings_are_refused(finished, dataset):
    with pytest.raises(InputError, match=r"different run \(recipe.lr is 0.05 there, 0.1"):
        train_experts_run.run(config(dataset, finished[0], "--recipe.lr=0.1"))


@pytest.mark.parametrize(
    ("num", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB")],
)
def test_bytes_in_words(num, text):
    assert train_experts_run._bytes(num) == text


def test_bytes_beyond_the_largest_unit():
    assert train_experts_run._bytes(5000 << 40) == "5000.0 TiB"
