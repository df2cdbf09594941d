"""The step of the study that follows lines between networks."""

from collections.abc import Iterator

from experiments.lab.steps import Flags, Step, Study

FLAGS: dict[str, Flags] = {
    "laptop": {"seeds": 3, "points": 7, "test_images": 1000},
    "night": {"seeds": 3, "points": 7, "test_images": 1000},
    "published": {"seeds": 2, "points": 7, "test_images": 1000},
    "paper": {"test_images": 10_000},
}
MINUTES = {"laptop": 6, "night": 8, "published": 40}


def steps(study: Study) -> Iterator[Step]:
    """Yields a step for the sets of each preprocessing and network."""
    for suffix, part in study.parts():
        flags = {**part.listed(), **FLAGS[study.scale]}
        sets = [*part.sets.values()]
        name = f"connectivity{suffix}"
        yield study.step(name, "connectivity", flags, MINUTES, sets=sets)
