"""Runs tests of a copy of the repository, each time in a process of their own."""

import contextlib
import json
import multiprocessing
import os
import pathlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

# Imported once, before the tests of any mutant.
PRELOADED = ("jax", "flax.linen", "optax", "scipy.stats", "orbax.checkpoint", "pytest")
MEASURED = ("distilljax", "experiments")
_PROCESSES = multiprocessing.get_context("forkserver")


class Ended(NamedTuple):
    """The end of a run of tests."""

    how: Literal["passed", "failed", "timeout"]
    seconds: float
    output: str


class Measured(NamedTuple):
    """What the tests of a file do, unchanged."""

    seconds: dict[str, float]  # test, without its parameters -> of all of them
    lines: dict[str, dict[int, list[str]]]  # module -> line -> tests that run it

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> "Measured":
        """Returns what `json` made of the fields: its names are text."""
        lines = {
            module: {int(line): tests for line, tests in found.items()}
            for module, found in held["lines"].items()
        }
        return cls(held["seconds"], lines)


def prepare(cache: pathlib.Path) -> None:
    """Settles what must be known before JAX is imported; compiled programs are shared."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    _PROCESSES.set_forkserver_preload([__name__, *PRELOADED])


def run_tests(folder: pathlib.Path, tests: Sequence[str], seconds: float) -> Ended:
    """Runs tests in a copy until the first failure."""
    return _run(_tests, folder, tests, seconds)


def measure_tests(folder: pathlib.Path, path: str) -> Measured:
    """Runs the tests of a file, and finds their times and the lines that they run.

    Raises:
      RuntimeError: a test fails.
    """
    ended = _run(_measured_tests, folder, [path], 3600)
    if ended.how != "passed":
        raise RuntimeError(f"{path} fails unchanged:\n{ended.output}")
    return Measured.from_json(json.loads((folder / "measured.json").read_text()))


def _run(
    target: Callable[..., None], folder: pathlib.Path, tests: Sequence[str], seconds: float
) -> Ended:
    began, output = time.monotonic(), folder / "tests.txt"
    process = _PROCESSES.Process(
        target=target, args=(str(folder), list(tests), str(output))
    )
    process.start()
    process.join(seconds)
    late = process.is_alive()
    if late:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
    how: Literal["passed", "failed", "timeout"] = "failed" if process.exitcode else "passed"
    text = output.read_text(errors="replace") if output.exists() else ""
    return Ended("timeout" if late else how, time.monotonic() - began, text)


def _enter(folder: str, output: str) -> None:
    os.setsid()
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    sys.path[0] = folder
    sys.dont_write_bytecode = True
    # This module is the work tree's; the tests are those of the copy.
    for name in [n for n in sys.modules if n.split(".")[0] == "tests"]:
        del sys.modules[name]


def _pytest(tests: Sequence[str], plugins: Sequence[Any] = ()) -> int:
    import pytest

    options = ["-q", "-x", "-n0", "-p", "no:cacheprovider", "--tb=line", *tests]
    code = pytest.main(options, plugins=list(plugins))
    sys.stdout.flush()
    # Tests that are all skipped notice nothing.
    return 0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else int(code)


def _tests(folder: str, tests: Sequence[str], output: str) -> None:
    _enter(folder, output)
    os._exit(_pytest(tests))


class _Seconds:
    """Sums the times of tests: a plugin of pytest."""

    def __init__(self) -> None:
        self.of = Counter[str]()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Adds the time of setting up, calling or tearing down."""
        self.of[report.nodeid.partition("[")[0]] += report.duration


def _measured_tests(folder: str, tests: Sequence[str], output: str) -> None:
    _enter(folder, output)
    import coverage

    traced = coverage.Coverage(
        data_file=None, config_file=False, source=[f"{folder}/{name}" for name in MEASURED]
    )
    traced.set_option("run:dynamic_context", "test_function")
    traced.start()
    seconds = _Seconds()
    code = _pytest(tests, [seconds])
    traced.stop()
    found = traced.get_data()
    # A context is module.function, or module.class.function.
    names = {test.removesuffix(".py").replace("/", "."): test for test in tests}
    lines: dict[str, dict[int, list[str]]] = {}
    for path in found.measured_files():
        held = lines[os.path.relpath(path, folder)] = {}
        for line, contexts in found.contexts_by_lineno(path).items():
            held[line] = sorted(
                "::".join([file, *context.removeprefix(f"{name}.").split(".")])
                for context in contexts
                for name, file in names.items()
                if context.startswith(f"{name}.")
            )
    with open("measured.json", "w") as file:
        json.dump({"seconds": dict(seconds.of), "lines": lines}, file)
    os._exit(code)
