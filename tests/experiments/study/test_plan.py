"""The plan of the study: its commands at every scale, and what is refused."""

import pathlib
import re
import shutil

import pytest

from distilljax import io, launch
from distilljax.types import InputError
from experiments import EXPERIMENTS
from experiments.lab import sets
from experiments.lab.sets import GALLERY, transform_digest
from experiments.study import plan as study_plan
from experiments.study import run as study_run
from experiments.study import scales as study_scales


def config(root, *more):
    return launch.parse(study_plan.Config, [f"--workdir={root}", *more])


@pytest.mark.parametrize(
    ("scale", "sets"),
    [
        ("laptop", "ready"),
        ("laptop", "distil"),
        ("night", "ready"),
        ("night", "distil"),
        ("published", "ready"),
        ("paper", "distil"),
    ],
)
def test_every_command_of_every_scale_is_one(tmp_path, scale, sets):
    """`plan` parses each by the flags of its experiment."""
    steps = study_plan.plan(config(tmp_path, f"--scale={scale}", f"--sets={sets}"))
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    for step in steps:
        assert set(step.needs) <= set(names[: names.index(step.name)]), "in order"
    assert [s.group for s in steps if s.group != "sets"][-1] == "report"
    assert ("sets" in {step.group for step in steps}) == (sets == "distil")
    for step in steps if sets == "ready" else ():
        ready = [path for path in step.inputs if tmp_path not in path.parents]
        assert all(path.exists() for path in ready)


def test_the_steps_are_those_of_the_table_in_its_order(tmp_path):
    for scale in study_scales.SCALES:
        steps = study_plan.plan(config(tmp_path, f"--scale={scale}"))
        groups = list(dict.fromkeys(s.group for s in steps if s.group != "sets"))
        expected = [name for name in EXPERIMENTS if name in groups]
        assert groups == [*expected, "report"]
        assert {"recognition", "mixing", "agreement", "dynamics"} < set(groups)
        assert {"influence", "attributes"} < set(groups)


def test_the_seed_is_that_of_every_step(monkeypatch, tmp_path):
    """In a folder of its own."""
    monkeypatch.chdir(tmp_path)
    chosen = launch.parse(study_plan.Config, ["--sets=distil", "--seed=2"])
    *steps, report = study_plan.plan(chosen)
    assert {step.flags["seed"] for step in steps} == {2}
    assert {step.flags["workdir"].parts[:2] for step in steps} == {
        ("runs", "study-laptop-seed2")
    }
    assert report.flags["records"] == pathlib.Path("runs/study-laptop-seed2")
    first = study_plan.plan(launch.parse(study_plan.Config, ["--sets=distil"]))
    assert not any("seed" in step.flags for step in first)


def test_plan_runs_nothing(tmp_path, capsys):
    summary = study_run.run(config(tmp_path / "run", "--plan"))
    out = capsys.readouterr().out
    assert "# mixing: to do\npython -m experiments.mixing --artefacts=" in out
    assert not (tmp_path / "run").exists()
    assert summary["steps"]["report"] == "to do"


def test_only_some_steps_and_own_sets(tmp_path):
    made = tmp_path / "mine.npz"
    shutil.copy(GALLERY / "embedded_gm_ipc1" / "distilled.npz", made)
    chosen = config(tmp_path, "--steps=influence,mixing", f"--artefacts={made}")
    steps = study_plan.plan(chosen)
    assert [step.name for step in steps] == ["mixing", "influence_mine"]
    assert steps[1].flags["artefact"] == made


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--steps=mix"], "steps='mix': unknown step 'mix'; choose among recognition"),
        (["--artefacts=absent.npz"], "absent.npz: no such file and no set of the gallery"),
        (["--artefacts=no/absent.npz"], "there is no file no/absent"),
        (
            ["--scale=paper", "--sets=ready"],
            "sets='ready': the scale paper has no ready sets",
        ),
        (
            ["--scale=published", "--sets=distil"],
            "sets='distil': the scale published looks at sets that experiments.reproduce",
        ),
        ([f"--artefacts={__file__}"], "test_plan.py: not a readable distilled set"),
    ],
)
def test_wrong_options_are_refused(tmp_path, more, message):
    with pytest.raises(InputError) as caught:
        study_run.run(config(tmp_path / "run", *more))
    assert re.search(message, str(caught.value)), caught.value
    assert not (tmp_path / "run").exists()


def test_sets_of_each_preprocessing_have_steps_of_their_own(tmp_path):
    """And a network as wide as the widest that made one of them."""
    names = ("cifar10_tm_ipc1", "cifar10_dc_ipc1_width128", "cifar10_gm_ipc1")
    files = [GALLERY / name / "distilled.npz" for name in names]
    kinds = [transform_digest(io.load(path).transform) for path in files]
    assert kinds[0] == kinds[2] != kinds[1]
    steps = study_plan.plan(config(tmp_path, f"--artefacts={','.join(names)}"))
    by_name = {step.name: [p.resolve() for p in step.inputs] for step in steps}
    narrow, wide = [files[0], files[2]], [files[1]]
    for group in ("recognition", "agreement", "dynamics"):
        assert by_name[group] == narrow
        assert by_name[f"{group}_2"] == wide
        assert f"{group}_3" not in by_name
    assert by_name["mixing"] == files
    flags = {step.name: step.flags for step in steps}
    assert "convnet.width" not in flags["dynamics"]  # 32, the default
    assert flags["dynamics_2"]["convnet.width"] == 128
    assert by_name["dynamics_reverse"] == [files[0]]
    assert "convnet.width" not in flags["dynamics_reverse"]


def test_lines_between_orders_have_minibatches_smaller_than_every_set(tmp_path):
    plan = study_plan.plan(config(tmp_path, "--scale=published"))
    steps = [step for step in plan if step.group == "connectivity"]
    fewest = [
        min(len(io.load(path).distilled.images) for path in step.inputs) for step in steps
    ]
    assert fewest == [100, 10]
    assert [step.flags.get("batch") for step in steps] == [None, 5]


def test_without_the_committed_sets_a_way_on_is_named(tmp_path, monkeypatch):
    """As from a wheel, which holds none."""
    monkeypatch.setattr(sets, "GALLERY", tmp_path)
    with pytest.raises(
        InputError, match=r"embedded_tm_ipc10 is in a clone .* --sets=distil"
    ):
        study_run.run(config(tmp_path / "run"))


def test_two_sets_of_one_name_are_refused(tmp_path):
    made = [tmp_path / "a" / "x.npz", tmp_path / "b" / "x.npz"]
    for path in made:
        path.parent.mkdir()
        path.touch()
    with pytest.raises(InputError, match="two sets have the same name"):
        study_run.run(config(tmp_path / "run", f"--artefacts={made[0]},{made[1]}"))
