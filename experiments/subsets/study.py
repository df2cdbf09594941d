"""The step of the study that takes parts of distilled sets."""

from collections.abc import Iterator

from experiments.lab.steps import Flags, Step, Study

FLAGS: dict[str, Flags] = {
    "laptop": {"seeds": 3, "per_class": "1,3"},
    "night": {"seeds": 3},
    "published": {"seeds": 3},
    "paper": {},
}
MINUTES = {"laptop": 5, "night": 7, "published": 30}


def steps(study: Study) -> Iterator[Step]:
    """Yields one step, where there are sets of two sizes."""
    sets = [*study.sets.values(), *study.single.values()]
    if len({*sets}) < len(sets):
        return
    flags = {"artefacts": ",".join(map(str, sets)), **FLAGS[study.scale]}
    yield study.step("subsets", "subsets", flags, MINUTES, sets=sets)
