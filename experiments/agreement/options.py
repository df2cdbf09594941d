"""Options of `experiments.agreement`, and what they come to before data are read."""

import dataclasses
from typing import NamedTuple

from distilljax.config import FieldError, option
from distilljax.types import Transform
from experiments.lab import networks, options
from experiments.lab.protocols import chosen_network
from experiments.lab.sets import Named, load_artefacts, shared_transform

NAME = "experiments.agreement"

SUBSET, EARLY = "subset", "early_stopped"

NAMES = {SUBSET: "subset-trained", EARLY: "early-stopped"}


@dataclasses.dataclass(frozen=True)
class Config(
    options.WorkdirOption,
    options.ProcessesOption,
    options.SeedOption,
    options.TogetherOption,
    options.RealDataOptions,
    options.LabelsOption,
    options.ArtefactsOption,
):
    """Options of the experiment."""

    model: str = option(
        options.OWN,
        f"Network: own (the artefacts'), or one of {', '.join(networks.ARCHITECTURES)}.",
    )
    width_scale: float = option(
        1.0, "Width multiplier of every network but `own`; below 1 for a CPU.", above=0
    )
    protocol: options.ProtocolOrOwn = option(
        "study", "Training of the networks on sets; own: as each set was made for."
    )
    seeds: int = option(5, "Networks trained on each set.", low=2)
    subset_networks: int = option(520, "Networks trained on random subsets.", low=2)
    subset_low: float = option(0.005, "Smallest share of each class.", above=0, high=1)
    subset_high: float = option(0.05, "Largest share of each class.", above=0, high=1)
    subset_epochs: int = option(100, "Epochs on each subset.", low=1)
    early_runs: int = option(30, "Training runs on the whole training set.", low=2)
    early_iterations: int = option(196, "Iterations of each run.", low=1)
    early_every: int = option(1, "Iterations between predictions.", low=1)
    batch: int = option(256, "Batch size on real data.", low=1)
    lr: float = option(0.01, "Learning rate on real data.", above=0)
    momentum: float = option(0.9, "Momentum on real data.", low=0, high=1)
    test_images: int | None = option(
        None, "Test images, as many of each class; none: all.", low=1
    )
    least: int = option(20, "Subset-trained networks wanted in a window.", low=2)
    early_least: int | None = option(
        None, "Early-stopped predictions wanted in a window; none: two for each run.", low=2
    )
    tolerance: float = option(
        0.02, "How near in accuracy a pool must come to a network.", above=0
    )
    piece: int = option(20, "Subset-trained networks in a piece that is kept.", low=1)
    chunk: int | None = option(
        32,
        "Images of a subset's step, and test images, computed at a time; a GPU wants more.",
        low=1,
    )


# Options that the pools do not depend on.
ANEW = ("artefacts", "protocol", "labels", "seeds", "least", "early_least", "tolerance")


class Choice(NamedTuple):
    """Artefacts and the network that all comparisons are of."""

    artefacts: dict[str, Named]
    network: networks.Network
    transform: Transform  # of all artefacts


def choose(config: Config) -> Choice:
    """Returns the artefacts and the network.

    Raises:
      FieldError: options that contradict each other; artefacts that no network can share.
      InputError: a file that is no artefact; artefacts of different data.
    """
    found = networks.parse_architectures(config.model, "model")
    if len(found) > 1:
        raise FieldError("model", config.model, "name one")
    networks.check_width_scale(config, found)
    if config.subset_low > config.subset_high:
        reason = f"is below subset_low={config.subset_low:g}; give a larger share"
        raise FieldError("subset_high", config.subset_high, reason)
    if config.early_every > config.early_iterations:
        reason = f"there are {config.early_iterations} iterations; predict at least once"
        raise FieldError("early_every", config.early_every, reason)
    artefacts = load_artefacts(config.artefacts, data_dir=config.data_dir)
    transform = shared_transform(artefacts)
    if config.model != options.OWN:
        network = networks.scaled_network(found[0], config.width_scale)
        return Choice(artefacts, network, transform)
    return Choice(artefacts, _shared_network(config, artefacts), transform)


def _shared_network(config: Config, artefacts: dict[str, Named]) -> networks.Network:
    """Returns the network that all artefacts were made with."""
    (first, (_, made)), *others = artefacts.items()
    network = networks.own_network(first, made, "model")
    for label, (_, artefact) in others:
        if (
            networks.own_network(label, artefact, "model").described()
            != network.described()
        ):
            reason = (
                f"{first} and {label} were made with different networks, and the pools "
                "are of one; choose another, or compare them in commands of their own"
            )
            raise FieldError("model", options.OWN, reason)
    brought = chosen_network(config.protocol, first, made, "model")
    if brought.described() != network.described():
        reason = (
            "brings a network that is not the artefacts' own, of which the pools are; "
            f"give --protocol={options.OWN}, or a --model for all"
        )
        raise FieldError("protocol", config.protocol, reason)
    return network
