"""Distilled sets made by another program: every field of another type, shape or size."""

import io
import json
import pathlib
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.campaigns.trials import Trial, judge, place
from tests.campaigns.world import World

READERS = (
    ("evaluate", "artefact"),
    ("mixing", "artefacts"),
    ("cross_architecture", "artefacts"),
    ("recognition", "artefacts"),
    ("agreement", "artefacts"),
    ("influence", "artefact"),
    ("distill", "init_from"),
)
# None of these is the right value of a field of the description.
VALUES: tuple[Any, ...] = (
    None,
    "x",
    "",
    -1,
    0,
    10**9,
    10**12,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    True,
    [],
    {},
    [[]],
    {"a": {}},
    "a\0b",
    "\ud800",
    "../../../x",
    "$x_",
    "[bold]",
    "<script>",
    "\x1b[31m",
    "x" * 5000,
    1e300,
)
TYPES = ("U9", "S9", "c8", "M8[s]", "i4", "u1", "?", "f2", "f8", ">f4", "O")
SHAPES: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda x: x[:0],
    lambda x: x[:1],
    lambda x: x[None],
    lambda x: x.reshape(-1),
    lambda x: np.concatenate([x, x[:1]]),
    lambda x: x[..., :0],
    lambda x: x[..., None],
    lambda x: np.full_like(x, np.nan),
    lambda x: np.where(
        np.arange(x.size).reshape(x.shape) == min(3, x.size - 1), np.inf, x
    ).astype(x.dtype),
    lambda x: np.full_like(x, 3e38),
    lambda x: x[::-1],
    lambda x: np.asfortranarray(x),
    lambda x: x * 0,
    lambda x: x[:-1],
)


def change_json(rng: np.random.Generator, tree: Any) -> tuple[Any, str]:
    """Returns JSON with one value replaced or removed, and how."""
    places = list(_places(tree))
    path = places[int(rng.integers(len(places)))]
    value = VALUES[int(rng.integers(len(VALUES)))]
    if not path:
        return value, f"all = {value!r:.40}"
    tree = json.loads(json.dumps(tree))
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    if rng.random() < 0.15:
        del holder[path[-1]]
        return tree, f"{path} removed"
    holder[path[-1]] = value
    return tree, f"{path} = {value!r:.40}"


def _places(tree: Any, path: tuple[Any, ...] = ()):
    yield path
    items = tree.items() if isinstance(tree, dict) else ()
    items = enumerate(tree) if isinstance(tree, list) else items
    for key, value in items:
        yield from _places(value, (*path, key))


def member(array: np.ndarray) -> bytes:
    """Returns an array as an .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_zip(path: pathlib.Path, members: dict[str, bytes]) -> None:
    """Writes members of an .npz file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, held in members.items():
            archive.writestr(f"{name}.npy", held)


def raw_header(kind: str) -> bytes:
    """Returns an .npy file with a hostile header, of the same few bytes."""
    form = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"
    header = {
        "huge": form % ("<f4", "(1000000000000, 8, 8, 1)"),
        "overflow": form % ("<f4", "(99999999999999999999999, 8, 8, 1)"),
        "negative": form % ("<f4", "(-1, 8, 8, 1)"),
        "token": "{",
        "deep": "-" * 5000 + "1",
        "brackets": "(" * 3000,
        "descr": form % ("<f4'*2, '", "(1,)"),
        "fields": "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, "
        "'shape': (2,), }",
        "float shape": form % ("<f4", "(1.5, 8)"),
        "no dict": "[1, 2]",
    }[kind].encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(999)


HEADERS = (
    "huge",
    "overflow",
    "negative",
    "token",
    "deep",
    "brackets",
    "descr",
    "fields",
    "float shape",
    "no dict",
)


def bomb(gib: float, dtype: str, row: int, tail: str) -> bytes:
    """Returns an .npy file of zeros of that size; it takes a thousandth when zipped."""
    num = int(gib * 2**30) // row
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({num}, {tail}), }}"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    return start + bytes(num * row)


def change_zip(rng: np.random.Generator, path: pathlib.Path) -> str:
    """Changes bytes of a zip archive's own records; returns which."""
    raw = bytearray(path.read_bytes())
    directory = raw.find(b"PK\x01\x02")
    what, at, value = (
        ("method", directory + 10, 99),
        ("encrypted", directory + 8, 1),
        ("size", directory + 27, 255),
        ("name", directory + 46, 0),
        ("offset", directory + 43, 200),
        ("crc", directory + 16, raw[directory + 16] ^ 1),
        ("end", len(raw) - 22, 0),
    )[int(rng.integers(7))]
    raw[at] = value
    path.write_bytes(raw)
    return f"zip: {what}"


def hostile(rng: np.random.Generator, source: pathlib.Path, path: pathlib.Path) -> str:
    """Writes a hostile artefact; returns what is wrong with it."""
    with np.load(source) as held:
        arrays = {name: held[name] for name in held.files}
    meta = json.loads(str(arrays["meta"]))
    floats = [name for name in arrays if name != "meta"]
    name = floats[int(rng.integers(len(floats)))]
    choice = rng.random()
    raw: dict[str, bytes] = {}
    if choice < 0.5:
        meta, what = change_json(rng, meta)
    elif choice < 0.6:
        dtype = TYPES[int(rng.integers(len(TYPES)))]
        what = f"{name} as {dtype}"
        if dtype == "M8[s]":
            arrays[name] = arrays[name].astype("i8").astype(dtype)
        else:
            arrays[name] = arrays[name].astype(dtype)
    elif choice < 0.75:
        number = int(rng.integers(len(SHAPES)))
        what = f"{name}: change {number}"
        if arrays[name].ndim:
            arrays[name] = SHAPES[number](arrays[name])
        else:
            arrays[name] = np.full((1,) * (number % 2), [np.nan, 1e30, -1e30][number % 3])
            arrays[name] = arrays[name].astype("f4")
    elif choice < 0.85:
        kind = HEADERS[int(rng.integers(len(HEADERS)))]
        raw[name], what = raw_header(kind), f"{name}: header {kind}"
    elif choice < 0.9:
        what = f"{name} missing"
        del arrays[name]
    else:
        what = ""
    if "sha256" in (meta if isinstance(meta, dict) else {}) and rng.random() < 0.8:
        # An honest checksum, so that what is behind it is tried.
        from distilljax.io.artefact import digest

        meta["sha256"] = digest({n: a for n, a in arrays.items() if n != "meta"})
    text = meta if isinstance(meta, str) else json.dumps(meta)
    arrays["meta"] = np.array(text)
    write_zip(path, {**{n: member(a) for n, a in arrays.items()}, **raw})
    return what or change_zip(rng, path)


def trial(world: World, rng: np.random.Generator, number: int) -> tuple[str, Trial]:
    """Gives a hostile artefact to a command that reads one."""
    world.make_sets()
    which, flag = READERS[int(rng.integers(len(READERS)))]
    with place(world.root / "trials", number) as folder:
        path = folder / "set.npz"
        source = world.sets[2 if which in ("influence", "distill") else 0]
        what = hostile(rng, source, path)
        ended = world.run(which, folder / "run", **{flag: str(path)})
        refuse = any(sign in what for sign in ("as U9", "as S9", "as c8", "as M8", "as O"))
        refuse |= (
            any(f"change {n}" in f"{what}." for n in ("0.", "7.", "8.")) and "." in what
        )
        refuse |= "header" in what or "missing" in what
        return f"{which} --{flag}: {what}", judge(ended, must_refuse=refuse)
