"""Hostile data sets in .npz files."""

import pathlib

import numpy as np

from tests.campaigns.kinds.artefacts import (
    HEADERS,
    change_zip,
    member,
    raw_header,
    write_zip,
)
from tests.campaigns.trials import Trial, judge, place
from tests.campaigns.world import World, data_arrays

READERS = (("distill", "dataset"), ("coresets", "dataset"), ("mixing", "dataset"))
NAMES = (
    "$x_1$",
    "[bold]red",
    "<b>x</b>",
    "\x1b[31mred",
    "a\nb",
    "é猫",
    "",
    " ",
    "x" * 3000,
)
TYPES = ("f4", "f8", "i4", "i8", "u2", "?", "c8", "U9", "S9", "M8[s]", "O", "V4")


def _labels(rng: np.random.Generator, held: np.ndarray) -> tuple[np.ndarray, str]:
    number = int(rng.integers(12))
    changed = held.astype(np.int64)
    if number == 0:
        changed[0] = -1
    elif number == 1:
        changed[0] = 10**18
    elif number == 2:
        changed += 1
    elif number == 3:
        changed = np.eye(3)[held]
    elif number == 4:
        changed = changed[:-1]
    elif number == 5:
        changed[changed == 2] = 1
    elif number == 6:
        changed = changed.astype(np.uint64) + np.uint64(2**63)
    elif number == 7:
        changed = changed[:, None]
    elif number == 8:
        changed = changed[:0]
    elif number == 9:
        changed = np.array(2)
    elif number == 10:
        changed = np.zeros_like(changed)
    else:
        kind = TYPES[int(rng.integers(len(TYPES)))]
        return _typed(held, kind), f"as {kind}"
    return changed, f"change {number}"


def _typed(held: np.ndarray, kind: str) -> np.ndarray:
    if kind == "M8[s]":
        return held.astype("i8").astype(kind)
    return np.zeros(held.shape, kind) if kind == "V4" else held.astype(kind)


def _images(rng: np.random.Generator, held: np.ndarray) -> tuple[np.ndarray, str]:
    number = int(rng.integers(10))
    if number == 0:
        return held[:0], "none"
    if number == 1:
        return held.transpose(0, 3, 1, 2), "channels first"
    if number == 2:
        return held[:, :4], "small"
    if number == 3:
        return np.repeat(held, 4, axis=3), "four channels"
    if number == 4:
        return np.asfortranarray(held), "fortran"
    if number == 5:
        return held[:-1], "one less"
    if number == 6:
        return held[:, :, :0], "empty"
    if number == 7:
        return held * 0, "constant"
    kind = TYPES[int(rng.integers(len(TYPES)))]
    return _typed(held, kind), f"as {kind}"


def hostile(rng: np.random.Generator, path: pathlib.Path) -> str:
    """Writes a hostile data set; returns what is wrong with it."""
    arrays = data_arrays(0)
    raw: dict[str, bytes] = {}
    split, choice = ("train", "test")[int(rng.integers(2))], rng.random()
    if choice < 0.25:
        name = f"{split}_labels"
        arrays[name], what = _labels(rng, arrays[name])
        what = f"{name}: {what}"
    elif choice < 0.5:
        name = f"{split}_images"
        arrays[name], what = _images(rng, arrays[name])
        what = f"{name}: {what}"
    elif choice < 0.65:
        text = NAMES[int(rng.integers(len(NAMES)))]
        number = int(rng.integers(4))
        names = [
            np.array([text, "middle", "bottom"]),
            np.array([text] * 3),
            np.array(["a", "b"]),
            np.array([b"a", b"b", b"c"]),
        ][number]
        arrays["class_names"], what = names, f"class names {number}: {text!r:.20}"
    elif choice < 0.85:
        name, kind = list(arrays)[int(rng.integers(5))], HEADERS[int(rng.integers(10))]
        raw[name], what = raw_header(kind), f"{name}: header {kind}"
    elif choice < 0.9:
        name = list(arrays)[int(rng.integers(4))]
        del arrays[name]
        what = f"{name} missing"
    else:
        what = ""
    write_zip(path, {**{n: member(a) for n, a in arrays.items()}, **raw})
    if what:
        return what
    if rng.random() < 0.5:
        return change_zip(rng, path)
    held = path.read_bytes()
    at = int(rng.integers(len(held)))
    path.write_bytes(held[:at])
    return f"truncated at {at}"


def trial(world: World, rng: np.random.Generator, number: int) -> tuple[str, Trial]:
    """Gives a hostile data set to a command that reads one."""
    world.make_sets()
    which, flag = READERS[int(rng.integers(len(READERS)))]
    with place(world.root / "trials", number) as folder:
        path, workdir = folder / "data.npz", folder / "run"
        what = hostile(rng, path)
        ended = world.run(which, workdir, **{flag: str(path)})
        refuse = "header" in what or "missing" in what or "truncated" in what
        trial = judge(ended, must_refuse=refuse)
        if trial.verdict == "refused" and workdir.exists():
            trial = Trial("wrong", f"the workdir is left behind; {trial.why}")
        return f"{which} --{flag}: {what}", trial
