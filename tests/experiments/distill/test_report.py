"""The part of the report on the sets: the claim, the table, the pictures."""

import copy
import re

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from scipy import stats

from distilljax import data, io
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import DistilledSet, InputError
from experiments.distill.record import Summary
from experiments.distill.report import CLAIMS, EXPERIMENT, grid
from experiments.lab.claims import NO_RECORD, NOT_SUPPORTED, SUPPORTED, UNDECIDED
from experiments.lab.paper import WORTH
from experiments.lab.records import checked
from tests.experiments import made_up
from tests.experiments.distill.made import METHODS, distill, distilled
from tests.experiments.made_up import COMMON

(CLAIM,) = CLAIMS


def tables(records):
    ((section, contents),) = EXPERIMENT.contents
    assert section == WORTH == CLAIM.section
    return contents(records)


def text(markup):
    return " ".join(re.sub(r"<[^>]*>", " ", markup).split())


@pytest.mark.parametrize(
    ("records", "outcome"),
    [
        (distilled(0.1), SUPPORTED),
        (distilled(-0.1), NOT_SUPPORTED),
        (distilled(0.01, width=0.1), UNDECIDED),
        ([], NO_RECORD),
    ],
)
def test_records_decide_the_claim(records, outcome):
    assert CLAIM.judge(records).outcome == outcome


def test_a_method_without_a_record_leaves_the_claim_undecided():
    assert CLAIM.judge([distill(0.1, m) for m in METHODS]).outcome == SUPPORTED
    verdict = CLAIM.judge([distill(0.1, m) for m in ("bptt", "dm")])
    assert verdict.outcome == UNDECIDED
    assert set(verdict.absent()) == {"TM", "GM"}


def test_sets_without_random_images_or_of_other_methods_are_not_read():
    lacking = distill(0.1)
    del lacking.summary["accuracy"]["random"]
    assert CLAIM.judge([lacking, distill(0.1, "herding")]).outcome == NO_RECORD


def test_differences_are_taken_network_by_network():
    # The networks' own spread, 0.02, is ten times that of their differences.
    verdict = CLAIM.judge(distilled(0.03, width=0.002))
    assert verdict.outcome == SUPPORTED
    first = verdict.readings[0]
    values = 0.03 + np.linspace(-0.002, 0.002, 5)
    expected = stats.t.interval(0.95, 4, 0.03, stats.sem(values))
    np.testing.assert_allclose(first.interval[:2], expected, rtol=1e-6)
    assert first.n == "5 networks"


def test_networks_that_cannot_be_paired_are_refused():
    found = distill(0.1)
    found.summary["accuracy"]["random"]["values"].pop()
    with pytest.raises(InputError, match=r"sets/tm_ipc10/summary\.json: .*be paired"):
        CLAIM.judge([found])


def test_the_papers_numbers_stand_beside_sets_of_its_size():
    papers = {r.method: r.paper for r in CLAIM.judge(distilled(0.1)).readings}
    assert papers["tm"] == pytest.approx(0.5363 - 0.273)
    assert papers["bptt"] == pytest.approx(0.589 - 0.273)
    assert CLAIM.judge([distill(0.1, "tm", ipc=1)]).readings[0].paper is None
    assert "53.6" in text(tables([distill(0.1)])[0])
    assert "53.6" not in text(tables([distill(0.1, ipc=1)])[0])


def test_a_narrower_network_is_named():
    first = CLAIM.judge(distilled(0.1)).readings[0]
    assert first.scale == "ConvNet, width 32 (paper: 128)"
    assert EXPERIMENT.title(distill(0.1)) == first.scale
    assert EXPERIMENT.networks(distill(0.1)) == [{"model": "convnet", "width": 32}]
    unnamed = distill(0.1)._replace(config={})
    assert EXPERIMENT.title(unnamed) == "sets/tm_ipc10"
    assert EXPERIMENT.networks(unnamed) == []


def test_the_table_has_every_training_set_and_large_sets_first():
    records = [
        distill(0.1, "dm", ipc=1),
        distill(0.1, "gm", more=("whole", "herding")),
        distill(0.2, "bptt"),
    ]
    table = text(tables(records)[0])
    assert "as many random real images as many by herding the whole training set" in table
    assert "k-centre" not in table
    places = [table.index(name) for name in ("BPTT", "GM", "DM")]
    assert places == sorted(places)
    assert "47.0 ± 2.4" in table  # 0.27 + 0.2, and the paper's beside it
    assert "58.9" in table
    assert "of 5 networks" in table
    assert "ConvNet, width 32 (paper: 128); study" in table


def test_without_records_there_is_no_table():
    assert tables([]) == []


def test_the_facts_name_methods_and_sizes():
    records = [distill(0.1, "dm", ipc=1), distill(0.2, "bptt"), distill(0.2, "own")]
    assert EXPERIMENT.facts(records) == [("Sets", "BPTT, DM; 1 or 10 per class")]
    assert EXPERIMENT.facts([distill(0.2, "own")]) == [("Sets", "–")]


def test_runs_of_one_configuration_are_about_the_same():
    one, same, other = distill(0.1), distill(0.2, folder="elsewhere"), distill(0.1, ipc=1)
    assert EXPERIMENT.subjects(one) == EXPERIMENT.subjects(same)
    assert not EXPERIMENT.subjects(one) & EXPERIMENT.subjects(other)
    assert EXPERIMENT.sets(one) == []


def test_a_set_without_its_picture_is_drawn(tmp_path):
    record = distill(0.1, "tm", folder=str(tmp_path))
    assert grid(record) is None
    artefact = io.Artefact(
        DistilledSet(jnp.zeros((2, 4, 4, 1)), jnp.eye(2), jnp.zeros(())),
        data.Normalise(jnp.array([0.4]), jnp.array([0.2])),
        ("top", "bottom"),
        COMMON["dataset"],
        "tm",
        {"ipc": 1},
        EvaluationProtocol(),
        "0.1.0",
        {},
    )
    io.save(tmp_path / "distilled.npz", artefact)
    figure = grid(record)
    assert figure is not None
    assert "data:image/png" in figure
    assert "TM" in figure
    assert "37.0 ± 2.4 % of test images" in text(figure)


def test_the_picture_of_the_run_is_shown(tmp_path):
    PIL.Image.new("RGB", (40, 30)).save(tmp_path / "grid.png")
    figure = grid(distill(0.1, "tm", folder=str(tmp_path)))
    assert "data:image/" in figure
    assert figure in tables([distill(0.1, "tm", folder=str(tmp_path))])[-1]


@pytest.mark.parametrize(
    "keys",
    [
        ("accuracy", "distilled", "values"),
        ("protocol", "name"),
        ("best_step",),
        ("seconds", "total"),
        ("dataset", "fingerprint"),
    ],
)
def test_a_missing_field_is_named_with_its_file(keys):
    held = copy.deepcopy(distill(0.1).summary)
    missing = made_up.delete(held, "folder", keys)
    with pytest.raises(InputError, match=missing):
        checked(Summary, held, "folder", "distill")
