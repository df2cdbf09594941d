"""Networks of an experiment: named architectures, and those that artefacts name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from distilljax import data, io
from distilljax.config import Config, FieldError
from distilljax.core import parameters
from distilljax.models import MODELS, alexnet, convnet, mlp, resnet, vgg
from distilljax.types import Model
from experiments.lab.options import OWN, parse_choices

ARCHITECTURES: dict[str, tuple[str, Config]] = {  # name -> (key of MODELS, its Config)
    "convnet": ("convnet", convnet.Config()),
    "convnet16": ("convnet", convnet.Config(width=16)),
    "mlp": ("mlp", mlp.Config()),
    "resnet18": ("resnet", resnet.Config()),
    "resnet34": ("resnet", resnet.Config(depth=34)),
    "alexnet": ("alexnet", alexnet.Config()),
    "vgg11": ("vgg", vgg.Config()),
}


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
    config = MODELS[key].Config.from_dict(artefact.config.get(key, {}))
    return Network(OWN, key, config)


def sized_model(
    network: Network, loaded: data.Dataset, field: str = "models"
) -> tuple[Model, int]:
    """Returns the model for these data and its number of parameters.

    Raises:
      FieldError: of the option `field`: the images do not fit it.
    """
    shape, k = loaded.image_shape, loaded.num_classes
    model = MODELS[network.key].make(network.config, shape, k)
    try:
        return model, parameters.num_params(model)
    except ValueError as error:
        raise FieldError(field, network.name, str(error)) from None


def model_of(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> Model:
    """Returns the model that `--model` and its options describe.

    Raises:
      FieldError: the model does not fit images of this shape.
    """
    name, group = config.chosen("model")
    model = MODELS[name].make(group, image_shape, num_classes)
    try:
        jax.eval_shape(model.init, jax.random.key(0))
    except ValueError as error:
        raise FieldError("model", name, str(error)) from None
    return model


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
