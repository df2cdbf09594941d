"""Evaluation of a finished set, on tiny data."""

import json

import jax
import numpy as np
import pytest

from distilljax import data, io, launch
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.models import mlp
from distilljax.training import evaluation
from distilljax.training.evaluation import NETWORKS, PROTOCOLS, EvaluationProtocol
from distilljax.types import InputError
from experiments.evaluate import run as evaluate
from experiments.lab.keys import fresh_key
from experiments.lab.records import open_sealed
from tests.experiments.helpers import OWN, write, write_learned


@pytest.fixture(scope="module")
def artefact(dataset, tmp_path_factory):
    """Two images a class, four training steps at a rate of its own."""
    return write(tmp_path_factory.mktemp("sets") / "a" / "distilled.npz", dataset, ipc=2)


def config(artefact, workdir, *more):
    argv = [f"--artefact={artefact}", f"--workdir={workdir}", *more]
    if not any(flag.startswith("--seeds=") for flag in more):
        argv.append("--seeds=3")
    return launch.parse(evaluate.Config, argv)


@pytest.fixture(scope="module")
def finished(artefact, tmp_path_factory):
    """A finished run: (workdir, summary)."""
    workdir = tmp_path_factory.mktemp("run") / "evaluate"
    more = ["--baselines=random,herding,k_centre"]
    return workdir, evaluate.run(config(artefact, workdir, *more))


@pytest.fixture
def trained(monkeypatch):
    """(model, sets, protocol) of the networks that a run trains; none is trained."""
    asked = []

    def fake(problem, wanted):
        asked.append((problem.model, problem.baselines, problem.protocol))
        num = problem.seeds
        cell = {"mean": 0.5, "std": 0.1, "seeds": num, "values": [0.5] * num}
        return dict.fromkeys(("distilled", *problem.baselines), cell), {"weight": 0.5}

    monkeypatch.setattr(evaluate.fair, "measure_fairly", fake)
    return asked


