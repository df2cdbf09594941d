"""Claims, tables and steps on training, of made-up and of the committed records."""

import copy
import json
import math
import pathlib

import numpy as np
import pytest
from scipy import stats

import experiments
from distilljax import launch
from distilljax.types import InputError
from experiments.dynamics import report as dynamics_report
from experiments.dynamics import run as dynamics_run
from experiments.dynamics import study
from experiments.dynamics.claims import ACCURACY, CLAIMS, KERNEL, TRACE
from experiments.dynamics.record import Summary
from experiments.dynamics.report import EXPERIMENT
from experiments.lab.claims import (
    NO_RECORD,
    ONE_RUN,
    ONE_RUN_EXACT,
    SUPPORTED,
    UNDECIDED,
)
from experiments.lab.records import checked
from experiments.lab.steps import Study
from tests.experiments import made_up
from tests.experiments.made_up import METHODS, path, record, rows

COMMITTED = sorted(
    pathlib.Path(experiments.__file__).parent.glob("results/*/dynamics*/summary.json")
)
AT = (0, 20, 40, 80, 100, 150, 200, 300)


def curve(means, at, runs=3, width=0.01, error=0.0, num_probes=0):
    """Over runs that differ by `width` times the mean."""
    steps = np.linspace(-width, width, runs) if runs > 1 else np.zeros(1)
    values = [[float(m * (1 + step)) for m in means] for step in steps]
    return {
        "iterations": list(at),
        "mean": list(means),
        "std": None,
        "runs": runs,
        "standard_error": [error] * len(means),
        "num_probes": num_probes,
        "of": "something",
        "values": values,
    }


def dynamics(sets=1.0, test_end=0.7, ratio=None, kernel=0.5, methods=METHODS, **how):
    """Accuracy on sets and, at the end, on test images; ratios to real images."""
    ratio = ratio or {"early": 1.5, "late": 0.2}
    real = [100.0] * len(AT)
    of_set = [100.0 * (ratio["early"] if i < 130 else ratio["late"]) for i in AT]
    labels = rows(methods)
    accuracy = {label: curve([sets] * len(AT), AT, **how) for label in labels}
    accuracy["test"] = curve([0.6] * (len(AT) - 1) + [test_end], AT, **how)
    probes = {**how, "error": 1.0, "num_probes": 60}
    trace = {label: curve(of_set, AT, **probes) for label in labels}
    trace["train"] = curve(real, AT, **{**probes, "width": 0.0})
    distance = {label: curve([kernel] * len(AT), AT, **how) for label in labels}
    distance["train"] = curve([1.0] * len(AT), AT, **{**how, "width": 0.0})
    images = {"train": 50_000, "test": 10_000}
    about = {
        name: {"images": n, "method": None, "path": None} for name, n in images.items()
    }
    about |= {
        label: {"images": 100, "method": row["method"], "path": row["path"]}
        for label, row in labels.items()
    }
    summary = {
        "curves": {ACCURACY: accuracy, TRACE: trace, KERNEL: distance},
        "sets": about,
        "trained_on": "real",
        "runs": how.get("runs", 3),
        "model": {"name": "convnet", "width": 32, "depth": 3},
        "parameters": 24_714,
        "seconds": {"measuring": 60.0, "this_command": 61.0},
    }
    found = record("dynamics", summary, {"accuracy": {"images": 1000}})
    return found._replace(summary=copy.deepcopy(found.summary))


def judge(name, *records):
    return made_up.judge(CLAIMS, Summary, name, records)


def ratios(early, late):
    return lambda: dynamics(ratio={"early": early, "late": late})


