"""The step of the study that follows lines between networks."""

from collections.abc import Iterator

from experiments.lab.steps import Flags, Step, Study

FLAGS: dict[str, Flags] = {
    "laptop": {"seeds": 3, "points": 7, "test_images": 1000},
    "night": {"seeds": 3, "points": 7, "test_images": 1000},
    "published": {"seeds": 2, "points": 7, "test_images": 1000},
    "paper": {"test_images": 10_000},
}
BATCH = 50  # images of a step
MINUTES = {"laptop": 6, "night": 8, "published": 40}


def steps(study: Study) -> Iterator[Step]:
    """Yields a step for the sets of each preprocessing and network.

    Minibatches are smaller where they would be a whole set, which has no order.
    """
    for suffix, part in study.parts():
        sets = [*part.sets.values()]
        flags = {**part.listed(), **FLAGS[study.scale]}
        fewest = min(study.images.get(str(path), BATCH + 1) for path in sets)
        if fewest <= BATCH:
            flags["batch"] = max(1, fewest // 2)
        name = f"connectivity{suffix}"
        yield study.step(name, "connectivity", flags, MINUTES, sets=sets)
