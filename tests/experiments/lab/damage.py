"""Damages of a kept file, for tests that a run mends them."""

import shutil


def _truncate(path, other):
    # Never between two lines, where what is left would be whole.
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2].rstrip(b"}\n"))


def _empty(path, other):
    path.write_bytes(b"")


def _swap(path, other):
    shutil.copyfile(other, path)


def _flip(path, other):
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


def _delete(path, other):
    path.unlink()


# Name -> changes a file; `other` is a kept file of another piece.
DAMAGES = {
    "truncated": _truncate,
    "emptied": _empty,
    "swapped": _swap,
    "flipped": _flip,
    "deleted": _delete,
}


def mended_line(err, path):
    """Whether stderr says at most once that a file is computed again; others never."""
    said = [line for line in err.splitlines() if line.endswith("computed again")]
    return len(said) <= 1 and all(str(path) in line for line in said)
