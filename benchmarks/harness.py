"""Measurement tools: clocks, memory, FLOPs, ceilings, records and tables.

Contestants are measured in one run in interleaved rounds, so that a ratio compares medians
under the same conditions. Compile time is separate from run time, a clock stops when the
result is ready, and the first round is a warm-up.
"""

import ctypes
import dataclasses
import datetime
import gc
import importlib.metadata
import importlib.util
import math
import multiprocessing
import os
import pathlib
import platform
import re
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr
from rich import box
from rich.console import Console
from rich.table import Table

from distilljax import launch
from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.disk.files import write_json
from distilljax.io.environment import environment
from distilljax.types import Array, InputError

ROOT = pathlib.Path(__file__).parents[1]
# Options with paths of this machine.
PLACES = ("json", "plot", "data_dir", "out", "exported")
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Options(Base):
    """Options of every timed benchmark."""

    repeats: int = option(5, "Timed rounds, after one warm-up round.", low=1)
    threads: int | None = option(
        None, "Number of CPU cores for all contestants; none: all of this process.", low=1
    )
    json: str | None = option(None, "File for the records.")


# Clocks


class Sample(NamedTuple):
    """One timed run."""

    wall: float  # seconds
    cpu: float  # seconds, summed over all threads of the working process


def clock(work: Callable[[], Any]) -> Sample:
    """Times one call of `work`, until its result is ready."""
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(work())
    return Sample(time.perf_counter() - wall, time.process_time() - cpu)


