"""The order of the study, what it runs again, and how it is cut and goes on."""

import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from distilljax import launch
from distilljax.io import records
from distilljax.types import InputError
from experiments.lab import queue
from experiments.study import plan as study_plan
from experiments.study import run as study_run
from tests.cases import some
from tests.experiments.study import fake_study

ROOT = pathlib.Path(__file__).parents[3]


def config(root, *more):
    return launch.parse(study_plan.Config, [f"--workdir={root}", *more])


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Runs the three steps that only count; returns what the study says of them."""
    root, source = tmp_path / "root", tmp_path / "source.txt"
    source.write_text("first")

    def run(*more, **options):
        made = fake_study.steps(root, source=source, **options)
        monkeypatch.setattr(study_run, "plan", lambda _: made)
        return study_run.run(config(root, *more))

    run.root, run.source = root, source
    return run


def units(root):
    return {
        name: (root / name / "units.txt").read_text().split()
        for name in "abc"
        if (root / name / "units.txt").exists()
    }


ONCE = {name: ["0", "1", "2"] for name in "abc"}


def test_runs_in_order_and_nothing_twice(fake, capfd):
    summary = fake("--jobs=1")
    assert summary["finished"]
    assert summary["steps"] == dict.fromkeys("abc", "done")
    assert units(fake.root) == ONCE
    lines = records.read(fake.root / "study.jsonl")
    assert [line["step"] for line in lines] == ["a", "b", "c"]
    assert all(line["finished"] and line["seconds"] > 0 for line in lines)
    held = json.loads((fake.root / "study.json").read_text())
    assert held["steps"] == summary["steps"]
    out = capfd.readouterr().out
    assert "step 2 of 3: b; about" in out
    assert "$ python -m tests.experiments.study.fake_study --fail=false" in out

    before = {
        name: (fake.root / name / "summary.json").stat().st_mtime_ns for name in "abc"
    }
    assert fake()["steps"] == dict.fromkeys("abc", "done before")
    after = {name: (fake.root / name / "summary.json").stat().st_mtime_ns for name in "abc"}
    assert after == before


def test_several_at_once_each_on_its_own_cores(fake, capfd, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("MEET", "a,c")  # fails unless both are at work at once
    own = os.sched_getaffinity(0)
    assert fake("--jobs=2")["finished"]
    assert units(fake.root) == ONCE
    cores = {
        name: {int(c) for c in (fake.root / name / "cores.txt").read_text().split()}
        for name in "abc"
    }
    if len(own) > 1:
        assert not cores["a"] & cores["c"]
        assert cores["b"] in (cores["a"], cores["c"])
        assert cores["a"] | cores["c"] == own
    out = capfd.readouterr().out
    for name in "abc":
        assert out.count(f"{name} | unit ") == 3
        assert (fake.root / "logs" / f"{name}.txt").read_text().count("unit") == 3
    assert out.index("step a took") < out.index("3: b; about"), "it needs a"
    assert os.sched_getaffinity(0) == own


def test_a_changed_input_or_setting_runs_what_depends_on_it(fake):
    fake()
    fake.source.write_text("second")
    assert fake()["steps"] == {"a": "done", "b": "done before", "c": "done before"}
    (fake.root / "a" / "made.txt").write_text("other")
    assert fake()["steps"] == {"a": "done before", "b": "done", "c": "done before"}
    (fake.root / "c" / "summary.json").unlink()
    assert fake()["steps"] == {"a": "done before", "b": "done before", "c": "done"}
    assert fake(seconds=0.001)["steps"] == dict.fromkeys("abc", "done")


@pytest.mark.parametrize("jobs", ["--jobs=1", "--jobs=2"])
def test_a_failed_step_stops_only_those_that_need_it(fake, capfd, jobs):
    message = r"not all of the study is done: a \(exit code 1\), b \(needs a\)"
    with pytest.raises(InputError, match=message):
        fake(jobs, failing="a")
    assert units(fake.root) == {"c": ["0", "1", "2"]}
    assert "step a failed with exit code 1; the reason is above" in capfd.readouterr().out
    assert fake()["steps"] == {"a": "done", "b": "done", "c": "done before"}
    assert units(fake.root) == ONCE


def start(root, *more, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.experiments.study.fake_study", str(root), *more],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path, lines):
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text().count("\n") >= lines):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("step", "lines", "how", "jobs"),
    [
        ("b", 2, "killed alone", "--jobs=1"),
        *(
            pytest.param(*rest, marks=pytest.mark.slow)
            for rest in (
                ("a", 1, "told", "--jobs=1"),
                ("a", 1, "told", "--jobs=2"),
                ("b", 2, "killed alone", "--jobs=2"),
                ("c", 1, "killed with its step", "--jobs=1"),
                ("c", 1, "killed with its step", "--jobs=2"),
            )
        ),
    ],
)
def test_cut_at_any_point_it_goes_on_and_repeats_nothing(tmp_path, step, lines, how, jobs):
    process = start(tmp_path, jobs)
    wait_for(tmp_path / step / "units.txt", lines)
    if how == "told":
        process.terminate()
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130, stderr
        assert units(tmp_path)["a"] != ONCE["a"], "its step was told as well"
    else:
        process.kill()
        process.communicate(timeout=60)
        if how == "killed with its step":
            pid = int((tmp_path / step / "pid.txt").read_text())
            os.kill(pid, signal.SIGKILL)
    process = start(tmp_path, jobs)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert units(tmp_path) == ONCE
    for earlier in "abc"[: "abc".index(step)] if jobs == "--jobs=1" else ():
        assert f"{earlier} was finished before" in stdout


def test_waits_for_a_step_that_outlived_its_study(fake, capfd):
    place = fake.root / "b"
    place.mkdir(parents=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        timer = threading.Timer(0.3, fcntl.flock, (lock, fcntl.LOCK_UN))
        timer.start()
        assert fake()["finished"]
        timer.join()
    assert "waiting for another process that runs b" in capfd.readouterr().out
    assert units(fake.root) == ONCE


@pytest.mark.parametrize("jobs", some(["--jobs=1", "--jobs=2"], "--jobs=2"))
def test_ends_in_time_with_a_code_of_its_own(tmp_path, jobs):
    process = start(tmp_path, jobs, "--minutes=0.03", SLOW_UNIT="1")
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == queue.OUT_OF_TIME, stderr
    assert "0.03 minutes are over; the same command goes on from here" in stdout
    lines = records.read(tmp_path / "study.jsonl")
    cut = {"--jobs=1": ["a"], "--jobs=2": ["a", "c"]}[jobs]
    assert sorted(line["step"] for line in lines) == cut
    assert not any(line["finished"] for line in lines)

    process = start(tmp_path, jobs, "--minutes=1")
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert units(tmp_path) == ONCE
    lines = records.read(tmp_path / "study.jsonl")
    assert {line["step"] for line in lines if line["finished"]} == set("abc")
    assert "finished in " in stdout
