"""Distilled sets shown to networks trained on real images; all is tiny."""

import contextlib
import io as text_io
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data, io, launch
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.io import records
from distilljax.models import mlp
from distilljax.types import InputError
from experiments.lab import training
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.kept import Arrays
from experiments.lab.records import checked, open_sealed
from experiments.recognition import measures as recognition_measures
from experiments.recognition import options as recognition_options
from experiments.recognition import run as recognition_run
from experiments.recognition.record import Summary
from tests.experiments.helpers import write, write_learned
from tests.experiments.lab.damage import DAMAGES, mended_line

RANDOM = "random, 2 per class"
MODEL = mlp.make(mlp.Config(width=6), (8, 8, 1), 3)


def config(workdir, artefacts, *more):
    argv = [
        f"--workdir={workdir}",
        f"--artefacts={','.join(map(str, artefacts))}",
        "--width_scale=0.05",
        "--seeds=2",
        "--recipe.batch=30",
        "--recipe.lr=0.02",
        "--map_images=40",
        "--chunk=25",
        *more,
    ]
    for name, value in (("models", "mlp"), ("epochs", 3)):
        if not any(flag.startswith(f"--{name}=") for flag in more):
            argv.append(f"--{name}={value}")
    return launch.parse(recognition_run.Config, argv)


@pytest.fixture(autouse=True)
def without_umap(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)


@pytest.fixture(scope="module")
def artefacts(dataset, tmp_path_factory):
    """Two sets; the labels of the second are soft."""
    folder = tmp_path_factory.mktemp("sets")
    one = write(folder / "one.npz", dataset, ipc=2)
    two = write(folder / "two.npz", dataset, ipc=2, seed=1)
    made = io.load(two)
    logits = jax.random.normal(jax.random.key(0), made.distilled.label_logits.shape)
    io.save(two, made._replace(distilled=made.distilled._replace(label_logits=logits)))
    return [one, two]


@pytest.fixture(scope="module")
def finished(artefacts, tmp_path_factory):
    """A finished run: (workdir, summary, stdout)."""
    workdir = tmp_path_factory.mktemp("run") / "shown"
    out = text_io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(out):
        patched.setitem(sys.modules, "umap", None)
        summary = recognition_run.run(config(workdir, artefacts))
    return workdir, summary, out.getvalue()


@pytest.fixture
def drawn(monkeypatch):
    """Name of the file -> what figures were given; nothing is drawn."""
    asked = {}
    for name in ("accuracy_dots", "pixel_densities", "feature_maps"):
        monkeypatch.setattr(
            recognition_run, name, lambda path, *args, **_: asked.update({path.name: args})
        )
    return asked


def held(workdir, summary, number):
    """The arrays of a stored network."""
    with np.load(workdir / summary["networks"]["mlp"]["files"][number]) as file:
        return {name: file[name] for name in file.files}


def prepared(artefacts):
    made = [io.load(path) for path in artefacts]
    return made, data.load(made[0].dataset["name"]), made[0].transform


def test_everything_is_in_the_summary(finished, artefacts):
    workdir, summary, out = finished
    read = open_sealed(workdir)
    assert checked(Summary, read, str(workdir), "recognition") == summary
    for name in ("recognition.png", "pixels.png", "features.png"):
        assert (workdir / name).read_bytes().startswith(b"\x89PNG")
    rows = ["one", "two", RANDOM, "test images"]
    assert list(summary["recognition"]) == list(summary["rows"]) == rows
    assert summary["networks"]["mlp"]["width"] == 6
    assert summary["networks"]["mlp"]["parameters"] == 65 * 6 + 7 * 6 + 7 * 3
    assert summary["networks"]["mlp"]["training_loss"]["seeds"] == 2
    assert len(records.read(workdir / "cells.jsonl")) == 4
    assert f"--artefacts={artefacts[0]},{artefacts[1]}" in summary["command"]
    assert "network" in summary["features"]
    why = summary["features"]["umap"]["left_out"]
    assert "umap-learn cannot be imported" in why
    assert "pip install umap-learn" in why
    assert f"features.png is without UMAP: {why}" in out
    for row in rows:
        (line,) = [s for s in out.splitlines() if s.strip().startswith(row + "  ")]
        assert spelt_accuracy(summary["recognition"][row]["mlp"]["accuracy"]) in line