# Claim -> records that support it, contradict it, and do neither.
CASES = {
    "recognised_early": (
        lambda: dynamics(1.0, width=0.0),
        lambda: dynamics(0.8),
        lambda: dynamics(0.98),
    ),
    "test_still_learning": (
        lambda: dynamics(test_end=0.7),
        lambda: dynamics(test_end=0.55),
        lambda: dynamics(test_end=0.62, width=0.2),
    ),
    "curvature_rises": (ratios(1.5, 0.2), ratios(0.5, 0.2), ratios(1.0, 0.2)),
    "curvature_vanishes": (ratios(1.5, 0.2), ratios(1.5, 0.9), ratios(1.5, 0.5)),
    "curvature_stays": (ratios(1.5, 0.9), ratios(1.5, 0.2), ratios(1.5, 0.5)),
    "kernel_moves_less": (
        lambda: dynamics(kernel=0.5),
        lambda: dynamics(kernel=1.5),
        lambda: dynamics(kernel=1.0),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_records_decide_a_claim(name):
    assert [c.id for c in CLAIMS] == list(CASES)
    made_up.assert_decides(judge, name, CASES[name])


EVERY_METHOD = {
    "recognised_early": lambda methods: dynamics(1.0, width=0.0, methods=methods),
    "curvature_rises": lambda methods: dynamics(methods=methods),
    "curvature_vanishes": lambda methods: dynamics(methods=methods),
    "curvature_stays": lambda methods: dynamics(
        ratio={"early": 1.5, "late": 0.9}, methods=methods
    ),
    "kernel_moves_less": lambda methods: dynamics(methods=methods),
}


@pytest.mark.parametrize("name", EVERY_METHOD)
def test_a_method_that_was_not_looked_at_leaves_the_claim_undecided(name):
    make = EVERY_METHOD[name]
    assert judge(name, make(METHODS)).outcome == SUPPORTED
    fewer = judge(name, make(("bptt", "dm")))
    assert fewer.outcome == UNDECIDED
    assert fewer.absent()
    assert set(fewer.absent()) <= {"TM", "GM"}


def test_the_papers_numbers_stand_beside_sets_of_its_size():
    early = judge("curvature_rises", dynamics()).readings
    papers = {(r.method, r.where): r.paper for r in early}
    assert papers["tm", "iteration 100"] == pytest.approx(4550 / 2020)
    smaller = dynamics()
    smaller.summary["sets"]["tm_ipc10"]["images"] = 10
    readings = judge("curvature_rises", smaller).readings
    assert {r.paper for r in readings if r.method == "tm"} == {None}


def test_the_number_of_test_images_is_named():
    shown = judge("test_still_learning", dynamics()).readings[0].scale
    assert shown == "ConvNet, width 32 (paper: 128); 1,000 test images"


def test_in_one_run_the_probes_give_the_interval_and_say_so():
    verdict = judge("curvature_vanishes", dynamics(runs=1))
    assert verdict.outcome == SUPPORTED
    first = verdict.readings[0]
    assert first.note == ONE_RUN
    error = math.hypot(1.0, 0.2 * 1.0) / 100
    half = stats.t.ppf(0.975, 59) * error
    np.testing.assert_allclose(first.interval[:2], [0.2 - half, 0.2 + half], rtol=1e-9)
    exact = judge("recognised_early", dynamics(0.5, runs=1))
    assert exact.outcome == UNDECIDED
    assert exact.readings[0].note == ONE_RUN_EXACT
    over_runs = judge("curvature_vanishes", dynamics(runs=3)).readings[0]
    values = 0.2 * (1 + np.linspace(-0.01, 0.01, 3))
    expected = stats.t.interval(0.95, 2, 0.2, stats.sem(values))
    np.testing.assert_allclose(over_runs.interval[:2], expected, rtol=1e-6)


def keep(record, looks):
    """Keeps only these looks of all curves."""
    for curves in record.summary["curves"].values():
        for one in curves.values():
            for key in ("iterations", "mean", "standard_error"):
                one[key] = [one[key][i] for i in looks]
            one["values"] = [[row[i] for i in looks] for row in one["values"]]
    return record


def test_a_run_that_ends_before_its_end_says_nothing_of_it():
    cut = keep(dynamics(), range(7))
    assert cut.summary["curves"][ACCURACY]["test"]["iterations"][-1] == 200
    assert judge("test_still_learning", cut).outcome == NO_RECORD
    assert judge("recognised_early", cut).outcome != NO_RECORD


def test_a_run_that_was_not_looked_at_near_an_iteration_says_nothing_of_it():
    sparse = keep(dynamics(), [0, 6, 7])
    for name in ("recognised_early", "test_still_learning"):
        assert judge(name, sparse).outcome == NO_RECORD


def test_an_accuracy_of_all_images_is_read():
    whole = dynamics()
    whole.config["accuracy"]["images"] = None
    for name in ("recognised_early", "test_still_learning"):
        assert judge(name, whole).outcome == judge(name, dynamics()).outcome != NO_RECORD


def test_a_run_that_ends_early_says_nothing_of_the_end():
    short = keep(dynamics(), range(5))
    for name in ("curvature_vanishes", "recognised_early", "test_still_learning"):
        assert judge(name, short).outcome == NO_RECORD
    assert judge("curvature_rises", short).outcome == SUPPORTED


def test_a_network_that_learns_a_distilled_set_is_no_record_of_real_training():
    other = dynamics()
    other.summary["trained_on"] = path("tm")
    for name in ("curvature_vanishes", "recognised_early", "kernel_moves_less"):
        assert judge(name, other).outcome == NO_RECORD
    assert EXPERIMENT.title(other) == (
        "ConvNet, width 32 (paper: 128), learning the distilled set tm_ipc10, 3 runs"
    )


def test_no_ratio_where_real_curvature_is_not_clear_of_zero():
    flat = dynamics(runs=1)
    flat.summary["curves"][TRACE]["train"]["values"] = [[1.0] * len(AT)]
    verdict = judge("curvature_vanishes", flat)
    assert verdict.outcome == UNDECIDED
    assert "not clear of zero" in verdict.readings[0].note


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("recognised_early", ("sets", "tm_ipc10", "images")),
        ("recognised_early", ("curves", ACCURACY, "tm_ipc10")),
        ("recognised_early", ("dataset", "num_classes")),
        ("curvature_rises", ("trained_on",)),
        ("curvature_rises", ("curves", TRACE, "train", "values")),
    ],
)
def test_a_missing_field_is_named_with_its_file(name, keys):
    found = dynamics()
    judge(name, found)  # as it is, it can be read
    missing = made_up.delete(found.summary, found.folder, keys)
    with pytest.raises(InputError, match=missing):
        judge(name, found)


