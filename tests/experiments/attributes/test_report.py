"""Claims, tables and steps on attributes, of made-up and of the committed records."""

import copy
import json
import math
import pathlib

import pytest

import experiments
from distilljax import launch
from distilljax.types import InputError
from experiments.attributes import run as attributes_run
from experiments.attributes import study
from experiments.attributes.record import Summary
from experiments.attributes.report import CLAIMS, EXPERIMENT, MOST_FINDINGS
from experiments.lab.claims import UNDECIDED
from experiments.lab.records import checked
from experiments.lab.steps import Study
from tests.experiments import made_up
from tests.experiments.made_up import NETWORK, path, record

COMMITTED = sorted(
    pathlib.Path(experiments.__file__).parent.glob("results/*/attributes*/summary.json")
)


def attributes(p=0.01, fewer=1.0, mean=0.2, half=0.1, method="tm"):
    counts = {"significant": 12, "expected_by_chance": 5.0, "p": p}
    found = {
        **counts,
        "p_fewer": fewer,
        "tests": 100,
        "images_with_finding": 6,
        "images": 10,
        "permutations": 200,
        "false_discovery_rate": counts,
    }
    of_images = ("p_values", "q_values", "similarity", "chance", "chance_std")
    coherence = {
        "mean": mean,
        "interval": [mean - half, mean + half],
        "images_above": 4,
        **{name: [0.01] * 10 for name in of_images},
        "images": list(range(10)),
        "draws": 9_999,
    }
    row = {"image": 0, "class": "ship", "attribute": "blue", "annotator": "measured"}
    numbers = {"base": 0.3, "effect": 0.4, "p": 1e-4, "p_holm": 0.01, "q": 0.02}
    shares = ("mean_of_groups", "positive_in_groups", "noise_floor", "own_class_among_top")
    about = {"path": "inf", "seeds": 3, "test_images": 500, "smallest_class": 50}
    trained = {"training_loss": 0.5, "accuracy": 0.8, "seconds": 9.0}
    summary = {
        "attributes": found,
        "coherence": coherence,
        "enrichment": [
            {**row, **numbers, "rate": 0.7},
            {**row, **numbers, "attribute": "tall", "p": 1e-5, "mean": 0.9},
        ],
        "annotators": {"measured": {"blue": {"kind": "boolean", "description": "Blue."}}},
        "artefact": path(method),
        "method": method,
        "label": f"{method}_ipc10",
        "influence": {**about, **dict.fromkeys(shares, 0.5)},
        "top": 20,
        "among": "class",
        "network": {**NETWORK, "parameters": 9, "recipe": {}, "epochs": 3, **trained},
        "command": "python -m experiments.attributes",
    }
    return record("attributes", copy.deepcopy(summary), {}, f"records/attributes_{method}")


def judge(name, *records):
    return made_up.judge(CLAIMS, Summary, name, records)


# Claim -> records that support it, contradict it, and do neither.
CASES = {
    "attributes_enriched": (
        lambda: attributes(p=0.01),
        lambda: attributes(p=0.99, fewer=0.02),
        lambda: attributes(p=0.04),
    ),
    "attributes_coherent": (
        lambda: attributes(mean=0.2),
        lambda: attributes(mean=-0.2),
        lambda: attributes(mean=0.05),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_records_decide_a_claim(name):
    assert [c.id for c in CLAIMS] == list(CASES)
    made_up.assert_decides(judge, name, CASES[name])


def test_the_interval_of_coherence_is_one_over_classes():
    found = attributes()
    found.summary["coherence"]["classes"] = 4
    (one,) = judge("attributes_coherent", found).readings
    assert one.interval.freedom == 3


def test_no_findings_where_chance_has_none_decide_nothing():
    assert judge("attributes_enriched", attributes(p=1.0, fewer=0.95)).outcome == UNDECIDED
    older = attributes(p=1.0)
    del older.summary["attributes"]["p_fewer"]
    assert judge("attributes_enriched", older).outcome == UNDECIDED


def test_what_a_reading_says():
    (one,) = judge("attributes_enriched", attributes()).readings
    assert (one.scale, one.n) == ("10 distilled images", "100 tests")
    assert one.note == ("12 findings, 5 expected by chance; 6 of 10 images have one")
    (one,) = judge("attributes_coherent", attributes()).readings
    assert one.interval == pytest.approx((0.1, 0.3, 9))
    assert one.note == "4 images are above chance each by itself"


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("attributes_enriched", ("attributes", "expected_by_chance")),
        ("attributes_coherent", ("coherence", "interval")),
    ],
)
def test_a_missing_field_is_named_with_its_file(name, keys):
    found = attributes()
    judge(name, found)  # as it is, it can be read
    missing = made_up.delete(found.summary, found.folder, keys)
    with pytest.raises(InputError, match=missing):
        judge(name, found)


