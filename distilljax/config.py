"""Configuration: frozen dataclasses whose fields carry help text and limits.

A field's default, help and range are written once, with `option`; `Config` checks
them whenever an instance is made, so a flag, a notebook and a test meet the same
rules and the same messages.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from distilljax.types import InputError


class FieldError(InputError):
    """A field of a configuration was given a value that is refused.

    Attributes:
      path: the field's name, with the groups that hold it: `bptt.window`.
      value: what was given.
      reason: why it is refused.
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
) -> Any:
    """A dataclass field with help text and limits.

    Args:
      default: the default value; a `Config` instance makes a group of options.
      help: one sentence for a person.
      low: smallest value allowed.
      high: largest value allowed.
      above: the value must be greater than this.
      selected_by: (field, value): the option has a meaning only where that sibling
        field has that value; launchers refuse it elsewhere.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "low": low,
            "high": high,
            "above": above,
            "selected_by": selected_by,
        },
    )


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def describe(annotation: Any) -> str:
    """The values an annotation allows, in words: `an integer or none`."""
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


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of every configuration: checks its fields when it is made.

    Every field has a default, so that `Config()` is a configuration.

    Raises:
      FieldError: a field has the wrong type, or lies outside its limits.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value, annotation = getattr(self, field.name), hints[field.name]
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

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of plain values that JSON can hold."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; absent fields take their defaults.

        Raises:
          InputError: a name that is no field, or a value that is refused.
        """
        return cls().replace(values)

    def replace(self, values: Mapping[str, Any]) -> Self:
        """A copy with new values; a mapping changes the group of that name.

        Raises:
          InputError: a name that is no field, or a value that is refused. The message
            names the groups that lead to the field.
        """
        hints = typing.get_type_hints(type(self))
        changes = {}
        for name, value in values.items():
            if name not in hints:
                near = difflib.get_close_matches(name, hints, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise FieldError(name, value, f"there is no such field{hint}")
            group = self._group(name, hints[name])
            if group is None or not isinstance(value, Mapping):
                changes[name] = value
                continue
            try:
                changes[name] = group.replace(value)
            except FieldError as error:
                path = f"{name}.{error.path}"
                raise FieldError(path, error.value, error.reason) from None
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
        return dataclasses.replace(self, **changes)

    def chosen(self, name: str) -> tuple[str, "Config"]:
        """Returns the value of a selector made by `chooses`, and the group of that name."""
        value = str(getattr(self, name))
        return value, getattr(self, value)

    def _group(self, name: str, annotation: Any) -> "Config | None":
        """The configuration that a mapping given for the field changes, if any."""
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
    """A class decorator: a choice among the modules of a table, with their options.

    Adds the field `name`, one of the table's keys, and for every key a group of that
    name, the `Config` of its module, which has a meaning only where it is chosen. A
    new entry of the table has its options everywhere at once.

    Args:
      name: of the field, such as `method`.
      table: key -> module with a `Config`.
      default: a key.
      help: one sentence for a person.
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
    """A class decorator: the options of every module of a table, where several are used.

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
