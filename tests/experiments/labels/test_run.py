"""Labels of experts on tiny sets."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data, launch
from distilljax.comparison.real import random_subsets
from distilljax.core import losses
from distilljax.models import mlp
from distilljax.training import evaluation, expert
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Batch, InputError
from experiments.lab import keys
from experiments.lab.records import open_sealed
from experiments.lab.sets import load_artefacts
from experiments.labels import run as labels_run
from tests.experiments.helpers import write

RANDOM, HERDED = "random, 2 per class", "herding, 2 per class"


@pytest.fixture(scope="module")
def artefact(dataset, tmp_path_factory):
    return write(tmp_path_factory.mktemp("sets") / "a" / "distilled.npz", dataset, ipc=2)


def config(workdir, artefacts, *more):
    argv = [
        f"--workdir={workdir}",
        f"--artefacts={artefacts}",
        "--protocol=own",
        "--seeds=3",
        "--early=1",
        "--late=3",
        "--recipe.batch=20",
        *more,
    ]
    return launch.parse(labels_run.Config, argv)


@pytest.fixture(scope="module")
def finished(artefact, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "table"
    return workdir, labels_run.run(config(workdir, artefact))


def test_everything_is_in_the_summary(finished):
    workdir, summary = finished
    assert open_sealed(workdir) == summary
    assert (workdir / "labels.png").read_bytes().startswith(b"\x89PNG")
    assert list(summary["rows"]) == ["a", RANDOM, HERDED]
    assert [summary["rows"][row]["method"] for row in (RANDOM, HERDED)] == [
        "random",
        "herding",
    ]
    for row, of_row in summary["accuracy"].items():
        assert list(of_row) == ["hard", "early", "late"]
        for name in ("early", "late"):
            own, hard = (np.array(of_row[n]["values"]) for n in (name, "hard"))
            assert summary["gain"][row][name]["values"] == (own - hard).tolist()
    assert [e["epochs"] for e in summary["experts"].values()] == [1, 3]
    early, late = summary["experts"].values()
    assert early["training_loss"] > late["training_loss"]


def test_a_cell_is_training_on_what_the_expert_says(finished, artefact):
    """The expert, its probabilities and the network, trained by hand."""
    made = next(iter(load_artefacts(str(artefact)).values())).artefact
    loaded = data.load(made.dataset["name"])
    model = mlp.make(mlp.Config(width=4, depth=1), (8, 8, 1), 3)
    real = data.on_device(loaded.train, made.transform, 3)
    test = data.on_device(loaded.test, made.transform, 3)
    recipe = expert.Recipe(momentum=0.9, augment="", batch=20)
    root = keys.expert(0)
    state = expert.init(expert.epoch_key(root, 0, 0), model, recipe)
    for epoch in range(1, 4):
        key = expert.epoch_key(root, 0, epoch)
        state, _ = expert.epoch(key, model, real, recipe, state)
    seen = model.apply(state.params, test.transform(test.images))
    right = losses.accuracy(seen, test.labels)
    assert finished[1]["experts"]["late"]["accuracy"] == pytest.approx(float(right))

    drawn = random_subsets(loaded.train, 2, 3, made.transform)
    network = jax.random.split(keys.fresh_key(0), 3)[1]
    soft = jax.nn.softmax(model.apply(state.params, drawn.images[1]))
    params = evaluation.train(
        network,
        model,
        Batch(drawn.images[1], soft),
        EvaluationProtocol(steps=4, lr=None),
        learning_rate=jnp.float32(0.05),
    )
    logits = model.apply(params, test.transform(test.images))
    expected = losses.accuracy(logits, test.labels)
    found = finished[1]["accuracy"][RANDOM]["late"]["values"][1]
    assert found == pytest.approx(float(expected))


def test_the_expert_begins_at_weights_of_its_own(finished):
    """Not at those of a network that is trained on its labels."""
    model = mlp.make(mlp.Config(width=4, depth=1), (8, 8, 1), 3)
    first = model.init(expert.epoch_key(keys.expert(0), 0, 0))
    for key in jax.random.split(keys.fresh_key(0), 3):
        begun = model.init(jax.random.split(key, 3)[0])
        assert not np.allclose(jax.tree.leaves(first)[-1], jax.tree.leaves(begun)[-1])


def test_cut_and_resumed_it_is_the_same(finished, artefact, tmp_path, capsys):
    workdir, summary = finished
    cut = tmp_path / "cut"
    shutil.copytree(workdir, cut)
    (cut / "summary.json").unlink()
    (cut / "experts" / "late.npz").unlink()
    *lines, last = (cut / "cells.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 8
    (cut / "cells.jsonl").write_text("".join(lines) + last[:30])
    again = labels_run.run(config(cut, artefact))
    assert "8 of 9 cells were finished before" in capsys.readouterr().out
    assert again["accuracy"] == summary["accuracy"]
    assert again["gain"] == summary["gain"]


def test_wrong_input(artefact, dataset, tmp_path):
    with pytest.raises(InputError, match="early=3: the late expert has 3 epochs"):
        labels_run.run(config(tmp_path / "run", artefact, "--early=3"))
    other = {"model": "mlp", "mlp": {"width": 5, "depth": 1}}
    second = write(tmp_path / "b.npz", dataset, ipc=2, config=other)
    with pytest.raises(InputError, match="a and b were made with different networks"):
        labels_run.run(config(tmp_path / "run", f"{artefact},{second}"))
    with pytest.raises(InputError, match="name distilled sets"):
        labels_run.run(config(tmp_path / "run", ""))
    assert not (tmp_path / "run").exists()
