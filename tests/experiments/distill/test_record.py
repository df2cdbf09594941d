"""Every committed record of a distillation is of the type of its summary."""

import json
import pathlib

import pytest

import experiments
from experiments.distill.record import Summary
from experiments.lab.records import checked

FOLDER = pathlib.Path(experiments.__file__).parent


def committed():
    made = sorted(FOLDER.glob("artefacts/*/config.json"))
    made += [
        path
        for path in sorted(FOLDER.glob("results/**/config.json"))
        if json.loads(path.read_text())["experiment"] == "experiments.distill"
    ]
    return [path.parent for path in made]


@pytest.mark.parametrize("folder", committed(), ids=lambda folder: folder.name)
def test_a_committed_record_is_read(folder):
    described = json.loads((folder / "config.json").read_text())
    assert described["experiment"] == "experiments.distill"
    held = json.loads((folder / "summary.json").read_text())
    summary = checked(Summary, held, folder.name, "distill")
    assert 0 < summary["accuracy"]["distilled"]["mean"] < 1


def test_there_are_some():
    assert len(committed()) >= 16
