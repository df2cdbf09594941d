"""Lines between tiny networks."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data, io, launch
from distilljax.core import losses, sampling
from distilljax.models import mlp
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import InputError
from experiments.connectivity import run as connectivity_run
from experiments.connectivity.record import REAL
from experiments.connectivity.train import start_and_order
from experiments.lab import keys
from experiments.lab.records import open_sealed
from tests.experiments.helpers import write

RANDOM = "random, 3 per class"
FLAGS = (
    "--seeds=2",
    "--steps=6",
    "--batch=4",
    "--lr=0.1",
    "--points=5",
    "--test_images=30",
    "--sharpness_images=30",
)


@pytest.fixture(scope="module")
def artefact(dataset, tmp_path_factory):
    return write(tmp_path_factory.mktemp("sets") / "a.npz", dataset, ipc=3)


def config(workdir, artefacts, *more):
    argv = [f"--workdir={workdir}", f"--artefacts={artefacts}", *FLAGS, *more]
    return launch.parse(connectivity_run.Config, argv)


@pytest.fixture(scope="module")
def finished(artefact, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "lines"
    return workdir, connectivity_run.run(config(workdir, artefact))


def test_everything_is_in_the_summary(finished):
    workdir, summary = finished
    assert open_sealed(workdir) == summary
    assert (workdir / "connectivity.png").read_bytes().startswith(b"\x89PNG")
    assert list(summary["orders"]) == ["a", RANDOM, REAL]
    assert list(summary["to_real"]) == ["a", RANDOM]
    assert summary["shares"] == [0, 0.25, 0.5, 0.75, 1]
    for line in summary["orders"].values():
        errors = np.array(line["error"])
        assert errors.shape == (2, 5)
        rise = errors - np.linspace(errors[:, 0], errors[:, -1], 5, axis=1)
        np.testing.assert_allclose(line["barrier"]["values"], rise.max(axis=1), atol=1e-6)
    # Both kinds of line begin at the network of the first order.
    for label, line in summary["to_real"].items():
        for number, errors in enumerate(line["error"]):
            assert errors[0] == summary["orders"][label]["error"][number][0]
            assert errors[-1] == summary["orders"][REAL]["error"][number][0]
    assert all(min(errors) > 0 for errors in summary["sharpness_error"].values())


def test_a_line_is_between_networks_trained_by_hand(finished, artefact):
    made = io.load(artefact)
    loaded = data.load(made.dataset["name"])
    model = mlp.make(mlp.Config(width=4, depth=1), (8, 8, 1), 3)
    real = data.on_device(loaded.train, made.transform, 3)
    test = data.on_device(data.subset(loaded.test, 10, 0), made.transform, 3)
    root = jax.random.split(keys.fresh_key(0), 2)[1]
    protocol = EvaluationProtocol(steps=6, batch=4, lr=0.1)
    ends = []
    for order in (0, 1):
        start, order_key = start_and_order(root, model, order)
        ends.append(evaluation.train(order_key, model, real, protocol, start=start))
    images = test.transform(test.images)
    expected = []
    for share in np.linspace(0, 1, 5):
        middle = jax.tree.map(lambda v, w, a=share: (1 - a) * v + a * w, *ends)
        logits = model.apply(middle, images)
        expected.append(1 - float(losses.accuracy(logits, test.labels)))
    found = finished[1]["orders"][REAL]["error"][1]
    np.testing.assert_allclose(found, expected, atol=0.04)  # one image of 30 may round


def test_orders_share_their_start_and_differ(dataset, artefact):
    made = io.load(artefact)
    model = mlp.make(mlp.Config(width=4, depth=1), (8, 8, 1), 3)
    loaded = data.load(made.dataset["name"])
    real = data.on_device(loaded.train, made.transform, 3)
    root = jax.random.key(0)
    starts, orders = zip(*(start_and_order(root, model, n) for n in (0, 1)), strict=True)
    same = jax.tree.map(lambda v, w: bool((v == w).all()), *starts)
    assert all(jax.tree.leaves(same))
    nothing = EvaluationProtocol(steps=6, batch=4, lr=1e-12)
    kept = evaluation.train(orders[0], model, real, nothing, start=starts[0])
    moved = jax.tree.map(lambda v, w: jnp.abs(v - w).max(), kept, starts[0])
    assert max(jax.tree.leaves(moved)) < 1e-6
    seen = [sampling.epochs(jax.random.split(o, 3)[1], 120, 4, 6, 30) for o in orders]
    assert not np.array_equal(*seen)


def test_cut_and_resumed_it_is_the_same(finished, artefact, tmp_path, capsys):
    workdir, summary = finished
    cut = tmp_path / "cut"
    shutil.copytree(workdir, cut)
    (cut / "summary.json").unlink()
    (cut / "networks" / "0_1_0.npz").unlink()
    (cut / "networks" / "2_0_1.npz").write_bytes(b"damaged")
    *lines, last = (cut / "cells.jsonl").read_text().splitlines(keepends=True)
    (cut / "cells.jsonl").write_text("".join(lines) + last[:30])
    again = connectivity_run.run(config(cut, artefact))
    said = capsys.readouterr().out
    assert "10 of 12 networks were trained before" in said
    assert f"{len(lines)} of {len(lines) + 1} cells were finished before" in said
    for name in ("orders", "to_real", "sharpness", "sharpness_error", "accuracy"):
        assert again[name] == summary[name]


def test_wrong_input(artefact, dataset, tmp_path):
    other = {"model": "mlp", "mlp": {"width": 5, "depth": 1}}
    second = write(tmp_path / "b.npz", dataset, ipc=3, config=other)
    for artefacts, more, message in (
        (artefact, ["--batch=9"], "batch=9: a has 9 images, so that all orders are one"),
        (f"{artefact},{second}", [], "a and b were made with different networks"),
        ("", [], "name distilled sets"),
    ):
        with pytest.raises(InputError, match=message):
            connectivity_run.run(config(tmp_path / "run", artefacts, *more))
    with pytest.raises(InputError, match="diverged; lower --lr"):
        connectivity_run.run(config(tmp_path / "far", artefact, "--lr=1e30"))
    assert not (tmp_path / "run").exists()
