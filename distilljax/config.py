"""Configuration: frozen dataclasses whose fields carry help text and limits.

A field's default, help and range are written once, with `option`; `Config` checks
them whenever an instance is made, so a flag, a notebook and a test meet the same
rules and the same messages.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Self

from distilljax.types import InputError


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    selected_by: tuple[str, str] | None = None,
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


def _allowed(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the annotation itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _matches(value: Any, annotation: Any) -> bool:
    if typing.get_origin(annotation) is Literal:
        return value in typing.get_args(annotation)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def _spell(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(annotation)))
    return "none" if annotation is type(None) else annotation.__name__


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of every configuration: checks its fields when it is made.

    Raises:
      InputError: a field has the wrong type, or lies outside its limits.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value, alternatives = getattr(self, field.name), _allowed(hints[field.name])
            if not any(_matches(value, a) for a in alternatives):
                expected = " or ".join(map(_spell, alternatives))
                raise InputError(f"{field.name}={value!r}: expected {expected}")
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._check_range(field, value)

    @staticmethod
    def _check_range(field: dataclasses.Field, value: float) -> None:
        low, high, above = (field.metadata.get(k) for k in ("low", "high", "above"))
        if not math.isfinite(value):
            raise InputError(f"{field.name}={value}: must be a finite number")
        if low is not None and value < low:
            raise InputError(f"{field.name}={value}: must be at least {low}")
        if high is not None and value > high:
            raise InputError(f"{field.name}={value}: must be at most {high}")
        if above is not None and value <= above:
            raise InputError(f"{field.name}={value}: must be greater than {above}")

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of plain values that JSON can hold."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; absent fields take their defaults.

        Raises:
          InputError: a name that is no field, or a value that is refused.
        """
        hints = typing.get_type_hints(cls)
        if unknown := sorted(set(values) - set(hints)):
            raise InputError(f"{cls.__module__}.Config has no field {', '.join(unknown)}")
        parsed = {}
        for name, value in values.items():
            group = [a for a in _allowed(hints[name]) if _is_group(a)]
            parsed[name] = (
                group[0].from_dict(value) if group and isinstance(value, Mapping) else value
            )
        return cls(**parsed)


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Config)
