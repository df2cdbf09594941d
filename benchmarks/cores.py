"""Cores of one processor as threads of one device, or as a device each.

    python -m benchmarks.cores
    python -m benchmarks.cores --width=128 --works=gm,evaluation --repeats=7
    python -m benchmarks.cores --works=main --repeats=3

JAX sees the processor as one device, whose operations use all cores, or as several, which
share the work by `mesh=` as several GPUs would. A third side is kept to one core. Measured
are an outer step of each method (its defaults), the evaluation of fresh networks on the set
and an epoch of as many experts as there are devices, with compile times and the temporary
memory of a device. Each side is a process, one works at a time, and all must give the same
numbers first.

`product` is a large matrix product for each device: how much more than one core the
machine's cores can do at all. Where they share their units (two threads of a core, seen by
a virtual machine as two cores), that is little.

`main` is the whole command `python -m experiments.distill`, from its start to its end and
without a cache of compiled programs, with `--devices=1`, on one core and on all, and with
several; the losses of its first outer steps must be the same. The options of sizes are not
its.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import contest, harness, problem
from benchmarks.contest import Contestant
from benchmarks.devices import presented
from benchmarks.harness import Column, Remote, Sample, figure
from distilljax import devices
from distilljax.config import option
from distilljax.core import distilled as distilled_set
from distilljax.io.environment import children_cpu_seconds
from distilljax.methods import METHODS
from distilljax.training import evaluation, expert
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.training.expert import Recipe
from distilljax.types import Array, InputError, Key, RealSet

EVALUATION, EXPERTS, MAIN, PRODUCT = "evaluation", "experts", "main", "product"
WITHIN = (*METHODS, EVALUATION, EXPERTS, PRODUCT)  # works of a process that stays
WORKS = (*WITHIN, MAIN)
COMPARED = 3  # outer steps of the main job


@dataclasses.dataclass(frozen=True)
class Config(problem.ProblemOptions, harness.Options):
    """Options of the benchmark."""

    works: str = option(",".join(WITHIN), "What is measured, with commas; also main.")
    main_options: str = option("", "Further options of the main job.")
    num_devices: int = option(2, "Devices that the processor is seen as.", low=2)
    networks: int = option(5, "Networks of the evaluation.", low=1)
    steps: int = option(30, "Training steps of each.", low=1)
    tolerance: float = option(
        1e-2, "Largest relative difference of the loss or accuracies.", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        contest.names("works", self.works, WORKS)


class Side(NamedTuple):
    """Cores and devices of a process."""

    cores: int | None  # None: all
    devices: int

    @contextlib.contextmanager
    def presented(self) -> Iterator[None]:
        """Makes processes started within have these cores and devices."""
        with presented(self.devices):
            if self.cores is None:
                yield
                return
            before = os.sched_getaffinity(0)
            harness.pin(self.cores)
            try:
                yield
            finally:
                os.sched_setaffinity(0, before)


def _sides(config: Config) -> dict[str, Side]:
    """Returns the sides; that of one core where the system keeps processes to cores."""
    one = {"core": Side(1, 1)} if hasattr(os, "sched_setaffinity") else {}
    return one | {"threads": Side(None, 1), "devices": Side(None, config.num_devices)}


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
    for name in _within(config):
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


def _within(config: Config) -> list[str]:
    return [n for n in contest.names("works", config.works, WORKS) if n != MAIN]


def _work(
    name: str, config: Config, made: problem.Problem, mesh: Any
) -> tuple[Callable[..., Array], tuple[Any, ...]]:
    """Returns a function and its arguments: the loss of a step, accuracies, or losses."""
    if name == EVALUATION:
        protocol = EvaluationProtocol(steps=config.steps)
        keys = jax.random.split(jax.random.key(1), config.networks)

        def evaluated(keys: Key, batch: Any, test: Any) -> Array:
            return evaluation.fresh_accuracy(
                keys, made.model, batch, test, protocol, mesh=mesh
            )

        batch = distilled_set.as_batch(made.start)
        return evaluated, (keys, batch, made.sources["real"])
    if name == PRODUCT:
        matrix, _ = harness.factor()
        each = jax.numpy.stack([matrix] * config.num_devices)
        return lambda each: devices.spread(lambda x: x @ x, each, mesh), (each,)
    if name == EXPERTS:
        keys, recipe = jax.random.split(jax.random.key(1), config.num_devices), Recipe()

        def trained(keys: Key, real: RealSet) -> Array:
            def one(key: Key) -> Array:
                state = expert.init(key, made.model, recipe)
                return expert.epoch(key, made.model, real, recipe, state)[1]

            return devices.spread(one, keys, mesh)

        return trained, (keys, made.sources["real"])
    module = METHODS[name]
    method = module.make(module.Config(), made.model, mesh=mesh)
    state = method.init(jax.random.key(0), made.start)

    def step(key: Key, state: Any, source: Any) -> Array:
        after, info = method.step(key, state, source)
        moved = after.distilled.images - state.distilled.images
        return jax.numpy.stack([info.loss, info.grad_norm, jax.numpy.abs(moved).mean()])

    return step, (jax.random.key(1), state, made.sources[module.SOURCE])


def _main_job(config: Config, side: Side) -> tuple[Sample, np.ndarray]:
    """Runs the main job; returns its time and the losses of its first outer steps.

    Raises:
      InputError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = (f"--workdir={folder}/run", f"--devices={side.devices}")
        command = ["-m", "experiments.distill", *words, *shlex.split(config.main_options)]
        wall, cpu = time.perf_counter(), children_cpu_seconds()
        with side.presented():
            done = subprocess.run(
                [sys.executable, *command], cwd=harness.ROOT, capture_output=True, text=True
            )
        sample = Sample(time.perf_counter() - wall, children_cpu_seconds() - cpu)
        if done.returncode:
            raise InputError(f"the main job failed: {done.stderr.strip()[-300:]}")
        lines = (pathlib.Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    return sample, np.array([json.loads(line)["loss"] for line in lines[:COMPARED]])


def _main_clock(config: Config, side: Side) -> Sample:
    return _main_job(config, side)[0]


def measure(config: Config) -> list[dict[str, Any]]:
    """Returns a record for each work and side."""
    sides, chosen = _sides(config), contest.names("works", config.works, WORKS)
    found: dict[str, dict[str, Any]] = {name: {} for name in sides}
    about: dict[str, dict[str, Any]] = {name: {} for name in sides}
    clocks: dict[tuple[str, str], Callable[[], Sample]] = {}
    with contextlib.ExitStack() as stack:
        for name, side in sides.items() if _within(config) else ():
            with side.presented():
                remote = stack.enter_context(Remote(make, config.to_dict(), side.devices))
            found[name], about[name] = remote.call("numbers"), remote.call("about")
            for work in _within(config):
                clocks[work, name] = functools.partial(remote.clock, work)
        for name, side in sides.items() if MAIN in chosen else ():
            found[name][MAIN] = _main_job(config, side)[1]
            clocks[MAIN, name] = functools.partial(_main_clock, config, side)
        contestants = {}
        for work in chosen:
            contest.same({name: found[name][work] for name in sides}, config.tolerance)
            for name, side in sides.items():
                record = {"work": work, **side._asdict(), **about[name].get(work, {})}
                contestants[f"{work}, {name}"] = Contestant(
                    clocks[work, name], record, 1, f"{work}, threads"
                )
        timed = {name: one.work for name, one in contestants.items()}
        samples = harness.interleave(timed, config.repeats)
    records = contest.records(contestants, samples)
    for name, record in records.items():
        alone = samples.get(f"{record['work']}, core")
        if alone:
            record["ratio_to_core"] = harness.ratio(alone, samples[name])
    return list(records.values())


COLUMNS = (
    Column("work", lambda r: r["work"], left=True),
    Column("cores", lambda r: r.get("cores") or "all"),
    Column("devices", lambda r: r["devices"]),
    *contest.times("run"),
    Column("fastest", lambda r: figure(r["wall_seconds"]["min"])),
    contest.faster("threads"),
    Column("as one core", lambda r: contest.speed(r, "ratio_to_core")),
    Column("temporary MiB", lambda r: harness.mib(r.get("temporary_bytes"))),
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
