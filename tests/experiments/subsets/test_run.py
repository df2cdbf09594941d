"""Parts of tiny distilled sets."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data, io, launch
from distilljax.core import losses
from distilljax.models import mlp
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Batch, InputError
from experiments.lab import keys
from experiments.lab.data import load_data_of
from experiments.lab.records import open_sealed
from experiments.lab.sets import load_artefacts
from experiments.lab.table import make_rows
from experiments.subsets import run as subsets_run
from tests.experiments.helpers import write

RANDOM = "random, 3 per class"


@pytest.fixture(scope="module")
def sets(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    large = write(folder / "large.npz", dataset, ipc=3)
    small = write(folder / "small.npz", dataset, ipc=1, seed=5)
    return large, small


def config(workdir, artefacts, *more):
    listed = ",".join(map(str, artefacts))
    argv = [f"--workdir={workdir}", f"--artefacts={listed}", "--protocol=own", "--seeds=3"]
    return launch.parse(subsets_run.Config, [*argv, *more])


@pytest.fixture(scope="module")
def finished(sets, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "table"
    return workdir, subsets_run.run(config(workdir, sets, "--per_class=2,1"))


def test_everything_is_in_the_summary(finished):
    workdir, summary = finished
    assert open_sealed(workdir) == summary
    assert (workdir / "subsets.png").read_bytes().startswith(b"\x89PNG")
    accuracy = summary["accuracy"]
    assert {row: list(cells) for row, cells in accuracy.items()} == {
        "large": ["1", "2"],
        "small": ["1"],
        RANDOM: ["1", "2"],
    }
    (one,) = summary["comparisons"]
    rows = [one[name] for name in ("whole", "distilled", "random", "per_class")]
    assert rows == ["large", "small", RANDOM, "1"]
    part, small = (np.array(accuracy[row]["1"]["values"]) for row in ("large", "small"))
    assert one["difference"]["values"] == (part - small).tolist()


def test_a_cell_is_training_on_a_part(finished, sets):
    """A network trained by hand on the images that its part has."""
    made = io.load(sets[0])
    loaded = data.load(made.dataset["name"])
    row = make_rows(load_artefacts(str(sets[0])), loaded, "own", 3, own=True, seed=0)[0]
    part = subsets_run.part_of(row, 2, 0, np.array([2]))
    model = mlp.make(mlp.Config(width=4, depth=1), (8, 8, 1), 3)
    params = evaluation.train(
        jax.random.split(keys.fresh_key(0), 3)[2],
        model,
        Batch(part.images[0], part.labels[0]),
        EvaluationProtocol(steps=4, lr=None),
        learning_rate=jnp.float32(0.05),
    )
    test = data.on_device(loaded.test, made.transform, 3)
    logits = model.apply(params, test.transform(test.images))
    expected = float(losses.accuracy(logits, test.labels))
    found = finished[1]["accuracy"]["large"]["2"]["values"][2]
    assert found == pytest.approx(expected)


def test_parts_are_nested_and_of_each_class(sets):
    named = load_artefacts(str(sets[0]))
    loaded = load_data_of(next(iter(named.values())), None, None)
    row = make_rows(named, loaded, "own", 3, own=True, seed=0)[0]
    few, many = (subsets_run.part_of(row, n, 0, np.array([0, 1])) for n in (1, 2))
    assert few.images.shape == (2, 3, 8, 8, 1)
    assert many.labels.argmax(-1).tolist() == [[0, 0, 1, 1, 2, 2]] * 2
    np.testing.assert_array_equal(few.images, many.images[:, ::2])
    held = {image.tobytes() for image in np.asarray(row.sets.images[0])}
    for network in np.asarray(many.images):
        assert len({image.tobytes() for image in network} & held) == 6
    assert not np.array_equal(many.images[0], many.images[1])
    # A network has the same images in any company, and others with another seed.
    again = subsets_run.part_of(row, 2, 0, np.array([1]))
    np.testing.assert_array_equal(again.images[0], many.images[1])
    other = subsets_run.part_of(row, 2, 1, np.array([1]))
    assert not np.array_equal(other.images[0], many.images[1])


def test_cut_and_resumed_it_is_the_same(finished, sets, tmp_path, capsys):
    workdir, summary = finished
    cut = tmp_path / "cut"
    shutil.copytree(workdir, cut)
    (cut / "summary.json").unlink()
    *lines, last = (cut / "cells.jsonl").read_text().splitlines(keepends=True)
    (cut / "cells.jsonl").write_text("".join(lines) + last[:30])
    again = subsets_run.run(config(cut, sets, "--per_class=2,1"))
    assert "4 of 5 cells were finished before" in capsys.readouterr().out
    assert again["accuracy"] == summary["accuracy"]
    assert again["comparisons"] == summary["comparisons"]


def test_wrong_input(sets, dataset, tmp_path):
    large, small = sets
    twin = write(tmp_path / "twin.npz", dataset, ipc=1)
    stored = write(tmp_path / "stored.npz", dataset, ipc=4, config={"ipc": 2})
    for artefacts, more, message in (
        ([large], [], "there is one set by none; add one of another size"),
        ([large, small, twin], [], "small and twin are of one method and size"),
        (sets, ["--per_class=2"], "a set has 1 images of each class; name that, too"),
        (sets, ["--per_class=1,4"], "large has 3 images of each class; name no more"),
        (sets, ["--per_class=0,1"], "expected different integers from 1"),
        ([stored, small], [], "stored stores 12 images in the place of fewer"),
    ):
        with pytest.raises(InputError, match=message):
            subsets_run.run(config(tmp_path / "run", artefacts, *more))
    assert not (tmp_path / "run").exists()
