"""Records and steps of the studies in `experiments/results`."""

import json
import pathlib

from experiments.lab.claims import Record
from experiments.lab.records import checked
from experiments.lab.steps import Study

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
STUDIES = {"laptop": "study_embedded", "night": "study_cifar10"}
METHODS = ("tm", "bptt", "gm", "dm")


def records_of(scale, name, summary):
    """All records of an experiment in a committed study, checked against their type."""
    found = []
    for folder in sorted((EXPERIMENTS / "results" / STUDIES[scale]).iterdir()):
        if not (folder / "config.json").exists():
            continue
        about = json.loads((folder / "config.json").read_text())
        if about["experiment"] != f"experiments.{name}":
            continue
        held = json.loads((folder / "summary.json").read_text())
        held = checked(summary, held, str(folder), name)
        found.append(Record(name, str(folder), about["config"], about["command"], held))
    return found


def study(scale, root):
    """A study of the committed sets."""
    dataset = "embedded" if scale == "laptop" else "cifar10"

    def sets(ipc):
        return {
            method: EXPERIMENTS
            / "artefacts"
            / f"{dataset}_{method}_ipc{ipc}"
            / "distilled.npz"
            for method in METHODS
        }

    return Study(scale, root, dataset, 32, 10, 1, None, sets(10), sets(1))


def identities(scale):
    """Step -> its identity when the committed study ran."""
    path = EXPERIMENTS / "results" / STUDIES[scale] / "study.jsonl"
    lines = map(json.loads, path.read_text().splitlines())
    return {line["step"]: line["identity"] for line in lines}


def assert_same_steps(steps, root):
    """The steps of a question are those that the committed studies ran."""
    for scale in STUDIES:
        before = identities(scale)
        for step in steps(study(scale, root)):
            assert step.identity() == before[step.name], step.name
