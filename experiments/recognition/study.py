"""The step of the study that shows distilled sets to networks trained on real images."""

from collections.abc import Iterator

from experiments.lab.steps import Flags, Step, Study

FLAGS: dict[str, Flags] = {
    "laptop": {
        "models": "convnet,convnet16",
        "width_scale": "0.25,1",
        "epochs": "3",
        "map_images": 1000,
    },
    "night": {
        "models": "convnet,convnet16",
        "width_scale": "0.25,1",
        "epochs": "4",
        "seeds": 5,
    },
    "paper": {},
}
MINUTES = {"laptop": 1, "night": 11}


def steps(study: Study) -> Iterator[Step]:
    """Yields one step, for all sets."""
    flags = {**study.listed(), **FLAGS[study.scale]}
    sets = [*study.sets.values()]
    yield study.step("recognition", "recognition", flags, MINUTES, sets=sets)
