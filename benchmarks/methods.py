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
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from distilljax import data
from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.core import distilled as distilled_set
from distilljax.core.outer import OuterState, StepInfo
from distilljax.io.files import write_json
from distilljax.methods import METHODS
from distilljax.models import convnet
from distilljax.types import Key, RealSet
from experiments import launch, runs


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the benchmark."""

    ipc: int = option(1, "Distilled images per class, of ten classes.", low=1)
    width: int = option(32, "Channels of the ConvNet of depth 3.", low=1)
    size: int = option(28, "Side of the images.", low=8)
    channels: int = option(1, "Channels of the images.", low=1, high=3)
    steps: int = option(5, "Outer steps in one dispatch.", low=1)
    repeats: int = option(5, "Dispatches timed, after one that is not.", low=1)
    json: str | None = option(None, "File to write the records to.")


def measure(name: str, config: Config) -> dict[str, Any]:
    """One record: medians over repeats, bytes from the compiled program."""
    rng = np.random.default_rng(0)
    shape = (config.size, config.size, config.channels)
    labels = np.repeat(np.arange(10, dtype=np.int32), 300)
    pixels = rng.integers(0, 256, (len(labels), *shape)).astype(np.uint8)
    split = data.Split(pixels, labels)
    transform = data.fit("normalise", split.images)
    real = data.on_device(split, transform, 10)
    model = convnet.make(convnet.Config(width=config.width), shape, 10)
    method = METHODS[name].make(METHODS[name].Config(), model)
    chosen = data.subset(split, config.ipc, seed=0)
    start = distilled_set.create(
        transform(jnp.asarray(chosen.images)),
        jnp.asarray(chosen.labels),
        10,
        learning_rate=0.01,
    )
    state = method.init(jax.random.key(0), start)

    def many(key: Key, state: OuterState, real: RealSet) -> tuple[OuterState, StepInfo]:
        keys = jax.random.split(key, config.steps)
        return jax.lax.scan(lambda s, key: method.step(key, s, real), state, keys)

    began = time.perf_counter()
    compiled = jax.jit(many).lower(jax.random.key(1), state, real).compile()
    compile_seconds = time.perf_counter() - began
    seconds = []
    for repeat in range(config.repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(compiled(jax.random.key(repeat), state, real))
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
        described = {"config": config.to_dict(), "environment": runs.environment()}
        write_json(config.json, described | {"records": records})


if __name__ == "__main__":
    launch.main(Config, run)
