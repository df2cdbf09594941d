"""Verdicts of made-up records: what supports a claim, contradicts it, or neither."""

import math
import re

import numpy as np
import pytest
from scipy import stats

from distilljax.analysis.statistics import Interval, student, wilson
from distilljax.types import InputError
from experiments.dynamics import report as dynamics_report
from experiments.lab.claims import (
    NO_RECORD,
    NOT_SUPPORTED,
    ONE_RUN,
    ONE_RUN_EXACT,
    SUPPORTED,
    UNDECIDED,
    Every,
    Reading,
    Record,
    Some,
    deciding_reading,
    judge_node,
    spelt,
    spelt_interval,
)
from experiments.lab.paper import (
    MIXING,
    REAL_PER_CLASS,
    STANDARD,
    TRACE,
    TRACE_ITERATIONS,
    TRAINING,
    TRAINING_ITERATIONS,
)
from experiments.report import verdicts as report_verdicts

METHODS = ("tm", "bptt", "gm", "dm")
DATASET = {
    "name": "cifar10",
    "source": "tfds",
    "fingerprint": "18d4b97e",
    "num_classes": 10,
}
ENVIRONMENT = {
    "distilljax": "0.1.0",
    "python": "3.11.7",
    "jax": "0.10.2",
    "device": "1 x cpu cpu",
    "machine": "x86_64, Linux",
}
NETWORK = {"model": "convnet", "width": 32, "depth": 3}


def spread(mean, width=0.01, num=5):
    """As runs.spread, of values evenly about the mean."""
    values = mean + np.linspace(-width, width, num)
    std = float(values.std(ddof=1)) if num > 1 else None
    return {
        "mean": float(values.mean()),
        "std": std,
        "seeds": num,
        "values": values.tolist(),
    }


def path(method, ipc=10):
    return f"sets/{method}_ipc{ipc}/distilled.npz"


def rows(methods=METHODS, ipc=10):
    return {
        f"{m}_ipc{ipc}": {
            "path": path(m, ipc),
            "method": m,
            "images_per_class": ipc,
            "num_images": 10 * ipc,
            "network": NETWORK,
        }
        for m in methods
    }


def random_row(ipc=10):
    about = {"path": None, "method": "random", "images_per_class": ipc}
    return {f"random, {ipc} per class": {**about, "num_images": 100, "network": NETWORK}}


def record(experiment, summary, config=None, folder=None):
    more = {
        "dataset": DATASET,
        "environment": ENVIRONMENT,
        "seconds": 60.0,
        "peak_memory_bytes": 2**30,
    }
    return Record(
        experiment,
        folder or f"records/{experiment}",
        {"seed": 0, **(config or {})},
        f"python -m experiments.{experiment} --seed=0",
        {**more, **summary},
    )


def distill(gain, method="tm", ipc=10, width=0.01, folder=None, num=5):
    random = spread(0.27, 0.02, num)
    values = np.array(random["values"]) + np.array(spread(gain, width, num)["values"])
    distilled = {**spread(float(values.mean())), "values": values.tolist(), "seeds": num}
    config = {"method": method, "ipc": ipc, "model": "convnet", "convnet": {"width": 32}}
    summary = {
        "accuracy": {"distilled": distilled, "random": random},
        "protocol": {"name": "study"},
    }
    return record("distill", summary, config, folder or f"sets/{method}_ipc{ipc}")


def distilled(gain, **changes):
    return [distill(gain, method, **changes) for method in METHODS]


def recognition(shift, width=0.01, num=5, pixels=0.1, methods=METHODS):
    """Every set is recognised at `shift` beyond test images."""
    nets = {
        "convnet": {**NETWORK, "epochs": 4},
        "convnet16": {**NETWORK, "width": 16, "epochs": 20},
    }
    test = {"path": None, "method": "test", "num_images": 10_000}
    all_rows = {**rows(methods), **random_row(), "test images": test}
    found = {}
    for label, row in all_rows.items():
        of = spread(0.6, 0.02, num)
        if row["path"]:
            change = spread(shift, width, num)["values"]
            of = {**of, "values": (np.array(of["values"]) + change).tolist()}
            of["mean"] = float(np.mean(of["values"]))
        found[label] = {
            name: {"accuracy": of, "loss": spread(1.0, 0.1, num)} for name in nets
        }
    shares = {"outside": pixels, "below": pixels / 2, "above": pixels / 2}
    counts = {
        label: {**shares, "quantiles": {"0.0": -0.5, "1.0": 1.5}} for label in rows(methods)
    }
    summary = {"recognition": found, "rows": all_rows, "networks": nets, "pixels": counts}
    return record("recognition", summary)


