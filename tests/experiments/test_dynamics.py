"""The experiment that runs probes along a training run."""

import json

import jax
import numpy as np
import pytest

from distilljax import data, io, launch
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.training.evaluation import PROTOCOLS
from distilljax.types import InputError
from experiments.dynamics import run as dynamics_run
from tests.experiments.conftest import MLP

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
    # Options of a probe that is not named are refused, so make them the defaults again.
    defaults = dynamics_run.Config()
    config = config.replace(
        {name: getattr(defaults, name).to_dict() for name in ("hessian_trace", "ntk")}
    )
    summary = dynamics_run.run(config)
    made = summary["curves"]["accuracy.accuracy"]["made"]
    assert made["mean"][-1] > 0.95
    assert made["runs"] == 2
    assert len(made["values"]) == 2
    assert made["std"] is not None
    loss = summary["curves"]["accuracy.loss"]
    assert loss["made"]["mean"][-1] < loss["made"]["mean"][0] / 2
    first = [json.loads(x) for x in (tmp_path / "reverse/measurements.jsonl").open()]
    start = {
        r["run"]: r["quantities"]["loss"]["value"]
        for r in first[::-1]
        if not r["iteration"]
    }
    assert start[0] != start[1], "runs start from weights of their own"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--probes=sharpness"], "there is no probe 'sharpness'"),
        (["--probes=accuracy,accuracy@2"], "named twice"),
        (["--probes=accuracy@often"], "after @ comes a number"),
        (["--probes=accuracy", "--ntk.images=5"], "does not name"),
        (["--sets=validation"], "there is no set 'validation'"),
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
    with pytest.raises(InputError, match="lower --lr"):
        dynamics_run.run(options(artefact, tmp_path / "wild", "--lr=1e30"))
