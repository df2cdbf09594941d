"""The step of the study that mixes real images into distilled sets."""

from collections.abc import Iterator

from experiments.lab.steps import Flags, Step, Study

FLAGS: dict[str, Flags] = {
    "laptop": {"real_per_class": "0,5", "seeds": 3},
    "night": {"real_per_class": "0,2,10"},
    "published": {"real_per_class": "0,2,10", "seeds": 3},
    "paper": {"chunk": "none"},
}
MINUTES = {"laptop": 5.7, "night": 24, "published": 60}


def steps(study: Study) -> Iterator[Step]:
    """Yields one step, for all sets."""
    flags = {**study.listed(), **FLAGS[study.scale]}
    yield study.step("mixing", "mixing", flags, MINUTES, sets=[*study.sets.values()])
