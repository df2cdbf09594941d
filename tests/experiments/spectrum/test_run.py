"""Directions of feature space, on tiny networks and sets."""

import shutil

import jax
import numpy as np
import pytest

from distilljax import data, io, launch
from distilljax.core import distilled as distilled_set
from distilljax.models import mlp
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import InputError
from experiments.lab import keys
from experiments.lab.records import open_sealed
from experiments.spectrum import run as spectrum_run
from experiments.spectrum.record import REAL
from tests.experiments.helpers import write

RANDOM = "random, 2 per class"
OWN = {"model": "mlp", "mlp": {"width": 6, "depth": 1}}


@pytest.fixture(scope="module")
def artefact(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return write(folder / "a.npz", dataset, ipc=2, config=OWN)


def config(workdir, artefacts, *more):
    argv = [f"--workdir={workdir}", f"--artefacts={artefacts}", "--seeds=2", "--steps=5"]
    return launch.parse(
        spectrum_run.Config, [*argv, "--batch=20", "--real_images=60", *more]
    )


@pytest.fixture(scope="module")
def finished(artefact, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "spectra"
    return workdir, spectrum_run.run(config(workdir, artefact))


def test_everything_is_in_the_summary(finished):
    workdir, summary = finished
    assert open_sealed(workdir) == summary
    assert (workdir / "spectrum.png").read_bytes().startswith(b"\x89PNG")
    assert summary["bands"] == [0, 1, 2, 4, 6]
    assert summary["real_images"] == 60
    for stage in summary["stages"].values():
        assert list(stage["weak"]) == ["a", RANDOM, REAL]
        assert sum(stage["variance"]) == pytest.approx(1)
        assert np.shape(stage["response"][RANDOM]) == (2, 4)
        assert stage["dimensions"] == 6


@pytest.mark.parametrize("stage", ["initial", "trained"])
def test_shares_are_those_of_a_plain_computation(finished, artefact, stage):
    """Features, correlations and moments in NumPy, of the second network."""
    made = io.load(artefact)
    loaded = data.load(made.dataset["name"])
    model = mlp.make(mlp.Config(width=6, depth=1), (8, 8, 1), 3)
    root = jax.random.split(keys.fresh_key(0), 2)[1]
    params = model.init(jax.random.split(root, 3)[0])
    if stage == "trained":
        real = data.on_device(loaded.train, made.transform, 3)
        params = evaluation.train(
            root, model, real, EvaluationProtocol(steps=5, batch=20), start=params
        )
    chosen = data.subset(loaded.train, 20, 0)
    real = np.asarray(model.features(params, made.transform(chosen.images)), np.float64)
    mean = real.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(real.T, bias=True))
    values, vectors = values[::-1], vectors[:, ::-1]
    strong = int(np.argmax(np.cumsum(values) >= 0.9 * values.sum())) + 1

    own = distilled_set.as_batch(made.distilled)
    images = np.asarray(model.features(params, own.images), np.float64) - mean
    energy = ((vectors.T @ images.T @ np.asarray(own.labels)) ** 2).sum(axis=1)
    found = finished[1]["stages"][stage]
    assert found["strong"][1] == strong
    expected = energy[strong:].sum() / energy.sum()
    assert found["weak"]["a"]["values"][1] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    weak_energy = found["weak_energy"]["a"]["values"][1]
    whole = np.eye(3)[np.asarray(chosen.labels)]
    of_real = ((vectors.T @ (real - mean).T @ whole) ** 2).sum(axis=1) / 60**2
    if of_real[strong:].sum() > 1e-6:
        ratio = energy[strong:].sum() / 6**2 / of_real[strong:].sum()
        assert weak_energy == pytest.approx(ratio, rel=1e-2)
    bands = [slice(0, 1), slice(1, 2), slice(2, 4), slice(4, 6)]
    ratio = [(energy[b].sum() / 6**2) / of_real[b].sum() for b in bands]
    np.testing.assert_allclose(found["response"]["a"][1][:3], ratio[:3], rtol=1e-2)


def test_cut_and_resumed_it_is_the_same(finished, artefact, tmp_path, capsys):
    workdir, summary = finished
    cut = tmp_path / "cut"
    shutil.copytree(workdir, cut)
    (cut / "summary.json").unlink()
    (cut / "energies" / "trained1.npz").write_bytes(b"damaged")
    again = spectrum_run.run(config(cut, artefact))
    assert "3 of 4 networks looked before" in capsys.readouterr().out
    assert again["stages"] == summary["stages"]


def test_wrong_input(artefact, dataset, tmp_path):
    second = write(tmp_path / "b.npz", dataset, ipc=2)
    for artefacts, more, message in (
        (f"{artefact},{second}", [], "a and b were made with different networks"),
        ("", [], "name distilled sets"),
    ):
        with pytest.raises(InputError, match=message):
            spectrum_run.run(config(tmp_path / "run", artefacts, *more))
    with pytest.raises(InputError, match="share=1"):
        config(tmp_path / "run", artefact, "--share=1")
    assert not (tmp_path / "run").exists()
