"""The steps of the study that ask what the most influenced test images share."""

from collections.abc import Iterator

from experiments.lab.steps import Step, Study

MINUTES = {"laptop": 0.3, "night": 1.1}


def steps(study: Study) -> Iterator[Step]:
    """Yields a step for each set whose single images were left out."""
    for label in study.single:
        source = f"influence_{label}"
        yield study.step(
            f"attributes_{label}",
            "attributes",
            {"influence": study.root / source},
            MINUTES,
            inputs=[study.root / source / "influence.npz"],
            needs=[source],
        )
