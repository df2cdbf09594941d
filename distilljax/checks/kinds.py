"""Checks that an argument is of the kind that a function takes: keys, sets, networks."""

import inspect
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distilljax.types import Batch, DistilledSet, InputError, Key, Model, RealSet


def _shape_of_keys(keys: Any) -> tuple[int, ...] | None:
    """Returns the shape of an array of keys, typed or of `jax.random.PRNGKey`."""
    dtype, shape = getattr(keys, "dtype", None), getattr(keys, "shape", None)
    if dtype is None or shape is None:
        return None
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return shape
    return shape[:-1] if dtype == np.uint32 and shape else None


def one_key(key: Any) -> None:
    """Refuses what is no single PRNG key.

    Args:
      key: key[], or u32[w] as `jax.random.PRNGKey` makes it.

    Raises:
      InputError: a seed, several keys, or something else.
    """
    shape = _shape_of_keys(key)
    if shape:
        raise InputError(
            f"key holds {list(shape)} keys; give one, such as key[0], or map over them "
            "with jax.vmap"
        )
    if shape is None:
        raise InputError(f"key={key!r:.40}: give a PRNG key, such as jax.random.key(0)")


def several_keys(keys: Any) -> Key:
    """Returns PRNG keys along one axis as typed ones.

    Args:
      keys: key[s], or u32[s, w] as `jax.random.PRNGKey` and `split` make them.

    Returns:
      key[s].

    Raises:
      InputError: seeds, a single key, or something else.
    """
    shape = _shape_of_keys(keys)
    if shape is None or len(shape) != 1:
        given = f"={keys!r:.40}" if shape is None else f" has the shape {list(shape)}"
        raise InputError(
            f"keys{given}: give PRNG keys along one axis, such as "
            "jax.random.split(jax.random.key(0), 5)"
        )
    return jax.random.wrap_key_data(keys) if keys.dtype == np.uint32 else keys


def instance(value: Any, kind: type, what: str, instead: str) -> None:
    """Refuses what is not of a type.

    Args:
      value: what was given.
      kind: its type.
      what: name of the argument, for the message.
      instead: what to give.

    Raises:
      InputError: it is of another type.
    """
    if not isinstance(value, kind):
        raise InputError(f"{what} is a {type(value).__name__}; give {instead}")


def real_set(real: Any) -> None:
    """Refuses what is no real data set on the device.

    Raises:
      InputError: it is no `RealSet`.
    """
    instance(
        real,
        RealSet,
        "the real data",
        "a RealSet, made of a Split by distilljax.data.on_device(split, transform, "
        "num_classes)",
    )


def batch(given: Any) -> None:
    """Refuses what is no batch of preprocessed images with a row of labels for each.

    Raises:
      InputError: it is no `Batch`, its fields are no arrays, its images not floating point
        or none, or not as many as labels.
    """
    instance(
        given,
        Batch,
        "the data",
        "a Batch, as distilljax.core.distilled.as_batch makes it of a distilled set",
    )
    for name, values in given._asdict().items():
        if not hasattr(values, "dtype"):
            raise InputError(
                f"the batch has {name} that are a {type(values).__name__}; give arrays"
            )
    images, labels = given
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(
            f"images are {images.dtype}: networks take preprocessed images; give "
            "transform(images), with the transform of the real data"
        )
    if not images.ndim or not images.shape[0]:
        raise InputError(f"the batch has images {list(images.shape)}: give at least one")
    if labels.shape[:1] != images.shape[:1]:
        num = labels.shape[0] if labels.ndim else "no"
        raise InputError(
            f"{images.shape[0]} images and {num} labels: give one row of labels for each "
            "image"
        )


def fields_of_set(distilled: Any, what: str = "the distilled set") -> None:
    """Refuses what is no distilled set; its fields may be stacked, or not be arrays.

    Raises:
      InputError: it is no `DistilledSet`.
    """
    instance(
        distilled,
        DistilledSet,
        what,
        "a DistilledSet, as distilljax.core.distilled.create makes it, or "
        "artefact.distilled",
    )


def distilled_set(distilled: Any, what: str = "the distilled set") -> None:
    """Refuses what is no distilled set; values are not looked at.

    Args:
      distilled: a `DistilledSet`.
      what: name of the argument, for the message.

    Raises:
      InputError: another type, fields that are not floating point, or shapes that do not
        fit together.
    """
    fields_of_set(distilled, what)
    for name, values in distilled._asdict().items():
        dtype = getattr(values, "dtype", None)
        if dtype is None:
            dtype = type(values).__name__
        elif jnp.issubdtype(dtype, jnp.floating):
            continue
        raise InputError(
            f"{what} has {name} of {dtype}; it is made of floating point arrays, its "
            "images preprocessed: make it of transform(images) with "
            "distilljax.core.distilled.create"
        )
    shapes = [x.shape for x in distilled]
    ranks = tuple(map(len, shapes))
    if ranks != (4, 2, 0) or shapes[0][0] != shapes[1][0]:
        raise InputError(
            f"{what} has images {list(shapes[0])}, label_logits {list(shapes[1])} and "
            f"log_lr {list(shapes[2])}: expected [n, h, w, c], [n, k] and []; "
            "distilljax.core.distilled.create makes such sets"
        )


def model(given: Any) -> None:
    """Refuses what is no network.

    Raises:
      InputError: it is no `Model`.
    """
    instance(
        given,
        Model,
        "model",
        "a distilljax.Model(init, features, apply), such as "
        "distilljax.models.mlp.make(config, image_shape, num_classes)",
    )


def settings(config: Any, kind: type, network: Any) -> None:
    """Refuses settings of another method, and what is no network beside them.

    Args:
      config: what was given as settings.
      kind: the `Config` of the method.
      network: what was given as `model`.

    Raises:
      InputError: it is another `Config`, or no `Model`.
    """
    module = kind.__module__
    instance(config, kind, "config", f"a {module}.Config, followed by the model")
    model(network)


def call(function: Any, what: str, *names: str) -> None:
    """Refuses what cannot be called with these arguments, in this order.

    Args:
      function: of the caller's own.
      what: what it is, such as `a hook`.
      *names: of its arguments.

    Raises:
      InputError: it is no function, or takes other arguments.
    """
    arguments = ", ".join(names)
    if not callable(function):
        raise InputError(
            f"{what} is a function of ({arguments}), not {type(function).__name__}"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions do not tell
        return
    try:
        signature.bind(*names)
    except TypeError as error:
        raise InputError(
            f"{what} is called with ({arguments}), and this one takes other arguments "
            f"({error})"
        ) from None


def path(given: Any, what: str = "path", instead: str = "the path of a file") -> str:
    """Returns a path as text.

    Args:
      given: text or a path object.
      what: name of the argument, for the message.
      instead: what to give.

    Raises:
      InputError: it is neither, such as bytes, or holds a zero byte.
    """
    name = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(name, str) or "\0" in name:
        raise InputError(f"{what}={given!r:.40}: give {instead}, a str or pathlib.Path")
    return name
