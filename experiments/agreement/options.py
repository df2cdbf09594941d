"""TODO."""

import dataclasses
from typing import Literal, NamedTuple

from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.types import (
    Transform,
)
from experiments.lab.networks import (
    ARCHITECTURES,
    OWN,
    Network,
    own_network,
    parse_architectures,
    scaled_network,
)
from experiments.lab.sets import Named, load_artefacts, transform_digest

MODULE = "experiments.agreement"

SUBSET, EARLY = "subset", "early_stopped"

NAMES = {SUBSET: "subset-trained", EARLY: "early-stopped"}


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the experiment."""

    artefacts: str = option("", "Distilled sets (.npz) of the same data, with commas.")
    model: str = option(
        OWN, f"Network: own (the artefacts'), or one of {', '.join(ARCHITECTURES)}."
    )
    width_scale: float = option(
        1.0, "Times the width of every network but `own`; below 1 for a CPU.", above=0
    )
    dataset: str | None = option(None, "Real data; none: those the sets were made of.")
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    protocol: Literal["own", "study", "dc", "dsa", "mtt"] = option(
        "study", "How networks are trained on a set; own: as each set was made for."
    )
    seeds: int = option(5, "Networks trained on each set.", low=2)
    subset_networks: int = option(520, "Networks trained on random subsets.", low=2)
    subset_low: float = option(0.005, "Smallest share of each class.", above=0, high=1)
    subset_high: float = option(0.05, "Largest share of each class.", above=0, high=1)
    subset_epochs: int = option(100, "Passes over each subset.", low=1)
    early_runs: int = option(30, "Training runs on the whole training set.", low=2)
    early_iterations: int = option(196, "Iterations of each run.", low=1)
    early_every: int = option(1, "Iterations between predictions.", low=1)
    batch: int = option(256, "Most images of a step on real data.", low=1)
    lr: float = option(0.01, "Learning rate on real data.", above=0)
    momentum: float = option(0.9, "Momentum on real data.", low=0, high=1)
    test_images: int | None = option(
        None, "Most test images, as many of each class; none: all.", low=1
    )
    least: int = option(20, "Subset-trained networks wanted in a window.", low=2)
    early_least: int | None = option(
        None, "Early-stopped predictions wanted in a window; none: two for each run.", low=2
    )
    tolerance: float = option(
        0.02, "How near in accuracy a pool must come to a network.", above=0
    )
    piece: int = option(20, "Subset-trained networks between two savings.", low=1)
    together: int = option(
        1, "Networks trained side by side; more need more memory.", low=1
    )
    chunk: int | None = option(
        32,
        "Images of a subset's step, and test images, computed at a time; a GPU wants more.",
        low=1,
    )
    seed: int = option(0, "Settles everything random.", low=0, high=2**31 - 1)
    workdir: str | None = option(
        None, "Where the results go; none: a folder under runs/ named by the settings."
    )


# What the pools do not depend on.
ANEW = ("artefacts", "protocol", "seeds", "least", "early_least", "tolerance")


class Choice(NamedTuple):
    """What the options come to before data are read."""

    artefacts: dict[str, Named]
    network: Network


def transform_of(choice: Choice) -> Transform:
    """That of all artefacts."""
    return next(iter(choice.artefacts.values())).artefact.transform


def choose(config: Config) -> Choice:
    found = parse_architectures(config.model, "model")
    if len(found) > 1:
        raise FieldError("model", config.model, "name one")
    if config.subset_low > config.subset_high:
        reason = f"is below subset_low={config.subset_low:g}; give a larger share"
        raise FieldError("subset_high", config.subset_high, reason)
    if config.early_every > config.early_iterations:
        reason = f"there are {config.early_iterations} iterations; look at least once"
        raise FieldError("early_every", config.early_every, reason)
    artefacts = load_artefacts(config.artefacts)
    (first, (_, made)), *others = artefacts.items()
    own = config.model == OWN
    network = (
        own_network(first, made, "model")
        if own
        else scaled_network(found[0], config.width_scale)
    )
    for label, (_, artefact) in others:
        if transform_digest(artefact.transform) != transform_digest(made.transform):
            reason = (
                f"{first} and {label} were made under different preprocessing, and the "
                "pools are trained under one; compare them in commands of their own"
            )
            raise FieldError("artefacts", config.artefacts, reason)
        theirs = own_network(label, artefact, "model") if own else network
        if theirs.described() != network.described():
            reason = (
                f"{first} and {label} were made with different networks, and the pools "
                "are of one; choose another, or compare them in commands of their own"
            )
            raise FieldError("model", config.model, reason)
    return Choice(artefacts, network)
