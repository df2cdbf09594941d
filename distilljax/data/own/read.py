"""A data set of the user's own, from the path of a file or folder and its options."""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distilljax.data.own import arrays, folders, images, tables
from distilljax.data.own.folders import ALL, Found, Items
from distilljax.data.own.request import Request
from distilljax.types import InputError

IMBALANCED = 1.5  # largest class over smallest


class Own(NamedTuple):
    """Images and labels of both splits, and what was done to get them.

    Attributes:
      train_images: u8[n, h, w, c]; of an .npz file as it holds them.
      train_labels: class numbers, [n].
      test_images: like `train_images`.
      test_labels: like `train_labels`.
      class_names: k names; None where there are none.
      source: kind of the file and the options.
      notes: what was done, and what to know of the data.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...] | None
    source: str
    notes: tuple[str, ...]


def read(request: Request) -> Own:
    """Reads the data that a request names.

    >>> from distilljax.data.own import request
    >>> images = np.zeros((20, 8, 8), np.uint8)
    >>> np.savez("all.npz", images=images, labels=np.arange(20) % 2)
    >>> read.read(request.parse("all.npz,test_share=0.2")).test_labels.shape
    (4,)

    Raises:
      InputError: they cannot be read or divided as asked; the message says what to do.
    """
    found = _found(request)
    _check_columns(request, found)
    train, test, notes = _split(found, request)
    if isinstance(train.images, np.ndarray) and found.kind == "npz":
        _check_pixels(train, test, request)
    both = _decode(train, test, request, notes)
    notes = [*found.notes, *notes]
    notes += _about(train, test, both, found.class_names, request)
    return Own(
        both[0],
        train.labels,
        both[1],
        test.labels,
        found.class_names,
        ",".join([found.kind, *request.told()]),
        tuple(notes),
    )


def _found(request: Request) -> Found:
    """Finds the splits of a file or folder."""
    path = pathlib.Path(request.path).expanduser()
    ending = path.suffix.lower()
    if path.is_dir() and ending not in (".npz", *tables.ENDINGS):
        listed = tables.files_of(path)
        if listed and len(folders.class_folders(path)) < 2:
            return tables.read(listed, request)
        found = folders.read(path)
        if stray := [str(file) for files in listed.values() for file in files]:
            found.notes.append(f"{stray[0]} is not read; give its path to read it")
        return found
    if ending == ".npz":
        return arrays.read(path, request)
    if ending in tables.ENDINGS:
        return tables.read({ALL: [path]}, request)
    raise InputError(f"{path}: no such folder")


def _check_columns(request: Request, found: Found) -> None:
    asked = request.given("image", "label", "split")
    if asked and found.kind in ("folder", "npz"):
        raise InputError(
            f"{request.path}: {asked[0]} names a column of a table, and this is no table"
        )


def _split(found: Found, request: Request) -> tuple[Items, Items, list[str]]:
    """Returns what to train on, what to test on, and notes."""
    if not found.splits or not any(len(items.labels) for items in found.splits.values()):
        raise InputError(f"{request.path} holds no images")
    notes = list[str]()
    whole = ALL if set(found.splits) == {ALL} else "train"
    train_names = request.train or (whole,)
    train = _take(found, train_names, request)
    if request.test_share is not None:
        used = request.test or (() if "test" not in found.splits else ("test",))
        if used and not set(used) <= set(train_names):
            raise InputError(
                f"{request.path}: test_share has no meaning beside the split "
                f"{'+'.join(used)}; drop it, or add ,train={'+'.join(found.splits)} to "
                "divide all anew"
            )
        train, test = _set_aside(train, request, found.class_names)
        notes.append(
            f"{len(test.labels)} images are set aside to test on, {len(train.labels)} to "
            f"train on (seed {request.seed})"
        )
        test_names: tuple[str, ...] = ()
    else:
        test_names = request.test or ("test",)
        if test_names == ("test",) and "test" not in found.splits:
            raise InputError(_no_test(found, request))
        if both := set(train_names) & set(test_names):
            raise InputError(f"{request.path}: {min(both)} is trained on and tested on")
        test = _take(found, test_names, request)
    for name in found.splits.keys() - {*train_names, *test_names}:
        number = len(found.splits[name].labels)
        notes.append(
            f"the {number} images of {name} are left out; "
            f",train={'+'.join(train_names)}+{name} trains on them too"
        )
    if request.per_class:
        train = _at_most(train, request)
    return train, test, notes


def _no_test(found: Found, request: Request) -> str:
    others = [name for name in found.splits if name not in ("train", ALL)]
    has = "" if ALL in found.splits else f" (it has {', '.join(found.splits)})"
    also = f", or {request.path},test={others[0]} tests on that" if others else ""
    return (
        f"{request.path} has no test images{has}: {request.path},test_share=0.2 sets a "
        f"fifth of each class aside{also}"
    )


def _take(found: Found, names: Sequence[str], request: Request) -> Items:
    if absent := [name for name in names if name not in found.splits]:
        raise InputError(
            f"{request.path} has no split {absent[0]!r}; it has "
            f"{', '.join(s for s in found.splits if s != ALL) or 'undivided images'}"
        )
    parts = [found.splits[name] for name in names]
    if len(parts) == 1:
        return parts[0]
    labels = np.concatenate([part.labels for part in parts])
    pixels = [p.images for p in parts if isinstance(p.images, np.ndarray)]
    if len(pixels) == len(parts):
        if len({one.shape[1:] for one in pixels}) > 1:
            raise InputError(f"{request.path}: {'+'.join(names)} differ in image size")
        return Items(np.concatenate(pixels), labels)
    return Items([image for part in parts for image in part.images], labels)


def _rows(items: Items, chosen: np.ndarray) -> Items:
    if isinstance(items.images, np.ndarray):
        return Items(items.images[chosen], items.labels[chosen])
    return Items([items.images[i] for i in chosen], items.labels[chosen])


def _shuffled(items: Items, request: Request) -> list[np.ndarray]:
    """Returns the rows of each class in random order."""
    labels = items.labels
    integers = labels.ndim == 1 and labels.dtype.kind in "iu"
    if not integers or len(labels) != len(items.images):
        raise InputError(
            f"{request.path}: the labels are {labels.dtype}{list(labels.shape)} for "
            f"{len(items.images)} images; give one class number an image"
        )
    return [
        np.random.default_rng([request.seed, number]).permutation(
            np.flatnonzero(labels == label)
        )
        for number, label in enumerate(np.unique(labels))
    ]


def _set_aside(
    items: Items, request: Request, names: Sequence[str] | None
) -> tuple[Items, Items]:
    """Sets a share of each class aside, at least one image of it."""
    share, aside, left = request.test_share or 0.0, list[np.ndarray](), list[np.ndarray]()
    for rows in _shuffled(items, request):
        number = max(1, round(share * len(rows)))
        if len(rows) - number < 2:
            label = int(items.labels[rows[0]])
            called = repr(names[label]) if names else str(label)
            raise InputError(
                f"{request.path}: the class {called} has {len(rows)} images, and training "
                f"needs two besides those to test on; add some, leave the class out, or "
                "lower test_share"
            )
        aside.append(rows[:number])
        left.append(rows[number:])
    test, train = (np.sort(np.concatenate(rows)) for rows in (aside, left))
    return _rows(items, train), _rows(items, test)


def _at_most(items: Items, request: Request) -> Items:
    rows = [one[: request.per_class] for one in _shuffled(items, request)]
    return _rows(items, np.sort(np.concatenate(rows)))


def _check_pixels(train: Items, test: Items, request: Request) -> None:
    """Refuses to resize or convert what is no image of bytes."""
    if request.size is None and request.colour is None:
        return  # validated as every data set
    for items in (train, test):
        pixels = np.asarray(items.images)
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
            raise InputError(
                f"{request.path}: images are {pixels.dtype}{list(pixels.shape)}; to be "
                "resized or converted they must be uint8 [n, h, w, c] or [n, h, w]"
            )
        if pixels.ndim == 4 and pixels.shape[3] not in (1, 3):
            raise InputError(
                f"{request.path}: images have {pixels.shape[3]} channels and need 1 or 3; "
                "save them as [n, h, w, c]"
            )


def _decode(
    train: Items, test: Items, request: Request, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes both splits together, so that they agree in size and colour."""
    divide = len(train.labels)
    if isinstance(train.images, np.ndarray) and isinstance(test.images, np.ndarray):
        plain = request.size is None and request.colour is None
        if plain:
            return train.images, test.images
        grey = [p[..., None] if p.ndim == 3 else p for p in (train.images, test.images)]
        parts = [images.decode(one, request) for one in grey]
        for split, part in zip(("train", "test"), parts, strict=True):
            notes += [f"{split}: {text}" for text in part.notes]
        return parts[0].images, parts[1].images
    decoded = images.decode([*train.images, *test.images], request)
    notes += decoded.notes
    return decoded.images[:divide], decoded.images[divide:]


