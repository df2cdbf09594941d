"""Steps as processes, several at once, each on cores of its own."""

import contextlib
import itertools
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from distilljax import flags, launch
from distilljax.io.environment import children_cpu_seconds
from experiments.lab.steps import Step

SECONDS_TO_END = 60.0  # for a step to save its work


class Spent(NamedTuple):
    """What a step has taken.

    Attributes:
      seconds: from its start to its end.
      cpu_seconds: of its processes, on all cores.
    """

    seconds: float
    cpu_seconds: float


class _Job(NamedTuple):
    """A step that runs."""

    step: Step
    process: subprocess.Popen[bytes]
    cores: frozenset[int]  # that it is bound to; empty: none
    began: float
    log: IO[str] | None  # of its output; None: it prints to our own


class Jobs:
    """The steps that run, at most `num` at once."""

    def __init__(self, num: int, logs: pathlib.Path):
        self.running: list[_Job] = []
        self._logs, self.num = logs, num
        self._free = _shares(num)

    def start(self, step: Step) -> None:
        """Starts a step, on cores that are free."""
        command = [sys.executable, *flags.process(step.module), *step.argv()]
        log = None
        if self.num > 1:
            # A file and not a pipe: a step outlives a study that is killed.
            self._logs.mkdir(exist_ok=True)
            path = self._logs / f"{step.name}.txt"
            path.touch()
            log = path.open(encoding="utf-8", errors="replace")
            log.seek(0, os.SEEK_END)
        with contextlib.ExitStack() as stack:
            out: Any = stack.enter_context(path.open("ab")) if log else None
            # In a session of its own, so that it is told to stop once, by us.
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT if out else None,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        cores = self._free.pop()
        if cores:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, cores)
        self.running.append(_Job(step, process, cores, time.monotonic(), log))

    def ended(self) -> Iterator[tuple[Step, int, Spent]]:
        """Yields the steps that have ended since, their exit codes, and what they took."""
        for job in list(self.running):
            before = children_cpu_seconds()
            code = job.process.poll()
            _relay(job)
            if code is not None:
                yield self._remove(job), code, _spent(job, before)

    def stop(self) -> Iterator[tuple[Step, Spent]]:
        """Stops all; yields the steps and what they took."""
        for job in self.running:
            job.process.terminate()
        deadline = time.monotonic() + SECONDS_TO_END
        for job in list(self.running):
            before = children_cpu_seconds()
            try:
                job.process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
            _relay(job)
            yield self._remove(job), _spent(job, before)

    def _remove(self, job: _Job) -> Step:
        self.running.remove(job)
        self._free.append(job.cores)
        if job.log:
            job.log.close()
        return job.step


def _spent(job: _Job, before: float) -> Spent:
    """Returns what a job took that has ended since `before`, see `children_cpu_seconds`."""
    return Spent(time.monotonic() - job.began, children_cpu_seconds() - before)


def _relay(job: _Job) -> None:
    """Prints the whole lines that a step has written since the last call."""
    while job.log:
        before = job.log.tell()
        line = job.log.readline()
        if not line.endswith("\n"):
            job.log.seek(before)
            return
        print(f"{job.step.name} | {line}", end="", flush=True)


def usable_cores() -> list[int]:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _shares(num: int) -> list[frozenset[int]]:
    """Returns the cores of each of `num` jobs; none where they cannot be bound."""
    cores = usable_cores()
    told_apart = hasattr(os, "sched_setaffinity") and launch.only_cpu()
    if num == 1 or num > len(cores) or not told_apart:
        return [frozenset()] * num
    bounds = [len(cores) * i // num for i in range(num + 1)]
    return [frozenset(cores[a:b]) for a, b in itertools.pairwise(bounds)]
