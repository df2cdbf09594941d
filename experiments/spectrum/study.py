"""The step of the study that looks at directions of feature space."""

from collections.abc import Iterator

from experiments.lab.steps import Flags, Step, Study

FLAGS: dict[str, Flags] = {
    "laptop": {"seeds": 3, "real_images": 5000},
    "night": {"seeds": 3, "real_images": 5000},
    "paper": {},
}
MINUTES = {"laptop": 1.5, "night": 2}


def steps(study: Study) -> Iterator[Step]:
    """Yields one step, for all sets."""
    flags = {**study.listed(), **FLAGS[study.scale]}
    sets = [*study.sets.values()]
    yield study.step("spectrum", "spectrum", flags, MINUTES, sets=sets)
