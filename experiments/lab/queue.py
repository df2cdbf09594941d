"""A queue of steps: what is finished is not run again, what was cut goes on.

Each step is a command of its own, shown before it starts, in a working directory of its
own. Several run at once, each on cores of its own. A step that fails stops those that need
it and no others.
"""

import contextlib
import fcntl
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

from distilljax import launch
from distilljax.disk.files import locked, replacing
from distilljax.io import records
from distilljax.types import InputError
from experiments.lab.jobs import Jobs, Spent, usable_cores
from experiments.lab.kept import read_lines
from experiments.lab.progress import duration
from experiments.lab.records import Mismatch, check
from experiments.lab.steps import Step

OUT_OF_TIME = 75  # exit code; EX_TEMPFAIL of sysexits.h
SECONDS_BETWEEN_LOOKS = 0.05  # at the steps that run
MOST_JOBS = 4  # at once, where the number is not given


class Outcome(NamedTuple):
    """The end of a queue, or of its time."""

    state: dict[str, str]  # step -> "done before", "done", "cut" or "to do"
    broken: dict[str, str]  # step -> why it has no result
    seconds: float  # of this command
    work: float  # seconds of all steps, also by earlier commands

    @property
    def finished(self) -> bool:
        """Whether every step is done."""
        return all(state.startswith("done") for state in self.state.values())


class Ledger:
    """The steps that ran: a line of a file each."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self.lines = ledger_lines(path)
        if path.exists():
            with replacing(path) as temporary:
                records.append(temporary, self.lines.values())

    def holds(self, step: Step) -> bool:
        """Whether the step is finished and its inputs are as they were."""
        line = self.lines.get(step.name, {"finished": False})
        there = all(path.exists() for path in (step.output, *step.inputs))
        return bool(line["finished"] and there and line["identity"] == step.identity())

    def add(self, step: Step, spent: Spent, *, finished: bool) -> None:
        """Writes down what a step took, and whether it is finished."""
        before = self.lines.get(step.name)
        identity = step.identity()
        took = spent._asdict()
        if before and before["identity"] == identity and not before["finished"]:
            took = {n: value + before[n] for n, value in took.items() if n in before}
        line = {
            "step": step.name,
            "finished": finished,
            "identity": identity,
            "command": step.command(),
            **took,
        }
        self.lines[step.name] = line
        records.append(self._path, [line])


class _Line(TypedDict):
    """A line of the ledger."""

    step: str
    finished: bool
    identity: str
    command: str
    seconds: float
    cpu_seconds: NotRequired[float]  # not of starts before 2026-11-28


def ledger_lines(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns step -> its last line in the file of a ledger, which may be absent."""
    return {line["step"]: line for line in _readable(path)}


