"""Steps of the study: flags, places, inputs and what comes before."""

import pathlib

from experiments.lab.steps import Study

ROOT = pathlib.Path("study")
SET = ROOT / "sets" / "tm" / "distilled.npz"


def study(**changes):
    made = Study("night", ROOT, "cifar10", 32, 10, 1, None, {"tm": SET}, {"tm": SET})
    return made._replace(makers={str(SET): "tm_ipc10"})._replace(**changes)


def test_a_step_lies_in_a_folder_of_its_name():
    step = study().step("mixing", "mixing", {"seeds": 3}, {"night": 24.0})
    assert step.flags == {"seeds": 3, "workdir": ROOT / "mixing"}
    assert step.output == ROOT / "mixing" / "summary.json"
    assert (step.module, step.minutes) == ("experiments.mixing", 24.0)
    assert (step.inputs, step.needs) == ((), ())


def test_or_in_another_that_is_named():
    step = study(data_dir="prepared").step(
        "tm_ipc10",
        "sets",
        {"ipc": 10},
        {},
        experiment="distill",
        folder="sets/tm",
        needs=["experts"],
    )
    assert step.command() == (
        "python -m experiments.distill --ipc=10 --data_dir=prepared --workdir=study/sets/tm"
    )
    assert step.output == SET.with_name("summary.json")
    assert (step.needs, step.minutes) == (("experts",), 1.0)


def test_a_step_needs_those_that_make_its_sets():
    other = pathlib.Path("own.npz")
    step = study().step("a", "b", {}, {}, sets=[SET, other], inputs=[ROOT / "x"])
    assert step.inputs == (SET, other, ROOT / "x")
    assert step.needs == ("tm_ipc10",)
