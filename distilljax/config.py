"""Configuration: frozen dataclasses whose fields have help text and limits.

The default, help text and range of a field are defined once, with `option`. `Config`
validates every instance on construction, so that flags, notebooks and tests share the same
rules and messages.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import jax

from distilljax.types import InputError

LARGEST_INT = 2**31 - 1
TINY, HUGE = 1.2e-38, 3.4e38


class FieldError(InputError):
    """An invalid value of a configuration field.

    Attributes:
      path: name of the field with its groups, such as `bptt.window`.
      value: the invalid value.
      reason: why it is invalid.
    """

    def __init__(self, path: str, value: object, reason: str) -> None:
        super().__init__(path, value, reason)
        self.path, self.value, self.reason = path, value, reason

    def __str__(self) -> str:
        return f"{self.path}={self.value!r}: {self.reason}"


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    selected_by: tuple[str, object] | None = None,
    rare: bool = False,
) -> Any:
    """Returns a dataclass field with help text and limits.

    Args:
      default: default value; a `Config` instance makes a group of options.
      help: one sentence of help text.
      low: minimum value, inclusive.
      high: maximum value, inclusive.
      above: minimum value, exclusive.
      selected_by: (field, value): the option applies only if that sibling field has that
        value; `launch` refuses it otherwise.
      rare: `--help` leaves it to `--helpfull`.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "low": low,
            "high": high,
            "above": above,
            "selected_by": selected_by,
            "rare": rare,
        },
    )


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Returns the members of a union, or the annotation itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def describe(annotation: Any) -> str:
    """Returns the values an annotation allows in words, such as `an integer or none`."""
    return " or ".join(map(_describe_one, alternatives(annotation)))


def _describe_one(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(annotation)))
    words = {
        int: "an integer",
        float: "a number",
        bool: "true or false",
        str: "a string",
        type(None): "none",
    }
    return words.get(annotation) or f"a {annotation.__module__}.{annotation.__qualname__}"


def _matches(value: Any, annotation: Any) -> bool:
    if typing.get_origin(annotation) is Literal:
        return any(
            value == a and type(value) is type(a) for a in typing.get_args(annotation)
        )
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def _plain(name: str, value: Any) -> Any:
    """Returns a scalar of NumPy or JAX as the number of Python, all else as it is."""
    if isinstance(value, jax.core.Tracer):
        reason = (
            "a Config is made outside of jit, vmap and grad; distilljax.Optimizers take "
            "traced learning rates"
        )
        raise FieldError(name, "a traced value", reason)
    return value.item() if getattr(value, "shape", None) == () else value


def _changed(group: "Config", name: str, values: Mapping[str, Any]) -> "Config":
    """Returns a group with new values; errors name its fields with the group."""
    try:
        return group.replace(values)
    except FieldError as error:
        path = f"{name}.{error.path}"
        raise FieldError(path, error.value, error.reason) from None
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