def test_recognition_is_that_of_the_stored_networks(finished, artefacts):
    """Computed again without the engine: numpy on logits."""
    workdir, summary, _ = finished
    made, loaded, transform = prepared(artefacts)
    test = transform(jnp.asarray(loaded.test.images)), loaded.test.labels
    for number in range(2):
        random = data.subset(loaded.train, 2, seed=1000 + number)
        shown = {
            "one": (made[0].distilled.images, np.repeat(np.arange(3), 2)),
            "two": (
                made[1].distilled.images,
                np.asarray(made[1].distilled.label_logits).argmax(axis=1),
            ),
            RANDOM: (transform(jnp.asarray(random.images)), random.labels),
            "test images": test,
        }
        params = parameters.unflatten(MODEL)(held(workdir, summary, number)["params"])
        for row, (images, labels) in shown.items():
            logits = np.asarray(MODEL.apply(params, images), np.float64)
            found = summary["recognition"][row]["mlp"]
            right = (logits.argmax(axis=1) == labels).mean()
            assert found["accuracy"]["values"][number] == pytest.approx(right)
            chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            loss = -np.log(chances[np.arange(len(labels)), labels]).mean()
            assert found["loss"]["values"][number] == pytest.approx(loss, rel=1e-5)


def test_networks_are_those_of_the_trainer(finished, artefacts):
    """Without this command: the second network, from the recipe and its number."""
    workdir, summary, _ = finished
    _, loaded, transform = prepared(artefacts)
    chosen = config(workdir, artefacts)
    assert (chosen.recipe.momentum, chosen.recipe.augment) == (0.9, "")
    network = recognition_options.choose(chosen).networks["mlp"]
    net = training.plan_net(loaded, transform, network, chosen.recipe, 3, 0, 1)
    assert (
        summary["networks"]["mlp"]["files"][1] == f"networks/mlp_1_{net.identity[:8]}.npz"
    )
    stored = held(workdir, summary, 1)
    assert stored["identity"] == net.identity
    assert int(stored["epoch"]) == 3
    assert stored["losses"][-1] < stored["losses"][0]
    of_all = summary["networks"]["mlp"]["training_loss"]["values"]
    assert of_all[1] == stored["losses"][-1]


class Killed(BaseException):
    pass


def test_killed_and_resumed_it_is_the_same(
    finished, artefacts, tmp_path, monkeypatch, drawn, capsys
):
    """Once between two epochs of the second network, once between two cells."""
    monkeypatch.setattr(training, "SECONDS_BETWEEN_SAVES", 0.0)
    write_one, append = Arrays.write, records.append
    writes = []

    def dies_after_writing(pieces, name, identity, **arrays):
        write_one(pieces, name, identity, **arrays)
        writes.append((name[:5], int(arrays["epoch"])))
        if writes[-1] == ("mlp_1", 2):
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Arrays, "write", dies_after_writing)
        with pytest.raises(Killed):
            recognition_run.run(config(tmp_path / "cut", artefacts))
    assert writes == [(f"mlp_{n}", e) for n, e in ((0, 1), (0, 2), (0, 3), (1, 1), (1, 2))]

    def dies_at_a_cell(path, lines):
        if path.exists() and len(records.read(path)) == 2:
            raise Killed
        append(path, lines)

    with monkeypatch.context() as patched:
        patched.setattr(records, "append", dies_at_a_cell)
        with pytest.raises(Killed):
            recognition_run.run(config(tmp_path / "cut", artefacts))
    out = capsys.readouterr().out
    assert "1 of 2 networks were trained before" in out
    assert "mlp 1 goes on after epoch 2" in out

    again = recognition_run.run(config(tmp_path / "cut", artefacts))
    assert "2 of 4 cells were finished before" in capsys.readouterr().out
    for name in ("recognition", "pixels", "rows"):
        assert again[name] == finished[1][name]
    for number in range(2):
        ours, theirs = (held(w, again, number) for w in (tmp_path / "cut", finished[0]))
        for name in ("params", "losses", "optimizer"):
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_other_artefacts_train_nothing_again(
    finished, artefacts, dataset, tmp_path, monkeypatch, drawn, capsys
):
    workdir, summary, _ = finished
    other = write(tmp_path / "three.npz", dataset, ipc=2, seed=2)

    def refuse(*_):
        raise AssertionError("a network is trained")

    monkeypatch.setattr(training, "_epoch_programs", refuse)
    found = recognition_run.run(config(workdir, [artefacts[0], other]))
    assert list(found["recognition"]) == ["one", "three", RANDOM, "test images"]
    assert found["networks"] == summary["networks"]
    out = capsys.readouterr().out
    assert "2 of 2 networks were trained before" in out
    assert "3 of 4 cells were finished before" in out
    for row in ("one", RANDOM, "test images"):
        assert found["recognition"][row] == summary["recognition"][row]
    back = recognition_run.run(config(workdir, artefacts))
    assert back["recognition"] == summary["recognition"]


