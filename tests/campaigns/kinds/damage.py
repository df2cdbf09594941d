"""Damage to a file of a finished or a cut run, or to a file that a run reads."""

import pathlib
import shutil

import numpy as np

from tests.campaigns.trials import Trial, judge, place, same_numbers
from tests.campaigns.world import COMMANDS, World

HOW = ("truncate", "empty", "flip", "swap", "delete", "text", "line", "zeros")
TEXTS = (
    b"garbage of another program",
    b"\xff\xfe\x00",
    b"{}",
    b"[]",
    b"[" * 100_000,
    b"NaN\n",
)


def damage(rng: np.random.Generator, path: pathlib.Path, other: pathlib.Path | None) -> str:
    """Damages a file; returns how, in words.

    Args:
      rng: chooses how.
      path: the file.
      other: the file of the same name of another run.
    """
    held = path.read_bytes()
    how = HOW[int(rng.integers(len(HOW)))]
    if how == "swap" and (other is None or not other.exists()):
        how = "flip"
    if how in ("truncate", "flip", "line", "zeros") and len(held) < 2:
        how = "empty"
    at = int(rng.integers(max(len(held), 1)))
    if how == "truncate":
        path.write_bytes(held[:at])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flip":
        bit = int(rng.integers(8))
        path.write_bytes(held[:at] + bytes([held[at] ^ (1 << bit)]) + held[at + 1 :])
        how = f"flip bit {bit}"
    elif how == "swap":
        shutil.copyfile(other, path)
    elif how == "delete":
        path.unlink()
    elif how == "text":
        number = int(rng.integers(len(TEXTS)))
        path.write_bytes(TEXTS[number])
        how = f"text {number}"
    elif how == "line":
        lines = held.split(b"\n")
        del lines[int(rng.integers(len(lines)))]
        path.write_bytes(b"\n".join(lines))
    else:
        path.write_bytes(held[:at] + bytes(len(held) - at))
    return f"{how} at {at} of {len(held)}"


def _cut(rng: np.random.Generator, workdir: pathlib.Path) -> str:
    """Takes a finished run back to one that was cut; returns how."""
    left = [p for p in ("summary.json", "distilled.npz") if (workdir / p).exists()]
    if not left:
        return ""
    (workdir / left[0]).unlink()
    if len(left) > 1 and rng.random() < 0.5:
        (workdir / left[1]).unlink()
    lines = [p for n in ("cells", "measurements") if (p := workdir / f"{n}.jsonl").exists()]
    if lines and rng.random() < 0.5:
        text = lines[0].read_text().splitlines(keepends=True)
        lines[0].write_text("".join(text[: int(rng.integers(len(text) + 1))]))
    steps = sorted((workdir / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name))
    if len(steps) > 1 and rng.random() < 0.5:
        shutil.rmtree(steps[-1])
    return "cut, "


def trial(world: World, rng: np.random.Generator, number: int) -> tuple[str, Trial]:
    """Damages one file, then runs the command."""
    which = list(COMMANDS)[int(rng.integers(len(COMMANDS)))]
    if rng.random() < 0.25 and COMMANDS[which].inputs(world):
        return _of_input(world, rng, number, which)
    with place(world.root / "trials", number) as folder:
        workdir = folder / "run"
        shutil.copytree(world.finished(which), workdir, symlinks=True)
        state = _cut(rng, workdir) if rng.random() < 0.6 else ""
        files = sorted(p for p in workdir.rglob("*") if p.is_file() and p.name != ".lock")
        if not files:
            return f"{which}: nothing", Trial("right")
        path = files[int(rng.integers(len(files)))]
        name = path.relative_to(workdir)
        how = damage(rng, path, world.other(which) / name)
        ended = world.run(which, workdir)
        check = same_numbers(workdir, world.numbers(which))
        return f"{which}: {state}{name}: {how}", judge(ended, check)


def _of_input(
    world: World, rng: np.random.Generator, number: int, which: str
) -> tuple[str, Trial]:
    wanted = world.numbers(which)
    inputs = COMMANDS[which].inputs(world)
    path = inputs[int(rng.integers(len(inputs)))]
    kept = path.with_name(f"{path.name}.kept")
    path.rename(kept)
    try:
        shutil.copyfile(kept, path)
        how = damage(rng, path, None)
        with place(world.root / "trials", number) as folder:
            workdir = folder / "run"
            ended = world.run(which, workdir)
            trial = judge(ended, same_numbers(workdir, wanted))
            if trial.why.startswith("silent difference") and which == "report":
                trial = Trial("right", trial.why)  # a page of other records
            if trial.verdict == "refused" and workdir.exists() and which != "study":
                trial = Trial("wrong", f"the workdir is left behind; {trial.why}")
            return f"{which}: its input {path.name}: {how}", trial
    finally:
        kept.replace(path)
