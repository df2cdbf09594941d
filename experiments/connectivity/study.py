"""The step of the study that follows lines between networks."""

from collections.abc import Iterator

from experiments.lab.steps import Flags, Step, Study

FLAGS: dict[str, Flags] = {
    "laptop": {"seeds": 3, "points": 7, "probes": 20, "test_images": 1000},
    "night": {"seeds": 3, "points": 7, "probes": 20, "test_images": 1000},
    "paper": {"test_images": 10_000},
}
MINUTES = {"laptop": 6, "night": 8}


def steps(study: Study) -> Iterator[Step]:
    """Yields one step, for all sets."""
    flags = {**study.listed(), **FLAGS[study.scale]}
    sets = [*study.sets.values()]
    yield study.step("connectivity", "connectivity", flags, MINUTES, sets=sets)
