"""Cores of one processor as threads of one device, or as a device each.

    python -m benchmarks.cores
    python -m benchmarks.cores --width=128 --works=gm,evaluation --repeats=7

JAX sees the processor as one device, whose operations use all cores, or as several, which
share the work by `mesh=` as several GPUs would. Measured are an outer step of each method
(its defaults) and the evaluation of fresh networks on the set, with compile times and the
temporary memory of a device. Each side is a process, one works at a time, and both must
give the same numbers first.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import contest, harness, problem
from benchmarks.contest import Contestant
from benchmarks.devices import presented
from benchmarks.harness import Column, Remote, figure
from distilljax import devices
from distilljax.config import option
from distilljax.core import distilled as distilled_set
from distilljax.methods import METHODS
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Array, Key

EVALUATION = "evaluation"
WORKS = (*METHODS, EVALUATION)


@dataclasses.dataclass(frozen=True)
class Config(problem.ProblemOptions, harness.Options):
    """Options of the benchmark."""

    works: str = option(",".join(WORKS), "What is measured, with commas.")
    num_devices: int = option(2, "Devices that the processor is seen as.", low=2)
    networks: int = option(5, "Networks of the evaluation.", low=1)
    steps: int = option(30, "Training steps of each.", low=1)
    tolerance: float = option(
        1e-2, "Largest relative difference of the loss or accuracies.", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        contest.names("works", self.works, WORKS)


def make(values: dict[str, Any], num: int) -> dict[str, Callable[[], Any]]:
    """Returns the works on `num` devices; called in the process that has them.

    Raises:
      InputError: the process has another number of devices.
    """
    config = Config.from_dict(values)
    contest.expect_devices(num)
    mesh, made = devices.mesh(), problem.make(config)
    found: dict[str, Callable[[], Any]] = {}
    numbers: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for name in contest.names("works", config.works, WORKS):
        function, args = _work(name, config, made, mesh)
        given = devices.everywhere(args, mesh)
        began = time.perf_counter()
        program = devices.jit(function, mesh).lower(*given).compile()
        about[name] = {
            "compile_seconds": time.perf_counter() - began,
            "temporary_bytes": program.memory_analysis().temp_size_in_bytes,
        }
        found[name] = functools.partial(program, *given)
        numbers[name] = found[name]
    return found | {
        "numbers": lambda: {n: np.asarray(f()) for n, f in numbers.items()},
        "about": lambda: about,
    }


def _work(
    name: str, config: Config, made: problem.Problem, mesh: Any
) -> tuple[Callable[..., Array], tuple[Any, ...]]:
    """Returns a function and its arguments: the loss of a step, or accuracies."""
    if name == EVALUATION:
        protocol = EvaluationProtocol(steps=config.steps)
        keys = jax.random.split(jax.random.key(1), config.networks)

        def evaluated(keys: Key, batch: Any, test: Any) -> Array:
            return evaluation.fresh_accuracy(
                keys, made.model, batch, test, protocol, mesh=mesh
            )

        batch = distilled_set.as_batch(made.start)
        return evaluated, (keys, batch, made.sources["real"])
    module = METHODS[name]
    method = module.make(module.Config(), made.model, mesh=mesh)
    state = method.init(jax.random.key(0), made.start)

    def step(key: Key, state: Any, source: Any) -> Array:
        after, info = method.step(key, state, source)
        moved = after.distilled.images - state.distilled.images
        return jax.numpy.stack([info.loss, info.grad_norm, jax.numpy.abs(moved).mean()])

    return step, (jax.random.key(1), state, made.sources[module.SOURCE])


def measure(config: Config) -> list[dict[str, Any]]:
    """Returns a record for each work and side."""
    chosen = contest.names("works", config.works, WORKS)
    with contextlib.ExitStack() as stack:
        sides = {}
        for num in (1, config.num_devices):
            with presented(num):
                sides[num] = stack.enter_context(Remote(make, config.to_dict(), num))
        found = {num: side.call("numbers") for num, side in sides.items()}
        compiled = {num: side.call("about") for num, side in sides.items()}
        contestants, clocks = {}, {}
        for work in chosen:
            contest.same({str(n): f[work] for n, f in found.items()}, config.tolerance)
            for num, side in sides.items():
                clocks[f"{work}, {num}"] = lambda side=side, work=work: side.clock(work)
                about = {"work": work, "devices": num, **compiled[num][work]}
                against = f"{work}, 1"
                contestants[f"{work}, {num}"] = Contestant(
                    clocks[f"{work}, {num}"], about, 1, against
                )
        samples = harness.interleave(clocks, config.repeats)
    return list(contest.records(contestants, samples).values())


COLUMNS = (
    Column("work", lambda r: r["work"], left=True),
    Column("devices", lambda r: r["devices"]),
    *contest.times("run"),
    Column("fastest", lambda r: figure(r["wall_seconds"]["min"])),
    contest.faster("threads"),
    Column("temporary MiB", lambda r: figure(r["temporary_bytes"] / harness.MIB)),
    contest.COMPILE,
)


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return harness.markdown(COLUMNS, record["records"])


def run(config: Config) -> None:
    """Checks, measures, prints the table and writes the record."""
    harness.pin(config.threads)
    described = harness.described("cores", config)
    described["environment"]["device"] = "cpu"  # even if there are accelerators
    records = measure(config)
    harness.show(harness.caption(described), COLUMNS, records)
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
