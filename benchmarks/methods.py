"""Throughput, compile time and memory of an outer step of every method.

    python -m benchmarks.methods
    python -m benchmarks.methods --ipc=10 --width=128 --repeats=7

Uses random images, since speed does not depend on their content. Each dispatch takes
several outer steps; rounds of the methods are interleaved.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from benchmarks import contest, harness, problem
from benchmarks.contest import Contestant
from benchmarks.harness import Column, figure, mib
from distilljax.config import option
from distilljax.core.outer import OuterState, Source, StepInfo
from distilljax.methods import METHODS
from distilljax.types import Key


@dataclasses.dataclass(frozen=True)
class Config(problem.ProblemOptions, harness.Options):
    """Options of the benchmark."""

    steps: int = option(5, "Outer steps per dispatch.", low=1)


def prepare(
    name: str,
    made: problem.Problem,
    steps: int,
    settings: Mapping[str, Any] | None = None,
    against: str | None = None,
) -> Contestant:
    """Returns the contestant of outer steps of a method in one dispatch.

    Args:
      name: name of the method.
      made: the problem.
      steps: number of outer steps.
      settings: options of the method; None for its defaults.
      against: name of the contestant to compare with.
    """
    one, (key, state, source) = step(name, made, settings)

    def many(key: Key, state: OuterState, source: Source) -> tuple[OuterState, StepInfo]:
        keys = jax.random.split(key, steps)
        return jax.lax.scan(lambda s, key: one(key, s, source), state, keys)

    args = (key, state, source)
    return contest.program(many, *args, per=steps, against=against, method=name)


def step(
    name: str, made: problem.Problem, settings: Mapping[str, Any] | None = None
) -> tuple[Callable[..., Any], tuple[Key, OuterState, Source]]:
    """Returns the outer step of a method, and its arguments.

    Args:
      name: name of the method.
      made: the problem.
      settings: options of the method; None for its defaults.
    """
    module = METHODS[name]
    method = module.make(module.Config().replace(settings or {}), made.model)
    state = method.init(jax.random.key(0), made.start)
    return method.step, (jax.random.key(1), state, made.sources[module.SOURCE])


COLUMNS = (
    Column("method", lambda r: r["method"], left=True),
    Column("s/step", lambda r: figure(r["wall_seconds"]["median"])),
    Column("min", lambda r: figure(r["wall_seconds"]["min"])),
    Column("quartiles", lambda r: harness.quartiles(r["wall_seconds"])),
    Column("CPU s/step", lambda r: figure(r["cpu_seconds"]["median"])),
    Column("compile s", lambda r: figure(r["compile_seconds"])),
    Column("temporary MiB", lambda r: mib(r["temporary_bytes"])),
)


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return harness.markdown(COLUMNS, record["records"])


def run(config: Config) -> None:
    """Measures every method, prints the table and writes the record."""
    harness.pin(config.threads)
    described = harness.described("methods", config)
    made = problem.make(config)
    contestants = {name: prepare(name, made, config.steps) for name in METHODS}
    records = list(contest.timed(contestants, config.repeats).values())
    harness.show(harness.caption(described), COLUMNS, records)
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