def mixing(changes, random_changes=(0.02, 0.05), width=0.01, num=5, methods=METHODS):
    """Each set with +0, +2 and +10 real images a class."""
    all_rows = {**rows(methods), **random_row()}
    accuracy = {}
    for label, row in all_rows.items():
        alone = spread(0.4, 0.02, num)
        accuracy[label] = {"0": alone}
        of_row = changes if row["path"] else random_changes
        for added, change in zip((2, 10), of_row, strict=True):
            values = np.array(alone["values"]) + spread(change, width, num)["values"][::-1]
            held = {**spread(float(values.mean()), num=num), "values": values.tolist()}
            accuracy[label][str(added)] = held
    return record("mixing", {"accuracy": accuracy, "rows": all_rows})


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


AT = (0, 20, 40, 80, 100, 150, 200, 300)


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
        "curves": {
            dynamics_report.ACCURACY: accuracy,
            dynamics_report.TRACE: trace,
            dynamics_report.KERNEL: distance,
        },
        "sets": about,
        "trained_on": "real",
        "runs": how.get("runs", 3),
        "model": {"name": "convnet", "width": 32, "depth": 3},
        "parameters": 24_714,
    }
    return record("dynamics", summary, {"accuracy": {"images": 1000}})


def attributes(p=0.01, mean=0.2, half=0.1, method="tm"):
    found = {
        "tests": 100,
        "significant": 12,
        "expected_by_chance": 5.0,
        "p": p,
        "images_with_finding": 6,
        "images": 10,
    }
    coherence = {
        "mean": mean,
        "interval": [mean - half, mean + half],
        "images_above": 4,
        "p_values": [0.01] * 10,
    }
    row = {"image": 0, "class": "ship", "attribute": "blue", "annotator": "measured"}
    numbers = {
        "rate": 0.7,
        "base": 0.3,
        "effect": 0.4,
        "p": 1e-4,
        "p_holm": 0.01,
        "q": 0.02,
    }
    summary = {
        "attributes": found,
        "coherence": coherence,
        "enrichment": [{**row, **numbers}],
        "artefact": path(method),
        "method": method,
        "label": f"{method}_ipc10",
    }
    return record("attributes", summary, {}, f"records/attributes_{method}")


