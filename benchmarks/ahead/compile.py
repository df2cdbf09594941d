"""Compiles a program ahead of time and reads its record."""

import contextlib
import multiprocessing
import pathlib
import resource
import signal
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import jax
from jax import export

from benchmarks.ahead import hlo, targets, walk
from benchmarks.ahead.programs import PROGRAMS, Described, Sizes
from distilljax import platforms
from distilljax.types import InputError


class Compiled(NamedTuple):
    """What a compiler gives.

    Attributes:
      text: the optimised program.
      memory: bytes by kind, of one device.
      seconds: CPU time of tracing and lowering, and of compiling.
      unknown_trips: see `programs.Described`.
    """

    text: str
    memory: dict[str, int]
    seconds: tuple[float, float]
    unknown_trips: float | None


def compiled(
    target: str,
    program: str,
    num: int,
    sizes: Sizes,
    exported: pathlib.Path | None = None,
) -> Compiled:
    """Compiles a program of `PROGRAMS`.

    Args:
      target: name of the devices.
      program: name of the program.
      num: number of devices.
      sizes: sizes of the program.
      exported: folder with programs of `jax.export` in place of `PROGRAMS`, for one device,
        as PROGRAM.PLATFORM.

    Raises:
      InputError: the compiler is not installed, or there is no such program.
    """
    found = targets.devices(target)
    mesh = targets.mesh(found, num)
    platform = targets.TARGETS[target].platform
    with platforms.target(platform):
        described = PROGRAMS[program](sizes, mesh)
        if exported is not None:
            kept = described_in(exported / f"{program}.{platform}")
            described = kept._replace(unknown_trips=described.unknown_trips)
        return lowered(target, described, targets.sharding(found, mesh))


def described_in(path: pathlib.Path) -> Described:
    """Returns a program that `jax.export` has written, for one device.

    Raises:
      InputError: there is no such program.
    """
    try:
        found = export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:  # whatever flatbuffers or XLA find
        raise InputError(f"{path}: no program of jax.export ({error})") from error
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in found.in_avals]
    args, _ = jax.tree.unflatten(found.in_tree, shapes)
    return Described(found.call, args)


def lowered(target: str, described: Described, place: Any) -> Compiled:
    """Compiles a described program with arguments and results at `place`."""
    args = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), described.args
    )
    with platforms.target(targets.TARGETS[target].platform):
        began = time.process_time()
        program = jax.jit(described.function, out_shardings=place).lower(*args)
        between = time.process_time()
        made = program.compile(compiler_options=targets.options(target))
        ended = time.process_time()
    memory: Any = made.memory_analysis()
    return Compiled(
        made.as_text() or "",
        {
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
        },
        (between - began, ended - between),
        described.unknown_trips,
    )


def record(target: str, program: str, num: int, found: Compiled) -> dict[str, Any]:
    """Returns the record of a compiled program, of one of its devices."""
    speed = targets.TARGETS[target].speed
    counted = walk.count(hlo.parse(found.text), speed, found.unknown_trips)
    cycles = counted.total.cycles
    return {
        "compiled": "compiled, not run",
        "target": target,
        "program": program,
        "devices": num,
        "bytes": found.memory,
        "lower_cpu_seconds": round(found.seconds[0], 2),
        "compile_cpu_seconds": round(found.seconds[1], 2),
        "unknown_trips": found.unknown_trips,
        "estimated_seconds": cycles / speed.clock if speed.clock else None,
        **counted.record(),
    }


class Refused(Exception):
    """A compiler has not compiled a program; the message says why."""


def limited(seconds: int, *args: Any) -> dict[str, Any]:
    """Returns the record of a program that is compiled in a process of its own.

    Args:
      seconds: most CPU time of the process.
      *args: see `compiled`.

    Raises:
      Refused: the compiler has refused the program, or needs longer.
      InputError: see `compiled`.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, seconds, args))
    process.start()
    theirs.close()
    try:
        kind, value = ours.recv()
    except EOFError:  # it was ended from outside
        kind, value = "ended", None
    process.join()
    if kind == "record":
        return value
    if kind == "input":
        raise InputError(value)
    if kind == "refused":
        raise Refused(value)
    if process.exitcode == -signal.SIGXCPU:
        raise Refused(f"not within {seconds:,} CPU s")
    if process.exitcode == -signal.SIGKILL:
        raise Refused("the compiler was killed, as happens when memory is full")
    raise RuntimeError(value or f"the compiler's process has ended with {process.exitcode}")


def _work(out: Connection, seconds: int, args: tuple[Any, ...]) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, most))
    found = _outcome(args)
    with contextlib.suppress(BrokenPipeError):  # who asked has ended
        out.send(found)


def _outcome(args: tuple[Any, ...]) -> tuple[str, Any]:
    target, program, num, *_ = args
    try:
        return "record", record(target, program, num, compiled(*args))
    except InputError as error:
        return "input", str(error)
    except jax.errors.JaxRuntimeError as error:
        return "refused", str(error).strip().partition("\n")[0][:300]
    except Exception:
        return "error", traceback.format_exc()
