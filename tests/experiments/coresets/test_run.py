"""Tables of chosen images, on striped images; most tests train nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data, launch
from distilljax.analysis.coresets import CORESETS, select
from distilljax.io import records
from distilljax.types import InputError
from experiments.coresets import run as coresets_run
from experiments.lab.data import prepare
from experiments.lab.records import open_sealed
from tests.cases import some
from tests.conftest import striped_images
from tests.experiments.helpers import DAMAGE, damage, is_said_once

NUM_TRAIN = 12  # of each class, two of them held out


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    splits = {"train": striped_images(NUM_TRAIN), "test": striped_images(20, seed=1)}
    np.savez(
        path,
        **{f"{name}_images": split.images for name, split in splits.items()},
        **{f"{name}_labels": split.labels for name, split in splits.items()},
    )
    return path


def config(dataset, workdir, *more):
    argv = [
        f"--dataset={dataset}",
        f"--workdir={workdir}",
        "--held_out=2",
        "--seeds=2",
        "--model=mlp",
        "--mlp.width=8",
        "--mlp.depth=1",
    ]
    if not any(flag.startswith("--ipcs=") for flag in more):
        argv.append("--ipcs=1,3")
    return launch.parse(coresets_run.Config, [*argv, *more])


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """A finished table of two columns: (workdir, summary)."""
    workdir = tmp_path_factory.mktemp("run") / "table"
    return workdir, coresets_run.run(config(dataset, workdir))


@pytest.fixture
def trained(monkeypatch):
    """The batches that a run trains on; nothing is trained, the accuracy is 1/4."""
    asked = []

    def program(keys, sets, *_):
        asked.append(jax.tree.map(lambda x: x[0], sets))
        return np.array([0.25])

    monkeypatch.setattr(coresets_run.CellTrainer, "_program", lambda *_: program)
    return asked


@pytest.fixture
def drawn(monkeypatch):
    """(file, images, rows) of the pictures; nothing is drawn."""
    asked = []
    monkeypatch.setattr(
        coresets_run,
        "image_grid",
        lambda path, images, names, title: asked.append((path.name, images, names)),
    )
    return asked


def test_a_table_with_spread_and_pictures(finished):
    workdir, summary = finished
    assert list(summary["accuracy"]) == ["random", "herding", "k_centre"]
    for row in summary["accuracy"].values():
        assert list(row) == ["1", "3"]
        for cell in row.values():
            assert cell["seeds"] == 2 == len(cell["values"])
            assert cell["mean"] == pytest.approx(np.mean(cell["values"]))
            assert cell["std"] == pytest.approx(np.std(cell["values"], ddof=1))
    # The middle of a class teaches these classes, whose images are much alike.
    assert summary["accuracy"]["herding"]["3"]["mean"] > 0.8
    assert summary["protocol"]["name"] == "study"
    assert summary["chosen_from"] == {"random": 36, "herding": 30, "k_centre": 30}
    assert open_sealed(workdir) == summary
    pictures = {path.name for path in workdir.glob("*.png")}
    assert pictures == {"ipc1.png"} | {f"{name}_ipc3.png" for name in summary["accuracy"]}
    assert len(records.read(workdir / "cells.jsonl")) == 6


def test_networks_train_on_what_was_chosen(dataset, tmp_path, trained, drawn):
    settings = config(dataset, tmp_path, "--ipcs=3,1")
    coresets_run.run(settings)
    prepared = prepare(settings)
    whole, real = prepared.data.train, prepared.real
    assert len(trained) == 12
    batches = iter(trained)
    for ipc in (3, 1):
        for seed in range(2):
            one, expected = next(batches), data.subset(whole, ipc, seed=1000 + seed)
            np.testing.assert_array_equal(one.images, real.transform(expected.images))
            np.testing.assert_array_equal(one.labels, np.eye(3)[expected.labels])
        for name in ("herding", "k_centre"):
            positions = select(CORESETS[name], real, ipc)
            for _ in range(2):
                one = next(batches)
                expected = real.transform(real.images[positions])
                np.testing.assert_array_equal(one.images, expected)
                np.testing.assert_array_equal(one.labels, np.eye(3).repeat(ipc, axis=0))


def test_pictures_show_what_was_chosen(dataset, tmp_path, trained, drawn):
    coresets_run.run(config(dataset, tmp_path, "--baselines=k_centre,random"))
    small, centre, random = drawn
    unit = [jnp.asarray(images) for _, images, _ in drawn]
    assert [name for name, _, _ in drawn] == [
        "ipc1.png",
        "k_centre_ipc3.png",
        "random_ipc3.png",
    ]
    assert small[2] == ["k_centre", "random"]
    assert centre[2] == random[2] == ("0", "1", "2")
    assert [len(images) for images in unit] == [6, 9, 9]
    # Networks 0 and 2 of four cells are the first of k_centre and of random at 1.
    transform = prepare(config(dataset, tmp_path)).transform
    for images, batches in (
        (unit[0], (trained[0], trained[2])),
        (unit[1], (trained[4],)),
        (unit[2], (trained[6],)),
    ):
        shown = jnp.concatenate([transform.inverse(batch.images) for batch in batches])
        np.testing.assert_allclose(images, shown, atol=1e-6)
        assert 0 <= float(images.min()) <= float(images.max()) <= 1


def test_only_missing_cells_are_computed(dataset, tmp_path, trained, drawn, capsys):
    settings = config(dataset, tmp_path)
    first = coresets_run.run(settings)
    assert len(trained) == 12
    trained.clear()
    cells = tmp_path / "cells.jsonl"
    lines = cells.read_text().splitlines(keepends=True)
    # Cut in the second cell, as a kill may leave it.
    cells.write_text(lines[0] + lines[1][:20])
    (tmp_path / "summary.json").unlink()
    capsys.readouterr()
    assert coresets_run.run(settings)["accuracy"] == first["accuracy"]
    assert len(trained) == 10
    assert "1 of 6 cells were finished before" in capsys.readouterr().out
    trained.clear()
    coresets_run.run(settings)
    assert not trained
    assert len(records.read(cells)) == 6


@pytest.mark.parametrize("how", some(DAMAGE, "truncated", "swapped"))
def test_damaged_cells_are_computed_again(
    dataset, tmp_path, drawn, monkeypatch, capsys, how
):
    asked = []

    def program(keys, sets, *_):
        """Made-up accuracies that differ from cell to cell and network to network."""
        asked.append(sets)
        return jnp.abs(sets.images).mean() + jax.vmap(jax.random.uniform)(keys)

    monkeypatch.setattr(coresets_run.CellTrainer, "_program", lambda *_: program)
    run, other = tmp_path / "run", tmp_path / "other"
    first = coresets_run.run(config(dataset, run))
    coresets_run.run(config(dataset, other, "--seed=1"))
    damage(how, run / "cells.jsonl", other / "cells.jsonl")
    asked.clear()
    capsys.readouterr()
    again = coresets_run.run(config(dataset, run))
    assert again["accuracy"] == first["accuracy"]
    assert (len(asked) == 12) == (not DAMAGE[how])
    assert len(asked) >= 2
    assert is_said_once(capsys.readouterr().err, "cells.jsonl", how)
    asked.clear()
    coresets_run.run(config(dataset, run))
    assert not asked, "the file is whole again"


def test_cells_of_other_data_are_computed_again(dataset, tmp_path, trained, drawn):
    moved = tmp_path / "moved.npz"
    moved.write_bytes(dataset.read_bytes())
    settings = config(moved, tmp_path / "run", "--ipcs=1")
    coresets_run.run(settings)
    with np.load(dataset) as held:
        arrays = dict(held)
    arrays["test_images"] = 255 - arrays["test_images"]
    np.savez(moved, **arrays)
    trained.clear()
    coresets_run.run(settings)
    assert len(trained) == 6
    assert len(records.read(tmp_path / "run" / "cells.jsonl")) == 3


def test_progress_says_how_far_it_is(dataset, tmp_path, trained, drawn, capsys):
    coresets_run.run(config(dataset, tmp_path))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert lines[1].startswith("cell 2/6  network 4/12  ")
    assert lines[1].endswith("left  herding, 1 per class: 25.0 ±0.0 %")
    assert "about 0s left" in lines[5]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--baselines=random,forgetting"],
            "unknown baseline 'forgetting'; choose among random, herding, k_centre",
        ),
        (["--baselines=herding, herding"], "herding is named twice"),
        (["--baselines=,"], "name at least one baseline"),
        (["--ipcs=1,ten"], "ipcs='1,ten': expected different integers from 1"),
        (["--ipcs=0"], "expected different integers from 1"),
        (["--ipcs=2,2"], "expected different integers from 1"),
        (["--ipcs=1,11"], "the smallest class has 10 training images besides the held-out"),
        (["--held_out=12"], "held_out=12"),
        (["--dataset=absent.npz"], "absent.npz"),
    ],
)
def test_refusals_leave_nothing_behind(more, message, dataset, tmp_path):
    with pytest.raises(InputError) as caught:
        coresets_run.run(config(dataset, tmp_path / "run", *more))
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()