def test_pictures_are_of_what_was_found(finished, artefacts, drawn):
    workdir, summary, _ = finished
    recognition_run.run(config(workdir, artefacts))
    rows, _ = drawn["recognition.png"]
    assert rows["two"]["mlp"] == summary["recognition"]["two"]["mlp"]["accuracy"]
    (curves,) = drawn["pixels.png"]
    for edges, density in curves.values():
        assert (density * np.diff(edges)).sum() == pytest.approx(1)
    made, loaded, transform = prepared(artefacts)
    edges, density = curves["real images"]
    unit = loaded.train.images.ravel() / 255
    np.testing.assert_allclose(density, np.histogram(unit, edges, density=True)[0])
    edges, density = curves["one"]
    unit = np.asarray(transform.inverse(made[0].distilled.images)).ravel()
    np.testing.assert_allclose(density, np.histogram(unit, edges, density=True)[0])
    assert edges[0] <= min(0, unit.min())
    assert max(1, unit.max()) <= edges[-1]

    maps, names, _ = drawn["features.png"]
    assert list(names) == ["top", "middle", "bottom"]
    (panel,) = maps.values()
    assert list(panel) == ["test images", "one", "two"]
    assert [len(points) for points, _ in panel.values()] == [40, 6, 6]
    np.testing.assert_array_equal(
        panel["two"][1], distilled_set.hard_labels(made[1].distilled)
    )
    # Distilled points lie where the components of the test images put their features.
    params = parameters.unflatten(MODEL)(held(workdir, summary, 0)["params"])
    order = np.random.default_rng(0).permutation(60)[:40]
    images = transform(jnp.asarray(loaded.test.images[order]))
    features = np.asarray(MODEL.features(params, images), np.float64)
    components = recognition_measures.principal_components(features)
    own = np.asarray(MODEL.features(params, made[0].distilled.images), np.float64)
    np.testing.assert_allclose(panel["one"][0], components.project(own), atol=1e-4)
    np.testing.assert_allclose(
        panel["test images"][0], components.project(features), atol=1e-4
    )


def test_umap_is_drawn_where_it_is(finished, artefacts, drawn, monkeypatch, capsys):
    given = {}

    class Reducer:
        def __init__(self, **options):
            given.update(options)

        def fit_transform(self, points):
            given["shape"] = points.shape
            return points[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Reducer))
    monkeypatch.setattr(
        recognition_measures.importlib.metadata,
        "version",
        lambda name: "9.9" if name == "umap-learn" else "1",
    )
    summary = recognition_run.run(config(finished[0], artefacts))
    assert given == {
        "n_neighbors": 5,
        "random_state": 42,
        "n_jobs": 1,
        "shape": (40 + 6 + 6, 6),
    }
    assert summary["features"]["umap"] == {
        "version": "9.9",
        "n_neighbors": 5,
        "random_state": 42,
    }
    assert "without UMAP" not in capsys.readouterr().out
    maps, *_ = drawn["features.png"]
    assert list(maps)[1] == "UMAP"
    assert [len(points) for points, _ in maps["UMAP"].values()] == [40, 6, 6]


def test_pixel_statistics_by_hand():
    values = np.array([-0.5, -0.001, 0.0, 0.25, 0.5, 1.0, 1.001, 2.0, 3.0, 1.0])
    found = recognition_measures.pixel_statistics(values)
    assert found["mean"] == pytest.approx(0.825)
    assert found["std"] == pytest.approx(np.std(values))
    # A quarter of a grey level beyond 0 or 1 does not count.
    assert (found["below"], found["above"]) == (0.1, 0.2)
    assert found["outside"] == pytest.approx(0.3)
    assert found["quantiles"]["0.0"] == -0.5
    assert found["quantiles"]["0.25"] == 0.0
    assert found["quantiles"]["0.5"] == 0.5
    assert found["quantiles"]["0.75"] == 1.001
    assert found["quantiles"]["1.0"] == 3.0
    just = recognition_measures.pixel_statistics(
        np.array([-1.9e-3, -2.0e-3, 1.0019, 1.0021])
    )
    assert (just["below"], just["above"]) == (0.25, 0.25)


def test_pixel_statistics_of_counts_are_those_of_the_values():
    values, counts = np.array([-1.0, 0.5, 2.0]), np.array([1, 5, 2])
    found = recognition_measures.pixel_statistics(values, counts)
    expected = recognition_measures.pixel_statistics(values.repeat(counts))
    assert found.pop("quantiles") == expected.pop("quantiles")
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(30, 5), (4, 9)])
def test_principal_components_against_the_covariance(shape):
    rng = np.random.default_rng(0)
    points = rng.normal(size=shape) * np.arange(1, shape[1] + 1) + 3
    found = recognition_measures.principal_components(points)
    eigenvalues, vectors = np.linalg.eigh(np.cov(points.T))
    for i in range(2):
        axis = vectors[:, -1 - i]
        axis = axis * np.sign(axis[np.abs(axis).argmax()])
        np.testing.assert_allclose(found.axes[:, i], axis, atol=1e-10)
    shares = eigenvalues[::-1][:2] / eigenvalues.sum()
    np.testing.assert_allclose(found.explained, shares)
    projected = found.project(points)
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(
        np.cov(projected.T), np.diag(eigenvalues[::-1][:2]), atol=1e-9
    )