def test_everything_is_in_the_summary(finished, artefact):
    workdir, summary = finished
    assert open_sealed(workdir) == summary
    assert (workdir / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert list(summary["accuracy"]) == ["distilled", "random", "herding", "k_centre"]
    for row in summary["accuracy"].values():
        assert row["seeds"] == 3 == len(row["values"])
        assert row["mean"] == pytest.approx(np.mean(row["values"]))
        assert row["std"] == pytest.approx(np.std(row["values"], ddof=1))
    mean = {name: row["mean"] for name, row in summary["accuracy"].items()}
    gain = mean["distilled"] - mean["random"]
    assert summary["scores"] == {"weight": 0.5, "ior": pytest.approx(gain)}
    assert summary["dataset"]["same_as_distilled"] is True
    assert summary["dataset"]["num_classes"] == 3
    assert summary["protocol"] == {"name": "own", **io.load(artefact).protocol.to_dict()}
    assert summary["artefact"]["path"] == str(artefact)
    assert summary["artefact"]["method"] == "none"


def test_networks_are_trained_on_the_set_as_it_was_made_for(finished, artefact):
    """By the library alone: the same keys, protocol, rate and network."""
    made = io.load(artefact)
    loaded = data.load(made.dataset["name"])
    expected = evaluation.fresh_accuracy(
        jax.random.split(fresh_key(0), 3),
        mlp.make(mlp.Config(width=4, depth=1), (8, 8, 1), 3),
        distilled_set.as_batch(made.distilled),
        data.on_device(loaded.test, made.transform, 3),
        EvaluationProtocol(steps=4, lr=None),
        learning_rate=0.05,
    )
    found = finished[1]["accuracy"]["distilled"]["values"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["own", *PROTOCOLS])
def test_every_protocol(artefact, tmp_path, trained, name):
    summary = evaluate.run(config(artefact, tmp_path / "run", f"--protocol={name}"))
    ((_, _, protocol),) = trained
    assert protocol == PROTOCOLS.get(name, EvaluationProtocol(steps=4, lr=None))
    assert summary["protocol"] == {"name": name, **protocol.to_dict()}


@pytest.fixture(scope="module")
def learned(dataset, tmp_path_factory):
    return write_learned(tmp_path_factory.mktemp("sets") / "learned.npz", dataset)


def test_learned_targets_and_all_that_they_are_compared_with(learned, tmp_path):
    more = ["--seeds=2", "--whole_epochs=1", "--whole_seeds=2", "--expert_epochs=1"]
    summary = evaluate.run(config(learned, tmp_path / "run", *more))
    names = ["distilled", "random", "distilled_hard", "random_expert", "whole"]
    assert list(summary["accuracy"]) == names
    assert {"ior", "hlr", "lrs", "expert"} <= summary["scores"].keys()
    held = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert held["scores"] == summary["scores"]


def test_targets_that_a_loss_cannot_read(learned, tmp_path, trained):
    for name in ("study", "dc", "rat"):
        with pytest.raises(InputError, match=r"labels='own': .* give --labels=hard, or"):
            evaluate.run(config(learned, tmp_path / "run", f"--protocol={name}"))
    assert not trained
    assert not (tmp_path / "run").exists()
    more = ["--protocol=study", "--labels=hard"]
    assert evaluate.run(config(learned, tmp_path / "run", *more))["labels"] == "hard"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_protocol_brings_its_network(artefact, tmp_path, trained, name):
    summary = evaluate.run(config(artefact, tmp_path / "run", f"--protocol={name}"))
    assert summary["network"].items() >= {"model": "convnet", **NETWORKS[name]}.items()
    more = [f"--protocol={name}", "--model=mlp", "--mlp.width=5"]
    summary = evaluate.run(config(artefact, tmp_path / "mlp", *more))
    assert (summary["network"]["model"], summary["network"]["width"]) == ("mlp", 5)


def test_images_that_a_protocol_looks_at_are_training_images(artefact, tmp_path):
    """Four of each class, a tenth; the protocol's network is the one asked for."""
    own = EvaluationProtocol(steps=4, lr=0.05, check_every=2, patience=2)
    made = io.load(artefact)
    io.save(tmp_path / "a.npz", made._replace(protocol=own))
    more = ["--seeds=2", "--baselines="]
    summary = evaluate.run(config(tmp_path / "a.npz", tmp_path / "run", *more))
    loaded = data.load(made.dataset["name"])
    chosen = data.subset(loaded.train, 4, 0)
    expected = evaluation.fresh_accuracy(
        jax.random.split(fresh_key(0), 2),
        mlp.make(mlp.Config(width=4, depth=1), (8, 8, 1), 3),
        distilled_set.as_batch(made.distilled),
        data.on_device(loaded.test, made.transform, 3),
        own,
        validation=data.on_device(chosen, made.transform, 3),
    )
    found = summary["accuracy"]["distilled"]["values"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_another_network_is_trained(artefact, tmp_path):
    more = ["--protocol=dc", "--model=convnet", "--convnet.width=4", "--convnet.depth=2"]
    summary = evaluate.run(config(artefact, tmp_path / "run", *more, "--seeds=2"))
    assert summary["protocol"]["epochs"] == 300
    assert summary["accuracy"]["distilled"]["seeds"] == 2


def test_the_network_of_the_artefact_and_others(artefact, tmp_path, trained):
    evaluate.run(config(artefact, tmp_path / "own"))
    evaluate.run(config(artefact, tmp_path / "mlp", "--model=mlp", "--mlp.width=5"))
    counted = [parameters.num_params(model) for model, _, _ in trained]
    assert counted == [8 * 8 * 4 + 4 + 4 * 3 + 3, 8 * 8 * 5 + 5 + 5 * 5 + 5 + 5 * 3 + 3]


def test_baselines_are_as_many_real_images(artefact, tmp_path, trained):
    more = ["--baselines=k_centre,random", "--seeds=2"]
    summary = evaluate.run(config(artefact, tmp_path / "run", *more))
    assert list(summary["accuracy"]) == ["distilled", "k_centre", "random"]
    ((_, baselines, _),) = trained
    assert list(baselines) == ["k_centre", "random"]
    for sets in baselines.values():
        assert sets.images.shape == (2, 6, 8, 8, 1)
    assert not np.array_equal(*baselines["random"].images)
    np.testing.assert_array_equal(*baselines["k_centre"].images)


def test_other_data_that_fit_are_tested_on_where_they_are_named(
    artefact, dataset, tmp_path, trained
):
    with np.load(dataset) as held:
        arrays = dict(held)
    arrays["test_images"] = 255 - arrays["test_images"]
    np.savez(tmp_path / "other.npz", **arrays)
    other = f"--dataset={tmp_path / 'other.npz'}"
    summary = evaluate.run(config(artefact, tmp_path / "run", other))
    assert summary["dataset"]["same_as_distilled"] is False


def test_data_that_changed_are_refused(dataset, tmp_path, trained):
    moved = tmp_path / "moved.npz"
    moved.write_bytes(dataset.read_bytes())
    made = write(tmp_path / "a.npz", moved)
    with np.load(dataset) as held:
        arrays = dict(held)
    arrays["test_images"] = 255 - arrays["test_images"]
    np.savez(moved, **arrays)
    with pytest.raises(InputError, match=r"is not what .* was made of"):
        evaluate.run(config(made, tmp_path / "run"))
    evaluate.run(config(made, tmp_path / "run", f"--dataset={moved}"))
    assert len(trained) == 1


@pytest.mark.parametrize(
    ("config_of_set", "message"),
    [
        ({}, "model='own': the artefact names the unknown network 'None'; choose"),
        ({"model": "transformer"}, "names the unknown network 'transformer'; choose"),
        ({"model": "vgg"}, "model='own': 8x8 images cannot be halved"),
        ({"model": "mlp", "mlp": None}, "a network that cannot be had .mlp is 'None'"),
        ({"model": "mlp", "mlp": []}, "a network that cannot be had .mlp is '..'"),
        ({"model": "mlp", "mlp": {"width": "x"}}, "cannot be had .width='x'"),
        ({"model": "mlp", "mlp": {"width": 10**9}}, "parameters needs .* of memory"),
        ({"model": "mlp", "mlp": {"depth": 10**6}}, "must be at most 1000"),
    ],
)
def test_an_artefact_whose_network_cannot_be_made(
    dataset, tmp_path, trained, config_of_set, message
):
    made = write(tmp_path / "a.npz", dataset, config=config_of_set)
    with pytest.raises(InputError, match=message):
        evaluate.run(config(made, tmp_path / "run"))
    assert not (tmp_path / "run").exists(), "a mistake must not claim the place"
    evaluate.run(config(made, tmp_path / "run", "--model=mlp"))
    assert len(trained) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--artefact="], "artefact=.*name a distilled set"),
        (["--artefact=absent.npz"], "absent.npz: no such file"),
        (["--dataset=embedded"], "choose the --dataset it was made of"),
        (["--dataset=absent.npz"], "absent.npz"),
        (["--baselines=best"], "unknown baseline 'best'; choose among random, herding"),
    ],
)
def test_wrong_input_is_refused_and_leaves_nothing(
    artefact, tmp_path, trained, more, message
):
    with pytest.raises(InputError, match=message):
        evaluate.run(config(artefact, tmp_path / "run", *more))
    assert not trained
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ipc", ["x", None, 0, -1, 10**9, 1.5, True])
def test_a_set_that_misstates_its_size_is_refused(dataset, tmp_path, trained, ipc):
    made = write(tmp_path / "a.npz", dataset, config={**OWN, "ipc": ipc})
    with pytest.raises(InputError, match="as its images per class; it is damaged"):
        evaluate.run(config(made, tmp_path / "run"))
    assert not trained


