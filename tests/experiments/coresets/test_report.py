"""The part of the report on chosen real images."""

import re

from experiments.coresets.record import Summary
from experiments.coresets.report import EXPERIMENT
from experiments.lab.claims import Record
from experiments.lab.paper import BEYOND
from experiments.lab.records import checked
from tests.experiments.distill.made import PROTOCOL, spread
from tests.experiments.made_up import COMMON


def record(**config):
    summary = {
        "accuracy": {
            "random": {"1": spread([0.1, 0.2]), "10": spread([0.3, 0.5])},
            "herding": {"1": spread([0.25, 0.25]), "10": spread([0.6, 0.62])},
        },
        "chosen_from": {"random": 100, "herding": 80},
        "protocol": PROTOCOL,
        "seconds": 3.0,
        **COMMON,
    }
    config = {"model": "convnet", "convnet": {"width": 32}, **config}
    held = checked(Summary, summary, "runs/c", "coresets")
    return Record("coresets", "runs/c", config, "python -m experiments.coresets", held)


def test_a_row_for_each_way_to_choose():
    ((section, contents),) = EXPERIMENT.contents
    assert section == BEYOND
    (table,) = contents([record()])
    rows = re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
    cells = [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in rows]
    assert cells == [
        "chosen by 1 per class 10 per class",
        "random 15.0 ± 7.1 40.0 ± 14.1",
        "herding 25.0 ± 0.0 61.0 ± 1.4",
    ]
    assert len(contents([record(), record(seed=1)])) == 2
    assert contents([]) == []


def test_a_run_is_about_its_configuration():
    assert EXPERIMENT.subjects(record()) == EXPERIMENT.subjects(record())
    assert EXPERIMENT.subjects(record()) != EXPERIMENT.subjects(record(seed=1))
    assert EXPERIMENT.sets(record()) == []
    assert EXPERIMENT.title(record()) == "ConvNet, width 32 (paper: 128)"
    assert EXPERIMENT.networks(record()) == [{"model": "convnet", "width": 32}]
