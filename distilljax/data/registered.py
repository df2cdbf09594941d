"""Transforms of the caller's own: checked, registered under a name, stored by it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from distilljax.types import InputError, Transform

OwnTransform = TypeVar("OwnTransform", bound=type)

_REGISTERED: dict[str, Any] = {}


def register(name: str) -> Callable[[OwnTransform], OwnTransform]:
    """Returns a class decorator that registers a `Transform` under a name.

    `fit(name, images)` then fits it, and artefacts store it under the name. It has to be
    registered in each process that reads such an artefact. A class of the same name takes
    the place of an earlier one.

    >>> from typing import NamedTuple
    >>> @registered.register("unit_range")
    ... class UnitRange(NamedTuple):
    ...     largest: jax.Array
    ...     def __call__(self, images):
    ...         return images / self.largest
    ...     def inverse(self, images):
    ...         return images * self.largest / 255
    ...     @classmethod
    ...     def fit(cls, images):
    ...         return cls(np.float32(images.max()))
    ...
    >>> from distilljax import data
    >>> float(data.fit("unit_range", np.full((2, 4, 4, 1), 50, np.uint8)).largest)
    50.0

    Args:
      name: letters, digits and underscores.

    Raises:
      InputError: a name of this library, or a class that is no `NamedTuple` or dataclass
        with `__call__`, `inverse` and `fit`.
    """

    def decorate(cls: OwnTransform) -> OwnTransform:
        from distilljax.data.preprocess import KINDS

        if not str(name).isidentifier() or name in KINDS:
            raise InputError(
                f"transform {name!r}: a name is one word, and none of {', '.join(KINDS)}"
            )
        lacking = [n for n in ("__call__", "inverse", "fit") if not hasattr(cls, n)]
        if not isinstance(cls, type) or _fields(cls) is None or lacking:
            raise InputError(
                f"transform {name!r}: register a NamedTuple, or a dataclass that is a "
                "pytree, of arrays with __call__(images), inverse(images) and a "
                "classmethod fit(images)"
            )
        _REGISTERED[name] = cls
        return cls

    return decorate


def registered() -> Mapping[str, Any]:
    """Returns name -> class of all that were registered.

    >>> "no_such_transform" in registered.registered()
    False
    """
    return dict(_REGISTERED)


def check_transform(transform: Any) -> None:
    """Refuses a transform that compiled programs cannot take as an argument.

    >>> from distilljax.data import preprocess
    >>> registered.check_transform(preprocess.Identity())

    Raises:
      InputError: no pytree of arrays, or without `__call__` and `inverse`.
    """
    known = jax.Array | np.ndarray | np.generic | float | int
    leaves = jax.tree.leaves(transform)
    callables = callable(transform), callable(getattr(transform, "inverse", None))
    if not all(callables) or not all(isinstance(leaf, known) for leaf in leaves):
        raise InputError(
            f"the transform is a {type(transform).__name__}; it is an argument of compiled "
            "programs, so make it a pytree of arrays with __call__ and inverse, such as a "
            "NamedTuple (see distilljax.data.register), or take distilljax.data.fit"
        )


def to_arrays(transform: Transform) -> tuple[str, dict[str, np.ndarray]] | None:
    """Returns name and fields, f32, of a registered transform; None for another.

    >>> from distilljax.data import preprocess
    >>> registered.to_arrays(preprocess.Identity()) is None
    True

    Raises:
      InputError: a field that is no array of numbers.
    """
    name = next((n for n, cls in _REGISTERED.items() if type(transform) is cls), None)
    if name is None:
        return None
    arrays = {}
    for field in field_names(name):
        held = np.asarray(getattr(transform, field))
        if held.dtype.kind not in "fiu":
            raise InputError(
                f"{field} of the transform {name!r} is {held.dtype}, and only arrays of "
                "numbers can be stored"
            )
        arrays[field] = held.astype(np.float32)
    return name, arrays


def from_arrays(name: str, arrays: Mapping[str, np.ndarray]) -> Transform:
    """The inverse of `to_arrays`.

    Of the example of `register`:

    >>> registered.from_arrays("unit_range", {"largest": np.float32(3)}).largest.tolist()
    3.0

    Raises:
      InputError: fields that the class does not have, or that are not finite.
    """
    cls, fields = _REGISTERED[name], field_names(name)
    if set(arrays) != set(fields):
        raise InputError(
            f"a stored {name!r} transform has arrays {sorted(arrays)}, the registered "
            f"class {sorted(fields)}; register the class it was saved with"
        )
    for field, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{field} of a stored {name!r} transform has NaN or infinity")
    return cls(**{field: jnp.asarray(arrays[field], jnp.float32) for field in fields})


def field_names(name: str) -> tuple[str, ...]:
    """Returns the fields of a registered transform.

    Of the example of `register`:

    >>> registered.field_names("unit_range")
    ('largest',)
    """
    return tuple(_fields(_REGISTERED[name]) or ())


def _fields(cls: Any) -> tuple[str, ...] | None:
    """Returns the fields of a NamedTuple or a dataclass; None for another class."""
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    return getattr(cls, "_fields", None)