def test_numbers_that_cannot_be_are_refused():
    short = dynamics()
    short.summary["curves"][TRACE]["train"]["values"][1] = [1.0]
    with pytest.raises(InputError, match="a number for each iteration"):
        judge("curvature_rises", short)
    infinite = dynamics()
    infinite.summary["curves"][TRACE]["train"]["values"][1][3] = None
    with pytest.raises(InputError, match="expected a finite number"):
        judge("curvature_rises", infinite)
    apart = dynamics()
    one = apart.summary["curves"][TRACE]["tm_ipc10"]
    one["iterations"] = [i + 1 for i in one["iterations"]]
    with pytest.raises(InputError, match="a list with 40, as on another set"):
        judge("curvature_rises", apart)
    unsaid = dynamics()._replace(config={})
    with pytest.raises(InputError, match="how many images the accuracy is of"):
        judge("recognised_early", unsaid)


def test_smoothing_is_that_of_the_paper_an_iteration_at_a_time():
    found = dynamics_report.smoothed([0, 1, 3], [4.0, 2.0, 8.0])
    second = 0.9 * 4 + 0.1 * 2
    third = 0.9 * (0.9 * second + 0.1 * 8) + 0.1 * 8
    np.testing.assert_allclose(found, [4.0, second, third], rtol=1e-12)


def committed(summary):
    held = json.loads((summary.parent / "config.json").read_text())
    found = json.loads(summary.read_text())
    folder = str(summary.parent)
    kept = checked(Summary, found, folder, "dynamics")
    return dynamics()._replace(folder=folder, config=held["config"], summary=kept)


@pytest.mark.parametrize("summary", COMMITTED, ids=lambda p: "/".join(p.parts[-3:-1]))
def test_committed_records_are_read_and_shown(summary):
    found = committed(summary)
    (_, recognised), (_, curvature) = EXPERIMENT.contents
    on_real = found.summary["trained_on"] == "real"
    tables, parts = recognised([found]), curvature([found])
    assert len(tables) == on_real
    pictures = list(summary.parent.glob("*.png"))
    assert len(parts) == 1 + len(pictures)
    if on_real:
        last = found.summary["curves"][ACCURACY]["test"]["mean"][-1]
        assert f"{100 * last:.0f}" in str(tables[0])
        assert "real training images" in str(parts[0])
    else:
        assert "The reverse: " in str(parts[0])
    single = found.summary["runs"] == 1
    on = "real images" if on_real else "a distilled set"
    notes = EXPERIMENT.notes([found])
    assert notes == [] if not single else notes[0].startswith(f"Training on {on} was")
    assert len(EXPERIMENT.subjects(found)) == len(EXPERIMENT.sets(found)) * len(
        found.summary["curves"]
    )
    (network,) = EXPERIMENT.networks(found)
    assert network["width"] == found.config["convnet"]["width"]


def test_there_are_committed_records():
    studies = {path.parts[-3] for path in COMMITTED}
    assert {"study_cifar10", "study_cifar10_width128", "study_embedded"} <= studies


def planned(scale, width=32):
    sets = {m: pathlib.Path(f"a/{m}.npz") for m in ("bptt", "tm")}
    root, makers = pathlib.Path("w"), {"a/tm.npz": "tm"}
    return Study(scale, root, "embedded", width, 10, 1, "d", sets, sets, makers)


def test_the_steps_of_the_study():
    forth, back = study.steps(planned("laptop"))
    assert forth.argv() == [
        "--artefacts=a/bptt.npz,a/tm.npz",
        "--runs=2",
        "--probes=accuracy@10,hessian_trace@30,hessian_eigenvalues@150,ntk@150,"
        "hessian_spectrum@300",
        "--accuracy.images=500",
        "--hessian_trace.num_probes=20",
        "--hessian_eigenvalues.images=50",
        "--hessian_spectrum.images=50",
        "--ntk.images=50",
        "--data_dir=d",
        "--workdir=w/dynamics",
    ]
    assert back.argv() == [
        "--artefacts=a/tm.npz",
        "--train_on=a/tm.npz",
        "--sets=train,test",
        "--probes=accuracy@10,hessian_trace@60",
        "--accuracy.images=500",
        "--hessian_trace.num_probes=20",
        "--data_dir=d",
        "--workdir=w/dynamics_reverse",
    ]
    assert (forth.name, forth.group, forth.minutes) == ("dynamics", "dynamics", 7.4)
    assert (back.name, back.group, back.minutes) == ("dynamics_reverse", "dynamics", 0.8)
    assert back.module == "experiments.dynamics"
    assert (forth.needs, back.needs) == (("tm",), ("tm",))
    wide, _ = study.steps(planned("paper", 128))
    assert "--convnet.width=128" in wide.argv()
    for scale in ("laptop", "night", "paper"):
        for step in study.steps(planned(scale)):
            launch.parse(dynamics_run.Config, step.argv())