# Claim -> records that support it, contradict it, and do neither.
CASES = {
    "recognised_as_well": (
        lambda: [recognition(0.1)],
        lambda: [recognition(-0.1)],
        lambda: [recognition(0.0)],
    ),
    "recognised_less": (
        lambda: [recognition(-0.1)],
        lambda: [recognition(0.1)],
        lambda: [recognition(0.0)],
    ),
    "recognised_above_chance": (
        lambda: [recognition(-0.1)],
        lambda: [recognition(-0.5)],
        lambda: [recognition(-0.4)],
    ),
    "pixels_leave_the_range": (
        lambda: [recognition(0.0, pixels=0.1)],
        lambda: [recognition(0.0, pixels=0.001)],
        None,  # a count decides
    ),
    "mixing_lowers": (
        lambda: [mixing((0.05, -0.05))],
        lambda: [mixing((0.05, 0.05))],
        lambda: [mixing((0.05, 0.0))],
    ),
    "mixing_random": (
        lambda: [mixing((0.0, 0.0), (0.05, 0.05))],
        lambda: [mixing((0.0, 0.0), (0.05, -0.05))],
        lambda: [mixing((0.0, 0.0), (0.05, 0.0))],
    ),
    "recognised_early": (
        lambda: [dynamics(1.0, width=0.0)],
        lambda: [dynamics(0.8)],
        lambda: [dynamics(0.98)],
    ),
    "test_still_learning": (
        lambda: [dynamics(test_end=0.7)],
        lambda: [dynamics(test_end=0.55)],
        lambda: [dynamics(test_end=0.62, width=0.2)],
    ),
    "curvature_rises": (
        lambda: [dynamics(ratio={"early": 1.5, "late": 0.2})],
        lambda: [dynamics(ratio={"early": 0.5, "late": 0.2})],
        lambda: [dynamics(ratio={"early": 1.0, "late": 0.2})],
    ),
    "curvature_vanishes": (
        lambda: [dynamics(ratio={"early": 1.5, "late": 0.2})],
        lambda: [dynamics(ratio={"early": 1.5, "late": 0.9})],
        lambda: [dynamics(ratio={"early": 1.5, "late": 0.5})],
    ),
    "curvature_stays": (
        lambda: [dynamics(ratio={"early": 1.5, "late": 0.9})],
        lambda: [dynamics(ratio={"early": 1.5, "late": 0.2})],
        lambda: [dynamics(ratio={"early": 1.5, "late": 0.5})],
    ),
    "attributes_enriched": (
        lambda: [attributes(p=0.01)],
        lambda: [attributes(p=0.99)],
        lambda: [attributes(p=0.04)],
    ),
    "attributes_coherent": (
        lambda: [attributes(mean=0.2)],
        lambda: [attributes(mean=-0.2)],
        lambda: [attributes(mean=0.05)],
    ),
    "kernel_moves_less": (
        lambda: [dynamics(kernel=0.5)],
        lambda: [dynamics(kernel=1.5)],
        lambda: [dynamics(kernel=1.0)],
    ),
}


def claim(name):
    (found,) = (c for c in report_verdicts.CLAIMS if c.id == name)
    return found


def test_every_claim_has_a_case_and_a_name_of_its_own():
    # Agreement and influence have cases of their own, in their folders.
    assert [c.id for c in report_verdicts.CLAIMS if c.id in CASES] == list(CASES)
    assert {c.section for c in report_verdicts.CLAIMS} == set(report_verdicts.HEADINGS)


@pytest.mark.parametrize("name", CASES)
def test_records_decide_a_claim(name):
    supports, contradicts, neither = CASES[name]
    assert claim(name).judge(supports()).outcome == SUPPORTED
    assert claim(name).judge(contradicts()).outcome == NOT_SUPPORTED
    if neither:
        assert claim(name).judge(neither()).outcome == UNDECIDED


@pytest.mark.parametrize("name", CASES)
def test_without_a_record_there_is_no_verdict(name):
    verdict = claim(name).judge([])
    assert verdict.outcome == NO_RECORD
    assert verdict.deciding is None
    other = [distill(0.1)] if claim(name).experiment != "distill" else [attributes()]
    assert claim(name).judge(other).outcome == NO_RECORD


EVERY_METHOD = {
    "recognised_as_well": lambda methods: [recognition(0.1, methods=methods)],
    "recognised_less": lambda methods: [recognition(-0.1, methods=methods)],
    "recognised_above_chance": lambda methods: [recognition(0.0, methods=methods)],
    "pixels_leave_the_range": lambda methods: [recognition(0.0, methods=methods)],
    "mixing_lowers": lambda methods: [mixing((-0.05, -0.05), methods=methods)],
    "recognised_early": lambda methods: [dynamics(1.0, width=0.0, methods=methods)],
    "curvature_rises": lambda methods: [dynamics(methods=methods)],
    "curvature_vanishes": lambda methods: [dynamics(methods=methods)],
    "kernel_moves_less": lambda methods: [dynamics(methods=methods)],
}


@pytest.mark.parametrize("name", EVERY_METHOD)
def test_a_method_that_was_not_looked_at_leaves_the_claim_undecided(name):
    make = EVERY_METHOD[name]
    assert claim(name).judge(make(METHODS)).outcome == SUPPORTED
    fewer = claim(name).judge(make(("bptt", "dm")))
    assert fewer.outcome == UNDECIDED
    assert set(fewer.absent()) <= {"TM", "GM"}
    assert fewer.absent()


# --- the rule --------------------------------------------------------------------------


