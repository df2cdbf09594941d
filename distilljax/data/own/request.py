"""Options of a data set, written behind its path: `pets,size=32,colour=grey`."""

import difflib
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from distilljax.types import InputError

FITS = ("crop", "stretch", "pad")
COLOURS = ("rgb", "grey")
_OPTION = re.compile(r"\s*([A-Za-z_]\w*)=([^,]*)")
_ALIASES = {
    "training": "train",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
}


class Request(NamedTuple):
    """A data set and what is asked of it.

    Attributes:
      path: of the file or folder, or another name of a data set.
      size: height and width.
      fit: one of FITS, where an image has another shape.
      colour: one of COLOURS.
      train: splits to train on.
      test: splits to test on.
      test_share: share of each class that is set aside to test on.
      per_class: most training images of a class.
      seed: of the images that are set aside or left out.
      image: column of the images in a table.
      label: column of the labels.
      split: column of the splits.
    """

    path: str
    size: tuple[int, int] | None = None
    fit: str = "crop"
    colour: str | None = None
    train: tuple[str, ...] | None = None
    test: tuple[str, ...] | None = None
    test_share: float | None = None
    per_class: int | None = None
    seed: int = 0
    image: str | None = None
    label: str | None = None
    split: str | None = None

    @property
    def stem(self) -> str:
        """The last part of the path without its ending, to name things by."""
        return pathlib.Path(self.path).stem or "data"

    def given(self, *names: str) -> list[str]:
        """Returns those of the named options that are not at their defaults."""
        return [n for n in names if getattr(self, n) != self._field_defaults[n]]

    def told(self) -> list[str]:
        """Returns the options that were given, as they are typed."""
        return [f"{n}={_told(getattr(self, n))}" for n in self.given(*self._fields[1:])]


def _told(value: object) -> str:
    if isinstance(value, tuple):
        return ("x" if isinstance(value[0], int) else "+").join(map(str, value))
    return str(value)


def normal(split: str) -> str:
    """Returns the usual name of a split: 'val' and 'dev' are 'validation'.

    >>> request.normal("val")
    'validation'
    """
    return _ALIASES.get(split.lower(), split.lower())


def _size(text: str) -> tuple[int, int]:
    sides = [int(side) for side in text.lower().split("x")]
    if len(sides) not in (1, 2) or min(sides) < 8 or max(sides) > 4096:
        raise ValueError(text)
    return sides[0], sides[-1]


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return read


def _splits(text: str) -> tuple[str, ...]:
    names = tuple(normal(name.strip()) for name in text.split("+"))
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(text)
    return names


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise ValueError(text)
    return value


def _count(low: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value < 2**31:
            raise ValueError(text)
        return value

    return read


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError(text)
    return text.strip()


# Option -> how its text is read, and what is wanted, for messages.
OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "size": (_size, "the side in pixels such as 32, or height x width such as 32x48"),
    "fit": (_one_of(*FITS), f"one of {', '.join(FITS)}"),
    "colour": (_one_of(*COLOURS), "rgb or grey"),
    "train": (_splits, "splits, such as train or train+validation"),
    "test": (_splits, "splits, such as test or validation"),
    "test_share": (_share, "a number between 0 and 1, such as 0.2"),
    "per_class": (_count(2), "a number of images, at least 2"),
    "seed": (_count(0), "a number, at least 0"),
    "image": (_text, "the name of a column"),
    "label": (_text, "the name of a column"),
    "split": (_text, "the name of a column"),
}


def parse(name: str) -> Request:
    """Splits a name such as 'pets,size=32,colour=grey' into path and options.

    A path that exists is taken whole, commas and all.

    >>> found = request.parse("pets,size=32,colour=grey,test_share=0.2")
    >>> found.size, found.colour, found.test_share
    ((32, 32), 'grey', 0.2)

    Raises:
      InputError: an unknown option, one given twice, or a value it cannot have.
    """
    if "," not in name or os.path.exists(os.path.expanduser(name)):
        return Request(name)
    path, *parts = name.split(",")
    # Commas before the first option belong to the path.
    while parts and not _OPTION.fullmatch(parts[0]):
        path += "," + parts.pop(0)
    values: dict[str, Any] = {}
    for part in parts:
        found = _OPTION.fullmatch(part)
        if found is None:
            raise InputError(f"{name}: {part!r} is no option; write ,name=value")
        key, text = found.groups()
        if key not in OPTIONS:
            near = difflib.get_close_matches(key, [*OPTIONS, "color"], n=1)
            near = ["colour" if one == "color" else one for one in near]
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(OPTIONS)}"
            raise InputError(f"{name}: unknown option {key!r} of the data; {hint}")
        if key in values:
            raise InputError(f"{name}: {key} is given twice")
        read, wanted = OPTIONS[key]
        try:
            values[key] = read(text.strip())
        except ValueError:
            raise InputError(f"{name}: {key}={text}: expected {wanted}") from None
    if "fit" in values and "size" not in values:
        raise InputError(f"{name}: fit says how images are brought to a size; add ,size=32")
    return Request(path, **values)
