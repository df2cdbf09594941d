"""Runs tests of a copy of the repository, each time in a process of their own."""

import contextlib
import multiprocessing
import os
import pathlib
import re
import signal
import sys
from collections.abc import Sequence
from typing import Literal, NamedTuple

# Imported once, before the tests of any mutant.
PRELOADED = ("jax", "flax.linen", "optax", "scipy.stats", "orbax.checkpoint", "pytest")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/[^\s:]+\.py(?:::\w+)*)", re.MULTILINE)
_PROCESSES = multiprocessing.get_context("forkserver")


class Ended(NamedTuple):
    """The end of a run of tests."""

    how: Literal["passed", "failed", "timeout"]
    output: str

    def blamed(self) -> str | None:
        """Returns the test, or the file, that failed, without its parameters."""
        found = _FAILED.search(self.output)
        return found[1] if found else None


def prepare(cache: pathlib.Path) -> None:
    """Settles what must be known before JAX is imported; compiled programs are shared."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    _PROCESSES.set_forkserver_preload([__name__, *PRELOADED])


def run_tests(folder: pathlib.Path, tests: Sequence[str], seconds: float) -> Ended:
    """Runs tests, or what else pytest takes, in a copy until the first failure."""
    output = folder / "tests.txt"
    process = _PROCESSES.Process(
        target=_tests, args=(str(folder), list(tests), str(output))
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
    return Ended("timeout" if late else how, text)


def _tests(folder: str, tests: Sequence[str], output: str) -> None:
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
    import pytest

    options = ["-q", "-x", "-n0", "-p", "no:cacheprovider", "--tb=line", *tests]
    code = pytest.main(options)
    sys.stdout.flush()
    # Tests that are all skipped notice nothing.
    os._exit(0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else int(code))
