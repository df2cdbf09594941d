"""Compiles a program ahead of time and reads its record."""

import time
from typing import Any, NamedTuple

import jax

from benchmarks.ahead import hlo, targets, walk
from benchmarks.ahead.programs import PROGRAMS, Described, Sizes
from distilljax import platforms


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


def compiled(target: str, program: str, num: int, sizes: Sizes) -> Compiled:
    """Compiles a program of `PROGRAMS` for `num` devices.

    Raises:
      InputError: the compiler is not installed.
    """
    found = targets.devices(target)
    mesh = targets.mesh(found, num)
    with platforms.target(targets.TARGETS[target].platform):
        described = PROGRAMS[program](sizes, mesh)
        return lowered(target, described, targets.sharding(found, mesh))


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
