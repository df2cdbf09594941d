"""Kill, SIGTERM and SIGINT at random moments and file operations; a disk that is full."""

import pathlib
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.campaigns.faults import Fault, Kind
from tests.campaigns.trials import (
    Ended,
    Process,
    Trial,
    judge,
    numbers,
    place,
    same_numbers,
)
from tests.campaigns.world import COMMANDS, World

TRIED = ("distill", "train_experts", "mixing", "coresets")
NUMBERS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
ROOM = "64m"


class _Undisturbed(NamedTuple):
    seconds: float
    operations: int  # on files of the working directory
    numbers: Mapping[str, Any]


_known: dict[tuple[str, str], _Undisturbed] = {}


def _start(
    world: World, which: str, workdir: pathlib.Path, fault: Fault | None = None
) -> Process:
    scratch = world.root / "scratch"
    return Process(COMMANDS[which].name, world.argv(which, workdir), scratch, fault)


def _undisturbed(world: World, which: str) -> _Undisturbed:
    key = str(world.root), which
    if key not in _known:
        world.make_sets()
        workdir, counted = world.root / "whole" / which, world.root / "operations.txt"
        # The first compiles; the second is timed.
        _start(world, which, world.root / "warm" / which).end()
        fault = Fault("count", 0, str(workdir), str(counted))
        ended = _start(world, which, workdir, fault).end()
        if ended.code:
            raise RuntimeError(f"{which} does not run: {ended.err[-2000:]}")
        held = int(counted.read_text())
        _known[key] = _Undisturbed(ended.seconds, held, numbers(workdir))
    return _known[key]


def _trial(world: World, rng: np.random.Generator, number: int, kind: Kind):
    which = TRIED[int(rng.integers(len(TRIED)))]
    whole = _undisturbed(world, which)
    with place(world.root / "trials", number) as folder:
        workdir, times = folder / "run", int(rng.integers(1, 3))
        words = []
        for _ in range(times):
            if rng.random() < 0.5:
                at = int(rng.integers(whole.operations))
                words.append(f"{kind} at file operation {at} of {whole.operations}")
                ended = _start(world, which, workdir, Fault(kind, at, str(workdir))).end()
            else:
                after = float(rng.uniform(0.05, whole.seconds))
                words.append(f"{kind} after {after:.2f} s of {whole.seconds:.2f}")
                process = _start(world, which, workdir)
                process.signal_after(NUMBERS[kind], after)
                ended = process.end()
            what = f"{which}: {', then '.join(words)}"
            # A signal in the first moments finds no handler yet.
            early = "file operation" not in words[-1]
            allowed = {0, 130, -NUMBERS[kind]} if kind == "kill" or early else {0, 130}
            if ended.code not in allowed:
                return what, Trial("wrong", f"exit code {ended.code}: {ended.err[-300:]}")
            if ended.code in (0, 130):
                cut = judge(ended, lambda: None)
                if cut.verdict == "wrong":
                    return what, cut
        ended = _start(world, which, workdir).end()
        trial = judge(ended, same_numbers(workdir, whole.numbers))
        if trial.verdict == "refused":
            trial = Trial("wrong", f"cannot be resumed: {trial.why}")
        return what, trial


def kill(world: World, rng: np.random.Generator, number: int):
    """Kills a run, then runs it again."""
    return _trial(world, rng, number, "kill")


def term(world: World, rng: np.random.Generator, number: int):
    """Ends a run by SIGTERM, then runs it again."""
    return _trial(world, rng, number, "term")


def interrupt(world: World, rng: np.random.Generator, number: int):
    """Ends a run by SIGINT, then runs it again."""
    return _trial(world, rng, number, "int")


def _mount(folder: pathlib.Path, size: str, *, again: bool = False) -> bool:
    """Mounts a small disk; whether that is allowed."""
    option = f"remount,size={size}" if again else f"size={size}"
    command = ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def disk(world: World, rng: np.random.Generator, number: int):
    """Runs a command on a disk that is too small, then makes room and runs it again."""
    which = TRIED[int(rng.integers(len(TRIED)))]
    whole = _undisturbed(world, which)
    size, at = int(2 ** rng.uniform(12, 19)), int(rng.integers(whole.operations))
    injected = rng.random() < 0.4
    with place(world.root / "trials", number) as folder:
        workdir = folder / "disk" / "run"
        workdir.parent.mkdir()
        small = not injected and shutil.which("mount") and _mount(workdir.parent, f"{size}")
        try:
            if small:
                what = f"{which}: a disk of {size} bytes"
                ended = _start(world, which, workdir).end()
            else:
                what = f"{which}: no space from file operation {at} of {whole.operations}"
                ended = _start(world, which, workdir, Fault("full", at, str(workdir))).end()
            trial = _too_little(ended, workdir, whole, ("space", "make room"))
            if trial.verdict == "wrong":
                return what, trial
            if small:
                _mount(workdir.parent, ROOM, again=True)
            return what, _with_room(world, which, workdir, whole, trial)
        finally:
            if small:
                subprocess.run(["umount", str(workdir.parent)], check=False)


def limit(world: World, rng: np.random.Generator, number: int):
    """Runs a command that may write no large file, then without that limit again."""
    which = TRIED[int(rng.integers(len(TRIED)))]
    whole = _undisturbed(world, which)
    size = int(2 ** rng.uniform(8, 18))
    what = f"{which}: no file above {size} bytes"
    with place(world.root / "trials", number) as folder:
        workdir = folder / "run"
        fault = Fault("limit", size, str(workdir))
        ended = _start(world, which, workdir, fault).end()
        trial = _too_little(ended, workdir, whole, ("ulimit -f",))
        if trial.verdict == "wrong":
            return what, trial
        return what, _with_room(world, which, workdir, whole, trial)


def _too_little(
    ended: Ended, workdir: pathlib.Path, whole: _Undisturbed, words: Sequence[str]
) -> Trial:
    """Judges a run without room: right, or refused in one of these words."""
    trial = judge(ended, same_numbers(workdir, whole.numbers))
    if trial.verdict == "refused" and not any(word in trial.why for word in words):
        return Trial("wrong", f"another reason is given: {trial.why}")
    return trial


def _with_room(
    world: World, which: str, workdir: pathlib.Path, whole: _Undisturbed, before: Trial
) -> Trial:
    """Runs a command again; returns the first judgement where it now ends right."""
    ended = _start(world, which, workdir).end()
    again = judge(ended, same_numbers(workdir, whole.numbers))
    if again.verdict != "right":
        return Trial("wrong", f"with room again: {again.why}")
    return before