def reading(low, high, above=True, threshold=0.0, freedom=math.inf):
    return Reading(
        "tm",
        "points",
        threshold,
        above,
        value=(low + high) / 2,
        interval=Interval(low, high, freedom),
        folder="here",
    )


def test_a_reading_goes_by_its_interval_alone():
    assert reading(0.1, 0.3).outcome() == SUPPORTED
    assert reading(-0.3, -0.1).outcome() == NOT_SUPPORTED
    assert reading(-0.1, 0.3).outcome() == UNDECIDED
    assert reading(-0.3, -0.1, above=False).outcome() == SUPPORTED
    assert reading(0.1, 0.3, above=False).outcome() == NOT_SUPPORTED
    assert reading(0.1, 0.3, threshold=0.2).outcome() == UNDECIDED
    assert reading(0.1, 0.3)._replace(interval=None).outcome() == UNDECIDED
    assert reading(0.1, 0.3)._replace(value=None).outcome() == UNDECIDED
    assert Reading("tm", "points", 0.0, True).outcome() == NO_RECORD


def test_the_interval_is_students_and_widens_with_its_level():
    values = np.array([0.1, 0.3, 0.2, 0.5, 0.4])
    interval = student(values)
    expected = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    np.testing.assert_allclose(interval[:2], expected, rtol=1e-10)
    expected = stats.t.interval(1 - 0.05 / 3, 4, values.mean(), stats.sem(values))
    np.testing.assert_allclose(interval.at(values.mean(), 0.05 / 3), expected, rtol=1e-10)
    normal = Interval(0.0, 2.0).at(1.0, 0.01)
    z = stats.norm.ppf(0.995) / stats.norm.ppf(0.975)
    np.testing.assert_allclose(normal, (1 - z, 1 + z), rtol=1e-10)


def test_networks_that_agree_to_the_last_digit_have_no_spread():
    equal = np.full(3, 0.5)
    assert student(equal) is None
    assert student(np.array([0.5])) is None
    float32 = np.array([-0.018000006675720215, -0.018000006675720100])
    assert student(float32) is None
    # Shares of 100 images: rounding to whole images is the least that they may differ by.
    low, high, _ = student(equal, 1 / 100)
    half = stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(12) / math.sqrt(3)
    np.testing.assert_allclose([low, high], [0.5 - half, 0.5 + half], rtol=1e-10)


def test_wilsons_interval():
    for share, num in ((1.0, 10), (0.0, 7), (0.4, 25)):
        test = stats.binomtest(round(share * num), num)
        expected = test.proportion_ci(method="wilson")
        np.testing.assert_allclose(wilson(share, num)[:2], expected, atol=1e-12)


def test_every_needs_all_and_some_needs_one():
    good, bad, open_ = reading(0.1, 0.3), reading(-0.3, -0.1), reading(-0.1, 0.3)
    absent = Reading("dm", "points", 0.0, True)
    assert judge_node(Every([good, good])) == SUPPORTED
    assert judge_node(Every([good, open_])) == UNDECIDED
    assert judge_node(Every([good, reading(-9.3, -9.1)])) == NOT_SUPPORTED
    assert judge_node(Every([good, absent])) == UNDECIDED
    assert judge_node(Every([absent, absent])) == NO_RECORD
    assert judge_node(Every([])) == NO_RECORD
    far = reading(9.1, 9.3)
    assert judge_node(Some([far, bad])) == SUPPORTED
    assert judge_node(Some([bad, bad])) == NOT_SUPPORTED
    assert judge_node(Some([open_, bad])) == UNDECIDED
    assert judge_node(Some([far, absent])) == SUPPORTED
    assert judge_node(Some([absent])) == NO_RECORD


def test_what_is_picked_among_several_is_read_in_a_wider_interval():
    barely = reading(0.01, 0.3, freedom=4)
    bad = reading(-0.3, -0.1, freedom=4)
    assert judge_node(Some([barely])) == SUPPORTED
    assert judge_node(Some([barely, bad])) == UNDECIDED
    barely_bad, good = reading(-0.3, -0.01, freedom=4), reading(0.1, 0.3, freedom=4)
    assert judge_node(Every([barely_bad])) == NOT_SUPPORTED
    assert judge_node(Every([barely_bad, good])) == UNDECIDED
    # All must hold, so none of them is picked.
    assert judge_node(Every([barely, barely, barely])) == SUPPORTED


