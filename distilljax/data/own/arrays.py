"""The arrays of an .npz file, by the names that are usual."""

import pathlib

import numpy as np

from distilljax import memory
from distilljax.data.own.folders import ALL, Found, Items
from distilljax.data.own.request import Request
from distilljax.disk import archives
from distilljax.types import InputError

ADVICE = "it may be truncated; write it again with numpy.savez"
_IMAGES = ("{}_images", "x_{}", "X_{}", "{}_x", "images_{}")
_LABELS = ("{}_labels", "y_{}", "Y_{}", "{}_y", "labels_{}")
_SPELLINGS = {
    "train": ("train",),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
_UNDIVIDED = (("images", "labels"), ("x", "y"), ("X", "y"))


def _pairs(held: list[str]) -> dict[str, tuple[str, str]]:
    """Returns the names of images and labels of each split that is there."""
    found: dict[str, tuple[str, str]] = {}
    for split, spellings in _SPELLINGS.items():
        for spelling in spellings:
            for images, labels in zip(_IMAGES, _LABELS, strict=True):
                pair = images.format(spelling), labels.format(spelling)
                if set(pair) <= set(held):
                    found.setdefault(split, pair)
    for pair in _UNDIVIDED:
        if not found and set(pair) <= set(held):
            found[ALL] = pair
    return found


def read(path: pathlib.Path, request: Request) -> Found:
    """Reads images and labels; labels [n, 1] are taken as [n], as MedMNIST has them.

    >>> import pathlib
    >>> from distilljax.data.own import request
    >>> images = np.zeros((4, 8, 8), np.uint8)
    >>> np.savez("small.npz", x_train=images, y_train=np.arange(4) % 2,
    ...     x_test=np.zeros((2, 8, 8), np.uint8), y_test=np.arange(2))
    >>> found = arrays.read(pathlib.Path("small.npz"), request.parse("small.npz"))
    >>> sorted(found.splits)
    ['test', 'train']

    Raises:
      InputError: a damaged file, or one without arrays of usual names.
    """
    with archives.opened(path, "data set", ADVICE) as archive:
        held = archives.npz_names(archive)
        pairs = _pairs(held)
        wanted = [name for pair in pairs.values() for name in pair]
        missing = {"train", "test"} - set(pairs)
        divided = request.given("train", "test", "test_share")
        if not pairs or (missing and not divided):
            raise InputError(_lacking(path, held, pairs))
        named = ["class_names"] if "class_names" in held else []
        arrays = archives.npz_arrays(archive, wanted + named, limit=memory.available())
    for name in wanted:
        if not arrays[name].ndim:
            raise InputError(
                f"{path}: {name} is a single value, {arrays[name]!s:.40}; images are "
                "[n, h, w, c] or [n, h, w], labels [n]"
            )
    splits = {
        split: Items(arrays[images], _flat(arrays[labels]))
        for split, (images, labels) in pairs.items()
    }
    names = arrays.get("class_names")
    if names is None:
        return Found(splits, None, "npz", [])
    if names.ndim != 1 or names.dtype.kind != "U":
        raise InputError(
            f"{path}: class_names must be a list of strings, got "
            f"{names.dtype}{list(names.shape)}"
        )
    return Found(splits, tuple(map(str, names)), "npz", [])


def _flat(labels: np.ndarray) -> np.ndarray:
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _lacking(path: pathlib.Path, held: list[str], pairs: dict[str, tuple[str, str]]) -> str:
    listed = ", ".join(held) or "nothing"
    missing = [split for split in ("train", "test") if split not in pairs]
    begun = any(name.lower().find(split) >= 0 for name in held for split in missing)
    if pairs and not begun:
        others = [name for name in pairs if name not in ("train", "test", ALL)]
        also = f", or {path},test={others[0]} tests on that" if others else ""
        return (
            f"{path} lacks {missing[-1]} images (it holds {listed}); save both splits as "
            "train_images, train_labels, test_images, test_labels; or "
            f"{path},test_share=0.2 sets a fifth of each class aside{also}"
        )
    wanted = [f"{s}_{part}" for s in ("train", "test") for part in ("images", "labels")]
    absent = [name for name in wanted if name not in held]
    return (
        f"{path} lacks {', '.join(absent)} (it holds {listed}); save both splits as "
        f"{', '.join(wanted)}, or as x_train, y_train, x_test, y_test"
    )
