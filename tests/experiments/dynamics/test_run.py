"""The experiment that runs probes along a training run."""

import json
import shutil

import jax
import numpy as np
import pytest

from distilljax import data, io, launch
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.training.evaluation import PROTOCOLS
from distilljax.types import InputError
from experiments.dynamics import run as dynamics_run
from experiments.dynamics.record import Summary
from experiments.lab.records import checked, open_sealed
from tests.experiments.conftest import MLP
from tests.experiments.helpers import write_learned
from tests.experiments.lab.damage import DAMAGES, mended_line

PROBES = "accuracy@4,hessian_trace,ntk"


@pytest.fixture(scope="module")
def artefact(dataset, tmp_path_factory):
    """Four real images a class, called a distilled set."""
    loaded = data.load(str(dataset), None)
    transform = data.fit("normalise", loaded.train.images)
    chosen = data.subset(loaded.train, 4, seed=5)
    start = distilled_set.create(
        transform(chosen.images), chosen.labels, 3, learning_rate=0.01
    )
    path = tmp_path_factory.mktemp("made") / "made" / "distilled.npz"
    path.parent.mkdir()
    io.save(
        path,
        io.Artefact(
            distilled=start,
            transform=transform,
            class_names=loaded.class_names,
            dataset={
                "name": str(dataset),
                "source": loaded.source,
                "fingerprint": loaded.fingerprint,
            },
            method="none",
            config={},
            protocol=PROTOCOLS["study"],
            version="0",
            notes={},
        ),
    )
    return path


def options(artefact, workdir, *more):
    argv = [
        f"--artefacts={artefact}",
        f"--workdir={workdir}",
        *MLP,
        "--sets=train,random",
        "--ipc=2",
        f"--probes={PROBES}",
        "--hessian_trace.num_probes=6",
        "--hessian_trace.batch=10",
        "--ntk.images=6",
        "--ntk.reference=6",
        "--iterations=8",
        "--every=8",
        "--batch=20",
        *more,
    ]
    return launch.parse(dynamics_run.Config, argv)


@pytest.fixture(scope="module")
def finished(artefact, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("dynamics") / "run"
    return workdir, dynamics_run.run(options(artefact, workdir))


def measurements(workdir):
    lines = (workdir / "measurements.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_curve_is_there(finished):
    workdir, summary = finished
    read = open_sealed(workdir)
    assert checked(Summary, read, str(workdir), "dynamics") == summary
    assert summary["curves"].keys() >= {
        "accuracy.accuracy",
        "hessian_trace.hessian_trace",
        "ntk.distance",
    }
    for quantity, row in summary["curves"].items():
        assert list(row) == ["train", "random", "made"]
        for curve in row.values():
            assert curve["iterations"] == ([0, 4, 8] if "accuracy." in quantity else [0, 8])
            assert len(curve["mean"]) == len(curve["iterations"])
    trace = summary["curves"]["hessian_trace.hessian_trace"]["train"]
    assert trace["num_probes"] == 6
    assert min(trace["standard_error"]) > 0
    assert len(measurements(workdir)) == 3 * (3 + 2 + 2)
    assert (workdir / "dynamics.png").stat().st_size > 10_000


def test_a_cut_run_resumes_to_the_same_figures(finished, artefact, tmp_path):
    """Killed in the middle of a line, after the first point of a curve with a memory."""
    whole, summary = finished
    lines = (whole / "measurements.jsonl").read_text().splitlines(keepends=True)
    workdir = tmp_path / "cut"
    config = options(artefact, workdir)
    ntk = next(i for i, line in enumerate(lines) if '"ntk"' in line)
    for kept in (2, ntk + 1):
        workdir.mkdir(exist_ok=True)
        for file in workdir.iterdir():
            file.unlink()
        named = json.loads((whole / "config.json").read_text())
        (workdir / "config.json").write_text(json.dumps(named))
        text = "".join(lines[:kept]) + lines[kept][:20]
        (workdir / "measurements.jsonl").write_text(text)
        again = dynamics_run.run(config)
        assert again["curves"] == summary["curves"]
        rows = measurements(workdir)
        assert len(rows) == len(lines)
        assert [r["seconds"] for r in rows[:kept]] == [
            json.loads(line)["seconds"] for line in lines[:kept]
        ]


def test_a_finished_run_measures_nothing_again(finished, artefact, monkeypatch):
    workdir, summary = finished
    before = (workdir / "measurements.jsonl").read_bytes()
    again = dynamics_run.run(options(artefact, workdir))
    assert again["curves"] == summary["curves"]
    assert (workdir / "measurements.jsonl").read_bytes() == before


def test_accuracy_is_that_of_the_stored_networks(finished, artefact):
    from distilljax.models import mlp

    workdir, summary = finished
    made = io.load(artefact)
    model = mlp.make(mlp.Config(width=16, depth=1), (8, 8, 1), 3)
    with np.load(workdir / "run0.npz") as held:
        rows = held["params"]
    assert rows.shape[0] == 3
    restore = parameters.unflatten(model)
    curve = summary["curves"]["accuracy.accuracy"]["made"]
    batch = distilled_set.as_batch(made.distilled)
    for row, value in zip(rows, curve["mean"], strict=True):
        logits = model.apply(restore(jax.numpy.asarray(row)), batch.images)
        right = np.asarray(logits).argmax(1) == np.asarray(batch.labels).argmax(1)
        np.testing.assert_allclose(value, right.mean(), rtol=1e-6)


def test_the_reverse_run_learns_the_distilled_set(artefact, tmp_path):
    config = options(
        artefact,
        tmp_path / "reverse",
        f"--train_on={artefact}",
        "--probes=accuracy",
        "--iterations=60",
        "--every=60",
        "--lr=0.05",
        "--runs=2",
    )
    # Options that are not read are refused, so make them the defaults again.
    defaults = dynamics_run.Config()
    config = config.replace(
        {name: getattr(defaults, name).to_dict() for name in ("hessian_trace", "ntk")}
        | {"batch": defaults.batch}
    )
    summary = dynamics_run.run(config)
    made = summary["curves"]["accuracy.accuracy"]["made"]
    assert made["mean"][-1] > 0.95
    assert made["runs"] == 2
    assert len(made["values"]) == 2
    assert made["std"] is not None
    loss = summary["curves"]["accuracy.loss"]
    assert loss["made"]["mean"][-1] < loss["made"]["mean"][0] / 2
    measured = (tmp_path / "reverse" / "measurements.jsonl").read_text()
    first = [json.loads(line) for line in measured.splitlines()]
    start = {
        r["run"]: r["quantities"]["loss"]["value"]
        for r in first[::-1]
        if not r["iteration"]
    }
    assert start[0] != start[1], "runs start from weights of their own"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--probes=sharpness"], "unknown probe 'sharpness'; choose among"),
        (["--probes=accuracy,accuracy@2"], "named twice"),
        (["--probes=accuracy@often"], "after @ comes a number"),
        (["--probes=accuracy", "--ntk.images=5"], "does not name"),
        (["--sets=validation"], "unknown set 'validation'; choose among"),
        (["--sets=train,train"], "train is named twice"),
        (["--ipc=100"], "the smallest class has 40 training images"),
        (["--train_on=absent.npz"], "absent.npz"),
    ],
)
def test_mistakes_are_named(artefact, tmp_path, flags, message):
    workdir = tmp_path / "wrong"
    with pytest.raises(InputError, match=message):
        dynamics_run.run(options(artefact, workdir, *flags))
    assert not workdir.exists()


