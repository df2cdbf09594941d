"""Command-line programs: a `Config` becomes absl flags.

An experiment defines a `Config` and a function `run(config)`; its command calls

    launch.main(Config, run)

`python -m experiments.NAME --help` then lists every option, see `distilljax.flags`.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol, TextIO, runtime_checkable

import jax

from distilljax import platforms, processes, terminal
from distilljax.config import Config
from distilljax.disk.files import NO_SPACE, UNUSABLE, advice
from distilljax.flags import (
    AnyConfig,
    Presets,
    command_line,
    flatten,
    help_text,
    message,
    parse,
    parse_many,
)
from distilljax.flags import program as program_of
from distilljax.types import InputError

__all__ = [
    "command_line",
    "enable_compilation_cache",
    "flatten",
    "help_text",
    "main",
    "only_cpu",
    "parse",
    "parse_many",
    "printable",
]

_LEAST_SECONDS = "jax_persistent_cache_min_compile_time_secs"


def main(
    config_class: type[AnyConfig],
    run: Callable[[AnyConfig], object],
    *,
    module: str | None = None,
    summary: str | None = None,
    presets: Presets | None = None,
    several: Callable[[Mapping[str, AnyConfig]], object] | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """Parses the command line, then calls `run`.

    A mistake of the user, a full disk, a place that cannot be read or written and memory
    that runs out end the program with one line on stderr and exit code 2, an interruption
    (Ctrl-C or SIGTERM) with exit code 130; any other exception keeps its traceback. Output
    that is closed, as by `| head`, does not stop the run.

    Args:
      config_class: the options; see `parse`.
      run: the experiment; its result is dropped.
      module: name behind `python -m`, for the usage line; that of the program if absent.
      summary: text whose first line says what the program does; the program's docstring
        if absent.
      presets: named settings that `--preset` chooses from; see `parse`.
      several: runs several configurations, by name, for `--seeds=0,1,2` and
        `--sweep.FLAG=a,b`; see `parse_many`. Without it there are no such flags.
      argv: arguments after the program name; None for those of the process.

    Raises:
      SystemExit: after an `InputError`. An interruption ends the process.
    """
    argv = sys.argv[1:] if argv is None else argv
    # SIGTERM, as from a job scheduler, ends a run like Ctrl-C: after a checkpoint.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout, sys.stderr = _Output.of(sys.stdout), _Output.of(sys.stderr)
    try:
        if {"--help", "-h", "--helpfull"} & set(argv):
            program = sys.modules["__main__"]
            named = module or (program.__spec__.name if program.__spec__ else None)
            text = summary or program.__doc__ or ""
            width = min(100, shutil.get_terminal_size((100, 24)).columns)
            print(
                help_text(
                    config_class,
                    program=" ".join(
                        program_of(named) if named else ["python", sys.argv[0]]
                    ),
                    summary=text.strip().partition("\n")[0],
                    presets=presets,
                    several=several is not None,
                    argv=None if "--helpfull" in argv else argv,
                    width=width,
                )
            )
            return
        many = None
        if several is not None:
            many = parse_many(config_class, argv, presets=presets)
        config = None if many else parse(config_class, argv, presets=presets)
        enable_compilation_cache()
        terminal.join([config] if config else list((many or {}).values()))
        sys.stdout, sys.stderr = _Output.of(sys.stdout), _Output.of(sys.stderr)
        _use_cores([config] if config else list((many or {}).values()))
        _start_jax()
        if several is not None and many:
            several(many)
        elif config is not None:
            run(config)
        processes.leave()
    except InputError as error:
        _refuse(message(error), error)
    except MemoryError as error:
        text = f"out of memory ({error}); choose smaller sizes, or a larger machine"
        _refuse(text, error)
    except OSError as error:
        if cause := _among(NO_SPACE, error):
            place = f" at {error.filename}" if error.filename else ""
            mend = advice(cause)
        elif error.filename and error.errno in UNUSABLE:
            cause = error
            place = f": {os.fsdecode(error.filename2 or error.filename)}"
            mend = "it can be neither read nor written; mend or move it"
        else:
            _fail(error)
        what = os.strerror(cause.errno or 0)
        what = f"{what[0].lower()}{what[1:]}{place}"
        _refuse(f"{what}; {mend}, the same command goes on", error)
    except KeyboardInterrupt as error:
        interrupted(error)
    except Exception as error:
        _fail(error)


def _refuse(text: str, error: BaseException) -> NoReturn:
    text = printable(" ".join(text.splitlines()))
    if processes.count() > 1:
        terminal.end(2, text, error)
    print("error:", text, file=sys.stderr)
    sys.exit(2)


def _fail(error: Exception) -> NoReturn:
    """Ends on an exception that is no user's mistake: one of several at once."""
    if processes.count() == 1:
        raise error
    if terminal.lost(error):
        terminal.end(3, terminal.LOST, error)
    terminal.end(1, None, error)


