"""Many networks at once: side by side, one after another, and one a dispatch.

    python -m benchmarks.networks
    python -m benchmarks.networks --networks=1,16,64 --images=100 --width=128

Networks are trained by `distilljax.training.evaluation.train` from weights of their own:
mapped over their weights (vmap), one after another in one program (map), or one in each of as
many dispatches from Python (loop). All ways give the same logits on the training images.
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

    networks: str = option("1,4,16", "How many, separated by commas.")
    steps: int = option(20, "Training steps of each.", low=1)
    images: int = option(10, "Images in a batch.", low=1)
    repeats: int = option(3, "Rounds that are timed, after one that is not.", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        contest.counts("networks", self.networks)


def prepare(config: Config) -> dict[str, Contestant]:
    """Every way with every number of networks, checked against the loop."""
    model, _, batch = contest.given(config)
    protocol = EvaluationProtocol(steps=config.steps)

    def one(key: Key, batch: Batch) -> Array:
        params = evaluation.train(key, model, batch, protocol)
        return model.apply(params, batch.images)

    single = harness.compiled(one, jax.random.key(2), batch)
    found = {}
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
        if num == 1:  # mapped or not, it is one network
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
    """The record's table in Markdown."""
    return harness.markdown(COLUMNS, record["records"])


def run(config: Config) -> None:
    """Checks, measures, prints the table, writes what is asked for."""
    harness.pin(config.threads)
    described = harness.described("networks", config)
    records = list(contest.timed(prepare(config), config.repeats).values())
    harness.show(harness.caption(described), COLUMNS, records)
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