def test_divergence_says_what_to_do(artefact, tmp_path):
    with pytest.raises(InputError, match=r"training of run 0 diverged .*; lower --lr"):
        dynamics_run.run(options(artefact, tmp_path / "wild", "--lr=1e30"))


def accuracy_only(artefact, workdir):
    """Two runs, of which the accuracy alone is measured."""
    config = options(artefact, workdir, "--probes=accuracy@4", "--runs=2")
    defaults = dynamics_run.Config()
    names = ("hessian_trace", "ntk")
    return config.replace({name: getattr(defaults, name).to_dict() for name in names})


@pytest.fixture(scope="module")
def two_runs(artefact, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("two") / "run"
    # Options of a probe that is not named are refused on the command line alone.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dynamics_run, "probe_curves", lambda *_, **__: None)
        return workdir, dynamics_run.run(accuracy_only(artefact, workdir))


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr(dynamics_run, "probe_curves", lambda *_, **__: None)


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_trajectories_are_trained_again(
    two_runs, artefact, tmp_path, kind, undrawn, capsys
):
    """While measurements of both runs are missing."""
    shutil.copytree(two_runs[0], tmp_path / "run")
    lines = tmp_path / "run" / "measurements.jsonl"
    kept = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join(kept[:3] + kept[10:12]))
    lines.with_name(f".{lines.name}.count").write_text("5\n")
    file = tmp_path / "run" / "run1.npz"
    DAMAGES[kind](file, tmp_path / "run" / "run0.npz")
    again = dynamics_run.run(accuracy_only(artefact, tmp_path / "run"))
    said = capsys.readouterr()
    assert "5 measurements were made before" in said.out
    assert mended_line(said.err, file)
    assert ("computed again" in said.err) == (kind != "deleted")
    assert again["curves"] == two_runs[1]["curves"]


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_measurements_are_made_again(
    two_runs, finished, artefact, tmp_path, kind, undrawn, capsys
):
    shutil.copytree(two_runs[0], tmp_path / "run")
    lines = tmp_path / "run" / "measurements.jsonl"
    DAMAGES[kind](lines, finished[0] / "measurements.jsonl")
    again = dynamics_run.run(accuracy_only(artefact, tmp_path / "run"))
    err = capsys.readouterr().err
    assert mended_line(err, lines)
    assert "computed again" in err
    assert again["curves"] == two_runs[1]["curves"]
    assert len(measurements(tmp_path / "run")) == 2 * 3 * 3


def test_measurements_of_a_set_that_changed_are_made_again(
    two_runs, artefact, tmp_path, undrawn, capsys
):
    """At the same place lies another set; what is of real images stays."""
    made = io.load(artefact)
    try:
        brighter = made.distilled._replace(images=made.distilled.images + 0.5)
        io.save(artefact, made._replace(distilled=brighter))
        shutil.copytree(two_runs[0], tmp_path / "run")
        again = dynamics_run.run(accuracy_only(artefact, tmp_path / "run"))
    finally:
        io.save(artefact, made)
    assert "12 measurements were made before" in capsys.readouterr().out
    ours, theirs = (s["curves"]["accuracy.accuracy"] for s in (again, two_runs[1]))
    assert ours["train"] == theirs["train"]
    assert ours["made"] != theirs["made"]


@pytest.mark.slow
def test_learned_targets_are_read_as_hard_labels_on_request(dataset, tmp_path):
    learned = write_learned(tmp_path / "learned.npz", dataset)
    with pytest.raises(InputError, match=r"cross-entropy cannot read them; give --labels="):
        dynamics_run.run(options(learned, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    summary = dynamics_run.run(options(learned, tmp_path / "run", "--labels=hard"))
    plain = write_learned(tmp_path / "plain" / "learned.npz", dataset, targets=None)
    again = dynamics_run.run(options(plain, tmp_path / "plain" / "run"))
    assert summary["sets"]["learned"] == again["sets"]["learned"] | {"path": str(learned)}
