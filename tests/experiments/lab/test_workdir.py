"""The working directory: whose it is, and what a mistake leaves of it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from distilljax import data
from distilljax.config import option
from distilljax.io.environment import arithmetic
from distilljax.types import InputError
from experiments.lab import workdir
from experiments.lab.options import DevicesOption, SeedOption, WorkdirOption
from experiments.lab.workdir import claim_data, command_of, open_workdir, workdir_path


@dataclasses.dataclass(frozen=True)
class Config(WorkdirOption, SeedOption):
    """Options of the test."""

    steps: int = option(3, "Steps.")
    data_dir: str | None = option(None, "Data.")


NAME = "experiments.test"


def claim(path, **changes):
    return open_workdir(path, NAME, Config(workdir=str(path), **changes))


def test_a_new_run_describes_itself_and_is_found_again(tmp_path):
    path = tmp_path / "a" / "b"
    with claim(path):
        held = json.loads((path / "config.json").read_text())
        (path / "result.txt").write_text("x")
    assert held == {
        "experiment": NAME,
        "config": {"steps": 3, "seed": 0},
        "command": "python -m experiments.test",
        "computed": [arithmetic()],
    }
    with claim(path, data_dir="elsewhere"):
        pass
    assert (path / "result.txt").read_text() == "x"


@dataclasses.dataclass(frozen=True)
class Sharing(WorkdirOption, DevicesOption):
    """Options of a run that devices share."""


def test_more_devices_than_there_are(tmp_path):
    path = tmp_path / "new"
    with (
        pytest.raises(InputError, match=r"there are 1 \(cpu\)"),
        open_workdir(path, NAME, Sharing(workdir=str(path), devices=2)),
    ):
        pass
    assert not path.exists()


def test_another_number_of_devices_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workdir.devices, "mesh", lambda num: None)
    for found, given in ((4, None), (4, 4), (4, 1)):
        monkeypatch.setattr("jax.device_count", lambda found=found: found)
        with open_workdir(tmp_path, NAME, Sharing(workdir=str(tmp_path), devices=given)):
            (tmp_path / "part.txt").write_text("x")
    four, one = json.loads((tmp_path / "config.json").read_text())["computed"]
    assert four == f"{one}, 4 devices"
    assert f"begun by {four} and goes on by {one}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "value"),
    [("jax_default_prng_impl", "rbg"), ("jax_random_seed_offset", 1)],
)
def test_a_run_does_not_go_on_with_other_random_numbers(tmp_path, setting, value):
    plain, other = tmp_path / "plain", tmp_path / "other"
    before = getattr(jax.config, setting)

    def keep(path):
        with claim(path):
            (path / "part.txt").write_text("x")

    keep(plain)
    jax.config.update(setting, value)
    try:
        with pytest.raises(InputError, match="random numbers of threefry2x32, and"):
            keep(plain)
        keep(other)
        keep(other)
    finally:
        jax.config.update(setting, before)
    with pytest.raises(InputError, match="now ask for threefry2x32"):
        keep(other)
    keep(plain)


def test_another_number_of_threads_is_said_and_written_down(tmp_path, monkeypatch, capsys):
    def computed():
        return json.loads((tmp_path / "config.json").read_text())["computed"]

    for threads in "2255":
        monkeypatch.setenv("NPROC", threads)
        with claim(tmp_path):
            (tmp_path / "part.txt").write_text("x")
    two, five = computed()
    assert two.endswith("on 2 CPU threads")
    assert five == two.replace("2 CPU", "5 CPU")
    assert capsys.readouterr().err == (
        f"this run was begun by {two} and goes on by {five}: its result is that of an "
        "undisturbed run but for rounding, not bit for bit\n"
    )
    # Nothing is computed any more.
    (tmp_path / "summary.json").write_text("{}")
    monkeypatch.setenv("NPROC", "3")
    with claim(tmp_path):
        pass
    assert len(computed()) == 2
    assert not capsys.readouterr().err


@pytest.mark.parametrize("damage", [None, [], [3], "x"])
def test_a_run_that_says_nothing_of_its_threads_goes_on(tmp_path, capsys, damage):
    with claim(tmp_path):
        (tmp_path / "part.txt").write_text("x")
    held = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(held | {"computed": damage}))
    with claim(tmp_path):
        pass
    assert json.loads((tmp_path / "config.json").read_text()) == held
    assert not capsys.readouterr().err


def test_places_are_named_by_settings(tmp_path):
    config = Config(steps=4)
    found = workdir_path(NAME, config, "label")
    assert found.parent.as_posix() == "runs/test"
    assert found.name.startswith("label-")
    assert found == workdir_path(NAME, Config(steps=4, data_dir="x"), "label")
    assert found != workdir_path(NAME, Config(steps=5), "label")
    assert workdir_path(NAME, Config(workdir=str(tmp_path)), "label") == tmp_path
    assert command_of(NAME, Config(steps=4, workdir="x")) == f"python -m {NAME} --steps=4"


def grow(path, steps):
    config = Config(workdir=str(path), steps=steps)
    with open_workdir(path, NAME, config, ["steps"]):
        (path / "part.txt").write_text("x")


def test_what_it_was_before_is_kept_where_there_was_something(tmp_path, capsys):
    grow(tmp_path, 3)
    grow(tmp_path, 4)
    assert capsys.readouterr().out == "this run goes on: steps from 3 to 4\n"
    assert not (tmp_path / "before").exists()
    (tmp_path / "summary.json").write_text("{}")
    grow(tmp_path, 5)
    kept = tmp_path / "before" / "steps4"
    said = capsys.readouterr().out
    assert said.endswith(f"from 4 to 5; what it was before is kept in {kept}\n")
    assert (kept / "part.txt").exists()


@pytest.mark.parametrize("steps", ["2", None, True, [2], "absent"])
def test_numbers_alone_grow(tmp_path, steps):
    """A setting of another type, or none as in an older file, is a different run."""
    grow(tmp_path, 3)
    held = json.loads((tmp_path / "config.json").read_text())
    held["config"] |= {"steps": steps}
    if steps == "absent":
        del held["config"]["steps"]
    (tmp_path / "config.json").write_text(json.dumps(held))
    with pytest.raises(InputError, match=r"different run .steps is .* there, 4 here"):
        grow(tmp_path, 4)
    assert json.loads((tmp_path / "config.json").read_text()) == held


def test_another_run_is_refused(tmp_path):
    with claim(tmp_path / "w"):
        (tmp_path / "w" / "result.txt").write_text("x")
    with (
        pytest.raises(InputError, match=r"different run .steps is 3 there, 4 here"),
        claim(tmp_path / "w", steps=4),
    ):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.txt").write_text("mine")
    with (
        pytest.raises(InputError, match="files of something else"),
        claim(tmp_path / "other"),
    ):
        pass
    assert sorted(p.name for p in (tmp_path / "other").iterdir()) == [".lock", "x.txt"]


def test_one_process_at_a_time(tmp_path):
    with (
        claim(tmp_path / "w"),
        pytest.raises(InputError, match="in use"),
        claim(tmp_path / "w"),
    ):
        pass


@pytest.mark.parametrize("error", [InputError, ZeroDivisionError])
def test_a_failure_before_any_result_leaves_the_place_as_it_was(tmp_path, error):
    def fail(path):
        with claim(path):
            (path / "networks").mkdir()
            raise error("wrong")

    for existing in (False, True):
        path = tmp_path / str(existing) / "w"
        if existing:
            path.mkdir(parents=True)
        with pytest.raises(error):
            fail(path)
        assert path.exists() == existing
        assert path.parent.exists() == existing
        with claim(path, steps=7):
            pass


@pytest.mark.parametrize(
    "how", [shutil.rmtree, lambda path: path.rename(path.parent / "b")]
)
def test_a_place_that_is_gone_before_the_end_is_told(tmp_path, how):
    path = tmp_path / "a"

    def lose():
        with claim(path):
            how(path)
            (path / "metrics.jsonl").write_text("")

    with pytest.raises(InputError, match=f"workdir {path} was deleted or moved while"):
        lose()


def test_a_folder_of_the_user_behind_a_link_stays(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match="wrong"), claim(tmp_path / "link"):
        raise InputError("wrong")
    assert (tmp_path / "link").is_symlink()
    assert not list((tmp_path / "real").iterdir())


@pytest.mark.parametrize(
    "error", [InputError("x"), ZeroDivisionError(), KeyboardInterrupt()]
)
def test_results_are_never_removed(tmp_path, error):
    path = tmp_path / "w"

    def fail():
        with claim(path):
            (path / "run").mkdir()
            (path / "run" / "part.txt").write_text("x")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert (path / "run" / "part.txt").read_text() == "x"
    with claim(path):
        pass


def test_an_interruption_keeps_the_run(tmp_path):
    with pytest.raises(KeyboardInterrupt), claim(tmp_path / "w"):
        raise KeyboardInterrupt
    with claim(tmp_path / "w"):
        pass
    with pytest.raises(InputError, match="different run"), claim(tmp_path / "w", steps=4):
        pass


def test_a_kill_at_the_first_file_does_not_block_the_place(tmp_path):
    script = (
        "import os, pathlib, sys\n"
        "from distilljax.disk import files\n"
        "files._to_disk = lambda path: os._exit(9)\n"
        "from tests.experiments.lab.test_workdir import claim\n"
        "with claim(pathlib.Path(sys.argv[1])): pass\n"
    )
    path = tmp_path / "w"
    ended = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert ended.returncode == 9
    assert not (path / "config.json").exists()
    with claim(path):
        assert sorted(p.name for p in path.iterdir()) == [".lock", "config.json"]


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("x")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / ".lock").symlink_to(tmp_path / "precious")
    with (
        pytest.raises(InputError, match=r".lock is a link; delete it"),
        claim(tmp_path / "w"),
    ):
        pass
    assert (tmp_path / "precious").read_text() == "x"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": 3}', "[" * 100_000, "NaN"])
def test_a_damaged_config_is_refused(tmp_path, text):
    with claim(tmp_path / "w"):
        (tmp_path / "w" / "config.json").write_text(text)
    with (
        pytest.raises(InputError, match=r"config.json is damaged; choose another"),
        claim(tmp_path / "w"),
    ):
        pass


def test_a_name_of_bytes_is_refused(tmp_path):
    path = workdir.pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with (
        pytest.raises(InputError, match="is no text; choose another --workdir"),
        claim(path),
    ):
        pass
    assert not list(tmp_path.iterdir())


def dataset(value):
    images = np.full((4, 2, 2, 1), value, np.uint8)
    split = data.Split(images, np.arange(4, dtype=np.int32) % 2)
    return data.Dataset(
        "x.npz", split, split, ("a", "b"), "npz", f"sha{value}", (0.0,), (1.0,)
    )


def test_a_run_is_on_one_data_set(tmp_path):
    path = tmp_path / "w"
    with claim(path):
        claim_data(path, dataset(1))
    with claim(path):
        claim_data(path, dataset(1))
        with pytest.raises(InputError, match=r"other data: x.npz has changed since"):
            claim_data(path, dataset(2))
