"""The step of the study that puts labels of experts on images."""

from collections.abc import Iterator

from experiments.lab.steps import Flags, Step, Study

FLAGS: dict[str, Flags] = {
    "laptop": {"seeds": 3, "late": 6},
    "night": {"seeds": 3, "late": 3},
    "paper": {"late": 40},
}
MINUTES = {"laptop": 5, "night": 10}


def steps(study: Study) -> Iterator[Step]:
    """Yields one step, for the smaller sets: there labels can matter most."""
    flags = {"artefacts": ",".join(map(str, study.single.values())), **FLAGS[study.scale]}
    yield study.step("labels", "labels", flags, MINUTES, sets=[*study.single.values()])
