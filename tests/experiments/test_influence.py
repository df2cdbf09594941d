"""Leave-one-out on a tiny set, in pieces, beside its approximations."""

import numpy as np
import pytest

from distilljax import data, io, launch
from distilljax.core import distilled as distilled_set
from distilljax.models import mlp
from distilljax.training.evaluation import PROTOCOLS
from distilljax.types import InputError
from experiments.influence import run as influence_run

SEEDS, N, T = 2, 3, 12


@pytest.fixture(scope="module")
def artefact(dataset, tmp_path_factory):
    """One real image a class, made for a small network."""
    loaded = data.load(str(dataset), None)
    transform = data.fit("normalise", loaded.train.images)
    chosen = data.subset(loaded.train, 1, seed=5)
    start = distilled_set.create(
        transform(chosen.images), chosen.labels, 3, learning_rate=0.01
    )
    path = tmp_path_factory.mktemp("influence") / "made.npz"
    config = {"model": "mlp", "mlp": mlp.Config(width=8, depth=1).to_dict()}
    about = {
        "name": str(dataset),
        "source": loaded.source,
        "fingerprint": loaded.fingerprint,
    }
    io.save(
        path,
        io.Artefact(
            start,
            transform,
            loaded.class_names,
            about,
            "none",
            config,
            PROTOCOLS["study"],
            "0",
            {},
        ),
    )
    return path


def options(artefact, workdir, *more):
    argv = [
        f"--artefact={artefact}",
        f"--workdir={workdir}",
        f"--seeds={SEEDS}",
        f"--test_images={T}",
        "--piece=3",
        *more,
    ]
    return launch.parse(influence_run.Config, argv)


@pytest.fixture(scope="module")
def finished(artefact, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("out") / "run"
    return workdir, influence_run.run(options(artefact, workdir))


def test_what_it_finds(finished):
    workdir, summary = finished
    assert summary["networks"] == SEEDS * (N + 1)
    with np.load(workdir / "influence.npz") as held:
        found, floor = held["influences"], held["noise_floor"]
        positions = held["test_positions"]
        estimated = held["estimated_ntk"]
    assert found.shape == estimated.shape == (SEEDS, N, T)
    mean = found.mean(0)
    np.testing.assert_allclose(
        summary["mean_absolute_influence"], np.abs(mean).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(summary["mean_noise_floor"], floor.mean(), rtol=1e-5)
    most = positions[np.argsort(-mean, axis=1)[:, :9]]
    np.testing.assert_array_equal(summary["most_influenced"], most)
    # An image helps the test images of its class: they lose most without it.
    assert summary["same_class_among_top_nine"] >= 0.4
    for row in summary["estimates"].values():
        assert -1 <= row["with_the_same_initialisation"]["mean"] <= 1
    solved = summary["estimates"]["gauss_newton"]["solved"]
    assert [row["converged"] for row in solved] == [N] * SEEDS
    assert solved[0]["damping"] == pytest.approx(1 / 30)  # .1 / (.01 * 300)
    assert (workdir / "influence.png").stat().st_size > 5_000


def test_the_estimates_agree_with_training_again(finished):
    """On a set this small they rank test images much as training again does."""
    _, summary = finished
    for name in ("gauss_newton", "ntk"):
        row = summary["estimates"][name]["with_the_same_initialisation"]
        assert row["mean"] > 0.5, name


def test_a_cut_run_trains_only_what_is_missing(finished, artefact, tmp_path):
    whole, summary = finished
    workdir = tmp_path / "cut"
    (workdir / "pieces").mkdir(parents=True)
    for name in ("config.json", "pieces/0.npz", "pieces/2.npz"):
        (workdir / name).write_bytes((whole / name).read_bytes())
    stamps = [(workdir / f"pieces/{i}.npz").stat().st_mtime_ns for i in (0, 2)]
    again = influence_run.run(options(artefact, workdir))
    assert stamps == [(workdir / f"pieces/{i}.npz").stat().st_mtime_ns for i in (0, 2)]
    for name in ("mean_absolute_influence", "most_influenced", "reliability", "estimates"):
        assert again[name] == summary[name], name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--artefact="], "name a distilled set"),
        (["--artefact=absent.npz"], r"absent\.npz"),
        (["--estimates=guess"], "there is no estimate 'guess'"),
    ],
)
def test_mistakes_are_named(artefact, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        influence_run.run(options(artefact, tmp_path / "wrong", *flags))
    assert not (tmp_path / "wrong").exists()
