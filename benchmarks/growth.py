"""How time, memory and products of an outer step grow with each of its sizes.

    python -m benchmarks.growth
    python -m benchmarks.growth --dimensions=ipc,classes --works=gm,dm --width=128

One size at a time is doubled, from the same small problem on random images: the length of
the unroll, distilled images per class, pixels, classes, and the number of experts that are
trained at once. Growth is told as a power: 1 where twice as much takes twice as long, from
the last two sizes, where what is constant weighs least. The products, counted and not
timed, say what the work itself asks for.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from benchmarks import contest, experts, harness, methods, problem
from benchmarks.contest import Contestant
from benchmarks.harness import Column, figure
from benchmarks.throughput import UNROLL
from distilljax import platforms
from distilljax.config import FieldError, option
from distilljax.methods import METHODS
from distilljax.training.expert import Recipe

EXPERTS = "experts"  # the work of training them
SIZES = {
    "unroll": (5, 10, 20, 40),
    "ipc": (1, 2, 4, 8),
    "size": (8, 16, 32),
    "classes": (5, 10, 20, 40),
    "experts": (1, 2, 4, 8),
}
SHOWN = {
    "unroll": "inner steps",
    "ipc": "images per class",
    "size": "pixels",
    "classes": "classes",
    "experts": "experts at once",
}


@dataclasses.dataclass(frozen=True)
class Config(harness.Options):
    """Options of the benchmark."""

    dimensions: str = option(",".join(SIZES), "Sizes that grow, separated by commas.")
    works: str = option(
        ",".join([*METHODS, EXPERTS]), "Methods, and experts; separated by commas."
    )
    values: int = option(4, "Most values of a size, each twice the one before.", low=2)
    width: int = option(16, "Width of the ConvNet of depth 3.", low=1)
    size: int = option(16, "Height and width of the images.", low=8)
    ipc: int = option(1, "Distilled images per class.", low=1)
    classes: int = option(10, "Number of classes.", low=2)
    unroll: int = option(5, "Inner steps of bptt and tm.", low=1)
    real_batch: int = option(64, "Real images: per class (gm, dm), in all (others).", low=1)
    repeats: int = option(3, "Timed rounds, after one warm-up round.", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        contest.names("dimensions", self.dimensions, SIZES)
        contest.names("works", self.works, [*METHODS, EXPERTS])
        if not pairs(self):
            raise FieldError("works", self.works, f"none grows with {self.dimensions}")


def pairs(config: Config) -> list[tuple[str, str]]:
    """Returns the (size, work) pairs that are measured."""
    return [
        (dimension, work)
        for dimension in config.dimensions.split(",")
        for work in config.works.split(",")
        if (work == EXPERTS) == (dimension == "experts")
        and (dimension != "unroll" or work in UNROLL)
    ]


def prepare(config: Config, dimension: str, work: str) -> dict[str, Contestant]:
    """Returns the contestants: a work at each value of a size."""
    found = {}
    for value in SIZES[dimension][: config.values]:
        sizes = {n: getattr(config, n) for n in ("unroll", "ipc", "size", "classes")}
        sizes |= {dimension: value}
        function, args = program(config, work, sizes)
        amount = value**2 if dimension == "size" else value
        found[str(value)] = contest.program(
            function,
            *args,
            work=work,
            dimension=dimension,
            value=amount,
            products=products(function, args),
        )
    return found


def products(function: Callable[..., Any], args: tuple[Any, ...]) -> int:
    """Returns the FLOPs of the matrix products of the formulations of this platform."""
    with platforms.target(platforms.current()):
        return harness.flops(function, *args)


def program(
    config: Config, work: str, sizes: Mapping[str, int]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns a function of one step of a work, and its arguments."""
    options = problem.ProblemOptions(
        ipc=sizes["ipc"], width=config.width, size=sizes["size"]
    )
    made = problem.make(options, num_classes=sizes["classes"])
    if work == EXPERTS:
        recipe = Recipe(batch=config.real_batch)
        at_once, _, args = experts.epoch(made, sizes["experts"], recipe)
        return at_once, args
    settings = {UNROLL[work]: sizes["unroll"]} if work in UNROLL else {}
    if METHODS[work].SOURCE == "real":
        settings["real_batch"] = config.real_batch
    return methods.step(work, made, settings)


def power(records: Sequence[Mapping[str, Any]], read: Callable[[Any], float]) -> float:
    """Returns the p of y ~ x^p between the last two values; NaN where y is zero."""
    (x, low), (z, high) = ((r["value"], read(r)) for r in records[-2:])
    return math.log(high / low) / math.log(z / x) if low and high else math.nan


def _power(read: Callable[[Any], float]) -> Callable[[Any], str]:
    return lambda row: f"{power(row['records'], read):.2f}"


def _each(read: Callable[[Any], Any]) -> Callable[[Any], str]:
    return lambda row: ", ".join(str(read(r)) for r in row["records"])


def _seconds(record: Mapping[str, Any]) -> float:
    found: float = record["cpu_seconds"]["median"]
    return found


COLUMNS = (
    Column("size that grows", lambda row: SHOWN[row["dimension"]], left=True),
    Column("work", lambda row: row["work"], left=True),
    Column("its values", _each(lambda r: r["value"])),
    Column("CPU s", _each(lambda r: figure(_seconds(r)))),
    Column("power of CPU s", _power(_seconds)),
    Column("power of products", _power(lambda r: r["products"])),
    Column("temporary MiB", _each(lambda r: harness.mib(r["temporary_bytes"]))),
    Column("power of memory", _power(lambda r: r["temporary_bytes"])),
)


def rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row for each size and work, with its records by value."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        found.setdefault((record["dimension"], record["work"]), []).append(record)
    return [
        {"dimension": dimension, "work": work, "records": held}
        for (dimension, work), held in found.items()
    ]


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return harness.markdown(COLUMNS, rows(record["records"]))


def run(config: Config) -> None:
    """Measures each work at each size, prints the table and writes the record."""
    harness.pin(config.threads)
    described = harness.described("growth", config)
    records: list[dict[str, Any]] = []
    for dimension, work in pairs(config):
        records += contest.timed(prepare(config, dimension, work), config.repeats).values()
        jax.clear_caches()
    harness.show(harness.caption(described), COLUMNS, rows(records))
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
