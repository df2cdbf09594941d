"""Finished runs beside each other: joined, told apart, written down."""

import csv
import json
import pathlib

import numpy as np
import pytest

from distilljax import launch
from distilljax.types import InputError
from experiments.compare import run as compare
from experiments.lab import outcomes

NETWORKS = {0: [0.5, 0.6], 1: [0.7, 0.8], 2: [0.55, 0.85]}


def write(folder, /, values, experiment="experiments.distill", **settings):
    """Writes the folder of a finished run with these test accuracies."""
    folder.mkdir(parents=True)
    config = {"ipc": 1, "seed": 0, "method": "dm", "dm": {"image_lr": 1.0}}
    config |= {"gm": {"image_lr": 3.0}, **settings}
    told = {"experiment": experiment, "config": config, "command": "python -m x"}
    (folder / "config.json").write_text(json.dumps(told))
    spread = {"mean": np.mean(values), "std": np.std(values, ddof=1), "seeds": len(values)}
    summary = {
        "accuracy": {"distilled": {**spread, "values": values}},
        "inner_learning_rate": 0.25,
        "best_step": 3,
        "dataset": {"name": "x", "fingerprint": "ab"},
        "environment": {"jax": "1"},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def folders(tmp_path):
    """Three seeds of one setting, and another setting."""
    found = [write(tmp_path / f"seed{s}", v, seed=s) for s, v in NETWORKS.items()]
    return [*found, write(tmp_path / "ten", [0.9, 0.95], ipc=10)]


def compared(folders, tmp_path):
    argv = compare.with_runs([*map(str, folders), f"--out={tmp_path / 'out'}"])
    return compare.run(launch.parse(compare.Config, argv))


def test_seeds_are_joined_with_both_spreads(folders, tmp_path, capsys):
    one, ten = compared(folders, tmp_path)
    assert [r.folder.name for r in one.runs] == ["seed0", "seed1", "seed2"]
    assert (one.label, ten.label) == ("ipc=1", "ipc=10")
    figure = one.figures["accuracy.distilled"]
    means = [np.mean(v) for v in NETWORKS.values()]
    assert figure.mean == pytest.approx(np.mean(means))
    assert figure.between == pytest.approx(np.std(means, ddof=1))
    variances = [np.var(v, ddof=1) for v in NETWORKS.values()]
    assert figure.within == pytest.approx(np.sqrt(np.mean(variances)))
    assert ten.figures["accuracy.distilled"].between is None
    shown = capsys.readouterr().out
    assert "66.67%" in shown
    assert "10.41% (3)" in shown  # the standard deviation of 55, 75 and 70 %
    assert "13.54% (2)" in shown
    assert "best_step" not in shown
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_the_csv_holds_every_figure_and_what_differs(folders, tmp_path):
    compared(folders, tmp_path)
    with (tmp_path / "out" / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"ipc", "seed"} < set(rows[0])
    assert "method" not in rows[0]
    single = [r for r in rows if r["folder"] and r["quantity"] == "accuracy.distilled"]
    assert [r["seed"] for r in single] == ["0", "1", "2", "0"]
    assert [float(v) for v in single[1]["values"].split()] == NETWORKS[1]
    (joined,) = [
        r for r in rows if not r["folder"] and r["quantity"] == "accuracy.distilled"
    ]
    assert (joined["distillations"], joined["seed"], joined["ipc"]) == ("3", "", "1")
    assert float(joined["mean"]) == pytest.approx(2 / 3)


def test_options_of_methods_that_were_not_chosen_do_not_count(tmp_path):
    first = write(tmp_path / "a", [0.5, 0.6], gm={"image_lr": 1.0})
    second = write(tmp_path / "b", [0.5, 0.7], gm={"image_lr": 2.0}, seed=1)
    runs = [outcomes.read(first), outcomes.read(second)]
    assert outcomes.differing(runs) == ["seed"]
    assert len(outcomes.group(runs)) == 1


def test_other_data_and_versions_are_not_joined(tmp_path):
    folders = [write(tmp_path / n, [0.5, 0.6], seed=s) for s, n in enumerate("ab")]
    path = folders[1] / "summary.json"
    path.write_text(path.read_text().replace('"ab"', '"cd"'))
    one, other = compared(folders, tmp_path)
    assert (one.label, other.label) == ("a", "b")
    assert "(data, SHA-256)" in outcomes.differing([*one.runs, *other.runs])


def test_other_experts_are_not_joined(tmp_path):
    """Nor two runs of one seed; experts of another seed are."""
    folders = []
    for name, seed, recipe, own in (
        ("plain_seed0", 0, {"curriculum": "none"}, 0),
        ("plain_seed1", 1, {"curriculum": "none"}, 1),
        ("pad_seed0", 0, {"curriculum": "pad"}, 0),
        ("pad_again", 0, {"curriculum": "pad"}, 0),
    ):
        folder = write(tmp_path / name, [0.5, 0.6], seed=seed, method="tm")
        summary = json.loads((folder / "summary.json").read_text())
        experts = {"num_experts": 4, "num_epochs": 5, "recipe": recipe, "seed": own}
        (folder / "summary.json").write_text(json.dumps(summary | {"experts": experts}))
        folders.append(folder)
    groups = compared(folders, tmp_path)
    assert [[r.folder.name for r in group.runs] for group in groups] == [
        ["plain_seed0", "plain_seed1"],
        ["pad_seed0"],
        ["pad_again"],
    ]
    assert [group.label for group in groups] == ["plain_seed*", "pad_seed0", "pad_again"]
    runs = [run for group in groups for run in group.runs]
    assert "(experts, recipe.curriculum)" in outcomes.differing(runs)


def test_any_experiment_is_compared(tmp_path, capsys):
    folders = [
        "experiments/results/study_cifar10/recognition",
        "experiments/results/study_embedded/recognition",
    ]
    one, other = compared(folders, tmp_path)
    shared = one.figures.keys() & other.figures.keys()
    held = json.loads(pathlib.Path(folders[0], "summary.json").read_text())
    for kind in ("accuracy", "loss"):
        expected = held["recognition"]["test images"]["convnet"][kind]["mean"]
        name = f"recognition.test images.convnet.{kind}"
        assert one.figures[name].mean == pytest.approx(expected)
        assert name in shared
    assert "67.43%" in capsys.readouterr().out


def unfinished(folder):
    (folder / "summary.json").unlink()


def torn(folder):
    (folder / "summary.json").write_text('{"accuracy": ')


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (unfinished, r"not finished.*; python -m x --workdir=.*ten goes on with it"),
        (torn, r"summary\.json cannot be read"),
        (lambda folder: (folder / "config.json").unlink(), "holds no run .it lacks config"),
    ],
)
def test_runs_that_cannot_be_compared(folders, tmp_path, spoil, message):
    spoil(folders[-1])
    with pytest.raises(InputError, match=message):
        compared(folders, tmp_path)


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({}, ""),
        ({"dataset": "embedded,size=32"}, ""),
        ({"dataset": __file__}, ""),
        ({"dataset": "cifar10"}, ", with the --data_dir it had"),
        ({"dataset": None}, ", with the --data_dir it had"),
        ({"method": "tm"}, ", with the --experts_dir it had"),
        ({"folder": ""}, ", with the --folder and the --data_dir it had"),
        (
            {"labels": "expert", "dataset": "cifar10"},
            ", with the --experts_dir and the --data_dir it had",
        ),
    ],
)
def test_an_unfinished_run_tells_how_it_goes_on(tmp_path, settings, given):
    folder = write(tmp_path / "a run", [0.5, 0.6], **settings)
    unfinished(folder)
    with pytest.raises(InputError) as caught:
        outcomes.read(folder)
    command = f"python -m x --workdir='{folder}' goes on with it"
    assert str(caught.value).endswith(f"; {command}{given}")


def test_folders_that_are_no_runs(folders, tmp_path):
    with pytest.raises(InputError, match=r"no such folder; give the folders of finished"):
        compared([folders[0], tmp_path / "nowhere"], tmp_path)
    with pytest.raises(InputError, match=r"two or more runs"):
        compared(folders[:1], tmp_path)
    with pytest.raises(InputError, match=r"is named twice"):
        compared([folders[0], f"{folders[0]}/"], tmp_path)
    with pytest.raises(InputError, match=r"finished runs lie below it, such as .*seed0"):
        compared([tmp_path, folders[0]], tmp_path)


def test_folders_may_stand_anywhere():
    argv = compare.with_runs(["a", "--out", "o", "b", "--runs=c,d"])
    assert argv == ["--out=o", "--runs=a\nb\nc,d"]
