"""Options of `experiments.recognition`, and what they choose."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from distilljax.config import LARGEST_INT, FieldError, option
from distilljax.training.expert import Recipe
from experiments.lab import options
from experiments.lab.networks import (
    ARCHITECTURES,
    Network,
    parse_architectures,
    scaled_network,
)
from experiments.lab.sets import Named, load_artefacts, shared_transform

EPOCHS = {"convnet16": 20}  # where `--epochs` is empty; others have MOST_EPOCHS

MOST_EPOCHS = 40


@dataclasses.dataclass(frozen=True)
class Config(
    options.WorkdirOption,
    options.SeedOption,
    options.RealDataOptions,
    options.ArtefactsOption,
):
    """Options of the experiment."""

    models: str = option(
        "convnet,convnet16,resnet18,resnet34",
        f"Networks, with commas: {', '.join(ARCHITECTURES)}.",
    )
    width_scale: str = option(
        "1",
        "Width multiplier of each of --models, with commas, or of all; 1 is for a GPU.",
    )
    epochs: str = option(
        "",
        "Epochs of each of --models, with commas, or one number for all; empty: "
        f"{MOST_EPOCHS}, and {EPOCHS['convnet16']} of convnet16.",
    )
    recipe: Recipe = option(
        Recipe(momentum=0.9, augment=""), "Training of the networks on real images."
    )
    seeds: int = option(3, "Networks of each architecture.", low=2)
    chunk: int = option(250, "Evaluation batch size.", low=1)
    map_model: str | None = option(
        None, "Whose features are drawn; none: resnet18 if it is there, else the first."
    )
    map_images: int = option(2000, "Most test images among the drawn features.", low=2)


class Choice(NamedTuple):
    """The meaning of the options, before data are read."""

    epochs: dict[str, int]  # architecture -> epochs; in the order of --models
    networks: dict[str, Network]
    map_model: str
    artefacts: dict[str, Named]


def choose(config: Config) -> Choice:
    """Reads the options and the artefacts.

    Raises:
      InputError: options or artefacts that cannot be used; artefacts of different data or
        preprocessing.
    """
    names = parse_architectures(config.models, own=False)
    epochs = epochs_of(config, names)
    map_model = config.map_model or ("resnet18" if "resnet18" in names else names[0])
    if map_model not in names:
        raise FieldError("map_model", map_model, f"choose among {', '.join(names)}")
    artefacts = load_artefacts(config.artefacts, data_dir=config.data_dir)
    shared_transform(artefacts)
    return Choice(epochs, networks_of(config, names), map_model, artefacts)


def epochs_of(config: Config, names: Sequence[str]) -> dict[str, int]:
    """Returns the epochs of each architecture.

    Raises:
      FieldError: no number for each.
    """
    if not config.epochs.strip():
        return {name: EPOCHS.get(name, MOST_EPOCHS) for name in names}
    try:
        numbers = [int(part) for part in config.epochs.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= len(names)
    if len(numbers) != len(names) or not 1 <= min(numbers) <= max(numbers) <= LARGEST_INT:
        reason = f"expected one positive integer, or one for each of {', '.join(names)}"
        raise FieldError("epochs", config.epochs, reason)
    return dict(zip(names, numbers, strict=True))


def networks_of(config: Config, names: Sequence[str]) -> dict[str, Network]:
    """Returns each architecture at its width.

    Raises:
      FieldError: no width multiplier for each.
    """
    try:
        scales = [float(part) for part in config.width_scale.split(",")]
    except ValueError:
        scales = []
    if len(scales) == 1:
        scales *= len(names)
    if len(scales) != len(names) or not all(0 < scale < math.inf for scale in scales):
        reason = f"expected one positive number, or one for each of {', '.join(names)}"
        raise FieldError("width_scale", config.width_scale, reason)
    return dict(zip(names, map(scaled_network, names, scales), strict=True))
