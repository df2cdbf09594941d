"""Claims, tables and steps on recognition, of made-up and of the committed records."""

import copy
import json
import pathlib
import shlex

import pytest

import experiments
from distilljax import launch
from distilljax.types import InputError
from experiments.lab.claims import NO_RECORD, NOT_SUPPORTED, SUPPORTED, UNDECIDED
from experiments.lab.records import checked
from experiments.lab.steps import Study
from experiments.recognition import run as recognition_run
from experiments.recognition import study
from experiments.recognition.record import Summary
from experiments.recognition.report import CLAIMS, EXPERIMENT
from tests.experiments import made_up
from tests.experiments.made_up import (
    METHODS,
    NETWORK,
    random_row,
    record,
    rows,
    spread,
)

COMMITTED = sorted(
    pathlib.Path(experiments.__file__).parent.glob("results/*/recognition*/summary.json")
)


def recognition(shift, width=0.01, num=5, pixels=0.1, methods=METHODS):
    """A record in which every set is recognised at `shift` beyond test images."""
    about = {
        "parameters": 24_714,
        "training_loss": spread(0.5),
        "seconds": 3.0,
        "files": [],
    }
    nets = {
        "convnet": {**NETWORK, **about, "epochs": 4},
        "convnet16": {**NETWORK, **about, "width": 16, "epochs": 20},
    }
    test = {"path": None, "method": "test", "num_images": 10_000}
    all_rows = {**rows(methods), **random_row(), "test images": test}
    found = {}
    for label, row in all_rows.items():
        of = spread(0.6, 0.02, num)
        if row["path"]:
            change = spread(shift, width, num)["values"]
            values = [a + b for a, b in zip(of["values"], change, strict=True)]
            of = {**of, "values": values, "mean": sum(values) / num}
        found[label] = {
            name: {"accuracy": of, "loss": spread(1.0, 0.1, num)} for name in nets
        }
    shares = {"outside": pixels, "below": pixels / 2, "above": pixels / 2}
    counts = {
        label: {
            **shares,
            "mean": 0.4,
            "std": 0.3,
            "quantiles": {"0.0": -0.5, "1.0": 1.5},
        }
        for label in rows(methods)
    }
    features = {"network": "convnet 0", "num_test": 9, "explained": [0.5, 0.2], "umap": {}}
    summary = {
        "recognition": found,
        "rows": all_rows,
        "networks": nets,
        "pixels": counts,
        "recipe": {},
        "features": features,
        "command": "python -m experiments.recognition",
    }
    return record("recognition", copy.deepcopy(summary))


def judge(name, *records):
    return made_up.judge(CLAIMS, Summary, name, records)


# Claim -> records that support it, contradict it, and do neither.
CASES = {
    "recognised_as_well": (
        lambda: recognition(0.1),
        lambda: recognition(-0.1),
        lambda: recognition(0.0),
    ),
    "recognised_less": (
        lambda: recognition(-0.1),
        lambda: recognition(0.1),
        lambda: recognition(0.0),
    ),
    "recognised_above_chance": (
        lambda: recognition(-0.1),
        lambda: recognition(-0.5),
        lambda: recognition(-0.4),
    ),
    "pixels_leave_the_range": (
        lambda: recognition(0.0, pixels=0.1),
        lambda: recognition(0.0, pixels=0.001),
        None,  # a count decides
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_records_decide_a_claim(name):
    assert [c.id for c in CLAIMS] == list(CASES)
    supports, contradicts, neither = CASES[name]
    assert judge(name, supports()).outcome == SUPPORTED
    assert judge(name, contradicts()).outcome == NOT_SUPPORTED
    if neither:
        assert judge(name, neither()).outcome == UNDECIDED
    nothing = judge(name)
    assert (nothing.outcome, nothing.deciding) == (NO_RECORD, None)


@pytest.mark.parametrize("name", CASES)
def test_a_method_that_was_not_looked_at_leaves_the_claim_undecided(name):
    shift = {"recognised_as_well": 0.1, "recognised_less": -0.1}.get(name, 0.0)
    assert judge(name, recognition(shift)).outcome == SUPPORTED
    fewer = judge(name, recognition(shift, methods=("bptt", "dm")))
    assert fewer.outcome == UNDECIDED
    assert fewer.absent()
    assert set(fewer.absent()) <= {"TM", "GM"}


def test_the_papers_numbers_stand_beside_sets_of_its_size():
    papers = {
        (r.method, r.where): r.paper
        for r in judge("recognised_less", recognition(-0.1)).readings
    }
    assert papers["dm", "convnet16"] == pytest.approx(0.54 - 0.6837)
    smaller = recognition(-0.1)
    smaller.summary["rows"]["dm_ipc10"]["images_per_class"] = 1
    readings = judge("recognised_less", smaller).readings
    assert {r.paper for r in readings if r.method == "dm"} == {None}


def test_a_narrower_network_is_named():
    found = judge("recognised_less", recognition(0.1)).readings
    scales = {r.where: r.scale for r in found}
    assert scales["convnet"].startswith(
        "ConvNet, width 32 (paper: 128), 4 epochs (paper: 40)"
    )
    assert scales["convnet16"].startswith("ConvNet, width 16, 20 epochs;")
    assert EXPERIMENT.title(recognition(0.1)) == (
        "convnet: ConvNet, width 32 (paper: 128); convnet16: ConvNet, width 16"
    )
    (network,) = EXPERIMENT.networks(recognition(0.1))
    assert network["width"] == 32


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("recognised_as_well", ("networks", "convnet")),
        ("recognised_as_well", ("recognition", "test images")),
        ("recognised_as_well", ("recognition", "tm_ipc10")),
        ("recognised_as_well", ("recognition", "test images", "convnet16")),
        ("recognised_as_well", ("rows", "test images")),
        ("recognised_as_well", ("rows", "tm_ipc10", "images_per_class")),
        ("recognised_as_well", ("recognition", "tm_ipc10", "convnet", "accuracy")),
        ("recognised_above_chance", ("dataset", "num_classes")),
        ("pixels_leave_the_range", ("pixels", "tm_ipc10")),
        ("pixels_leave_the_range", ("pixels", "tm_ipc10", "outside")),
        ("pixels_leave_the_range", ("pixels",)),
    ],
)
def test_a_missing_field_is_named_with_its_file(name, keys):
    found = recognition(0.1)
    found = found._replace(summary=copy.deepcopy(found.summary))
    judge(name, found)  # as it is, it can be read
    missing = made_up.delete(found.summary, found.folder, keys)
    with pytest.raises(InputError, match=missing):
        judge(name, found)


