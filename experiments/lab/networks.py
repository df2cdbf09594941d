"""Networks of an experiment: named architectures, and those that artefacts name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from distilljax import data, io, memory
from distilljax.config import Config, FieldError
from distilljax.core import parameters
from distilljax.models import MODELS, alexnet, convnet, mlp, resnet, vgg
from distilljax.types import InputError, Model
from experiments.lab.options import OWN, parse_choices, refuse_unread
from experiments.lab.sets import Named

ARCHITECTURES: dict[str, tuple[str, Config]] = {  # name -> (key of MODELS, its Config)
    "convnet": ("convnet", convnet.Config()),
    "convnet16": ("convnet", convnet.Config(width=16)),
    "mlp": ("mlp", mlp.Config()),
    "resnet18": ("resnet", resnet.Config()),
    "resnet34": ("resnet", resnet.Config(depth=34)),
    "alexnet": ("alexnet", alexnet.Config()),
    "vgg11": ("vgg", vgg.Config()),
}

COPIES = 3  # of the parameters that training holds: weights, momentum, gradient


class Network(NamedTuple):
    """An architecture with its settings."""

    name: str  # of `ARCHITECTURES`, or `OWN`
    key: str  # of MODELS
    config: Config

    def described(self) -> dict[str, Any]:
        """Returns its settings, flat."""
        return {"model": self.key, **self.config.to_dict()}


def parse_architectures(text: str, field: str = "models", *, own: bool = True) -> list[str]:
    """Returns the architectures in a list with commas; `own` allows `OWN`.

    Raises:
      FieldError: of the option `field`: an unknown name, one that comes twice, or none.
    """
    return parse_choices(text, field, [OWN] * own + [*ARCHITECTURES], "architecture")


def check_width_scale(config: Config, names: Sequence[str]) -> None:
    """Refuses `--width_scale` where none of the named networks is scaled.

    Raises:
      FieldError: it has another value than the default.
    """
    if all(name == OWN for name in names):
        why = "own has the width that its set was made with"
        advice = "name another network, or leave it out"
        refuse_unread(config, "width_scale", why, advice)


def scaled_network(name: str, width_scale: float) -> Network:
    """Returns one of `ARCHITECTURES`, its width times `width_scale`, at least 1."""
    key, group = ARCHITECTURES[name]
    width = max(1, round(group.to_dict()["width"] * width_scale))
    return Network(name, key, group.replace({"width": width}))


def own_network(label: str, artefact: io.Artefact, field: str = "models") -> Network:
    """Returns the network that the artefact was made with.

    Raises:
      FieldError: of the option `field`: there is no network of the name that the artefact
        gives; it is called `label`.
    """
    key = str(artefact.config.get("model"))
    if key not in MODELS:
        reason = f"{label} names the unknown network {key!r}; choose another"
        raise FieldError(field, OWN, reason)
    described = artefact.config.get(key, {})
    try:
        if not isinstance(described, Mapping):
            raise InputError(f"{key} is {str(described)[:20]!r}")
        config = MODELS[key].Config.from_dict(described)
    except InputError as error:
        reason = f"{label} names a network that cannot be had ({error}); choose another"
        raise FieldError(field, OWN, reason) from None
    return Network(OWN, key, config)


def shared_network(
    artefacts: Mapping[str, Named], chosen: Callable[[str, io.Artefact, str], Network]
) -> Network:
    """Returns the network of all artefacts.

    Args:
      artefacts: by label.
      chosen: label, artefact and option -> its network, such as `own_network`.

    Raises:
      FieldError: of the option `artefacts`: two of them differ, so that no network stands
        for both.
    """
    found = {
        label: chosen(label, made, "artefacts") for label, (_, made) in artefacts.items()
    }
    (first, network), *others = found.items()
    for label, other in others:
        if other.described() != network.described():
            reason = (
                f"{first} and {label} were made with different networks, and one network "
                "stands for all; give them to commands of their own"
            )
            paths = ",".join(named.path for named in artefacts.values())
            raise FieldError("artefacts", paths, reason)
    return network


def sized_model(
    network: Network, loaded: data.Dataset, field: str = "models"
) -> tuple[Model, int]:
    """Returns the model for these data and its number of parameters.

    Raises:
      FieldError: of the option `field`: the images do not fit it.
    """
    shape, k = loaded.image_shape, loaded.num_classes
    return _sized(network.key, network.config, shape, k, field, network.name)


def model_of(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> Model:
    """Returns the model that `--model` and its options describe.

    Raises:
      FieldError: the model does not fit images of this shape.
    """
    name, group = config.chosen("model")
    return _sized(name, group, image_shape, num_classes, "model", name)[0]


def _sized(
    key: str,
    config: Config,
    image_shape: tuple[int, int, int],
    num_classes: int,
    field: str,
    value: str,
) -> tuple[Model, int]:
    """Returns a model and its number of parameters; `field` and `value` are for errors.

    Raises:
      FieldError: the images do not fit it, or its training does not fit the memory.
    """
    model = MODELS[key].make(config, image_shape, num_classes)
    try:
        num = parameters.num_params(model)
        memory.require(
            4 * COPIES * num,
            f"training a network of {num:,} parameters",
            "choose a smaller one",
        )
    except (ValueError, OverflowError) as error:
        raise FieldError(field, value, str(error)) from None
    return model, num


def map_chunks(compute: Callable[[Any], Any], images: Any, chunk: int) -> Any:
    """Applies `compute` to `chunk` images at a time, so that it is compiled once.

    Args:
      compute: [chunk, h, w, c] -> a tree of arrays [chunk, ...]; it treats images one by
        one. The last chunk is filled up with zeros, whose results are dropped.
      images: [n, h, w, c], n at least 1.
      chunk: images at a time.

    Returns:
      The tree, with arrays [n, ...] on the host.
    """
    found = []
    for start in range(0, len(images), chunk):
        part = np.asarray(images[start : start + chunk])
        filled = np.pad(part, ((0, chunk - len(part)), *((0, 0),) * 3))
        found.append(jax.tree.map(np.asarray, compute(filled)))
    num = len(images)
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:num], *found)
