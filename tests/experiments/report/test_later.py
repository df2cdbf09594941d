"""Claims that later papers lead one to expect, apart from those of the study."""

import pathlib

import pytest

from experiments.lab.claims import NO_RECORD, SUPPORTED
from experiments.lab.experiment import load_all
from experiments.lab.later import LATER
from experiments.report.run import plain
from experiments.report.verdicts import card, judge, lead, overview, sections
from tests.experiments.labels.test_report import labels
from tests.experiments.studies import STUDIES, identities, records_of, study

TABLE = load_all()


def test_a_claim_has_a_source_where_its_section_is_of_later_papers():
    claims = [claim for experiment in TABLE.values() for claim in experiment.claims]
    for claim in claims:
        assert bool(claim.source) == (claim.section.place == LATER), claim.id
        assert claim.source.startswith("arXiv ") or not claim.source
    assert len({claim.id for claim in claims}) == len(claims)
    assert sum(not claim.source for claim in claims) == 20  # those of the study


def test_they_are_counted_apart():
    verdicts = judge([[labels()]], TABLE)
    said = lead(verdicts)
    assert "these runs support 0, contradict 0 and leave 0 undecided" in said
    assert said.endswith("of 3 expectations that later papers raise, 2 hold and 1 do not.")
    assert "later papers" not in lead(judge([[]], TABLE))
    own = {v.claim.id for v in verdicts if v.outcome == SUPPORTED}
    assert own == {"labels_random_gain", "labels_early"}


def test_the_page_names_the_source_in_place_of_the_paper():
    verdicts = judge([[labels()]], TABLE)
    (verdict,) = (v for v in verdicts if v.claim.id == "labels_early")
    assert "<strong>Expected by arXiv 2406.10485: </strong>" in card(verdict)
    assert "Paper:" not in card(verdict)
    assert "expected by arXiv 2406.10485: with few images" in overview([verdict])
    (found,) = plain([verdict], pathlib.Path("."))["claims"]
    assert found["source"] == "arXiv 2406.10485"


def test_their_sections_come_after_those_of_the_study():
    places = [section.place for section in sections(TABLE)]
    first = places.index(LATER)
    assert places[first:-1] == [LATER] * 4
    assert LATER not in places[:first]


@pytest.mark.parametrize("name", ["labels", "subsets", "connectivity", "spectrum"])
def test_committed_records_are_read_and_shown(name, tmp_path):
    experiment = TABLE[name]
    (record,) = records_of("laptop", name, experiment.summary)
    assert len(experiment.sets(record)) == (8 if name == "subsets" else 4)
    ((_, contents),) = experiment.contents
    table, figure = contents([record])
    assert "BPTT" in table
    assert "<img" in figure
    for claim in experiment.claims:
        assert claim.judge([record]).outcome != NO_RECORD
    for scale in STUDIES:
        before = identities(scale)
        for step in experiment.steps(study(scale, tmp_path)):
            assert step.identity() == before.get(step.name, step.identity())
