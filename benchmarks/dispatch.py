"""Cost of a dispatch: outer steps per program, and images from the host.

    python -m benchmarks.dispatch
    python -m benchmarks.dispatch --methods=dm --width=128 --size=32 --real_batch=256

Runs the same number of outer steps of `dm` and `gm` at a small size, where the cost of
dispatches matters:
- with several steps per dispatch (`--dispatches`); the host waits for each dispatch;
- with one step per dispatch and real images that numpy samples on the host and passes to
  every step; the other contestants sample on the device.
All numbers of steps must give the same images; the host contestant is checked on a set of
exactly one batch, where sampling has no choice.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np

from benchmarks import contest, harness, problem
from benchmarks.contest import Contestant
from benchmarks.harness import Column
from distilljax import data
from distilljax.config import FieldError, option
from distilljax.core.outer import Method, OuterState
from distilljax.methods import METHODS
from distilljax.types import Array, Key, RealSet

MATCHING = ("dm", "gm")


@dataclasses.dataclass(frozen=True)
class Config(problem.ProblemOptions, harness.Options):
    """Options of the benchmark."""

    methods: str = option(",".join(MATCHING), "Methods, separated by commas.")
    dispatches: str = option("1,5,25", "Outer steps per dispatch, separated by commas.")
    real_batch: int = option(8, "Real images per class.", low=1)
    width: int = option(8, "Width of the ConvNet of depth 3.", low=1)
    size: int = option(16, "Height and width of the images.", low=8)
    tolerance: float = option(
        1e-3, "Maximum relative difference of results that must agree.", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        contest.names("methods", self.methods, MATCHING)
        lengths = contest.counts("dispatches", self.dispatches)
        if lengths[0] != 1 or any(max(lengths) % n for n in lengths):
            reason = "start with 1, and let each number divide the largest"
            raise FieldError("dispatches", self.dispatches, reason)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Outer steps per dispatch."""
        return contest.counts("dispatches", self.dispatches)


class Host:
    """A real set on the host that samples batches as `RealSet`s."""

    def __init__(self, real: RealSet, per_class: int):
        self._images, self._labels = np.asarray(real.images), np.asarray(real.labels)
        index, sizes = np.asarray(real.class_index), np.asarray(real.class_sizes)
        self._classes = [row[:size] for row, size in zip(index, sizes, strict=True)]
        self._transform, self._per_class = real.transform, per_class
        k = len(sizes)
        self._index = np.arange(k * per_class, dtype=np.int32).reshape(k, per_class)
        self._rng = np.random.default_rng(0)

    def batch(self) -> RealSet:
        """Samples images of every class with numpy."""
        num = self._per_class
        draw = self._rng.choice
        where = np.concatenate([draw(row, num, replace=False) for row in self._classes])
        return RealSet(
            self._images[where],
            self._labels[where],
            cast(Array, self._index),
            cast(Array, np.full(len(self._index), num, np.int32)),
            self._transform,
        )


def images(state: OuterState) -> np.ndarray:
    """Returns the distilled images."""
    return np.asarray(state.distilled.images)


def on_device(
    method: Method, length: int, start: OuterState, real: RealSet, keys: Key, name: str
) -> Contestant:
    """Returns the contestant with `length` steps per dispatch; its result is the state."""

    def many(keys: Key, state: OuterState, real: RealSet) -> OuterState:
        return jax.lax.scan(lambda s, k: (method.step(k, s, real)[0], None), state, keys)[0]

    parts = keys.reshape(-1, length)
    program = harness.compiled(many, parts[0], start, real)

    def work() -> OuterState:
        state = start
        for part in parts:
            state = jax.block_until_ready(program.call(part, state, real))
        return state

    about = {"method": name, "way": f"{length} a dispatch"} | program.record()
    return Contestant(work, about, keys.size, f"{name}, 1")


def fed(
    step: Callable[..., Any], start: OuterState, host: Host, keys: Key
) -> Callable[[], OuterState]:
    """Returns the work with one step per dispatch, each with a batch from the host."""

    def work() -> OuterState:
        state = start
        for key in keys:
            state = jax.block_until_ready(step(key, state, host.batch())[0])
        return state

    return work


def prepare(config: Config) -> dict[str, Contestant]:
    """Returns all contestants of all methods, checked against one step per dispatch."""
    made = problem.make(config)
    real = made.sources["real"]
    per_class = config.real_batch
    # A set of one batch: any sample of a step is the whole set.
    held = np.asarray(real.class_index)[:, :per_class].ravel()
    small = data.on_device(
        data.Split(np.asarray(real.images)[held], np.asarray(real.labels)[held]),
        real.transform,
        problem.NUM_CLASSES,
    )
    keys = jax.random.split(jax.random.key(1), max(config.lengths))
    found: dict[str, Contestant] = {}
    for name in contest.names("methods", config.methods, MATCHING):
        settings = METHODS[name].Config().replace({"real_batch": per_class})
        method = METHODS[name].make(settings, made.model)
        start = method.init(jax.random.key(0), made.start)
        ways = {
            f"{name}, {length}": on_device(method, length, start, real, keys, name)
            for length in config.lengths
        }
        moved = {n: images(way.work()) - images(start) for n, way in ways.items()}
        contest.same(moved, config.tolerance)
        step = harness.compiled(method.step, keys[0], start, small)
        passed = fed(step.call, start, Host(small, per_class), keys[:3])()
        expected = start
        for key in keys[:3]:
            expected = step.call(key, expected, small)[0]
        both = {"device": expected, "host": passed}
        moved = {f"{name}, {n}": images(s) - images(start) for n, s in both.items()}
        contest.same(moved, config.tolerance)
        ways[f"{name}, host"] = Contestant(
            fed(step.call, start, Host(real, per_class), keys),
            {"method": name, "way": "1 a dispatch, images from the host"} | step.record(),
            keys.size,
            f"{name}, 1",
        )
        found |= ways
    return found


COLUMNS = (
    Column("method", lambda r: r["method"], left=True),
    Column("outer steps", lambda r: r["way"], left=True),
    *contest.times("step"),
    contest.faster("1 a dispatch"),
    contest.COMPILE,
)


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return harness.markdown(COLUMNS, record["records"])


def run(config: Config) -> None:
    """Checks, measures, prints the table and writes the record."""
    harness.pin(config.threads)
    described = harness.described("dispatch", config)
    records = list(contest.timed(prepare(config), config.repeats).values())
    harness.show(harness.caption(described), COLUMNS, records)
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
