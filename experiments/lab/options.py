"""Options that several experiments share, each written once.

A `Config` inherits the blocks it needs; the options of a block come after its own.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from distilljax import platforms
from distilljax.config import LARGEST_INT, Config, FieldError, option

# The names of `training.protocols.PROTOCOLS`; a type cannot be computed from them.
ProtocolName = Literal[
    "study",
    "dc",
    "dc_augmented",
    "dsa",
    "mtt",
    "rat",
    "frepo",
    "frepo_ipc1",
    "rcig",
    "rcig_ipc1",
    "rcig_plain_ipc1",
    "rfad",
    "rfad_ipc1",
]
OWN = "own"  # the protocol, or the network, that an artefact was made for
ProtocolOrOwn = Literal["own", ProtocolName]
Labels = Literal["own", "hard"]


@dataclasses.dataclass(frozen=True)
class WorkdirOption(Config):
    """Where the results go."""

    workdir: str | None = option(
        None, "Folder for the results; none: a folder under runs/ named by the settings."
    )


@dataclasses.dataclass(frozen=True)
class SeedOption(Config):
    """The random seed."""

    seed: int = option(0, "Random seed.", low=0, high=2**31 - 1)


@dataclasses.dataclass(frozen=True)
class RealDataOptions(Config):
    """The real data that finished sets are compared with."""

    dataset: str | None = option(None, "Real data; none: those the sets were made of.")
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")


@dataclasses.dataclass(frozen=True)
class ArtefactsOption(Config):
    """Several distilled sets."""

    artefacts: str = option("", "Distilled sets (.npz) of the same data, with commas.")


@dataclasses.dataclass(frozen=True)
class LabelsOption(Config):
    """Labels of distilled sets."""

    labels: Labels = option(
        "own", "Labels of the sets: their own, or hard, the most likely class of each."
    )


@dataclasses.dataclass(frozen=True)
class TogetherOption(Config):
    """Networks in one dispatch."""

    together: int = option(
        1, "Networks trained side by side; more need more memory.", low=1
    )


# Two cores that are a device each train independent networks up to twice as fast as their
# threads together (`python -m benchmarks.cores`); more were not measured.
MOST_CORES = 8

PROCESS_OPTIONS = ("distributed", "coordinator_address", "num_processes", "process_id")


@dataclasses.dataclass(frozen=True)
class DevicesOption(Config):
    """Devices that share the work."""

    devices: int | None = option(
        None,
        "Devices that share the work, on a CPU its cores; none: all that there are.",
        low=1,
    )

    def devices_of_cores(self) -> int:
        """Returns the devices that CPU cores are made where there is no accelerator.

        Those that are asked for; else one of all cores, or one for each of at most
        `MOST_CORES` where that is faster.
        """
        if self.devices:
            return self.devices
        return min(MOST_CORES, platforms.cpu_threads()) if self.faster_on_cores() else 1

    def faster_on_cores(self) -> bool:
        """Returns whether the work is done faster by a device for each core of the CPU."""
        return False


@dataclasses.dataclass(frozen=True)
class NetworksOption(DevicesOption):
    """Devices that share networks, which cores train faster than threads of one device."""

    def faster_on_cores(self) -> bool:
        """Returns whether the work is done faster by a device for each core of the CPU."""
        return True


@dataclasses.dataclass(frozen=True)
class ProcessesOption(DevicesOption):
    """Devices of several processes that share the work."""

    distributed: bool = option(
        False,
        "One of several processes that share the work, each started by this command; on a "
        "cluster JAX finds the others.",
    )
    coordinator_address: str | None = option(
        None, "Of --distributed: HOST:PORT of process 0; none: found by JAX.", rare=True
    )
    num_processes: int | None = option(
        None, "Of --distributed: how many there are; none: found by JAX.", low=1, rare=True
    )
    process_id: int | None = option(
        None,
        "Of --distributed: which this is, from 0; none: found by JAX.",
        low=0,
        rare=True,
    )

    def devices_of_cores(self) -> int:
        """Returns the devices that CPU cores are made; of several processes one each."""
        return (self.devices or 1) if self.distributed else super().devices_of_cores()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in PROCESS_OPTIONS[1:]:
            if not self.distributed and getattr(self, name) is not None:
                raise FieldError(name, getattr(self, name), "only with --distributed")
        if (num := self.num_processes) and (self.process_id or 0) >= num:
            reason = f"there are {num} processes; give 0..{num - 1}"
            raise FieldError("process_id", self.process_id, reason)


def refuse_unread(
    config: Config, name: str, why: str, advice: str = "leave it out"
) -> None:
    """Refuses an option that nothing reads beside others.

    Args:
      config: the options.
      name: of the option; its default passes.
      why: what makes it have no effect.
      advice: what to do.

    Raises:
      FieldError: it has another value.
    """
    value = getattr(config, name)
    if value != getattr(type(config)(), name):
        raise FieldError(name, value, f"{why}; {advice}")


def parse_names(text: str, field: str) -> list[str]:
    """Returns the names in a list with commas; may be none.

    Raises:
      FieldError: of the option `field`: a name comes twice.
    """
    found = [name.strip() for name in text.split(",") if name.strip()]
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        raise FieldError(field, text, f"{twice[0]} is named twice")
    return found


def expand(path: str) -> str:
    """Returns a path with `~` as the home folder."""
    return os.path.expanduser(path)


def parse_paths(text: str, field: str) -> list[str]:
    """Returns the paths in a list with commas, `~` expanded; may be none.

    A comma is part of a path where a file of that name exists.

    Raises:
      FieldError: of the option `field`: a path comes twice.
    """
    parts, found = text.split(","), list[str]()
    while parts:
        joined = [expand(",".join(parts[:num]).strip()) for num in range(1, len(parts) + 1)]
        num = next((i for i, path in enumerate(joined, 1) if os.path.isfile(path)), 1)
        found.append(joined[num - 1])
        parts = parts[num:]
    found = [path for path in found if path]
    if twice := [path for path, count in Counter(found).items() if count > 1]:
        raise FieldError(field, text, f"{twice[0]} is named twice")
    return found


def parse_choices(
    text: str, field: str, known: Iterable[str], noun: str, *, least: int = 1
) -> list[str]:
    """Returns the names in a list with commas, each one of `known`.

    Args:
      text: the list.
      field: the option, for errors.
      known: names to choose among.
      noun: what a name stands for, such as `probe`.
      least: how many there must be.

    Raises:
      FieldError: an unknown name, one that comes twice, or too few.
    """
    found, known = parse_names(text, field), list(known)
    listed = ", ".join(known)
    if unknown := [name for name in found if name not in known]:
        reason = f"unknown {noun} {unknown[0]!r}; choose among {listed}"
        raise FieldError(field, text, reason)
    if len(found) < least:
        raise FieldError(field, text, f"name at least one {noun}: {listed}")
    return found


def parse_integers(text: str, field: str, *, low: int, example: str) -> list[int]:
    """Returns different integers in a list with commas, in the order given.

    Raises:
      FieldError: of the option `field`: no integers, one below `low`, or one twice.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    within = bool(numbers) and low <= min(numbers) <= max(numbers) <= LARGEST_INT
    if not within or len(set(numbers)) < len(numbers):
        reason = f"expected different integers from {low}, with commas, such as {example}"
        raise FieldError(field, text, reason)
    return numbers
