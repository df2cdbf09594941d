"""Kills one of two processes of a run at a random moment; the run goes on to the same."""

import pathlib
import signal
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distilljax import terminal
from tests.campaigns.trials import Ended, Process, Trial, judge, place
from tests.campaigns.world import World
from tests.devices import hosts

CASES = tuple(case for case in hosts.CASES if case != "evaluate")  # which keeps nothing
LOST = (3, -signal.SIGABRT)  # of a process that has lost another: by us, by JAX's runtime


class _Whole(NamedTuple):
    workdir: pathlib.Path
    seconds: float


_known: dict[tuple[pathlib.Path, str], _Whole] = {}


def _start(world: World, case: str, workdir: pathlib.Path, num: int) -> tuple[Process, ...]:
    """Starts a case as so many processes."""
    command = hosts.CASES[case][0]
    argv = hosts.argv(case, _inputs(world), workdir)
    address = f"127.0.0.1:{hosts.free_port()}"
    flags = ("--distributed", f"--coordinator_address={address}", f"--num_processes={num}")
    return tuple(
        Process(
            command,
            [*argv, *flags, f"--process_id={i}"] if num > 1 else argv,
            world.root / "scratch" / f"process{i}",
        )
        for i in range(num)
    )


def _inputs(world: World) -> pathlib.Path:
    folder = world.root / "whole" / "inputs"
    if not folder.exists():
        folder.mkdir(parents=True)
        hosts.make(folder)
    return folder


def _experts(world: World) -> pathlib.Path:
    """Returns the folder of those that `tm` reads."""
    folder = world.root / "whole" / "experts"
    if not folder.exists():
        _all_right(_start(world, "experts", folder, 1))
    return folder


def _all_right(started: Sequence[Process]) -> float:
    """Waits for undisturbed processes; returns the seconds of the first."""
    ended = [one.end(hosts.PATIENCE) for one in started]
    for one in ended:
        if one.code:
            raise RuntimeError(f"does not run: {one.err[-2000:]}")
    return ended[0].seconds


def _place(world: World, case: str, folder: pathlib.Path) -> pathlib.Path:
    """Returns a new working directory in a folder, the experts beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    if case == "tm":
        (folder / "experts").symlink_to(_experts(world))
    return folder / "run"


def _whole(world: World, case: str) -> _Whole:
    key = world.root, case
    if key not in _known:
        folder = world.root / "whole" / "of2"
        # The first compiles; the second is timed.
        _all_right(_start(world, case, _place(world, case, folder / f"{case}-warm"), 2))
        workdir = _place(world, case, folder / case)
        _known[key] = _Whole(workdir, _all_right(_start(world, case, workdir, 2)))
    return _known[key]


def trial(world: World, rng: np.random.Generator, number: int) -> tuple[str, Trial]:
    """Kills one of two processes, and goes on with one or two."""
    case = CASES[number % len(CASES)]
    whole = _whole(world, case)
    after = float(rng.uniform(0.05, 1.0) * whole.seconds)
    victim, others = int(rng.integers(2)), int(rng.integers(1, 3))
    what = (
        f"{case}: process {victim} of 2 killed after {after:.2f} s of "
        f"{whole.seconds:.2f}, {others} to go on"
    )
    with place(world.root / "trials", number) as folder:
        workdir = _place(world, case, folder)
        started = _start(world, case, workdir, 2)
        started[victim].signal_after(signal.SIGKILL, after)
        if not workdir.exists():  # the other may wait for it: JAX gives it 5 minutes
            started[1 - victim].signal_after(signal.SIGKILL, 0)
        ended = [one.end(hosts.PATIENCE) for one in started]
        for one in ended:
            if (cut := _cut(one, workdir)) is not None:
                return what, cut
        for one in [
            one.end(hosts.PATIENCE) for one in _start(world, case, workdir, others)
        ]:
            again = judge(one, lambda: _difference(workdir, whole.workdir))
            if again.verdict != "right":
                return what, Trial("wrong", f"cannot be resumed: {again.why}")
        return what, Trial("right")


def _cut(ended: Ended, workdir: pathlib.Path) -> Trial | None:
    """Judges the end of a process whose run was cut; None if as it should be."""
    if ended.code == -signal.SIGKILL:
        return None
    if ended.code in LOST and ended.err.count(terminal.LOST) == 1:
        return None
    judged = judge(ended)
    if judged.verdict == "right" and not (workdir / "summary.json").exists():
        return Trial("wrong", "ended as if finished")
    return None if judged.verdict == "right" else Trial("wrong", judged.why)


def _difference(found: pathlib.Path, wanted: pathlib.Path) -> str | None:
    try:
        hosts.assert_same_numbers(found, wanted)
    except AssertionError as error:
        return " ".join(str(error).split())[:300]
    return None