def test_the_deciding_number_is_shown_at_its_level():
    weak, strong = reading(0.01, 0.3), reading(0.5, 0.6)
    found = deciding_reading(Every([strong, weak]))
    assert found.reading is weak
    assert found.interval() == pytest.approx((0.01, 0.3))
    found = deciding_reading(Some([strong, weak]))
    assert found.reading is strong
    assert found.alpha == 0.025
    low, high = found.interval()
    assert low < 0.5 < 0.6 < high
    bad = reading(-9.3, -9.1)
    found = deciding_reading(Every([bad, strong]))
    assert found.reading is bad
    assert found.alpha == 0.025
    assert deciding_reading(Every([Reading("tm", "points", 0.0, True)])) is None


def test_a_nested_claim_divides_its_level_twice():
    two = Some([reading(0.02, 0.3), reading(-0.3, -0.1)])
    assert judge_node(two, 0.1) == SUPPORTED
    assert judge_node(Every([two, two]), 0.1) == SUPPORTED
    assert judge_node(two) == UNDECIDED


# --- what the numbers are --------------------------------------------------------------


def test_the_papers_numbers_stand_beside_sets_of_its_size():
    added = claim("mixing_lowers").judge([mixing((0.0, -0.05))]).readings
    papers = {(r.method, r.where): r.paper for r in added}
    assert papers["bptt", "+10 per class"] == pytest.approx(0.498 - 0.587)
    recognised = claim("recognised_less").judge([recognition(-0.1)]).readings
    papers = {(r.method, r.where): r.paper for r in recognised}
    assert papers["dm", "convnet16"] == pytest.approx(0.54 - 0.6837)
    early = claim("curvature_rises").judge([dynamics()]).readings
    papers = {(r.method, r.where): r.paper for r in early}
    assert papers["tm", "iteration 100"] == pytest.approx(4550 / 2020)


def test_a_narrower_network_is_named():
    scales = {
        r.where: r.scale
        for r in claim("recognised_less").judge([recognition(0.1)]).readings
    }
    assert scales["convnet"].startswith(
        "ConvNet, width 32 (paper: 128), 4 epochs (paper: 40)"
    )
    assert scales["convnet16"].startswith("ConvNet, width 16, 20 epochs;")
    shown = claim("test_still_learning").judge([dynamics()]).readings[0].scale
    assert "1,000 test images" in shown


def test_in_one_run_the_probes_give_the_interval_and_say_so():
    verdict = claim("curvature_vanishes").judge([dynamics(runs=1)])
    assert verdict.outcome == SUPPORTED
    first = verdict.readings[0]
    assert first.note == ONE_RUN
    error = math.hypot(1.0, 0.2 * 1.0) / 100
    half = stats.t.ppf(0.975, 59) * error
    np.testing.assert_allclose(first.interval[:2], [0.2 - half, 0.2 + half], rtol=1e-9)
    exact = claim("recognised_early").judge([dynamics(0.5, runs=1)])
    assert exact.outcome == UNDECIDED
    assert exact.readings[0].note == ONE_RUN_EXACT
    over_runs = claim("curvature_vanishes").judge([dynamics(runs=3)]).readings[0]
    values = 0.2 * (1 + np.linspace(-0.01, 0.01, 3))
    expected = stats.t.interval(0.95, 2, 0.2, stats.sem(values))
    np.testing.assert_allclose(over_runs.interval[:2], expected, rtol=1e-6)


def test_a_run_that_ends_early_says_nothing_of_the_end():
    short = dynamics()
    for curves in short.summary["curves"].values():
        for one in curves.values():
            one["iterations"] = one["iterations"][:5]
            for key in ("mean", "standard_error"):
                one[key] = one[key][:5]
            one["values"] = [row[:5] for row in one["values"]]
    for name in ("curvature_vanishes", "recognised_early", "test_still_learning"):
        assert claim(name).judge([short]).outcome == NO_RECORD
    assert claim("curvature_rises").judge([short]).outcome == SUPPORTED