@pytest.mark.parametrize("value", [None, "much", math.nan, True])
def test_what_is_no_number_is_refused(value):
    found = attributes()
    found.summary["attributes"]["p"] = value
    with pytest.raises(InputError, match=r"attributes\.p is .* expected a finite number"):
        judge("attributes_enriched", found)


def test_an_interval_that_is_turned_is_refused():
    turned = attributes()
    turned.summary["coherence"]["interval"] = [0.3, 0.1]
    with pytest.raises(InputError, match="two rising numbers"):
        judge("attributes_coherent", turned)


def test_the_table_has_the_smallest_p_first():
    ((_, contents),) = EXPERIMENT.contents
    (table,) = map(str, contents([attributes()]))
    assert table.index("tall") < table.index("blue")
    assert "TM, tm_ipc10: attributes, the 2 of smallest p of 2." in table
    assert "0.9" in table
    assert "0.7" in table
    none = attributes()
    none.summary["enrichment"] = []
    assert contents([none]) == []


def committed(summary):
    held = json.loads((summary.parent / "config.json").read_text())
    found = json.loads(summary.read_text())
    folder = str(summary.parent)
    kept = checked(Summary, found, folder, "attributes")
    return attributes()._replace(folder=folder, config=held["config"], summary=kept)


@pytest.mark.parametrize("summary", COMMITTED, ids=lambda p: "/".join(p.parts[-3:-1]))
def test_committed_records_are_read_and_shown(summary):
    found = committed(summary)
    ((_, contents),) = EXPERIMENT.contents
    table, *pictures = contents([found])
    assert len(pictures) == len(EXPERIMENT.captions)
    first = found.summary["enrichment"][0]
    assert first["attribute"] in str(table)
    assert f"the {MOST_FINDINGS} of smallest p" in str(table)
    assert EXPERIMENT.sets(found) == [found.summary["artefact"]]
    assert len(EXPERIMENT.subjects(found)) == 1
    assert EXPERIMENT.title(found) in found.summary["artefact"]
    assert list(EXPERIMENT.networks(found)) == []


def test_there_are_committed_records():
    assert {"study_cifar10", "study_embedded"} <= {path.parts[-3] for path in COMMITTED}


def test_the_steps_of_the_study():
    sets = {m: pathlib.Path(f"a/{m}.npz") for m in ("tm", "bptt")}
    planned = Study(
        "laptop", pathlib.Path("w"), "embedded", 32, 10, 1, None, sets, sets, {}
    )
    first, second = study.steps(planned)
    assert first.argv() == ["--influence=w/influence_tm", "--workdir=w/attributes_tm"]
    assert (first.name, second.name) == ("attributes_tm", "attributes_bptt")
    assert (first.group, first.module) == ("attributes", "experiments.attributes")
    assert (first.needs, first.minutes) == (("influence_tm",), 0.3)
    assert [str(path) for path in first.inputs] == ["w/influence_tm/influence.npz"]
    launch.parse(attributes_run.Config, first.argv())
