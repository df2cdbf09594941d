"""Training of many networks: vmapped, mapped in sequence, and one per dispatch.

    python -m benchmarks.networks
    python -m benchmarks.networks --networks=1,16,64 --images=100 --width=128

Networks with different weights are trained by `distilljax.training.evaluation.train`:
vectorised over weights (vmap), one after another in one program (map), or one per dispatch
from Python (loop). All must give the same logits on the training images.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from benchmarks import contest, harness
from benchmarks.contest import Contestant
from benchmarks.harness import Column, mib
from distilljax.config import option
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Array, Batch, Key


@dataclasses.dataclass(frozen=True)
class Config(contest.Options):
    """Options of the benchmark."""

    networks: str = option("1,4,16", "Numbers of networks, separated by commas.")
    steps: int = option(20, "Training steps of each network.", low=1)
    images: int = option(10, "Batch size.", low=1)
    repeats: int = option(3, "Timed rounds, after one warm-up round.", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        contest.counts("networks", self.networks)


def prepare(config: Config) -> dict[str, Contestant]:
    """Returns all contestants for all numbers of networks, checked against the loop."""
    model, _, batch = contest.given(config)
    protocol = EvaluationProtocol(steps=config.steps)

    def one(key: Key, batch: Batch) -> Array:
        params = evaluation.train(key, model, batch, protocol)
        return model.apply(params, batch.images)

    single = harness.compiled(one, jax.random.key(2), batch)
    found: dict[str, Contestant] = {}
    for num in contest.counts("networks", config.networks):
        keys = jax.random.split(jax.random.key(2), num)

        def loop(keys: Key = keys) -> list[Array]:
            return [single.call(key, batch) for key in keys]

        def mapped(keys: Key, batch: Batch) -> Array:
            return jax.lax.map(lambda key: one(key, batch), keys)

        against = f"loop, {num}"
        about = {"networks": num}
        ways = {
            against: Contestant(loop, about | {"way": "loop"} | single.record(), num),
            f"map, {num}": contest.program(
                mapped, keys, batch, per=num, against=against, way="map", **about
            ),
            f"vmap, {num}": contest.program(
                jax.vmap(one, (0, None)),
                keys,
                batch,
                per=num,
                against=against,
                way="vmap",
                **about,
            ),
        }
        if num == 1:  # vmap and map are the same for one network
            ways = {against: ways[against]}
        contest.same({n: np.stack(w.work()) for n, w in ways.items()}, config.tolerance)
        found |= ways
    return found


COLUMNS = (
    Column("networks", lambda r: r["networks"]),
    Column("way", lambda r: r["way"], left=True),
    *contest.times("network"),
    contest.faster("the loop"),
    contest.COMPILE,
    Column("temporary MiB", lambda r: mib(r["temporary_bytes"])),
)


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return harness.markdown(COLUMNS, record["records"])


def run(config: Config) -> None:
    """Checks, measures, prints the table and writes the record."""
    harness.pin(config.threads)
    described = harness.described("networks", config)
    records = list(contest.timed(prepare(config), config.repeats).values())
    harness.show(harness.caption(described), COLUMNS, records)
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
