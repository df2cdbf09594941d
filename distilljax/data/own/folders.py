"""A folder of images: one subfolder a class, or such folders for train and test."""

import pathlib
from typing import NamedTuple

import numpy as np

from distilljax.data.own.images import ENDINGS, Encoded, Images
from distilljax.data.own.request import normal
from distilljax.types import InputError

ALL = "all"  # the split of data that are not divided
SPLITS = ("train", "validation", "test")


class Items(NamedTuple):
    """Images of a split with their labels.

    Attributes:
      images: encoded images, or pixels.
      labels: i64[n].
    """

    images: Images
    labels: np.ndarray


class Found(NamedTuple):
    """What a file or folder holds.

    Attributes:
      splits: by normal name; `ALL` where they are not divided.
      class_names: k names; None where there are none.
      kind: 'folder', 'csv', 'parquet', 'npz', ...
      notes: what was done, and what to know of the data.
    """

    splits: dict[str, Items]
    class_names: tuple[str, ...] | None
    kind: str
    notes: list[str]


def subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders in a folder, sorted, but for hidden ones.

    >>> import pathlib
    >>> pathlib.Path("pets/cat").mkdir(parents=True, exist_ok=True)
    >>> [place.name for place in folders.subfolders(pathlib.Path("pets"))]
    ['cat']
    """
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"
    )


def split_folders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the subfolders that have the name of a split, by its normal name.

    >>> import pathlib
    >>> pathlib.Path("divided/val").mkdir(parents=True, exist_ok=True)
    >>> list(folders.split_folders(pathlib.Path("divided")))
    ['validation']

    Raises:
      InputError: two of the same split, such as val and valid.
    """
    found: dict[str, pathlib.Path] = {}
    for path in subfolders(folder):
        name = normal(path.name)
        if name not in SPLITS:
            continue
        if name in found:
            raise InputError(
                f"{folder} has two folders of one split, {found[name].name} and "
                f"{path.name}; keep one"
            )
        found[name] = path
    return {name: found[name] for name in SPLITS if name in found}


def image_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the images in a folder and in the folders below it, sorted.

    >>> import pathlib
    >>> pathlib.Path("photos").mkdir(exist_ok=True)
    >>> pathlib.Path("photos/1.png").touch()
    >>> [path.name for path in folders.image_files(pathlib.Path("photos"))]
    ['1.png']
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS and path.name[0] != "." and path.is_file()
    )


def class_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the subfolders that hold images.

    >>> import pathlib
    >>> pathlib.Path("birds/owl").mkdir(parents=True, exist_ok=True)
    >>> pathlib.Path("birds/owl/1.png").touch()
    >>> [place.name for place in folders.class_folders(pathlib.Path("birds"))]
    ['owl']
    """
    return [path for path in subfolders(folder) if image_files(path)]


def read(folder: pathlib.Path) -> Found:
    """Finds the images of a folder.

    >>> import pathlib
    >>> for name in ("birds/owl/1.png", "birds/tit/1.png"):
    ...     pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
    ...     pathlib.Path(name).touch()
    ...
    >>> folders.read(pathlib.Path("birds")).class_names
    ('owl', 'tit')

    Args:
      folder: FOLDER/CLASS/..., or FOLDER/train/CLASS/... and so on. Images may lie deeper
        within the folder of their class. The classes are sorted by name.

    Raises:
      InputError: no class has images, or a split has other classes than `train`.
    """
    places = split_folders(folder) or {ALL: folder}
    names = _class_names(folder, places)
    splits, others = {}, list[str]()
    for split, place in places.items():
        images, labels = list[Encoded](), list[int]()
        for label, name in enumerate(names):
            files = image_files(place / name) if (place / name).is_dir() else []
            images += [Encoded(str(file), file) for file in files]
            labels += [label] * len(files)
            others += _others(place / name)
        splits[split] = Items(images, np.array(labels, np.int64))
    notes = []
    if passed := _passed_over(folder, splits):
        notes.append(
            f"{len(passed)} images are not read, being outside the folders of classes "
            f"or in one that begins with _, such as {passed[0]}"
        )
    if others:
        notes.append(f"{len(others)} files are no images and not read, such as {others[0]}")
    return Found(splits, tuple(names), "folder", notes)


def _class_names(folder: pathlib.Path, places: dict[str, pathlib.Path]) -> list[str]:
    """Returns the names of the classes, those of `train` where it is there."""
    by_split = {s: [p.name for p in class_folders(place)] for s, place in places.items()}
    first = "train" if "train" in by_split else next(iter(by_split))
    names = by_split[first]
    if not names:
        loose = len(image_files(places[first]))
        raise InputError(
            f"{places[first]} has no folder with images in it"
            + (f", and {loose} images beside each other" if loose else "")
            + "; make one folder for each class, or give a table (.csv, .parquet)"
        )
    for split, found in by_split.items():
        if extra := sorted(set(found) - set(names)):
            raise InputError(
                f"{places[split]} has the class {extra[0]!r}, which {places[first]} has "
                "not; add it there, or remove it"
            )
    empty = [p.name for p in subfolders(places[first]) if p.name not in names]
    if empty:
        raise InputError(
            f"{places[first] / empty[0]} holds no image ({', '.join(ENDINGS)}); add some, "
            "or remove the folder"
        )
    return names


def _passed_over(folder: pathlib.Path, splits: dict[str, Items]) -> list[pathlib.Path]:
    """Returns the images of a folder that are of no class, but for hidden ones."""
    read = {one.content for items in splits.values() for one in items.images}
    return [
        path
        for path in image_files(folder)
        if path not in read
        and not any(part[0] == "." for part in path.relative_to(folder).parts)
    ]


def _others(folder: pathlib.Path) -> list[str]:
    """Returns the files of a class that are no images."""
    if not folder.is_dir():
        return []
    return sorted(
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name[0] != "." and path.suffix.lower() not in ENDINGS
    )
