"""Throughput, compile time and memory of one outer step of every method.

    python -m benchmarks.methods
    python -m benchmarks.methods --ipc=10 --width=128 --repeats=7

On random images of the size asked for: speed does not depend on what they show.
Prints a table and, with `--json=FILE`, writes the records.
"""

import dataclasses
import statistics
import time
from typing import Any

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import problem
from distilljax.config import option
from distilljax.core.outer import OuterState, Source, StepInfo
from distilljax.io.files import write_json
from distilljax.methods import METHODS
from distilljax.types import Key
from experiments import launch, runs


@dataclasses.dataclass(frozen=True)
class Config(problem.ProblemOptions):
    """Options of the benchmark."""

    steps: int = option(5, "Outer steps in one dispatch.", low=1)
    repeats: int = option(5, "Dispatches timed, after one that is not.", low=1)
    json: str | None = option(None, "File to write the records to.")


def measure(name: str, config: Config) -> dict[str, Any]:
    """One record: medians over repeats, bytes from the compiled program."""
    made = problem.make(config)
    method = METHODS[name].make(METHODS[name].Config(), made.model)
    source = made.sources[METHODS[name].SOURCE]
    state = method.init(jax.random.key(0), made.start)

    def many(key: Key, state: OuterState, source: Source) -> tuple[OuterState, StepInfo]:
        keys = jax.random.split(key, config.steps)
        return jax.lax.scan(lambda s, key: method.step(key, s, source), state, keys)

    began = time.perf_counter()
    compiled = jax.jit(many).lower(jax.random.key(1), state, source).compile()
    compile_seconds = time.perf_counter() - began
    seconds = []
    for repeat in range(config.repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(compiled(jax.random.key(repeat), state, source))
        seconds.append((time.perf_counter() - began) / config.steps)
    counted = sorted(seconds[1:])
    return {
        "method": name,
        "median_seconds_per_step": statistics.median(counted),
        "min_seconds_per_step": counted[0],
        "max_seconds_per_step": counted[-1],
        "compile_seconds": compile_seconds,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


def run(config: Config) -> None:
    """Measures every method and prints the table."""
    records = [measure(name, config) for name in METHODS]
    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("method", "s/step", "min", "max", "compile s", "temporary MiB"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for record in records:
        table.add_row(
            record["method"],
            *(f"{record[f'{k}_seconds_per_step']:.3g}" for k in ("median", "min", "max")),
            f"{record['compile_seconds']:.1f}",
            f"{record['temporary_bytes'] / 2**20:.0f}",
        )
    Console().print(table)
    if config.json:
        described = {"config": problem.sizes(config), "environment": runs.environment()}
        write_json(config.json, described | {"records": records})


if __name__ == "__main__":
    launch.main(Config, run)
