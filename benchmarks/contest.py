"""Contests between implementations: first equal results, then interleaved timings."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, problem
from benchmarks.harness import Column, Sample, figure
from distilljax.config import FieldError, option
from distilljax.models import convnet
from distilljax.types import Batch, InputError, Model, Params


@dataclasses.dataclass(frozen=True)
class Options(harness.Options):
    """Options of a contest on a ConvNet and random images."""

    images: int = option(20, "Batch size.", low=1)
    width: int = option(32, "Width of the ConvNet.", low=1)
    depth: int = option(3, "Depth of the ConvNet.", low=1)
    size: int = option(28, "Height and width of the images.", low=8)
    channels: int = option(1, "Number of image channels.", low=1, high=3)
    tolerance: float = option(
        1e-3, "Maximum relative difference of results that must agree.", above=0
    )


class Given(NamedTuple):
    """A network with initial weights, and random images."""

    model: Model
    params: Params
    batch: Batch


def network(config: Options, **settings: Any) -> Model:
    """Returns the ConvNet of the options, with further settings of `convnet.Config`."""
    shape = (config.size, config.size, config.channels)
    sizes = convnet.Config(width=config.width, depth=config.depth)
    return convnet.make(sizes.replace(settings), shape, problem.NUM_CLASSES)


def random_batch(config: Options, num_images: int, seed: int = 1) -> Batch:
    """Returns random images with labels 0, 1, .., k - 1, 0, .."""
    shape = (num_images, config.size, config.size, config.channels)
    labels = jax.nn.one_hot(
        jnp.arange(num_images) % problem.NUM_CLASSES, problem.NUM_CLASSES
    )
    return Batch(jax.random.normal(jax.random.key(seed), shape), labels)


def given(config: Options, num_images: int | None = None) -> Given:
    """Returns the network and the images of a contest, by default `config.images`."""
    model = network(config)
    params = jax.jit(model.init)(jax.random.key(0))
    return Given(model, params, random_batch(config, num_images or config.images))


def counts(field: str, text: str) -> tuple[int, ...]:
    """Parses distinct positive integers such as 1,4,16.

    Raises:
      FieldError: any other text.
    """
    parts = text.split(",")
    found = tuple(int(part) for part in parts if part.strip().isdecimal())
    if len(found) < len(parts) or len(set(found)) < len(found) or min(found) < 1:
        reason = "expected different whole numbers from 1 on, with commas between them"
        raise FieldError(field, text, reason)
    return found


def expect_devices(num: int) -> None:
    """Checks that this process was started with so many devices.

    Raises:
      InputError: it has another number.
    """
    if jax.device_count() != num:
        raise InputError(f"expected {num} devices, found {jax.device_count()}")


def names(field: str, text: str, known: Collection[str]) -> tuple[str, ...]:
    """Parses distinct known names separated by commas.

    Raises:
      FieldError: an unknown or repeated name.
    """
    found = tuple(text.split(","))
    for name in found:
        if name not in known or found.count(name) > 1:
            what = (
                "is named twice" if name in known else f"is not one of {', '.join(known)}"
            )
            raise FieldError(field, text, f"{name!r} {what}")
    return found


def difference(found: Any, expected: Any) -> float:
    """Returns ||found - expected|| / ||expected|| over all leaves of two trees, float64."""
    a, b = (
        np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree)])
        for tree in (found, expected)
    )
    if a.shape != b.shape:
        return float("nan")
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def same(found: Mapping[str, Any], tolerance: float) -> dict[str, float]:
    """Checks that all contestants compute the same as the first.

    Args:
      found: name -> tree of numbers.
      tolerance: maximum `difference`.

    Returns:
      Name -> difference from the first.

    Raises:
      InputError: a difference is larger, or NaN.
    """
    first, *_ = found
    differences = {n: difference(value, found[first]) for n, value in found.items()}
    for name, value in differences.items():
        if not value <= tolerance:
            raise InputError(
                f"{name} differs by {value:.2g} from {first}, more than "
                f"tolerance={tolerance:g}; nothing was timed"
            )
    return differences


class Contestant(NamedTuple):
    """One implementation in a contest."""

    work: Callable[[], Any]  # the timed function
    about: dict[str, Any]  # further fields of its record
    per: int = 1  # units of work in a run; times are per unit
    against: str | None = None  # contestant of the same run to compare with


def program(
    function: Callable[..., Any],
    *args: Any,
    per: int = 1,
    against: str | None = None,
    **about: Any,
) -> Contestant:
    """Returns a contestant: a function compiled for its arguments."""
    made = harness.compiled(function, *args)
    work = functools.partial(made.call, *args)
    return Contestant(work, about | made.record(), per, against)


def timed(contestants: Mapping[str, Contestant], repeats: int) -> dict[str, dict[str, Any]]:
    """Times contestants in interleaved rounds.

    Returns:
      Name -> record: `about`, `wall_seconds` and `cpu_seconds` per unit, and if the
      contestant has an `against`, `ratio`: the time of that over its own.
    """
    clocks = {n: functools.partial(harness.clock, c.work) for n, c in contestants.items()}
    return records(contestants, harness.interleave(clocks, repeats))


def records(
    contestants: Mapping[str, Contestant], samples: Mapping[str, list[Sample]]
) -> dict[str, dict[str, Any]]:
    """Returns the records of `timed` from interleaved samples."""
    each = {
        name: [Sample(*(seconds / one.per for seconds in s)) for s in samples[name]]
        for name, one in contestants.items()
    }
    found = {}
    for name, one in contestants.items():
        record = {"contestant": name, **one.about, **harness.summary(each[name])}
        if one.against:
            record["against"] = one.against
            record["ratio"] = harness.ratio(each[one.against], each[name])
        found[name] = record
    return found


def cell(record: Mapping[str, Any]) -> str:
    """Returns median and quartiles of seconds as the text of a cell."""
    found = record["wall_seconds"]
    return f"{figure(found['median'])} ({harness.quartiles(found)})"


def times(unit: str) -> tuple[Column, ...]:
    """Returns the columns of the time per unit."""
    return (
        Column(f"s/{unit}", lambda r: figure(r["wall_seconds"]["median"])),
        Column("quartiles", lambda r: harness.quartiles(r["wall_seconds"])),
        Column(f"CPU s/{unit}", lambda r: figure(r["cpu_seconds"]["median"])),
    )


def faster(than: str) -> Column:
    """Returns the column of the ratio."""
    return Column(f"times as fast as {than}", speed)


def speed(record: Mapping[str, Any], field: str = "ratio") -> str:
    """Returns the ratio of the alternative's time to its own; a dash if there is none."""
    found = record.get(field)
    return figure(found and found["wall"]["of_medians"])


COMPILE = Column("compile s", lambda r: figure(r.get("compile_seconds")))
DIFFERS = Column(
    "differs by", lambda r: f"{r['difference']:.0e}" if "difference" in r else "-"
)
