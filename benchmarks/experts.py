"""Experts per hour: vmapped against one after another.

    python -m benchmarks.experts
    python -m benchmarks.experts --experts=16 --width=128 --size=32 --channels=3

Times one epoch of `distilljax.training.expert.epoch` on random images, without the work
between epochs (held-out accuracy, writing), and extrapolates to experts per hour for the
epochs of a run.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import contest, harness, problem
from benchmarks.contest import Contestant
from benchmarks.harness import Column, figure, mib
from distilljax.config import option
from distilljax.core.augment import parse
from distilljax.core.inner import InnerState
from distilljax.training import expert
from distilljax.training.expert import Recipe
from distilljax.types import Array, Key, RealSet

ONE_AFTER_ANOTHER = "one after another (map)"


@dataclasses.dataclass(frozen=True)
class Config(problem.ProblemOptions, harness.Options):
    """Options of the benchmark."""

    experts: int = option(4, "Number of experts in one program.", low=1)
    epochs: int = option(50, "Number of epochs of a run.", low=1)
    batch: int = option(256, "Batch size.", low=1)
    augment: str = option(Recipe().augment, "Augmentation of each batch.")
    width: int = option(16, "Width of the ConvNet of depth 3.", low=1)
    repeats: int = option(3, "Timed rounds, after one warm-up round.", low=1)
    tolerance: float = option(
        1e-3, "Maximum relative difference of results that must agree.", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        parse(self.augment)


def prepare(config: Config) -> dict[str, Contestant]:
    """Returns both contestants, checked by the weight change of one epoch."""
    recipe = Recipe(batch=config.batch, augment=config.augment)
    at_once, in_turn, (given, real) = epoch(problem.make(config), config.experts, recipe)
    _, states = given

    def contestant(way: Callable[..., Any]) -> Contestant:
        return contest.program(
            way, given, real, per=config.experts, against=ONE_AFTER_ANOTHER
        )

    found = {ONE_AFTER_ANOTHER: contestant(in_turn), "at once (vmap)": contestant(at_once)}
    moved = {
        name: jax.tree.map(jnp.subtract, one.work()[0].params, states.params)
        for name, one in found.items()
    }
    contest.same(moved, config.tolerance)
    return found


def epoch(
    made: problem.Problem, num_experts: int, recipe: Recipe
) -> tuple[Callable[..., Any], Callable[..., Any], tuple[Any, RealSet]]:
    """Returns an epoch of experts at once, one after another, and their arguments."""
    key = jax.random.key(1)

    def begin(number: Array) -> InnerState:
        return expert.init(expert.epoch_key(key, number, 0), made.model, recipe)

    def one(given: tuple[Key, InnerState], real: RealSet) -> tuple[InnerState, Array]:
        return expert.epoch(given[0], made.model, real, recipe, given[1])

    def at_once(given: Any, real: RealSet) -> Any:
        return jax.vmap(one, (0, None))(given, real)

    def in_turn(given: Any, real: RealSet) -> Any:
        return jax.lax.map(lambda own: one(own, real), given)

    numbers = jnp.arange(num_experts)
    states = jax.jit(lambda n: jax.lax.map(begin, n))(numbers)
    keys = jax.vmap(lambda number: expert.epoch_key(key, number, 1))(numbers)
    return at_once, in_turn, ((keys, states), made.sources["real"])


def columns(record: dict[str, Any]) -> tuple[Column, ...]:
    """Returns the columns for the epochs of the record."""
    epochs = record["config"]["epochs"]

    def an_hour(one: Any) -> str:
        return figure(3600 / one["wall_seconds"]["median"] / epochs)

    return (
        Column(f"{record['config']['experts']} experts", lambda r: r["contestant"], True),
        Column(f"experts/h, extrapolated from 1 epoch to {epochs}", an_hour),
        *contest.times("expert and epoch"),
        contest.faster("one after another"),
        Column("temporary MiB", lambda r: mib(r["temporary_bytes"])),
        contest.COMPILE,
    )


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return harness.markdown(columns(record), record["records"])


def run(config: Config) -> None:
    """Checks, measures, prints the table and writes the record."""
    harness.pin(config.threads)
    record = harness.described("experts", config)
    record["records"] = list(contest.timed(prepare(config), config.repeats).values())
    harness.show(harness.caption(record), columns(record), record["records"])
    harness.write(config.json, record)


if __name__ == "__main__":
    harness.main(Config, run)