def _about(
    train: Items,
    test: Items,
    both: tuple[np.ndarray, np.ndarray],
    names: Sequence[str] | None,
    request: Request,
) -> list[str]:
    """Returns what one should know before these data are used."""
    notes = []
    integers = train.labels.dtype.kind in "iu" and test.labels.dtype.kind in "iu"
    if integers and train.labels.ndim == 1 and len(train.labels):
        classes, counts = np.unique(train.labels, return_counts=True)
        largest, smallest = counts.argmax(), counts.argmin()
        if counts[largest] > IMBALANCED * counts[smallest]:
            called = dict(enumerate(names or ()))
            most, least = (
                called.get(classes[i], f"class {classes[i]}") for i in (largest, smallest)
            )
            guess = np.mean(test.labels == classes[largest])
            notes.append(
                f"the classes are imbalanced, from {counts[smallest]} training images "
                f"({least}) to {counts[largest]} ({most}): guessing {most} is right on "
                f"{guess:.0%} of the test images; ,per_class={counts[smallest]} trains "
                "on as many of each"
            )
    first, second = (_digests(pixels) for pixels in both)
    trained = set(first)
    if shared := sum(digest in trained for digest in second):
        notes.append(
            f"{shared} of {len(second)} test images are training images too, pixel for "
            "pixel; the accuracy on them says nothing"
        )
    return notes


def _digests(pixels: np.ndarray) -> list[bytes]:
    if pixels.ndim < 3:
        return []
    return [hashlib.sha256(one.tobytes()).digest() for one in pixels]
