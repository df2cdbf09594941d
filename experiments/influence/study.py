"""The steps of the study that leave out single images."""

from collections.abc import Iterator

from experiments.lab.steps import Flags, Step, Study

FLAGS: dict[str, Flags] = {
    "laptop": {"seeds": 3, "test_images": 500},
    "night": {"seeds": 5, "test_images": 1000},
    "published": {"seeds": 3, "test_images": 1000},
    "paper": {"test_images": 10_000},
}
MINUTES = {"laptop": 1.2, "night": 2.9, "published": 10}


def steps(study: Study) -> Iterator[Step]:
    """Yields a step for each set whose single images are left out."""
    for label, path in study.single.items():
        flags = {"artefact": path, **FLAGS[study.scale]}
        yield study.step(f"influence_{label}", "influence", flags, MINUTES, sets=[path])