def _readable(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Yields the lines of a ledger; says on stderr that others are damaged."""
    damaged = 0
    for line in read_lines(path):
        try:
            check(_Line, line)
        except Mismatch:
            damaged += 1
        else:
            yield dict(line or {})
    if damaged:
        text = f"{path} has {damaged} damaged lines; those steps are tried again"
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def claimed(root: pathlib.Path, what: str) -> Iterator[None]:
    """Claims the folder of a queue; `what` is its kind, such as `study`.

    Raises:
      InputError: the folder cannot be written, or another such queue runs there.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = locked(root / f".{what}-lock")
    except OSError as error:
        raise InputError(
            f"cannot write to workdir {root} ({error.strerror}); choose another --workdir"
        ) from None
    if lock is None:
        raise InputError(
            f"another {what} runs in {root}; wait for it, or choose another --workdir"
        )
    try:
        yield
    finally:
        os.close(lock)


def show_plan(steps: Sequence[Step], ledger: Ledger) -> dict[str, str]:
    """Prints the commands; returns the state of each step."""
    state = {s.name: "done before" if ledger.holds(s) else "to do" for s in steps}
    for step in steps:
        print(f"# {step.name}: {state[step.name]}\n{step.command()}")
    return state


def run_queue(
    steps: Sequence[Step],
    ledger: Ledger,
    logs: pathlib.Path,
    *,
    jobs: int | None,
    minutes: float | None,
) -> Outcome:
    """Runs the steps that are missing.

    Args:
      steps: in order.
      ledger: the steps that ran before.
      logs: folder of what steps print, where several run at once.
      jobs: steps at once; None for one a core, at most `MOST_JOBS`, and one where there
        is an accelerator.
      minutes: when to stop; None for never.
    """
    began = time.monotonic()
    at_once = min(len(usable_cores()), MOST_JOBS) if launch.only_cpu() else 1
    queue = _Queue(steps, ledger, Jobs(jobs or at_once, logs))
    try:
        while queue.unfinished():
            if minutes is not None and time.monotonic() > began + 60 * minutes:
                say(f"{minutes:g} minutes are over; the same command goes on from here")
                break
            queue.start()
            queue.end()
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        queue.cut()
    seconds = time.monotonic() - began
    return Outcome(queue.state, queue.broken, seconds, queue.seconds())


class _Queue:
    """The state of each step, and which is next."""

    def __init__(self, steps: Sequence[Step], ledger: Ledger, jobs: Jobs):
        self._steps, self._ledger, self._jobs = steps, ledger, jobs
        self.waiting = list(steps)
        self.state = dict.fromkeys((step.name for step in steps), "to do")
        self.broken: dict[str, str] = {}
        self._held: set[str] = set()  # said to be at work in another process
        self._passed = self._spent = 0.0  # weight, and seconds, of what was done here

    def unfinished(self) -> bool:
        """Whether a step waits or runs."""
        return bool(self.waiting or self._jobs.running)

    def start(self) -> None:
        """Starts the steps that can start, leaves out those done or blocked."""
        others = [step for step in self.waiting if _at_work(step)]
        for step in others:
            if step.name not in self._held:
                say(f"waiting for another process that runs {step.name}")
                self._held.add(step.name)
        free = self._jobs.num - len(self._jobs.running) - len(others)
        for step in [step for step in self.waiting if step not in others]:
            head = f"step {self._steps.index(step) + 1} of {len(self._steps)}: {step.name}"
            if blocking := [name for name in step.needs if name in self.broken]:
                self.broken[step.name] = f"needs {blocking[0]}"
                self.waiting.remove(step)
                say(f"{head} is left out, for it needs {blocking[0]}")
            elif free < 1 or not self._ready(step):
                continue
            elif not step.last and self._ledger.holds(step):
                self.state[step.name] = "done before"
                self.waiting.remove(step)
                say(f"{head} was finished before")
            else:
                say(f"{head}; about {duration(self._left())} left in all")
                say(f"$ {step.command()}")
                self.waiting.remove(step)
                self._jobs.start(step)
                free -= 1

    def _ready(self, step: Step) -> bool:
        before = step.needs
        if step.last:
            if self._jobs.running:
                return False
            before = tuple(s.name for s in self.waiting if not s.last)
        return all(self.state.get(name, "done").startswith("done") for name in before)

    def _left(self) -> float:
        """Returns the seconds left, estimated from those passed."""
        each = self._spent / self._passed if self._passed else 60.0
        at_work = [job.step for job in self._jobs.running]
        left = sum(step.minutes for step in (*self.waiting, *at_work))
        return left * each / min(self._jobs.num, len(self.waiting) + len(at_work))

    def end(self) -> None:
        """Writes down the steps that have ended."""
        for step, code, spent in self._jobs.ended():
            self._ledger.add(step, spent, finished=not code)
            if code:
                self.broken[step.name] = f"exit code {code}"
                say(f"step {step.name} failed with exit code {code}; the reason is above")
                continue
            self._passed += step.minutes
            self._spent += spent.seconds
            self.state[step.name] = "done"
            say(f"step {step.name} took {duration(spent.seconds)}")

    def cut(self) -> None:
        """Stops the steps that run, and writes that down."""
        for step, spent in self._jobs.stop():
            self.state[step.name] = "cut"
            self._ledger.add(step, spent, finished=False)

    def seconds(self) -> float:
        """Returns the seconds of all work, also by earlier commands."""
        lines = self._ledger.lines
        return sum(
            lines[step.name]["seconds"] for step in self._steps if step.name in lines
        )


def say(text: str) -> None:
    """Prints a line of the queue, apart from those of its steps."""
    print(f"== {text}", flush=True)


def _at_work(step: Step) -> bool:
    """Whether another process runs it: that of a study that was killed goes on alone."""
    lock = step.output.with_name(".lock")
    if step.last or not lock.exists():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
