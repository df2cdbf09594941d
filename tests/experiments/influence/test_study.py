"""The steps of the study: the commands that the committed studies ran."""

from distilljax import launch
from experiments.influence import study
from experiments.influence.run import Config
from tests.experiments.studies import METHODS, assert_same_steps
from tests.experiments.studies import study as planned


def test_the_steps_are_those_of_the_committed_studies(tmp_path):
    assert_same_steps(study.steps, tmp_path)


def test_there_is_a_step_for_each_set_at_every_scale(tmp_path):
    for scale in study.FLAGS:
        of_study = planned(scale, tmp_path)
        steps = list(study.steps(of_study))
        assert [step.name for step in steps] == [f"influence_{m}" for m in METHODS]
        for step, path in zip(steps, of_study.single.values(), strict=True):
            assert (step.group, step.module) == ("influence", "experiments.influence")
            assert step.inputs == (path,)
            chosen = launch.parse(Config, step.argv())
            assert chosen.artefact == str(path)
            assert chosen.workdir == str(tmp_path / step.name)
