"""Images in folders: PNG files by class, and Hugging Face `datasets` on disk."""

import io
import json
import pathlib
from typing import Any

import numpy as np

from distilljax.config import FieldError
from distilljax.data.own.images import check_depth
from distilljax.disk import archives
from distilljax.types import InputError


def _image(source: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """u8[h, w, c] of an encoded picture, whose size is looked at before it is unfolded."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InputError("pictures need the package pillow; install pillow") from None
    h, w, c = shape
    try:
        with Image.open(source, formats=["PNG"]) as picture:
            check_depth(picture, what)
            if picture.size != (w, h) or picture.mode != {1: "L", 3: "RGB"}[c]:
                width, height = picture.size
                raise InputError(
                    f"{what} is {height} x {width} {picture.mode}, and images of the data "
                    f"set are {h} x {w} with {c} channels; give the set's own data "
                    "(dataset)"
                )
            return np.asarray(picture, np.uint8).reshape(h, w, c)
    except FileNotFoundError:
        raise InputError(f"{what}: no such file") from None
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} is no readable PNG file; it may be truncated") from None


def read_png(path: pathlib.Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns u8[n, h, w, c] and str[n], the folder's name of each, in order of names.

    >>> import pathlib
    >>> place, shape = pathlib.Path("pictures"), (32, 32, 3)
    >>> images, names = folders.read_png(place, shape)  # doctest: +SKIP

    Raises:
      InputError: no such folder, no pictures, a damaged one or one of another size.
    """
    if not path.is_dir():
        raise InputError("no such folder")
    files = sorted(path.glob("*/*.png"))
    if not files:
        raise InputError("it holds no folders of PNG files, one for each class")
    images = [_image(file, shape, str(file.relative_to(path))) for file in files]
    return np.stack(images), np.array([file.parent.name for file in files])


def read_arrow(path: pathlib.Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns images, u8 pictures or f32 arrays [n, h, w, c], and their labels.

    Labels are str[n] where the data set states class names, else i64[n] or f32[n, k].

    >>> import pathlib
    >>> place, shape = pathlib.Path("saved"), (32, 32, 3)
    >>> images, labels = folders.read_arrow(place, shape)  # doctest: +SKIP

    Raises:
      InputError: no package pyarrow, several splits, absent columns, damaged files.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise InputError(
            "layout=hf: it needs the package pyarrow; install pyarrow"
        ) from None
    if (path / "dataset_dict.json").exists():
        splits = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
        raise InputError(f"it holds splits; give the folder of one: {', '.join(splits)}")
    files = sorted(path.glob("*.arrow"))
    if not files:
        raise InputError("it holds no .arrow files")
    if (size := sum(file.stat().st_size for file in files)) > archives.LIMIT:
        raise InputError(f"it has {size} bytes, and at most {archives.LIMIT} are read")
    try:
        tables = []
        for file in files:
            with pa.OSFile(str(file), "rb") as source:
                tables.append(pa.ipc.open_stream(source).read_all())
        table = pa.concat_tables(tables)
    except (pa.ArrowException, OSError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"not readable as Arrow ({line}); it may be truncated") from None
    columns = {}
    for wanted, names in {
        "image": ("image", "img", "images"),
        "label": ("label", "labels"),
    }.items():
        present = [name for name in names if name in table.column_names]
        if len(present) != 1:
            have = ", ".join(table.column_names)
            raise InputError(f"it has columns {have}, and should have one named {wanted}")
        columns[wanted] = table.column(present[0]).to_pylist()
    images = _pictures(columns["image"], shape)
    labels = _labels(columns["label"], _class_names(path))
    return images, labels


def _pictures(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    if not values:
        raise InputError("it holds no images")
    if isinstance(values[0], dict):
        images = []
        for number, value in enumerate(values):
            data = value.get("bytes") if isinstance(value, dict) else None
            if not isinstance(data, bytes):
                raise InputError(
                    f"image {number} is stored as a path, not as a picture; save the data "
                    "set with its pictures inside"
                )
            images.append(_image(io.BytesIO(data), shape, f"image {number}"))
        return np.stack(images)
    try:
        array = np.asarray(values, np.float32)
    except (ValueError, TypeError):
        raise InputError("its images are no arrays of one shape") from None
    h, w, c = shape
    if array.shape[1:] == (c, h, w) and array.shape[1:] != (h, w, c):
        array = array.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(array)


def _labels(values: list[Any], names: list[str] | None) -> np.ndarray:
    try:
        labels = np.asarray(values)
    except ValueError:
        labels = np.zeros(0, object)
    if labels.dtype.kind in "iu" and labels.ndim == 1:
        if names is None:
            return labels.astype(np.int64)
        if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
            raise InputError(f"labels go beyond its {len(names)} class names")
        return np.asarray(names)[labels]
    if labels.dtype.kind == "f" and labels.ndim == 2:
        return labels.astype(np.float32)
    raise InputError("its labels are neither class numbers nor rows of real numbers")


def _class_names(path: pathlib.Path) -> list[str] | None:
    """The class names that the data set states, if any."""
    try:
        info = json.loads((path / "dataset_info.json").read_text("utf-8"))
        features = info["features"]
        names = (features.get("label") or features.get("labels") or {}).get("names")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def classes_of_names(names: np.ndarray, known: tuple[str, ...]) -> np.ndarray:
    """Returns i64[n], the class of each name; numbers count as classes.

    >>> folders.classes_of_names(np.array(["dog", "cat"]), ("cat", "dog")).tolist()
    [1, 0]

    Raises:
      FieldError: a name that is no class of the data set.
    """
    found = {name: j for j, name in enumerate(known)}
    if all(str(name).isdecimal() for name in names) and not set(names) <= set(found):
        return np.asarray(names).astype(np.int64)
    if strange := sorted(set(map(str, names)) - set(found)):
        reason = (
            f"the file names a class {strange[0]!r}, and the data set's are "
            f"{', '.join(known[:10])}{', ...' if len(known) > 10 else ''}"
        )
        raise FieldError("dataset", "", reason)
    return np.array([found[str(name)] for name in names], np.int64)