def test_records_of_different_preprocessing_are_one_claim():
    """A study has a record for the sets of each preprocessing."""
    tm, bptt = recognition(0.1, methods=["tm"]), recognition(0.1, methods=["bptt"])
    assert judge("recognised_as_well", tm).outcome == UNDECIDED
    assert judge("recognised_as_well", tm, bptt).outcome == SUPPORTED
    less = recognition(-0.1, methods=["bptt"])
    assert judge("recognised_as_well", tm, less).outcome == NOT_SUPPORTED


def test_networks_that_cannot_be_paired_are_refused():
    unpaired = recognition(0.1)
    accuracy = unpaired.summary["recognition"]["tm_ipc10"]["convnet"]["accuracy"]
    accuracy["values"] = accuracy["values"][:3]
    with pytest.raises(InputError, match="cannot be paired"):
        judge("recognised_as_well", unpaired)


def committed(path):
    held = json.loads((path.parent / "config.json").read_text())
    found = json.loads(path.read_text())
    summary = checked(Summary, found, str(path.parent), "recognition")
    made = recognition(0.0)
    return made._replace(folder=str(path.parent), config=held["config"], summary=summary)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: "/".join(p.parts[-3:-1]))
def test_committed_records_are_read_and_shown(path):
    found = committed(path)
    ((_, contents),) = EXPERIMENT.contents
    recognised, pixels, *pictures = contents([found])
    assert len(pictures) == len(EXPERIMENT.captions)
    for label, row in found.summary["recognition"].items():
        assert label in str(recognised)
        for of_network in row.values():
            assert f"{100 * of_network['accuracy']['mean']:.1f} ±" in str(recognised)
    share = found.summary["pixels"]["real images"]["outside"]
    assert f"{100 * share:.1f}" in str(pixels)
    distilled = [row for row in found.summary["rows"].values() if "version" in row]
    assert len(EXPERIMENT.sets(found)) == len(distilled) >= 1
    networks = found.summary["networks"]
    assert len(EXPERIMENT.subjects(found)) == len(distilled) * len(networks)


@pytest.mark.parametrize("study", sorted({path.parts[-3] for path in COMMITTED}))
def test_pixels_leave_the_range_in_every_committed_study(study):
    records = [committed(path) for path in COMMITTED if path.parts[-3] == study]
    assert judge("pixels_leave_the_range", *records).outcome == SUPPORTED


def test_there_are_committed_records():
    studies = {path.parts[-3] for path in COMMITTED}
    assert {"study_cifar10", "study_cifar10_width128", "study_embedded"} <= studies


def planned(scale, width=32):
    sets = {m: pathlib.Path(f"a/{m}.npz") for m in ("tm", "bptt")}
    return Study(
        scale,
        pathlib.Path("w"),
        "embedded",
        width,
        10,
        1,
        None,
        sets,
        sets,
        {"a/tm.npz": "tm"},
    )


def test_the_step_of_the_study():
    (step,) = study.steps(planned("laptop"))
    assert step.command() == shlex.join(
        [
            *("python", "-m", "experiments.recognition", "--artefacts=a/tm.npz,a/bptt.npz"),
            *("--models=convnet,convnet16", "--width_scale=0.25,1", "--epochs=3"),
            *("--map_images=1000", "--workdir=w/recognition"),
        ]
    )
    assert (step.group, step.needs, step.minutes) == ("recognition", ("tm",), 1)
    assert [str(path) for path in step.inputs] == ["a/tm.npz", "a/bptt.npz"]
    (step,) = study.steps(planned("night"))
    assert "--seeds=5" in step.argv()
    (step,) = study.steps(planned("paper", 128))
    assert step.argv() == ["--artefacts=a/tm.npz,a/bptt.npz", "--workdir=w/recognition"]
    for scale in ("laptop", "night", "paper"):
        for step in study.steps(planned(scale)):
            launch.parse(recognition_run.Config, step.argv())
