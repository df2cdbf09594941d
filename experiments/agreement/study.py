"""The step of the study that compares predictions with those of pools."""

from collections.abc import Iterator

from experiments.lab.steps import Flags, Step, Study

FLAGS: dict[str, Flags] = {
    "laptop": {
        # Fewer images in all than CIFAR-10 has, so larger shares of them.
        "subset_networks": 24,
        "subset_low": 0.02,
        "subset_high": 0.28,
        "subset_epochs": 12,
        "batch": 128,
        "early_runs": 6,
        "early_iterations": 160,
        "early_every": 4,
        "test_images": 500,
        "least": 10,
        "tolerance": 0.03,
        "seeds": 3,
    },
    "night": {
        "subset_networks": 100,
        "subset_epochs": 30,
        "early_runs": 8,
        "early_iterations": 196,
        "early_every": 2,
        "test_images": 1000,
        "seeds": 5,
    },
    "published": {
        # A network of width 128 has 37 % from 400 images and 56 % from 2,000.
        "subset_networks": 60,
        "subset_low": 0.001,
        "subset_high": 0.016,
        "subset_epochs": 30,
        "early_runs": 4,
        "early_iterations": 120,
        "early_every": 4,
        "test_images": 1000,
        "least": 12,
        "seeds": 5,
    },
    "paper": {"seeds": 5},
}
MINUTES = {"laptop": 5.5, "night": 42, "published": 60}


def steps(study: Study) -> Iterator[Step]:
    """Yields a step for the sets of each preprocessing and network."""
    for suffix, part in study.parts():
        flags = {**part.listed(), **FLAGS[study.scale]}
        sets = [*part.sets.values()]
        name = f"agreement{suffix}"
        yield study.step(name, "agreement", flags, MINUTES, sets=sets)