@dataclasses.dataclass(frozen=True)
class Config:
    """Base class of configurations; validates its fields on construction.

    Every field has a default, so that `Config()` is valid. A mapping given for a group
    changes its defaults: `Config(bptt={"unroll": 40})`. Integers are those of int32,
    numbers those of float32.

    Raises:
      FieldError: a field has the wrong type or lies outside its limits.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _plain(field.name, getattr(self, field.name))
            annotation = hints[field.name]
            if isinstance(value, Mapping):
                group = field.default
                if not isinstance(group, Config):
                    group = self._group(field.name, annotation)
                value = value if group is None else _changed(group, field.name, value)
            object.__setattr__(self, field.name, value)
            if not any(_matches(value, a) for a in alternatives(annotation)):
                raise FieldError(field.name, value, f"expected {describe(annotation)}")
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._check_range(field, value)

    @staticmethod
    def _check_range(field: dataclasses.Field, value: float) -> None:
        low, high, above = (field.metadata.get(k) for k in ("low", "high", "above"))
        if isinstance(value, float) and not math.isfinite(value):
            raise FieldError(field.name, value, "must be a finite number")
        if low is not None and value < low:
            raise FieldError(field.name, value, f"must be at least {low}")
        if high is not None and value > high:
            raise FieldError(field.name, value, f"must be at most {high}")
        if above is not None and value <= above:
            raise FieldError(field.name, value, f"must be greater than {above}")
        # The device holds them so.
        if isinstance(value, int) and abs(value) > LARGEST_INT:
            raise FieldError(field.name, value, f"must be within ±{LARGEST_INT}")
        if isinstance(value, float) and value and not TINY <= abs(value) <= HUGE:
            reason = f"is no number of float32, which are 0 and ±{TINY} to ±{HUGE}"
            raise FieldError(field.name, value, reason)

    def to_dict(self) -> dict[str, Any]:
        """Returns a dictionary of JSON-serialisable values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverts `to_dict`; missing fields have their defaults.

        Raises:
          InputError: an unknown field or an invalid value.
        """
        return cls().replace(values)

    def replace(self, values: Mapping[str, Any]) -> Self:
        """Returns a copy with new values; a mapping changes the group of that name.

        Raises:
          InputError: an unknown field or an invalid value. The message names the field with
            its groups.
        """
        hints = typing.get_type_hints(type(self))
        changes = {}
        for name, value in values.items():
            if name not in hints:
                near = difflib.get_close_matches(name, hints, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise FieldError(name, value, f"unknown field{hint}")
            group = self._group(name, hints[name])
            if group is None or not isinstance(value, Mapping):
                changes[name] = value
                continue
            changes[name] = _changed(group, name, value)
        return dataclasses.replace(self, **changes)

    def chosen(self, name: str) -> tuple[str, "Config"]:
        """Returns the value of a selector and the group of that name.

        Args:
          name: a selector that `chooses` added, such as `method`.

        Raises:
          ValueError: `name` is not a selector.
        """
        key = getattr(self, name, None)
        for field in dataclasses.fields(self):
            if field.name == key and field.metadata.get("selected_by") == (name, key):
                return key, getattr(self, key)
        raise ValueError(f"{name!r} is not a selector of {type(self).__name__}")

    def _group(self, name: str, annotation: Any) -> "Config | None":
        """Returns the group that a mapping given for the field changes, or None."""
        if isinstance(current := getattr(self, name), Config):
            return current
        for kind in alternatives(annotation):
            if isinstance(kind, type) and issubclass(kind, Config):
                return kind()
        return None


def chooses(
    name: str,
    table: Mapping[str, Any],
    default: str,
    help: str,
    changed: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[type[Config]], type[Config]]:
    """Returns a class decorator that adds a choice among the modules of a table.

    It adds the selector field `name`, whose value is a key of the table, and for every key
    a group of that name, the `Config` of its module, which applies only if it is selected.
    `Config.chosen` returns the selected group.

    Args:
      name: name of the selector, such as `method`.
      table: key -> module with a `Config`.
      default: default key.
      help: one sentence of help text.
      changed: key -> values that replace defaults of that module's `Config`.
    """

    def extend(cls: type[Config]) -> type[Config]:
        fields: list[tuple[str, Any, Any]] = [
            (name, Literal[tuple(table)], option(default, help))
        ]
        for key, module in table.items():
            summary = (module.Config.__doc__ or "").partition("\n")[0]
            values = module.Config().replace((changed or {}).get(key, {}))
            group = option(values, summary, selected_by=(name, key))
            fields.append((key, module.Config, group))
        return dataclasses.make_dataclass(
            cls.__name__,
            fields,
            bases=(cls,),
            frozen=True,
            namespace={"__doc__": cls.__doc__, "__module__": cls.__module__},
        )

    return extend


def offers(
    table: Mapping[str, Any], changed: Mapping[str, Mapping[str, Any]] | None = None
) -> Callable[[type[Config]], type[Config]]:
    """Returns a class decorator that adds the options of every module of a table.

    Args:
      table: key -> module with a `Config`; each becomes a group of that name.
      changed: as in `chooses`.
    """

    def extend(cls: type[Config]) -> type[Config]:
        fields: list[tuple[str, Any, Any]] = []
        for key, module in table.items():
            summary = (module.Config.__doc__ or "").partition("\n")[0]
            values = module.Config().replace((changed or {}).get(key, {}))
            fields.append((key, module.Config, option(values, summary)))
        return dataclasses.make_dataclass(
            cls.__name__,
            fields,
            bases=(cls,),
            frozen=True,
            namespace={"__doc__": cls.__doc__, "__module__": cls.__module__},
        )

    return extend