def _among(numbers: Sequence[int], error: BaseException | None) -> OSError | None:
    """Returns the error of such a number among an error and those that led to it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in numbers:
            return error
        error = error.__cause__ or error.__context__
    return None


def interrupted(error: KeyboardInterrupt) -> NoReturn:
    """Ends the process after Ctrl-C or SIGTERM, with exit code 130."""
    print("interrupted; run the same command again to resume", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    terminal.said()
    terminal.wait(error)
    # A program that XLA still compiles or runs does not survive an orderly exit.
    os._exit(130)


def printable(text: str) -> str:
    """Returns a text whose control characters are spelt out, safe on a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode()
        for c in text
    )


class _Output:
    """A text stream that outlives its reader: what cannot be written is dropped.

    Characters that the stream has no code for are spelt out.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    @classmethod
    def of(cls, stream: TextIO) -> Any:
        """Returns the guarded stream, once."""
        return stream if isinstance(stream, cls) else cls(stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text as far as the stream takes it."""
        try:
            return self._stream.write(text)
        except OSError:
            return self._close(len(text))

    def flush(self) -> None:
        """Flushes the stream as far as it can be."""
        try:
            self._stream.flush()
        except OSError:
            self._close(0)

    def _close(self, length: int) -> int:
        # The buffer holds text still; it must not be tried again when Python ends.
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError):
            pass
        return length


def _use_cores(configs: Sequence[Config]) -> None:
    """Makes CPU cores devices where there is nothing else and the options want several.

    Options want as many as their method `devices_of_cores` returns, one without it. What
    `XLA_FLAGS` or `JAX_NUM_CPU_DEVICES` say is left alone.
    """
    flag = "--xla_force_host_platform_device_count"
    asked = flag in os.environ.get("XLA_FLAGS", "") or "JAX_NUM_CPU_DEVICES" in os.environ
    if asked or not only_cpu():
        return
    wanted = [c.devices_of_cores() for c in configs if isinstance(c, _MakesDevices)]
    if (num := min(max(wanted, default=1), platforms.cpu_threads())) > 1:
        with contextlib.suppress(RuntimeError):  # JAX has started, with the devices it has
            jax.config.update("jax_num_cpu_devices", num)


@runtime_checkable
class _MakesDevices(Protocol):
    def devices_of_cores(self) -> int: ...


def _start_jax() -> None:
    """Starts JAX on its devices.

    Raises:
      InputError: there are no devices as the environment asks for them, or programs are
        not to be compiled.
    """
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        raise InputError(
            "JAX_DISABLE_JIT is set, and commands compile their programs ahead of time; "
            "unset it"
        )
    try:
        jax.devices()
    except (RuntimeError, AssertionError, ValueError) as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        if num := os.environ.get("JAX_NUM_CPU_DEVICES"):
            first += f"; JAX_NUM_CPU_DEVICES={num}"
        raise InputError(
            f"JAX finds no device with JAX_PLATFORMS={asked!r} ({first}); unset it, or set "
            "it to cpu, cuda or tpu, with its plugin installed"
        ) from None


def only_cpu() -> bool:
    """Returns whether the CPU is the only device, without starting JAX.

    True if no JAX plugin provides another device, or if `JAX_PLATFORMS` selects the CPU.
    """
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        return True
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not (plugins or importlib.util.find_spec("libtpu"))


def enable_compilation_cache() -> None:
    """Caches compiled programs in the user's cache directory.

    Sets JAX's global configuration. `JAX_COMPILATION_CACHE_DIR` in the environment takes
    precedence; if empty, there is no cache. If the directory is not writable, there is a
    warning and no cache. Every kind of processor has a directory of its own, for its
    programs do not run on others. Small programs are cached too, unless
    `JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS` says otherwise: a command begins with
    dozens of them.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        directory = pathlib.Path(caches, "distilljax", "xla", _processor())
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory.
        print(
            f"warning: programs are compiled anew at each start: {error}", file=sys.stderr
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    if _LEAST_SECONDS.upper() not in os.environ:
        jax.config.update(_LEAST_SECONDS, 0.0)


def _processor() -> str:
    """Returns a name for the instructions that the processor has."""
    found = platform.machine()
    with contextlib.suppress(OSError):
        text = pathlib.Path("/proc/cpuinfo").read_text()
        flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
        found += " ".join(sorted(flags[1].split())) if flags else platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(found.encode()).hexdigest()[:12]}"