def test_a_network_that_learns_a_distilled_set_is_no_record_of_real_training():
    other = dynamics()
    other.summary["trained_on"] = path("tm")
    for name in ("curvature_vanishes", "recognised_early", "kernel_moves_less"):
        assert claim(name).judge([other]).outcome == NO_RECORD


def test_no_ratio_where_real_curvature_is_not_clear_of_zero():
    flat = dynamics(runs=1)
    real = flat.summary["curves"][dynamics_report.TRACE]["train"]
    real["values"] = [[1.0] * len(AT)]
    verdict = claim("curvature_vanishes").judge([flat])
    assert verdict.outcome == UNDECIDED
    assert "not clear of zero" in verdict.readings[0].note


REQUIRED = [
    ("recognised_as_well", lambda: recognition(0.1), ("networks", "convnet")),
    ("recognised_as_well", lambda: recognition(0.1), ("recognition", "test images")),
    ("pixels_leave_the_range", lambda: recognition(0.1), ("pixels", "tm_ipc10", "outside")),
    ("mixing_lowers", lambda: mixing((0.1, 0.1)), ("accuracy", "tm_ipc10", "0")),
    ("recognised_early", lambda: dynamics(), ("sets", "tm_ipc10", "images")),
    ("curvature_rises", lambda: dynamics(), ("trained_on",)),
    ("attributes_enriched", lambda: attributes(), ("attributes", "expected_by_chance")),
    ("attributes_coherent", lambda: attributes(), ("coherence", "interval")),
]


@pytest.mark.parametrize(("name", "make", "keys"), REQUIRED)
def test_a_missing_field_is_named_with_its_file(name, make, keys):
    found = make()
    claim(name).judge([found])  # as it is, it can be read
    held = found.summary
    for key in keys[:-1]:
        held = held[key]
    del held[keys[-1]]
    missing = f"{found.folder}/summary.json has no {'.'.join(keys)}, "
    with pytest.raises(InputError, match=re.escape(missing)):
        claim(name).judge([found])


@pytest.mark.parametrize("value", [None, "much", math.nan, True])
def test_what_is_no_number_is_refused(value):
    found = attributes()
    found.summary["attributes"]["p"] = value
    with pytest.raises(InputError, match=r"attributes\.p is .* expected a finite number"):
        claim("attributes_enriched").judge([found])


def test_numbers_that_contradict_each_other_are_refused():
    turned = attributes()
    turned.summary["coherence"]["interval"] = [0.3, 0.1]
    with pytest.raises(InputError, match="two rising numbers"):
        claim("attributes_coherent").judge([turned])
    unpaired = recognition(0.1)
    accuracy = unpaired.summary["recognition"]["tm_ipc10"]["convnet"]["accuracy"]
    accuracy["values"] = accuracy["values"][:3]
    with pytest.raises(InputError, match="cannot be paired"):
        claim("recognised_as_well").judge([unpaired])


def test_numbers_are_spelt_with_their_units():
    assert spelt(-0.0123, "points") == "−1.2 points"
    assert spelt(0.0, "points") == "0.0 points"
    assert spelt(-0.0004, "points") == "−0.04 points"  # which side it is on
    assert spelt(0.5, "percent") == "50.0 %"
    assert spelt(0.4, "ratio") == "0.40×"
    assert spelt(0.0004, "p") == "p < 0.001"
    assert spelt(0.43, "correlation") == "+0.43"
    assert spelt_interval(-0.2, 1.3, "percent") == "0.0 to 100.0"
    assert spelt_interval(-0.02, 0.013, "points") == "−2.0 to +1.3"


def test_the_papers_numbers_fit_each_other():
    for row in MIXING.values():
        assert len(row) == len(REAL_PER_CLASS)
    for row in TRAINING.values():
        assert len(row) == len(TRAINING_ITERATIONS)
    for row in TRACE.values():
        assert len(row) == len(TRACE_ITERATIONS)
    # What is read off the mixing figure is what is printed, within the reading.
    for method, printed in STANDARD.items():
        assert abs(MIXING[method][0] - printed) < 0.015
