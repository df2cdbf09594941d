"""From the start of a command to its first outer step, with and without a cache.

    python -m benchmarks.start
    python -m benchmarks.start --works=main --repeats=9 --torch

Every turn is a process: `python -m experiments.distill` with a hook that ends it after the
first outer step. `cold` begins without compiled programs and `warm` with those of a turn
before; files are in the memory of the system in either. Both must find the same loss.

With `--torch` a process of plain PyTorch takes part: it is imported, takes arrays of the
same sizes from a file and one outer step (`benchmarks.torch_baseline.first`). It reads no
data set, checks no options, augments and records nothing, so it bounds from below what a
program of the peers takes. Its weights and images are others; `benchmarks.side_by_side`
compares its results.
"""

import dataclasses
import functools
import itertools
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks import cases, contest, ending, harness
from benchmarks.contest import Contestant
from benchmarks.harness import Column, Sample, figure
from distilljax import data
from distilljax.config import option
from distilljax.io.environment import children_cpu_seconds
from distilljax.methods import bptt, tm
from distilljax.types import InputError

COLD, WARM, TORCH = "cold", "warm", "PyTorch"
MAIN = "bptt"  # the method of the main job
WORKS = {"main": MAIN, "tm": "tm"}  # name -> method
# `harness.main` sets variables that a command would find.
_VARIABLES = {n: v for n, v in os.environ.items() if n != "JAX_COMPILATION_CACHE_DIR"}


@dataclasses.dataclass(frozen=True)
class Config(harness.Options):
    """Options of the benchmark."""

    works: str = option(",".join(WORKS), "What is started, separated by commas.")
    width: int = option(32, "Width of the ConvNet.", low=1)
    torch: bool = option(False, "Start PyTorch as well; needs the extra `torch`.")

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.names  # validates

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the works."""
        return contest.names("works", self.works, WORKS)


class Turn(NamedTuple):
    """What a process took to its first outer step, and the loss there."""

    sample: Sample
    loss: float


def _run(module: str, *words: str, caches: pathlib.Path) -> tuple[Sample, str]:
    """Runs a module in a process; returns its time and what it printed.

    Args:
      module: name of the module.
      words: its options.
      caches: folder for caches.

    Raises:
      InputError: it failed.
    """
    variables = _VARIABLES | {"XDG_CACHE_HOME": str(caches)}
    wall, cpu = time.perf_counter(), children_cpu_seconds()
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=harness.ROOT,
        env=variables,
        capture_output=True,
        text=True,
    )
    sample = Sample(time.perf_counter() - wall, children_cpu_seconds() - cpu)
    if done.returncode:
        raise InputError(f"{module} failed: {done.stderr.strip()[-300:]}")
    return sample, done.stdout


def _turn(
    kind: str, words: tuple[str, ...], folder: pathlib.Path, numbers: Iterator[int]
) -> Turn:
    """Starts a command and ends it after its first outer step."""
    caches = folder / "caches" / kind
    if kind == COLD:
        shutil.rmtree(caches, ignore_errors=True)
    caches.mkdir(parents=True, exist_ok=True)
    sample, printed = _run(
        "experiments.distill",
        *words,
        f"--hook={ending.__name__}:end",
        f"--workdir={folder / f'run{next(numbers)}'}",
        caches=caches,
    )
    told = json.loads(printed.splitlines()[-1])
    if told["step"] != 1:
        raise InputError(f"the command was ended after outer step {told['step']}, not 1")
    return Turn(sample, told["loss"])


def _experts(config: Config, folder: pathlib.Path) -> pathlib.Path:
    """Trains an expert of as many epochs as `tm` asks for."""
    defaults, place = tm.Config(), folder / "experts"
    _run(
        "experiments.train_experts",
        "--experts=1",
        f"--epochs={defaults.max_start + defaults.expert_epochs}",
        f"--convnet.width={config.width}",
        f"--workdir={place}",
        caches=folder / "caches" / "experts",
    )
    return place


def write_arrays(method: str, config: Config, path: pathlib.Path) -> None:
    """Writes the arrays of an outer step of the sizes that the command has."""
    size, _, channels = data.load("embedded").train.images.shape[1:]
    defaults = {"tm": tm.Config().student_steps, MAIN: bptt.Config().unroll}
    sizes = cases.Sizes(
        ipc=1,
        width=config.width,
        size=size,
        channels=channels,
        unroll=defaults[method],
    )
    with path.open("wb") as file:
        pickle.dump(cases.make([method], sizes)[method].given, file)


def measure(config: Config) -> list[dict[str, Any]]:
    """Returns a record for each work and kind of start."""
    with tempfile.TemporaryDirectory() as made:
        folder, numbers = pathlib.Path(made), itertools.count()
        contestants = {}
        for work in config.names:
            method = WORKS[work]
            words: tuple[str, ...] = (f"--convnet.width={config.width}",)
            if method != MAIN:
                words += f"--method={method}", f"--experts_dir={_experts(config, folder)}"
            turn = functools.partial(_turn, words=words, folder=folder, numbers=numbers)
            # The second turn fills its cache.
            first = {kind: turn(kind) for kind in (COLD, WARM)}
            contest.same({kind: one.loss for kind, one in first.items()}, tolerance=0.0)
            starts = {
                kind: functools.partial(lambda turn, kind: turn(kind).sample, turn, kind)
                for kind in (COLD, WARM)
            }
            if config.torch:
                path = folder / f"{work}.pickle"
                write_arrays(method, config, path)
                starts[TORCH] = functools.partial(_in_torch, method, path)
            for kind, start in starts.items():
                about = {"work": work, "start": kind}
                theirs = config.torch and kind != TORCH
                contestants[f"{work}, {kind}"] = Contestant(
                    start, about, against=f"{work}, {TORCH}" if theirs else None
                )
        clocks = {name: one.work for name, one in contestants.items()}
        samples = harness.interleave(clocks, config.repeats)
    return list(contest.records(contestants, samples).values())


def _in_torch(method: str, path: pathlib.Path) -> Sample:
    words = (f"{path}", method)
    return _run("benchmarks.torch_baseline.first", *words, caches=path.parent)[0]


COLUMNS = (
    Column("command", lambda r: r["work"], left=True),
    Column("start", lambda r: r["start"], left=True),
    Column("s to the first outer step", lambda r: figure(r["wall_seconds"]["median"])),
    Column("quartiles", lambda r: harness.quartiles(r["wall_seconds"])),
    Column("CPU s", lambda r: figure(r["cpu_seconds"]["median"])),
    contest.faster(TORCH),
)


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return harness.markdown(COLUMNS, record["records"])


def run(config: Config) -> None:
    """Checks, measures, prints the table and writes the record."""
    versions = harness.need("torch") if config.torch else {}
    harness.pin(config.threads)
    described = harness.described("start", config)
    described["environment"] |= versions
    records = measure(config)
    harness.show(harness.caption(described), COLUMNS, records)
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
