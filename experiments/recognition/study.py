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
    "published": {"models": "convnet", "epochs": "4", "seeds": 3},
    "paper": {},
}
MINUTES = {"laptop": 1, "night": 11, "published": 25}


def steps(study: Study) -> Iterator[Step]:
    """Yields a step for the sets of each preprocessing and network."""
    for suffix, part in study.parts():
        flags = {**part.listed(), **FLAGS[study.scale]}
        sets = [*part.sets.values()]
        name = f"recognition{suffix}"
        yield study.step(name, "recognition", flags, MINUTES, sets=sets)
