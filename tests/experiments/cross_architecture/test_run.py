"""Tables of architectures, on tiny sets; most tests train nothing."""

import json
import shutil

import numpy as np
import pytest

from distilljax import data, io, launch
from distilljax.comparison.accuracy import compare_accuracies
from distilljax.comparison.real import random_subsets
from distilljax.io import records
from distilljax.models import mlp
from distilljax.types import InputError
from experiments.cross_architecture import run as cross_architecture_run
from experiments.lab.keys import fresh_key
from experiments.lab.records import open_sealed
from experiments.lab.sets import load_artefacts
from experiments.lab.table import CellTrainer
from tests.cases import some
from tests.experiments.helpers import DAMAGE, damage, is_said_once, write

RANDOM = ["random, 1 per class", "random, 2 per class"]


@pytest.fixture(scope="module")
def artefacts(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artefacts")
    one = write(folder / "one" / "distilled.npz", dataset)
    return [one, write(folder / "two.npz", dataset, ipc=2)]


def config(workdir, artefacts, *more):
    """Three networks a cell, `own` and a narrow `mlp`."""
    argv = [
        f"--workdir={workdir}",
        f"--artefacts={','.join(map(str, artefacts))}",
        "--seeds=3",
        "--width_scale=0.1",
    ]
    if not any(flag.startswith("--models=") for flag in more):
        argv.append("--models=own,mlp")
    return launch.parse(cross_architecture_run.Config, [*argv, *more])


@pytest.fixture(scope="module")
def finished(artefacts, tmp_path_factory):
    """A finished table of two artefacts: (workdir, summary)."""
    workdir = tmp_path_factory.mktemp("run") / "table"
    return workdir, cross_architecture_run.run(config(workdir, artefacts))


def accuracies(identity):
    """Made-up numbers that differ from cell to cell."""
    return np.random.default_rng(int(identity[:8], 16)).random(3).tolist()


@pytest.fixture
def computed(monkeypatch):
    """The cells that a run computes, as (row, architecture); nothing is trained."""
    asked = []

    def train(trainer, cell, training):
        asked.append((cell.row.label, cell.architecture))
        trainer._progress.trained(cell, 3, 1.0)
        return accuracies(cell.identity)

    monkeypatch.setattr(CellTrainer, "train", train)
    return asked


def values(summary):
    return {
        (row, name): cell["values"]
        for row, cells in summary["accuracy"].items()
        for name, cell in cells.items()
    }


def test_every_cell_is_in_the_summary_and_in_the_table(finished, artefacts, capsys):
    workdir, summary = finished
    rows = ["one", "two", *RANDOM]
    assert list(summary["accuracy"]) == list(summary["rows"]) == rows
    assert open_sealed(workdir) == summary
    assert (workdir / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert summary["rows"]["one"]["path"] == str(artefacts[0])
    assert summary["rows"][RANDOM[1]]["images_per_class"] == 2
    assert summary["rows"]["two"]["own"]["width"] == 4
    assert summary["architectures"] == {
        "mlp": {"model": "mlp", "width": 13, "depth": 2, "init": "torch"}
    }
    size = 64 * 13 + 13 + 13 * 13 + 13 + 13 * 3 + 3
    cross_architecture_run._show(summary, workdir)
    lines = capsys.readouterr().out.splitlines()
    for row in rows:
        cells = summary["accuracy"][row]
        assert list(cells) == ["own", "mlp"]
        assert cells["mlp"]["parameters"] == size
        shown = []
        for cell in cells.values():
            assert len(cell["values"]) == cell["seeds"] == 3
            assert cell["mean"] == pytest.approx(np.mean(cell["values"]))
            assert cell["std"] == pytest.approx(np.std(cell["values"], ddof=1))
            shown.append(f"{100 * cell['mean']:.1f} ±{100 * cell['std']:.1f}")
        (line,) = [line for line in lines if line.strip().startswith(row)]
        assert line.split() == " ".join([row, *shown]).split()


def test_cells_are_what_evaluate_computes(finished, artefacts):
    """Row by row, the accuracies of `compare_accuracies` with the same key."""
    artefact = io.load(artefacts[1])
    loaded = data.load(artefact.dataset["name"])
    model = mlp.make(mlp.Config(width=13), (8, 8, 1), 3)
    expected = compare_accuracies(
        fresh_key(0),
        3,
        model,
        artefact.distilled,
        {"random": random_subsets(loaded.train, 2, 3, artefact.transform)},
        data.on_device(loaded.test, artefact.transform, 3),
        artefact.protocol,
    )
    rows = finished[1]["accuracy"]
    for row, name in (("two", "distilled"), (RANDOM[1], "random")):
        np.testing.assert_allclose(rows[row]["mlp"]["values"], expected[name]["values"])


def test_networks_side_by_side_are_the_same_networks(finished, artefacts, tmp_path):
    """Three networks, two at a time: the second dispatch is filled up, and cut."""
    more = ["--models=mlp", "--together=2"]
    found = values(cross_architecture_run.run(config(tmp_path, artefacts[:1], *more)))
    assert set(found) == {("one", "mlp"), (RANDOM[0], "mlp")}
    for cell, accuracies in found.items():
        np.testing.assert_allclose(accuracies, values(finished[1])[cell], atol=0.02)


def test_a_cut_run_computes_only_what_is_missing(finished, artefacts, tmp_path, computed):
    workdir, summary = finished
    shutil.copytree(workdir, tmp_path / "cut")
    cells = tmp_path / "cut" / "cells.jsonl"
    *lines, before_last, last = cells.read_text().splitlines()
    assert len(lines) == 6
    torn = before_last[: len(before_last) // 2]
    cells.write_text("\n".join([*lines, torn]))
    again = cross_architecture_run.run(config(tmp_path / "cut", artefacts))
    missing = [(r["row"], r["architecture"]) for r in map(json.loads, [before_last, last])]
    assert computed == missing == [(row, "mlp") for row in RANDOM]
    for key, line in zip(missing, map(json.loads, [before_last, last]), strict=True):
        assert values(again)[key] == accuracies(line["identity"])
    kept = [key for key in values(summary) if key not in missing]
    assert [values(again)[key] for key in kept] == [values(summary)[key] for key in kept]
    assert len(records.read(cells)) == 8


@pytest.mark.parametrize("how", some(DAMAGE, "truncated", "swapped"))
def test_damaged_cells_are_computed_again(artefacts, tmp_path, computed, capsys, how):
    run, other = tmp_path / "run", tmp_path / "other"
    first = cross_architecture_run.run(config(run, artefacts))
    cross_architecture_run.run(config(other, artefacts, "--seed=1"))
    damage(how, run / "cells.jsonl", other / "cells.jsonl")
    computed.clear()
    capsys.readouterr()
    again = cross_architecture_run.run(config(run, artefacts))
    assert values(again) == values(first)
    assert (len(computed) == 8) == (not DAMAGE[how])
    assert 1 <= len(computed) <= 8
    assert is_said_once(capsys.readouterr().err, "cells.jsonl", how)
    computed.clear()
    cross_architecture_run.run(config(run, artefacts))
    assert not computed, "the file is whole again"


def test_a_finished_run_computes_nothing(finished, artefacts, computed, capsys):
    workdir, summary = finished
    again = cross_architecture_run.run(config(workdir, artefacts))
    assert not computed
    assert again["accuracy"] == summary["accuracy"]
    assert "8 of 8 cells were finished before" in capsys.readouterr().out


def test_cells_of_an_artefact_that_changed_are_computed_again(dataset, tmp_path, computed):
    path = write(tmp_path / "a.npz", dataset)
    chosen = config(tmp_path / "run", [path])
    cross_architecture_run.run(chosen)
    assert len(computed) == 4
    computed.clear()
    write(path, dataset, seed=1)
    cross_architecture_run.run(chosen)
    assert computed == [("a", "own"), ("a", "mlp")]
    assert len(records.read(tmp_path / "run" / "cells.jsonl")) == 4


@pytest.mark.parametrize(
    ("changes", "more", "shared"),
    [
        ({}, [], True),
        ({"steps": 5}, [], False),
        ({"steps": 5}, ["--protocol=study"], True),
        ({"config": {"model": "mlp"}}, [], False),
        ({"config": {"model": "mlp"}}, ["--models=mlp"], True),
    ],
)
def test_artefacts_share_a_random_row_where_they_can(
    dataset, tmp_path, computed, changes, more, shared
):
    """Where the protocol or the network is each artefact's own, so are its images."""
    one = write(tmp_path / "a.npz", dataset)
    two = write(tmp_path / "b.npz", dataset, seed=1, **changes)
    summary = cross_architecture_run.run(config(tmp_path / "run", [one, two], *more))
    expected = ["a", "b", RANDOM[0]]
    if not shared:
        expected.append(f"{RANDOM[0]}, as for b")
    assert list(summary["accuracy"]) == expected


def test_artefacts_of_one_name_are_told_apart(dataset, tmp_path):
    paths = [write(tmp_path / a / "x" / "distilled.npz", dataset) for a in "ab"]
    found = load_artefacts(config(tmp_path, paths).artefacts)
    assert list(found) == [str(path) for path in paths]


def test_a_link_is_no_other_set(dataset, tmp_path):
    made = write(tmp_path / "a.npz", dataset)
    (tmp_path / "b.npz").symlink_to(made)
    with pytest.raises(InputError, match=r"b\.npz is named twice"):
        load_artefacts(f"{made},{tmp_path / 'b.npz'}")


def test_sets_of_arrays_without_names_stand_beside_named_ones(dataset, tmp_path):
    """They are of the same data where images and labels are; other names are others."""
    named = write(tmp_path / "a.npz", dataset)
    held = io.load(named)
    numbers = tuple(map(str, range(len(held.class_names))))
    io.save(tmp_path / "b.npz", held._replace(class_names=numbers))
    paths = [str(named), str(tmp_path / "b.npz")]
    assert list(load_artefacts(",".join(paths))) == ["a", "b"]
    io.save(tmp_path / "c.npz", held._replace(class_names=held.class_names[::-1]))
    with pytest.raises(InputError, match=r"c\.npz of other data"):
        load_artefacts(",".join([paths[1], paths[0], str(tmp_path / "c.npz")]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--artefacts="], "artefacts=.*name distilled sets"),
        (["--artefacts=absent.npz"], "absent.npz: no such file"),
        (["--models=resnet"], "unknown architecture 'resnet'; choose among own, convnet"),
        (["--models="], "name at least one architecture: own"),
        (["--models=mlp,own,mlp"], "mlp is named twice"),
        (["--models=mlp,vgg11"], "models='vgg11': 8x8 images cannot be halved"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_trained(
    artefacts, tmp_path, computed, more, message
):
    with pytest.raises(InputError, match=message):
        cross_architecture_run.run(config(tmp_path / "run", artefacts, *more))
    assert not computed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": {"name": "else", "fingerprint": "0"}}, r"a\.npz was made of .*else"),
        ({"config": {"model": "transformer"}}, "b names the unknown network 'transf"),
    ],
)
def test_artefacts_that_do_not_fit_are_refused(
    dataset, tmp_path, computed, changes, message
):
    one = write(tmp_path / "a.npz", dataset)
    two = write(tmp_path / "b.npz", dataset, **changes)
    with pytest.raises(InputError, match=message):
        cross_architecture_run.run(config(tmp_path / "run", [one, two]))
    assert not computed
