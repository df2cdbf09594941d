"""The steps of the study that distil its sets."""

import pathlib

import pytest

from distilljax import launch
from experiments.distill import run as distill_run
from experiments.distill.study import METHODS, make_sets
from experiments.lab.steps import Study
from experiments.train_experts import run as train_experts_run

ROOT = pathlib.Path("study")
STUDIES = {
    "laptop": Study("laptop", ROOT, "embedded", 32, 10, 1, None),
    "night": Study("night", ROOT, "cifar10", 32, 10, 1, "prepared"),
    "paper": Study("paper", ROOT, "cifar10", 128, 10, 10, "prepared"),
}


def parsed(step):
    module = distill_run if step.module == "experiments.distill" else train_experts_run
    presets = getattr(module, "PRESETS", None)
    return launch.parse(module.Config, step.argv(), presets=presets)


@pytest.mark.parametrize("scale", STUDIES)
def test_every_step_is_a_command(scale):
    study = STUDIES[scale]
    made = make_sets(study)
    experts, *steps = made.steps
    assert experts.module == "experiments.train_experts"
    assert parsed(experts).workdir == "study/experts"
    sizes = dict.fromkeys((study.ipc, study.single_ipc))
    assert [step.name for step in steps] == [f"{m}_ipc{n}" for n in sizes for m in METHODS]
    for step in steps:
        config = parsed(step)
        assert step.name == f"{config.method}_ipc{config.ipc}"
        assert step.output == ROOT / "sets" / step.name / "summary.json"
        assert config.workdir == str(step.output.parent)
        assert (config.dataset, config.data_dir) == (study.dataset, study.data_dir)
        assert config.convnet.width == study.width
        assert config.preprocess == parsed(experts).preprocess
        by_experts = config.method == "tm"
        assert config.experts_dir == ("study/experts" if by_experts else None)
        assert step.needs == (("experts",) if by_experts else ())
        described = (ROOT / "experts" / "experts.json",)
        assert step.inputs == (described if by_experts else ())
    assert {step.group for step in made.steps} == {"sets"}


def test_the_sets_are_those_that_the_steps_make():
    for study in STUDIES.values():
        made = make_sets(study)
        outputs = {step.name: step.output for step in made.steps}
        for ipc, sets in ((study.ipc, made.sets), (study.single_ipc, made.single)):
            assert list(sets) == list(METHODS)
            for method, path in sets.items():
                assert path == outputs[f"{method}_ipc{ipc}"].with_name("distilled.npz")


def test_commands_in_full():
    steps = {step.name: step for step in make_sets(STUDIES["laptop"]).steps}
    assert steps["bptt_ipc1"].command() == (
        "python -m experiments.distill --method=bptt --dataset=embedded "
        "--preprocess=normalise --ipc=1 --steps=200 --whole_epochs=0 "
        "--workdir=study/sets/bptt_ipc1"
    )
    assert steps["experts"].command() == (
        "python -m experiments.train_experts --dataset=embedded --preprocess=normalise "
        "--experts=8 --epochs=12 --recipe.augment= --recipe.batch=64 --recipe.lr=0.02 "
        "--workdir=study/experts"
    )
    paper = {step.name: step for step in make_sets(STUDIES["paper"]).steps}
    assert paper["gm_ipc10"].command() == (
        "python -m experiments.distill --method=gm --dataset=cifar10 "
        "--preprocess=published --convnet.width=128 --ipc=10 --preset=cifar10_ipc10 "
        "--protocol=study --data_dir=prepared --workdir=study/sets/gm_ipc10"
    )