def test_a_set_that_names_no_data_is_evaluated_on_those_given(dataset, tmp_path, trained):
    made = write(tmp_path / "a.npz", dataset)
    io.save(made, io.load(made)._replace(dataset={}))
    with pytest.raises(InputError, match=r"does not say which data .* give --dataset"):
        evaluate.run(config(made, tmp_path / "run"))
    found = evaluate.run(config(made, tmp_path / "run", f"--dataset={dataset}"))
    assert not found["dataset"]["same_as_distilled"]


def test_a_set_of_arrays_is_evaluated_on_the_same_images(dataset, tmp_path, trained):
    """Under any names of the classes."""
    made = write(tmp_path / "a.npz", dataset)
    held = io.load(made)
    described = {**held.dataset, "name": "arrays", "source": "arrays"}
    io.save(made, held._replace(dataset=described, class_names=("0", "1", "2")))
    with pytest.raises(InputError, match=r"was made of arrays in memory.*give --dataset,"):
        evaluate.run(config(made, tmp_path / "run"))
    found = evaluate.run(config(made, tmp_path / "run", f"--dataset={dataset}"))
    assert found["dataset"]["same_as_distilled"]
    others = {**described, "fingerprint": "0" * 64}
    io.save(made, io.load(made)._replace(dataset=others))
    with pytest.raises(InputError, match="choose the --dataset it was made of"):
        evaluate.run(config(made, tmp_path / "other", f"--dataset={dataset}"))


def test_a_picture_that_cannot_be_drawn_leaves_the_result(
    artefact, tmp_path, trained, monkeypatch, capsys
):
    def fails(*_, **__):
        raise ValueError("no such glyph")

    monkeypatch.setattr(evaluate, "image_grid", fails)
    found = evaluate.run(config(artefact, tmp_path / "run"))
    assert found["accuracy"]["distilled"]["mean"] == 0.5
    assert "the picture cannot be drawn (no such glyph)" in capsys.readouterr().err


def test_the_home_folder_of_the_set(artefact, tmp_path, trained, monkeypatch):
    monkeypatch.setenv("HOME", str(artefact.parent))
    found = evaluate.run(config("~/distilled.npz", tmp_path / "run"))
    assert found["artefact"]["path"] == str(artefact)


def test_a_workdir_of_another_run_is_refused(artefact, finished):
    with pytest.raises(InputError, match="holds a different run"):
        evaluate.run(config(artefact, finished[0], "--baselines=random"))
