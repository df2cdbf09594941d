"""Throughput, compile time and memory of one outer step of every method.

    python -m benchmarks.methods
    python -m benchmarks.methods --ipc=10 --width=128 --repeats=7

On random images of the size asked for: speed does not depend on what they show. Each
dispatch takes several outer steps; the methods run in turns.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from benchmarks import harness, problem
from benchmarks.harness import Column, figure, mib
from distilljax.config import option
from distilljax.core.outer import OuterState, Source, StepInfo
from distilljax.methods import METHODS
from distilljax.types import Key


@dataclasses.dataclass(frozen=True)
class Config(problem.ProblemOptions, harness.Options):
    """Options of the benchmark."""

    steps: int = option(5, "Outer steps in one dispatch.", low=1)


def prepare(name: str, config: Config) -> tuple[harness.Program, Callable[[], Any]]:
    """The compiled program of a method, and a dispatch of it."""
    made = problem.make(config)
    method = METHODS[name].make(METHODS[name].Config(), made.model)
    source = made.sources[METHODS[name].SOURCE]
    state = method.init(jax.random.key(0), made.start)

    def many(key: Key, state: OuterState, source: Source) -> tuple[OuterState, StepInfo]:
        keys = jax.random.split(key, config.steps)
        return jax.lax.scan(lambda s, key: method.step(key, s, source), state, keys)

    key = jax.random.key(1)
    program = harness.compiled(many, key, state, source)
    return program, lambda: program.call(key, state, source)


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
    """The record's table in Markdown."""
    return harness.markdown(COLUMNS, record["records"])


def run(config: Config) -> None:
    """Measures every method and prints the table."""
    harness.pin(config.threads)
    described = harness.described("methods", config)
    prepared = {name: prepare(name, config) for name in METHODS}
    samples = harness.interleave(
        {
            name: functools.partial(harness.clock, dispatch)
            for name, (_, dispatch) in prepared.items()
        },
        config.repeats,
    )
    records = [
        {"method": name}
        | harness.summary(samples[name], per=config.steps)
        | program.record()
        for name, (program, _) in prepared.items()
    ]
    harness.show(harness.caption(described), COLUMNS, records)
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
