"""The step of the study that looks at directions of feature space."""

from collections.abc import Iterator

from experiments.lab.steps import Flags, Step, Study

FLAGS: dict[str, Flags] = {
    "laptop": {"seeds": 3, "real_images": 5000},
    "night": {"seeds": 3, "real_images": 5000},
    "published": {"seeds": 2, "real_images": 5000},
    "paper": {},
}
MINUTES = {"laptop": 1.5, "night": 2, "published": 10}


def steps(study: Study) -> Iterator[Step]:
    """Yields a step for the sets of each preprocessing and network."""
    for suffix, part in study.parts():
        flags = {**part.listed(), **FLAGS[study.scale]}
        sets = [*part.sets.values()]
        name = f"spectrum{suffix}"
        yield study.step(name, "spectrum", flags, MINUTES, sets=sets)
