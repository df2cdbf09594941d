"""The step of the study that puts labels of experts on images."""

from collections.abc import Iterator

from experiments.lab.steps import Flags, Step, Study

FLAGS: dict[str, Flags] = {
    "laptop": {"seeds": 3, "late": 6},
    "night": {"seeds": 3, "late": 3},
    "published": {"seeds": 3, "late": 3},
    "paper": {"late": 40},
}
MINUTES = {"laptop": 5, "night": 10, "published": 30}


def steps(study: Study) -> Iterator[Step]:
    """Yields steps for the smaller sets, where labels can matter most.

    There is one for the sets of each preprocessing and network.
    """
    for suffix, part in study.parts(study.single):
        flags = {**part.listed(), **FLAGS[study.scale]}
        sets = [*part.sets.values()]
        yield study.step(f"labels{suffix}", "labels", flags, MINUTES, sets=sets)
