"""Trials: a command run with a fault or a bad input, and the judgement of how it ended."""

import contextlib
import importlib
import io
import json
import math
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from tests.campaigns import faults

SECONDS = 300.0  # a run that takes longer hangs
# What may differ between two runs that found the same.
VOLATILE = (
    "sha256",  # of all in the record
    "seconds",
    "peak_memory_bytes",
    "environment",
    "path",
    "folder",
    "figure",
    "command",
)
MODULES = tuple(
    f"experiments.{name}.run" for name in ("distill", "train_experts", "mixing", "coresets")
)


class Ended(NamedTuple):
    """The end of a command."""

    code: int  # exit code; minus the number of the signal that killed it
    out: str
    err: str
    seconds: float


class Trial(NamedTuple):
    """The judgement of a trial."""

    verdict: Literal["right", "refused", "wrong"]
    why: str = ""


class Hang(BaseException):
    """The time limit of a command has passed."""


class Exit(BaseException):
    """`os._exit` of a command that runs in this process."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _exits_raise() -> Iterator[None]:
    def leave(code: int) -> None:
        raise Exit(code)

    leaves, handlers = os._exit, {n: signal.getsignal(n) for n in (2, 15)}
    os._exit = leave
    try:
        yield
    finally:
        os._exit = leaves
        for number, handler in handlers.items():
            signal.signal(number, handler)


def call(name: str, argv: Sequence[str], seconds: float = SECONDS) -> Ended:
    """Runs `experiments.NAME` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    began = time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _exits_raise():
        try:
            with _limited(seconds):
                importlib.import_module(f"experiments.{name}.run").main(list(argv))
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except Exit as error:
            code = error.code
        except Hang:
            code = -signal.SIGALRM
        except BaseException:
            code = 1
            err.write(traceback.format_exc())
    return Ended(code, out.getvalue(), err.getvalue(), time.monotonic() - began)


_PROCESSES = multiprocessing.get_context("forkserver")


def prepare_processes() -> None:
    """Imports the commands once, for the processes that `Process` starts."""
    _PROCESSES.set_forkserver_preload(["tests.campaigns.trials", *MODULES])


class Process:
    """A command in a process of its own, its output in files."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        scratch: pathlib.Path,
        fault: faults.Fault | None = None,
    ):
        scratch.mkdir(parents=True, exist_ok=True)
        self._files = scratch / "out.txt", scratch / "err.txt"
        self._began = time.monotonic()
        self._process = _PROCESSES.Process(
            target=_command,
            args=(name, list(argv), *map(str, self._files), fault, dict(os.environ)),
        )
        self._process.start()

    def signal_after(self, number: int, seconds: float) -> None:
        """Sends a signal when so many seconds have passed; not to one that has ended."""
        self._process.join(seconds)
        if self._process.is_alive():
            os.kill(self._process.pid or 0, number)

    def end(self, seconds: float = SECONDS) -> Ended:
        """Waits for the end."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
            code = -signal.SIGALRM
        out, err = (
            p.read_text(errors="replace") if p.exists() else "" for p in self._files
        )
        return Ended(code, out, err, time.monotonic() - self._began)


def _command(
    name: str,
    argv: list[str],
    out: str,
    err: str,
    fault: faults.Fault | None,
    environment: Mapping[str, str],
) -> None:
    for path, number in ((out, 1), (err, 2)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [f"experiments/{name}", *argv]
    from experiments.lab import start

    if fault:
        faults.install(fault)
    start.command(name)


def numbers(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns what a finished run found, without times, places and versions."""
    found: dict[str, Any] = {}
    for path in sorted(workdir.glob("*")):
        if path.name in ("summary.json", "verdicts.json"):
            found[path.name] = _stable(json.loads(path.read_text()))
        elif path.name == "distilled.npz":
            with np.load(path) as held:
                found[path.name] = {
                    n: held[n].tobytes() for n in ("images", "label_logits", "log_lr")
                }
        elif path.name in ("trajectories.npy",):
            found[path.name] = path.read_bytes()
        elif path.name == "influence.npz":
            with np.load(path) as held:
                found[path.name] = {n: held[n].tobytes() for n in held.files}
    return found


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _stable(v) for k, v in value.items() if k not in VOLATILE}
    return [_stable(v) for v in value] if isinstance(value, list) else value


def differences(found: Any, wanted: Any, path: str = "") -> list[str]:
    """Returns the places where two values differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        places = []
        for name in sorted(found.keys() | wanted.keys()):
            if name in found and name in wanted:
                places += differences(found[name], wanted[name], f"{path}.{name}")
            else:
                places.append(f"{path}.{name} is {'new' if name in found else 'missing'}")
        return places
    same = found == wanted
    if isinstance(found, float) and isinstance(wanted, float):
        same = same or (math.isnan(found) and math.isnan(wanted))
    return [] if same else [f"{path}: {str(found)[:60]}, not {str(wanted)[:60]}"]


def judge(
    ended: Ended,
    check: Callable[[], str | None] = lambda: None,
    *,
    must_refuse: bool = False,
) -> Trial:
    """Judges an end: no traceback, a known exit code, one line of error, right numbers.

    Args:
      ended: how the command ended.
      check: what is wrong with the results of a run that ended well; None for nothing.
      must_refuse: whether a run that ends well is wrong.
    """
    both = ended.out + ended.err
    last = (ended.err.strip().splitlines() or [""])[-1][:300]
    if ended.code == -signal.SIGALRM:
        return Trial("wrong", f"no end after {SECONDS:.0f} s")
    for sign in (
        "Traceback (most recent call last)",
        "was never awaited",
        "Exception ignored",
    ):
        if sign in both:
            at = both.index(sign)
            frames = [line.strip() for line in both[at:].splitlines() if "File " in line]
            place = "; ".join([*frames[:2], *frames[-3:]])
            return Trial("wrong", f"{sign}, exit code {ended.code}: {place}; {last}")
    if ended.code not in (0, 2, 130):
        return Trial("wrong", f"exit code {ended.code}: {last}")
    if ended.code == 2:
        lines = [line for line in ended.err.splitlines() if line.startswith("error:")]
        if len(lines) != 1:
            return Trial("wrong", f"{len(lines)} lines of error: {last}")
        return Trial("refused", lines[0])
    if must_refuse:
        return Trial("wrong", "taken without a word")
    if ended.code == 0 and (trouble := check()):
        return Trial("wrong", f"silent difference: {trouble}; {last}")
    return Trial("right", last)


def same_numbers(
    workdir: pathlib.Path, wanted: Mapping[str, Any]
) -> Callable[[], str | None]:
    """Returns the check that a run found what the reference did."""

    def check() -> str | None:
        try:
            places = differences(numbers(workdir), dict(wanted))
        except Exception as error:
            return f"results cannot be read ({error!r})"
        return "; ".join(places[:3]) or None

    return check


Files = Mapping[str, tuple[int, int]]


def snapshot(root: pathlib.Path, without: Sequence[pathlib.Path]) -> Files:
    """Returns size and time of change of all files under a folder but for some folders."""
    left, found = {str(p) for p in without}, {}
    for here, folders, files in os.walk(root):
        folders[:] = [f for f in folders if os.path.join(here, f) not in left]
        for name in files:
            path = os.path.join(here, name)
            with contextlib.suppress(FileNotFoundError):
                about = os.lstat(path)
                found[path] = about.st_size, about.st_mtime_ns
    return found


@contextlib.contextmanager
def place(folder: pathlib.Path, number: int) -> Iterator[pathlib.Path]:
    """Gives a new folder for a trial, and removes it."""
    path = folder / f"trial{number}"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