def interleave(
    contestants: Mapping[str, Callable[[], Sample]], repeats: int, warm_ups: int = 1
) -> dict[str, list[Sample]]:
    """Runs rounds of all contestants; each round starts with the next contestant.

    Args:
      contestants: name -> function that runs once and returns its time.
      repeats: number of timed rounds.
      warm_ups: number of warm-up rounds before them.

    Returns:
      Name -> one sample per round.
    """
    names = list(contestants)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for turn in range(-warm_ups, repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            sample = contestants[name]()
            if turn >= 0:
                samples[name].append(sample)
    return samples


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Returns median, minimum, quartiles, and the values in order of measurement."""
    least, q1, median, q3 = np.percentile(values, [0, 25, 50, 75]).tolist()
    return {"median": median, "min": least, "q1": q1, "q3": q3, "values": [*values]}


def summary(samples: Sequence[Sample], per: int = 1) -> dict[str, Any]:
    """Returns the `spread` of wall and CPU seconds per unit, `per` units a run."""
    return {
        f"{name}_seconds": spread([getattr(sample, name) / per for sample in samples])
        for name in Sample._fields
    }


def ratio(theirs: Sequence[Sample], ours: Sequence[Sample]) -> dict[str, Any]:
    """Returns the ratio of their time to ours by both clocks, from one `interleave`.

    Returns:
      Clock -> `of_medians`, and the quartiles of the ratios within rounds.
    """
    found = {}
    for name in Sample._fields:
        a, b = (np.array([getattr(s, name) for s in side]) for side in (theirs, ours))
        q1, q3 = np.percentile(a / b, [25, 75]).tolist()
        of_medians = float(np.median(a) / np.median(b))
        found[name] = {"of_medians": of_medians, "q1": q1, "q3": q3}
    return found


# Programs


class Program(NamedTuple):
    """A compiled function with its compile time and memory."""

    call: Callable[..., Any]
    trace_seconds: float  # tracing and lowering
    compile_seconds: float
    temporary_bytes: int  # temporary memory reported by XLA, without arguments and results

    def record(self) -> dict[str, Any]:
        """Returns all fields but the function."""
        return {n: v for n, v in self._asdict().items() if n != "call"}


def compiled(function: Callable[..., Any], *args: Any) -> Program:
    """Compiles a function for the shapes of `args`.

    The compile time is valid only without a compilation cache, as under `main`.
    """
    began = time.perf_counter()
    lowered = jax.jit(function).lower(*args)
    traced = time.perf_counter()
    program = lowered.compile()
    return Program(
        program,
        traced - began,
        time.perf_counter() - traced,
        cast(Any, program.memory_analysis()).temp_size_in_bytes,
    )


def flops(function: Callable[..., Any], *args: Any) -> int:
    """Returns the FLOPs of the matrix products and convolutions of a function.

    Counted from its jaxpr without dead code: two per multiply-add, including those with
    padded zeros; the body of a scan times its length, and the most expensive branch of a
    condition. Elementwise operations are not counted. (XLA's cost analysis counts the body
    of a loop once.)

    Raises:
      InputError: products in a loop of unknown length.
    """
    closed = jax.make_jaxpr(function)(*args)
    jaxpr, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return _flops(jaxpr)


def _flops(jaxpr: Jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        given, found = ([cast(Any, x.aval) for x in xs] for xs in (eqn.invars, eqn.outvars))
        name = eqn.primitive.name
        inner = [_flops(part) for part in jaxprs_in_params(eqn.params)]
        if name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            terms = math.prod(given[0].shape[axis] for axis in contracted)
            total += 2 * found[0].size * terms
        elif name == "conv_general_dilated":
            kernel = given[1]
            outputs = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * found[0].size * (kernel.size // outputs)
        elif name == "scan":
            total += eqn.params["length"] * sum(inner)
        elif name == "cond":
            total += max(inner)
        elif name == "while" and any(inner):
            raise InputError("FLOPs in a loop of unknown length cannot be counted")
        else:
            total += sum(inner)
    return total


# Memory


def resident(field: str) -> int | None:
    """Returns resident bytes of this process: `VmRSS` now, or `VmHWM`, the peak.

    None if the system is not Linux.
    """
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return None
    (found,) = re.findall(rf"^{field}:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    return int(found) * 1024


M_MMAP_THRESHOLD = -3  # parameter of glibc's mallopt


def growth(work: Callable[[], Any]) -> int | None:
    """Returns the peak growth of this process while `work` runs, in bytes; None if unknown.

    From the first call on, allocations of 64 KiB or more are mapped from the system and
    returned to it when freed, so that memory freed by earlier work does not hide the
    growth. Allocations become slower: call it after all timings.
    """
    libc = ctypes.CDLL(None)
    if resident("VmRSS") is None or not hasattr(libc, "mallopt"):
        return None
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)
    gc.collect()
    libc.malloc_trim(0)
    try:
        # 5 resets the peak to the current size: man 5 proc_pid_clear_refs.
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = resident("VmRSS")
    jax.block_until_ready(work())
    return (resident("VmHWM") or 0) - (before or 0)


# Another process


class Remote:
    """Works in a separate process that measures itself; a context manager.

    The process sleeps between requests. It inherits the CPU affinity of this process, so
    call `pin` first.

    Args:
      make: module-level function, (*args) -> works by name, functions without arguments and
        with picklable results.
      args: picklable arguments.

    Raises:
      RuntimeError: a failure in the other process, with its traceback; also in all methods.
    """

    def __init__(self, make: Callable[..., Mapping[str, Callable[[], Any]]], *args: Any):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, make, args), daemon=True
        )
        self._process.start()
        theirs.close()
        self._answer()

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()

    def call(self, name: str) -> Any:
        """Runs a work and returns its result."""
        return self._ask("call", name)

    def clock(self, name: str) -> Sample:
        """Runs a work and returns its time in the other process."""
        return self._ask("clock", name)

    def growth(self, name: str) -> int | None:
        """Runs a work and returns the growth of the other process, see `growth`."""
        return self._ask("growth", name)

    def _ask(self, *request: str) -> Any:
        self._connection.send(request)
        return self._answer()

    def _answer(self) -> Any:
        try:
            failed, value = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(
                f"the other process ended with code {self._process.exitcode}"
            ) from None
        if failed:
            raise RuntimeError(f"in the other process: {value}")
        return value


def _serve(connection: Any, make: Callable[..., Any], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # this process ends with its parent
    instruments: dict[str, Callable[..., Any]] = {
        "call": lambda work: work(),
        "clock": clock,
        "growth": growth,
    }
    works: Any = None
    request: tuple[str, str] | None = None
    while True:
        try:
            if request is None:
                works, value = make(*args), None
            else:
                instrument, name = request
                value = instruments[instrument](works[name])
            connection.send((False, value))
        except Exception:
            connection.send((True, traceback.format_exc()))
        try:
            request = connection.recv()
        except EOFError:
            return


def pin(threads: int | None) -> int:
    """Pins this process and its later children to its first `threads` cores.

    XLA and PyTorch start a thread for each available core, so call this before the first
    array.

    Returns:
      The number of cores.

    Raises:
      InputError: not supported by the system, or fewer cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        if threads is None:
            return os.cpu_count() or 1
        raise InputError(f"threads={threads}: this system cannot keep a process to cores")
    cores = sorted(os.sched_getaffinity(0))
    if threads is None:
        return len(cores)
    if threads > len(cores):
        raise InputError(f"threads={threads}: this process has {len(cores)} cores")
    os.sched_setaffinity(0, cores[:threads])
    return threads


# Ceilings


def factor() -> tuple[Array, int]:
    """Returns a large square float32 matrix, and the FLOPs of its product with itself."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    return jnp.full((side, side), 0.5), 2 * side**3


def product() -> tuple[Callable[[], Any], int]:
    """Returns a large matrix product and its FLOPs."""
    matrix, num_flops = factor()
    program = jax.jit(jnp.matmul)
    return lambda: program(matrix, matrix), num_flops


def copy(num_bytes: int = 256 * MIB) -> tuple[Callable[[], Any], int]:
    """Returns an in-place increment of `num_bytes`, and the bytes read and written."""
    raised = jax.jit(lambda x: x + 1, donate_argnums=0)
    held = [jnp.zeros(num_bytes // 4, jnp.float32)]

    def work() -> Any:
        held[0] = raised(held[0])
        return held[0]

    return work, 2 * num_bytes


# Records


def commit() -> str | None:
    """Returns the commit of the source, with `-dirty` if tracked files differ."""
    command = ("git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=10")
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def processor() -> str:
    """Returns the model name of the processor."""
    info = pathlib.Path("/proc/cpuinfo")
    found = (
        re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if (info.exists())
        else []
    )
    return found[0].strip() if found else platform.processor() or platform.machine()


def described(name: str, config: Base) -> dict[str, Any]:
    """Returns the provenance of a record, without paths of this machine.

    Args:
      name: module name of the benchmark.
      config: its options.
    """
    settings = {n: v for n, v in config.to_dict().items() if n not in PLACES}
    machine = environment() | {
        "processor": processor(),
        "load": round(os.getloadavg()[0], 2),  # average of the last minute
    }
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "command": launch.command_line(
            f"benchmarks.{name}", type(config).from_dict(settings)
        ),
        "config": settings,
        "environment": machine,
    }


def need(*packages: str) -> dict[str, str]:
    """Returns the versions of packages of the extra `torch`.

    Raises:
      InputError: a package is not installed.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"{package} is not installed; install the extra `torch`: "
                "pip install -e '.[torch]'"
            )
    return {package: importlib.metadata.version(package) for package in packages}