def test_components_of_equal_points():
    found = recognition_measures.principal_components(np.ones((3, 4)))
    assert found.explained.tolist() == [0, 0]
    assert not found.project(np.ones((2, 4))).any()


def test_width_of_each_network():
    def widths(text, *names):
        found = recognition_options.networks_of(
            recognition_run.Config(width_scale=text), names
        )
        return [network.config.width for network in found.values()]

    assert widths("0.25", "convnet", "resnet18") == [32, 16]
    assert widths("0.5, 1", "convnet", "convnet16") == [64, 16]


def test_epochs_of_each_network():
    def epochs(text, *names):
        return recognition_options.epochs_of(recognition_run.Config(epochs=text), names)

    assert epochs("", "convnet16", "resnet18") == {"convnet16": 20, "resnet18": 40}
    assert epochs("3", "mlp", "convnet") == {"mlp": 3, "convnet": 3}
    assert epochs("3, 5", "mlp", "convnet") == {"mlp": 3, "convnet": 5}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--artefacts="], "artefacts=.*name distilled sets"),
        (["--models=own"], "models='own': unknown architecture 'own'"),
        (["--epochs=1,2"], "epochs='1,2': expected one positive integer, or one for each"),
        (["--epochs=0"], "epochs='0': expected one positive integer"),
        (["--epochs=ten"], "epochs='ten': expected"),
        (["--width_scale=1,2"], "width_scale='1,2': expected one positive number, or one"),
        (["--width_scale=0"], "width_scale='0': expected one positive number"),
        (["--width_scale=inf"], "width_scale='inf': expected one positive"),
        (["--map_model=resnet18"], "map_model='resnet18': choose among mlp"),
        (["--models=vgg11"], "models='vgg11': 8x8 images cannot be halved"),
    ],
)
def test_wrong_input_is_refused_and_leaves_nothing(artefacts, tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        recognition_run.run(config(tmp_path / "run", artefacts, *more))
    assert not (tmp_path / "run").exists()


def test_sets_of_different_preprocessing_are_refused(artefacts, dataset, tmp_path):
    unit = data.fit("none", data.load(str(dataset)).train.images)
    other = write(tmp_path / "unit.npz", dataset, transform=unit)
    with pytest.raises(InputError, match="one and unit were made under different prep"):
        recognition_run.run(config(tmp_path / "run", [artefacts[0], other]))


def test_a_network_that_diverges_is_refused(artefacts, tmp_path):
    chosen = config(tmp_path / "run", artefacts, "--recipe.lr=1e38", "--epochs=2")
    with pytest.raises(InputError, match="training of mlp 0 diverged at epoch 1, its"):
        recognition_run.run(chosen)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("kept", ["network", "cells"])
def test_damaged_pieces_are_computed_again(
    finished, artefacts, tmp_path, kind, kept, drawn, capsys
):
    workdir, summary, _ = finished
    shutil.copytree(workdir, tmp_path / "run")
    first, second = (tmp_path / "run" / x for x in summary["networks"]["mlp"]["files"])
    path, other = (first, second) if kept == "network" else (workdir / "cells.jsonl", first)
    if kept == "cells":
        path = tmp_path / "run" / "cells.jsonl"
        other = tmp_path / "of_another_run.jsonl"
        other.write_text("".join(path.read_text().splitlines(True)[:1]))
    DAMAGES[kind](path, other)
    again = recognition_run.run(config(tmp_path / "run", artefacts))
    err = capsys.readouterr().err
    assert mended_line(err, path)
    assert ("computed again" in err) == (kept == "cells" or kind != "deleted")
    for name in ("recognition", "pixels", "rows", "features"):
        assert again[name] == summary[name], name
    before, after = summary["networks"]["mlp"], again["networks"]["mlp"]
    assert before["training_loss"] == after["training_loss"]
    ours, theirs = (held(w, again, 0) for w in (tmp_path / "run", workdir))
    np.testing.assert_array_equal(ours["params"], theirs["params"])


def test_learned_targets_are_shown_under_their_largest_class(dataset, tmp_path):
    learned = write_learned(tmp_path / "learned.npz", dataset)
    summary = recognition_run.run(config(tmp_path / "run", [learned]))
    plain = write_learned(tmp_path / "plain" / "learned.npz", dataset, targets=None)
    again = recognition_run.run(config(tmp_path / "plain" / "run", [plain]))
    assert summary["recognition"] == again["recognition"]
