"""What `distil` takes for data, network, method and protocol, resolved and checked."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from distilljax import checks, data
from distilljax.config import HUGE, TINY, Config, FieldError
from distilljax.core import parameters
from distilljax.core.augment import Augmentation
from distilljax.core.outer import Method, Optimizers
from distilljax.core.parametrisations import (
    DIRECT,
    PARAMETRISATIONS,
    Parametrisation,
)
from distilljax.methods import METHODS
from distilljax.models import MODELS
from distilljax.training.evaluation import PROTOCOLS, EvaluationProtocol
from distilljax.types import InputError, Model

OWN = "own"  # a model or method that is given as functions

DataChoice = data.Dataset | str | os.PathLike[str]
ModelChoice = str | Config | Model
MethodChoice = str | Config | Method
ParametrisationChoice = str | Config | Parametrisation
ProtocolChoice = str | EvaluationProtocol


class Chosen(NamedTuple):
    """A module of a table with its settings, or functions of the caller's own.

    Attributes:
      name: key of the table, or `own`.
      config: settings; None for functions of the caller's own.
      made: the model, the method or the parametrisation.
    """

    name: str
    config: Config | None
    made: Any

    def described(self, selector: str) -> dict[str, Any]:
        """Returns the choice as configurations of experiments hold it."""
        if self.config is None:
            return {selector: self.name}
        return {selector: self.name, self.name: self.config.to_dict()}


def number(value: Any, what: str) -> float:
    """Returns a finite number, of Python, NumPy or JAX, as a `float`.

    Raises:
      InputError: it is none, or traced.
    """
    held = checks.concrete(value)
    if held is None:
        raise InputError(f"{what} is traced; call this outside of jax.jit")
    if held.shape or held.dtype.kind not in "iuf" or not np.isfinite(held):
        raise InputError(f"{what}={value!r:.40}: give a finite number")
    return float(held)


def check_rate(value: Any, what: str) -> None:
    """Refuses what is no learning rate.

    Raises:
      InputError: it is no finite number above 0, as of float32.
    """
    found = checks.concrete(value)
    if found is None:
        raise InputError(f"{what} is traced; call this outside of jax.jit")
    rate: Any = found.item() if found.shape == () else None
    if type(rate) not in (int, float) or not TINY <= rate <= HUGE:
        raise InputError(f"{what}={value!r}: give a finite number above 0, such as 0.01")


def dataset(given: DataChoice) -> data.Dataset:
    """Returns a data set that is given as it is, or loaded by its name.

    Raises:
      InputError: it is neither, or cannot be had.
    """
    if isinstance(given, data.Dataset):
        return given
    if isinstance(given, str | os.PathLike):
        return data.load(given)
    raise InputError(
        f"data is a {type(given).__name__}; make a data set of arrays with "
        "distilljax.dataset(train_images, train_labels, test_images, test_labels), or give "
        "the name of one, such as 'embedded' or 'cifar10'"
    )


def model(given: ModelChoice, image_shape: tuple[int, int, int], num: int) -> Chosen:
    """Returns a network for images of a shape (h, w, c) and `num` classes.

    Raises:
      InputError: an unknown name, or a network that does not fit.
    """
    if isinstance(given, Model):
        functions = {name: getattr(given, name) for name in given._fields}
        for name, function in functions.items():
            if not callable(function) and (name != "features" or function is not None):
                raise InputError(
                    f"model.{name} is {function!r:.40}, and must be a function; see "
                    "distilljax.Model"
                )
        return Chosen(OWN, None, given)
    name, config = _named(given, MODELS, "model", "a Model of your own functions")
    made = MODELS[name].make(config, image_shape, num)
    try:
        parameters.num_params(made)
    except (ValueError, OverflowError) as error:
        raise FieldError("model", name, str(error)) from None
    return Chosen(name, config, made)


def parametrisation(given: ParametrisationChoice, loaded: data.Dataset, ipc: int) -> Chosen:
    """Returns how the set is stored.

    Raises:
      InputError: an unknown name, or settings that do not fit the images.
    """
    if isinstance(given, Parametrisation):
        return Chosen(OWN, None, given)
    name, config = _named(given, PARAMETRISATIONS, "parametrisation", "a Parametrisation")
    try:
        made = PARAMETRISATIONS[name].make(
            config, loaded.image_shape, loaded.num_classes, ipc
        )
    except FieldError as error:
        path = f"{name}.{error.path}"
        raise FieldError(path, error.value, error.reason) from None
    return Chosen(name, config, made)


def method(
    given: MethodChoice,
    network: Model,
    stored: Parametrisation = DIRECT,
    optimizers: Optimizers | None = None,
    augmentation: Augmentation | None = None,
) -> Chosen:
    """Returns a method for a network.

    Raises:
      InputError: an unknown name, or optimizers or an augmentation that do not fit it.
    """
    if augmentation is not None and not callable(augmentation):
        raise InputError(
            f"augmentation={augmentation!r:.40}: give a function of (key, images); names "
            "belong to the Config of the method, as augment='flip_crop'"
        )
    if isinstance(given, Method):
        if optimizers is not None or augmentation is not None:
            raise InputError(
                "optimizers and augmentation: your own Method has its own; leave them out"
            )
        return Chosen(OWN, None, given)
    name, config = _named(given, METHODS, "method", "a Method of your own functions")
    made = METHODS[name].make(
        config, network, stored, optimizers=optimizers, augmentation=augmentation
    )
    return Chosen(name, config, made)


def protocol(given: ProtocolChoice) -> tuple[str, EvaluationProtocol]:
    """Returns the name of an evaluation protocol, or `own`, and the protocol.

    Raises:
      InputError: an unknown name.
    """
    if isinstance(given, EvaluationProtocol):
        return OWN, given
    if not isinstance(given, str) or given not in PROTOCOLS:
        raise InputError(
            f"there is no protocol {given!r}; choose one of {', '.join(PROTOCOLS)}, or "
            "give an EvaluationProtocol"
        )
    return given, PROTOCOLS[given]


def check_drawn(name: str, config: Config, num_images: int) -> None:
    """Refuses a batch of more different images than there are.

    Raises:
      FieldError: of the option of the method.
    """
    for option in getattr(METHODS[name], "DRAWN", ()):
        if (asked := getattr(config, option)) > num_images:
            reason = (
                f"there are {num_images} training images besides those held out; choose "
                "at most as many"
            )
            raise FieldError(f"{name}.{option}", asked, reason)


def _named(
    given: Any, table: Mapping[str, Any], what: str, otherwise: str
) -> tuple[str, Config]:
    """Returns the key of a table and the settings that a name or a `Config` stand for."""
    if isinstance(given, str) and given in table:
        return given, table[given].Config()
    for name, module in table.items():
        if type(given) is module.Config:
            return name, given
    raise InputError(
        f"there is no {what} {given!r:.60}; choose one of {', '.join(table)}, or give the "
        f"Config of one, or {otherwise}"
    )
