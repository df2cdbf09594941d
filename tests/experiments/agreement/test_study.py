"""The step of the study: the command that the committed studies ran."""

from distilljax import launch
from experiments.agreement import study
from experiments.agreement.options import Config
from tests.experiments.studies import assert_same_steps
from tests.experiments.studies import study as planned


def test_the_step_is_that_of_the_committed_studies(tmp_path):
    assert_same_steps(study.steps, tmp_path)


def test_there_is_one_step_for_all_sets_at_every_scale(tmp_path):
    for scale in study.FLAGS:
        of_study = planned(scale, tmp_path)
        (step,) = study.steps(of_study)
        assert (step.name, step.group) == ("agreement", "agreement")
        assert step.module == "experiments.agreement"
        assert list(step.inputs) == list(of_study.sets.values())
        assert launch.parse(Config, step.argv()).workdir == str(tmp_path / "agreement")