def write(path: str | None, record: Mapping[str, Any]) -> None:
    """Writes a record as JSON if a path is given."""
    if path:
        place = pathlib.Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, dict(record))


# Tables


class Column(NamedTuple):
    """A column of a table of records."""

    heading: str
    cell: Callable[[Mapping[str, Any]], Any]  # record -> value, shown by str
    left: bool = False  # left-aligned text; numbers are right-aligned


def show(title: str | None, columns: Sequence[Column], records: Iterable[Any]) -> None:
    """Prints a table with a row for each record."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        justify: Literal["left", "right"] = "left" if column.left else "right"
        table.add_column(column.heading, justify=justify, no_wrap=True)
    for record in records:
        table.add_row(*(str(column.cell(record)) for column in columns))
    # No width limit in a file; a terminal may break lines, but no cell is truncated.
    Console(width=500, soft_wrap=True).print(table)


def markdown(columns: Sequence[Column], records: Iterable[Any]) -> str:
    """Returns the same table in Markdown, without a trailing line break."""
    rows = [
        [column.heading for column in columns],
        ["---" if column.left else "---:" for column in columns],
        *([str(column.cell(record)) for column in columns] for record in records),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def caption(record: Mapping[str, Any]) -> str:
    """Returns the provenance of a record as one sentence."""
    environment = record["environment"]
    threads = environment["threads"]
    where = environment["processor"]
    if "cpu" not in environment["device"]:
        where = f"{environment['device']}, {where}"
    versions = [f"{n} {environment[n]}" for n in ("jax", "torch") if n in environment]
    return ", ".join(
        [
            where,
            f"{threads} thread{'s' * (threads != 1)}",
            *versions,
            record["date"],
            f"commit {record['commit'] or 'unknown'}",
            f"`{record['command']}`",
        ]
    )


def fill(text: str, name: str, content: str) -> str:
    """Replaces the text between `<!-- table: NAME -->` and the next `<!-- end -->`.

    Raises:
      InputError: the text has no such markers, or several.
    """
    place = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)", re.S)
    if len(place.findall(text)) != 1:
        raise InputError(f"expected one <!-- table: {name} --> with its <!-- end -->")
    return place.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)


def figure(value: float | None, digits: int = 3) -> str:
    """Formats a number to `digits` digits without exponent; a dash for None."""
    if value is None:
        return "-"
    if not value:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, decimals):,.{max(0, decimals)}f}"


def quartiles(found: Mapping[str, Any]) -> str:
    """Formats the quartiles of a `spread`, such as 0.41-0.43."""
    return f"{figure(found['q1'])}-{figure(found['q3'])}"


def mib(num_bytes: int | None) -> str:
    """Formats bytes in MiB to three digits."""
    return figure(None if num_bytes is None else num_bytes / MIB)


def main(config_class: type[Any], run: Callable[[Any], None]) -> None:
    """Runs `launch.main` without compilation cache, since compile times are measured."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = ""
    jax.config.update("jax_compilation_cache_dir", None)
    launch.main(config_class, run)
