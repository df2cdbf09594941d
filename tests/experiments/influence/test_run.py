"""Leave-one-out on a tiny set, in pieces, beside its approximations."""

import io as text_io
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from distilljax import data, io, launch
from distilljax.analysis import datamodels, leave_one_out
from distilljax.analysis.leave_one_out import Retrained
from distilljax.core import distilled as distilled_set
from distilljax.models import mlp
from distilljax.training import evaluation
from distilljax.training.evaluation import PROTOCOLS
from distilljax.types import Batch, InputError
from experiments.influence import run as influence_run
from experiments.lab import keys
from experiments.lab.kept import digest, read_arrays
from experiments.lab.sets import transform_digest
from experiments.lab.workdir import identity_of
from tests.cases import some
from tests.experiments.helpers import assert_computed_again, replace_contents

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


def test_what_it_finds(finished, artefact, dataset):
    workdir, summary = finished
    assert summary["networks"] == SEEDS * (N + 1)
    identity, held = read_arrays(workdir / "influence.npz")
    found, floor = held["influences"], held["noise_floor"]
    positions, estimated = held["test_positions"], held["estimated_ntk"]
    made, loaded = io.load(artefact), data.load(str(dataset), None)
    about = [loaded.fingerprint, transform_digest(made.transform)]
    assert identity == digest(about, made.distilled)
    assert held.keys() == {
        "influences",
        "noise_floor",
        "test_positions",
        "estimated_ntk",
        "estimated_gauss_newton",
        "estimated_trak",
    }
    assert found.shape == estimated.shape == (SEEDS, N, T)
    mean = found.mean(0)
    np.testing.assert_allclose(
        summary["mean_absolute_influence"], np.abs(mean).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(summary["mean_noise_floor"], floor.mean(), rtol=1e-5)
    sizes = np.abs(found).mean((1, 2))
    np.testing.assert_allclose(
        summary["over_noise"]["value"], sizes.mean() / floor.mean(), rtol=1e-5
    )
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
    for name in ("gauss_newton", "ntk", "trak"):
        row = summary["estimates"][name]["with_the_same_initialisation"]
        assert row["mean"] > 0.5, name


def test_halves_of_the_set_score_the_influences(finished, artefact, tmp_path, capsys):
    """Each score by SciPy, from the kept networks; those of leave-one-out are read."""
    whole, _ = finished
    shutil.copytree(whole / "pieces", tmp_path / "run" / "pieces")
    chosen = options(artefact, tmp_path / "run", "--subsets=4", "--estimates=trak")
    about = {"experiment": influence_run.NAME, "config": identity_of(chosen)}
    (tmp_path / "run" / "config.json").write_text(json.dumps(about))
    summary = influence_run.run(chosen)
    told = capsys.readouterr()
    assert "8 of 8 networks were trained before" in told.out
    subsets = summary["subsets"]
    assert (subsets["number"], subsets["size"], subsets["networks"]) == (4, 1, 8)
    parts = [
        read_arrays(tmp_path / "run" / "pieces" / f"subsets{n}.npz")[1] for n in range(3)
    ]
    losses = np.concatenate([part["losses"] for part in parts]).reshape(SEEDS, 4, T)
    members = np.asarray(datamodels.random_members(keys.parts_key(0), 4, N, 1))
    held = read_arrays(tmp_path / "run" / "influence.npz")[1]

    def score(influences, losses):
        predicted = members @ influences
        return np.nanmean(
            [
                scipy.stats.spearmanr(predicted[:, t], -losses[:, t]).statistic
                for t in range(T)
            ]
        )

    kinds = {"influences": subsets["leave_one_out"]}
    kinds["estimated_trak"] = subsets["estimates"]["trak"]
    for name, found in kinds.items():
        each = [score(*pair) for pair in zip(held[name], losses, strict=True)]
        np.testing.assert_allclose(found["values"], each, atol=1e-4)
        means = score(held[name].mean(axis=0), losses.mean(axis=0))
        assert found["of_means"] == pytest.approx(means, abs=1e-4)
    assert subsets["leave_one_out"]["mean"] > 0.5
    # A network on a half is one trained on these images alone.
    made = io.load(artefact)
    loaded = data.load(made.dataset["name"])
    model = mlp.make(mlp.Config(width=8, depth=1), (8, 8, 1), 3)
    batch = distilled_set.as_batch(made.distilled)
    inside = np.flatnonzero(members[1])
    own = Batch(batch.images[inside], batch.labels[inside])
    key = jax.random.split(keys.fresh_key(0), SEEDS)[1]
    params = evaluation.train(key, model, own, PROTOCOLS["study"])
    where = held["test_positions"]
    logits = model.apply(params, made.transform(loaded.test.images[where]))
    expected = -jax.nn.log_softmax(logits)[np.arange(T), loaded.test.labels[where]]
    np.testing.assert_allclose(losses[1, 1], expected, rtol=1e-3, atol=1e-4)


SAME = (
    "accuracy_on_all",
    "accuracy_without_one",
    "mean_absolute_influence",
    "mean_noise_floor",
    "over_noise",
    "share_above_two_standard_errors",
    "reliability",
    "same_class_among_top_nine",
    "estimates",
    "most_influenced",
)


def test_a_cut_run_trains_only_what_is_missing(finished, artefact, tmp_path, capsys):
    whole, summary = finished
    workdir = tmp_path / "cut"
    (workdir / "pieces").mkdir(parents=True)
    for name in ("config.json", "pieces/0.npz", "pieces/2.npz"):
        (workdir / name).write_bytes((whole / name).read_bytes())
    stamps = [(workdir / f"pieces/{i}.npz").stat().st_mtime_ns for i in (0, 2)]
    again = influence_run.run(options(artefact, workdir))
    assert stamps == [(workdir / f"pieces/{i}.npz").stat().st_mtime_ns for i in (0, 2)]
    told = capsys.readouterr()
    assert "5 of 8 networks were trained before" in told.out
    assert "piece 1/1  network 3/3" in told.err
    for name in SAME:
        assert again[name] == summary[name], name


def flipped(content):
    """One bit of the losses flipped."""
    at = content.index(b"losses.npy") + 200  # behind the headers
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def of_the_old_version(content):
    """The same arrays with another identity and no checksum."""
    with np.load(text_io.BytesIO(content)) as held:
        arrays = {name: held[name] for name in Retrained._fields}
        arrays["digest"] = held["identity"]
    np.savez(out := text_io.BytesIO(), **arrays)
    return out.getvalue()


DAMAGES = {
    "cut": lambda contents: [content[:200] for content in contents],
    "emptied": lambda contents: [b"" for _ in contents],
    "swapped": lambda contents: [*contents[1:], contents[0]],
    "a bit flipped": lambda contents: [flipped(content) for content in contents],
    "of the old version": lambda contents: [of_the_old_version(c) for c in contents],
    "deleted": lambda contents: [None for _ in contents],
}


@pytest.mark.parametrize("damage", some(DAMAGES, "cut", "swapped"))
def test_damaged_pieces_are_named_and_trained_again(
    finished, artefact, tmp_path, capsys, monkeypatch, damage
):
    monkeypatch.setattr(influence_run, "influenced", lambda *_: None)
    whole, summary = finished
    shutil.copytree(whole, workdir := tmp_path / "cut")
    files = sorted((workdir / "pieces").iterdir())
    assert [file.name for file in files] == ["0.npz", "1.npz", "2.npz"]
    replace_contents(files, DAMAGES[damage]([file.read_bytes() for file in files]))
    again = influence_run.run(options(artefact, workdir))
    assert_computed_again(capsys.readouterr(), [] if damage == "deleted" else files)
    for name in SAME:
        assert again[name] == summary[name], name
    for file in files:
        one, other = read_arrays(file), read_arrays(whole / "pieces" / file.name)
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1]["losses"], other[1]["losses"])


def test_approximations_may_be_left_out(artefact, tmp_path):
    chosen = options(artefact, tmp_path, "--estimates=none")
    assert influence_run._chosen_estimates(chosen) == []


def test_training_that_diverges_is_named(artefact, tmp_path, monkeypatch):
    def diverged(keys, members, model, batch, test, protocol, **_):
        losses = jnp.full((len(members), T), jnp.nan)
        return Retrained(losses, jnp.zeros(losses.shape, int), jnp.zeros(len(members)))

    monkeypatch.setattr(leave_one_out, "retrain_on", diverged)
    with pytest.raises(InputError, match=r"loss is not finite: .* protocol `study`"):
        influence_run.run(options(artefact, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--artefact="], "name a distilled set"),
        (["--artefact=absent.npz"], r"absent\.npz"),
        (["--subsets=2"], "subsets=2: a rank correlation needs at least 3, or give 0"),
        (["--estimates=guess"], "unknown estimate 'guess'; choose among gauss_newton, ntk"),
    ],
)
def test_mistakes_are_named(artefact, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        influence_run.run(options(artefact, tmp_path / "wrong", *flags))
    assert not (tmp_path / "wrong").exists()
