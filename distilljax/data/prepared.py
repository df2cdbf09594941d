"""Image classification sets prepared by TensorFlow Datasets, read without TensorFlow.

Reading decodes every PNG or JPEG record, which takes seconds to minutes, so the arrays are
cached in the folder of the prepared data, if it is writable.
"""

import contextlib
import difflib
import errno
import hashlib
import importlib.util
import io
import logging
import os
import pathlib
import re
import urllib.error
import urllib.parse
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from distilljax.disk.files import replacing
from distilljax.types import InputError

CACHE_NAME = "distilljax_arrays.npz"
_CACHE_FORMAT = 1
_BATCH = 1000
_PROBE_SECONDS = 10
_NAME = re.compile(r"\w+(/[\w.\-]+)?(:[\d*]+\.[\d*]+\.[\d*]+)?")
_NUMBERED = re.compile(rb"(.*?)(\d+)", re.DOTALL)
# What prepares a set, on a machine without distilljax.
_PREPARING = "tensorflow 'tensorflow-datasets>=4.9.10' array-record importlib-resources"
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


def knows(name: str, data_dir: str | None) -> bool:
    """Whether TFDS knows a data set of this name, or `data_dir` holds one.

    >>> prepared.knows("fashion_mnist", None), prepared.knows("no_such_set", None)
    (True, False)
    """
    if data_dir and os.path.isdir(os.path.join(os.path.expanduser(data_dir), name)):
        return True
    import tensorflow_datasets as tfds

    first, *_ = re.split("[/:]", name)
    return first in tfds.list_builders(with_community_datasets=False)


class Arrays(NamedTuple):
    """Both splits as read, not validated.

    Attributes:
      train_images: u8[n, h, w, c].
      train_labels: i[n].
      test_images: u8[m, h, w, c].
      test_labels: i[m].
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def read(name: str, data_dir: str | None) -> tuple[Arrays, tuple[str, ...], str]:
    """Reads the train and test splits of a TFDS image classification set.

    A set that is not prepared is downloaded and prepared if TensorFlow can be imported.
    Records are sorted by their `id` feature if it ends in a number; otherwise they keep the
    order of the prepared files.

    >>> arrays, names, source = prepared.read("mnist", "prepared")  # doctest: +SKIP

    Args:
      name: a name that TFDS knows or `data_dir` holds: 'cifar10', 'emnist/letters',
        'cifar10:3.0.2'.
      data_dir: folder of prepared TFDS sets; None for the TFDS default.

    Returns:
      The arrays (images u8[n, h, w, c], labels i32[n]), the class names, and the source,
      such as 'tfds cifar10/3.0.2'. Classes that are declared and that neither split has
      are left out; the others are numbered 0..k-1.

    Raises:
      InputError: unknown name; preparation impossible; prepared in a format without random
        access; not image classification; images of varying shape; no train or test split;
        unreadable files.
    """
    builder = _builder(name, data_dir)
    image_key, label_key = _keys(name, builder.info)
    with _quiet():
        is_prepared = builder.is_prepared()
    if not is_prepared:
        builder = _prepare(name, data_dir, builder)
    arrays = _arrays(name, data_dir, builder, image_key, label_key)
    class_names = tuple(builder.info.features[label_key].names)
    arrays, class_names = _only_used(arrays, class_names)
    return arrays, class_names, f"tfds {builder.info.full_name}"


def _only_used(
    arrays: Arrays, class_names: tuple[str, ...]
) -> tuple[Arrays, tuple[str, ...]]:
    """Leaves out the classes that no split has, and numbers the others anew.

    emnist/letters declares 37 classes, and has those of 1 to 26.
    """
    labels = arrays.train_labels, arrays.test_labels
    found = np.unique(np.concatenate(labels))
    if not len(found) or found[0] < 0 or found[-1] >= len(class_names):
        return arrays, class_names  # refused later
    train, test = (np.searchsorted(found, one).astype(np.int32) for one in labels)
    names = tuple(class_names[j] for j in found)
    return arrays._replace(train_labels=train, test_labels=test), names


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses log messages, warnings and output of TFDS; exceptions propagate."""
    # Imported first: it creates the "absl" logger with its own class.
    import tensorflow_datasets  # noqa: F401

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@_quiet()
def _builder(name: str, data_dir: str | None, **options: Any) -> Any:
    import tensorflow_datasets as tfds

    if data_dir is not None:
        options["data_dir"] = os.path.expanduser(data_dir)
    try:
        if _NAME.fullmatch(name):
            return tfds.builder(name, **options)
    except tfds.core.registered.DatasetNotFoundError:
        pass
    except ImportError as error:
        raise InputError(
            f"tensorflow-datasets needs a module that is not installed to open {name!r} "
            f"({_first_line(error)}); install it"
        ) from error
    except Exception as error:
        raise InputError(
            f"tensorflow-datasets cannot open {name!r} ({_first_line(error)}); check the "
            "name, which may be NAME, NAME/CONFIG or NAME:VERSION"
        ) from error
    known = tfds.list_builders(with_community_datasets=False)
    close = difflib.get_close_matches(name.lower(), ["embedded", *known], n=3)
    raise InputError(
        f"there is no data set {name!r}, nor such a folder: give 'embedded', a folder with "
        "a subfolder of images for each class, a .csv, .parquet or .npz file, or a set of "
        f"tensorflow-datasets or in {data_dir or 'its default folder'}; "
        + (f"did you mean {', '.join(close)}?" if close else "check the name")
    )


def _keys(name: str, info: Any) -> tuple[str, str]:
    """Returns the names of the image and label features: the supervised or the only ones.

    Raises:
      InputError: none or several candidates; images not uint8 or of varying shape.
    """
    import tensorflow_datasets as tfds

    top = info.features
    features = dict(top) if isinstance(top, tfds.features.FeaturesDict) else {}
    images = [k for k, f in features.items() if isinstance(f, tfds.features.Image)]
    labels = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    if not images or not labels:
        raise InputError(
            f"{name!r} is not an image classification set: its features are "
            f"{', '.join(features) or 'no dictionary'}, and it lacks "
            f"{'a class label' if images else 'an image'}; choose another set"
        )
    supervised = info.supervised_keys
    if supervised and supervised[0] in images and supervised[-1] in labels:
        image, label = supervised[0], supervised[-1]
    elif len(images) == len(labels) == 1:
        (image,), (label,) = images, labels
    else:
        raise InputError(
            f"{name!r} has the images {', '.join(images)} and the class labels "
            f"{', '.join(labels)}, and does not say which to use; save one of each in an "
            ".npz file"
        )
    shape, dtype = features[image].shape, np.dtype(features[image].np_dtype)
    if None in shape:
        raise InputError(
            f"{name!r} has images of varying shape {shape}; resize them to one shape and "
            "save them in an .npz file"
        )
    if dtype != np.uint8:
        raise InputError(
            f"{name!r} has {dtype} images, and only uint8 ones are read; convert them and "
            "save them in an .npz file"
        )
    return image, label


def _advice(name: str, data_dir: str | None) -> str:
    folder = "" if data_dir is None else f"data_dir={data_dir!r}, "
    return (
        f'pip install {_PREPARING} && python -c "import tensorflow_datasets as '
        f"tfds; tfds.builder({name!r}, {folder}file_format='array_record')"
        '.download_and_prepare()"'
    )


def _then(data_dir: str | None) -> str:
    return f" and then pass --data_dir={data_dir}" if data_dir else ""


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None


@_quiet()
def _prepare(name: str, data_dir: str | None, builder: Any) -> Any:
    """Downloads and prepares a set; returns the builder that reads it."""

    def failed(why: str) -> InputError:
        return InputError(
            f"{name!r} is not prepared in {builder.data_dir}, and {why}; on a machine with "
            f"a network run: {_advice(name, data_dir)}{_then(data_dir)}"
        )

    if not _has_tensorflow():
        raise failed("preparing it needs TensorFlow, which is not installed")
    # Checked first: TFDS would retry ten times with increasing waits and no timeout.
    if trouble := _unreachable(builder.url_infos or {}):
        raise failed(trouble)
    builder = _builder(name, data_dir, file_format="array_record")
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise failed(f"preparing it failed ({_first_line(error)})") from error
    return builder


def _unreachable(urls: Iterable[str]) -> str | None:
    """Returns why the first unreachable host fails; None if all hosts respond."""
    by_host = {urllib.parse.urlsplit(url).netloc: url for url in urls}
    for host, url in by_host.items():
        if not url.startswith(("http://", "https://")):
            continue
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=_PROBE_SECONDS):
                pass
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                return f"{host}, where it is downloaded from, answers {error.code}"
        except OSError as error:
            reason = getattr(error, "reason", error)
            return f"{host}, where it is downloaded from, cannot be reached ({reason})"
    return None


def _arrays(
    name: str, data_dir: str | None, builder: Any, image_key: str, label_key: str
) -> Arrays:
    info = builder.info
    if absent := {"train", "test"} - set(info.splits):
        raise InputError(
            f"{name!r} has the splits {', '.join(info.splits)}, and lacks "
            f"{' and '.join(sorted(absent))}; choose what to train and test on, and save "
            "both in an .npz file"
        )
    folder = pathlib.Path(builder.data_dir)
    image = info.features[image_key]
    expected = [
        shape
        for split in ("train", "test")
        for num in [info.splits[split].num_examples]
        for shape in [(num, *image.shape), (num,)]
    ]
    cache, key = folder / CACHE_NAME, _cache_key(info, folder, image_key, label_key)
    cached = _read_cache(cache, key, expected)
    if cached is not None:
        return cached
    try:
        arrays = Arrays(
            *_read_split(builder, "train", image_key, label_key),
            *_read_split(builder, "test", image_key, label_key),
        )
    except NotImplementedError as error:
        raise InputError(
            f"{name!r} is prepared in {folder} as {info.file_format.value}, which cannot "
            f"be read without TensorFlow; move that folder away, then on a machine with a "
            f"network run: {_advice(name, data_dir)}{_then(data_dir)}"
        ) from error
    except Exception as error:
        raise InputError(
            f"the prepared files of {name!r} in {folder} cannot be read "
            f"({_first_line(error)}); remove that folder, then on a machine with a network "
            f"run: {_advice(name, data_dir)}{_then(data_dir)}"
        ) from error
    _write_cache(cache, key, arrays)
    return arrays


@_quiet()
def _read_split(
    builder: Any, split: str, image_key: str, label_key: str
) -> tuple[np.ndarray, np.ndarray]:
    source = builder.as_data_source(split)
    num = len(source)
    images = np.empty((num, *builder.info.features[image_key].shape), np.uint8)
    labels = np.empty(num, np.int32)
    ids: list[Any] = []
    for start in range(0, num, _BATCH):
        rows = list(range(start, min(start + _BATCH, num)))
        for row, example in zip(rows, source.__getitems__(rows), strict=True):
            images[row] = example[image_key]
            labels[row] = example[label_key]
            ids.append(example.get("id"))
    order = _source_order(ids)
    return (images, labels) if order is None else (images[order], labels[order])


def _source_order(ids: list[Any]) -> list[int] | None:
    """Returns positions sorted by ids like b'train_00012'; None for other ids."""
    keys = []
    for one in ids:
        match = _NUMBERED.fullmatch(one) if isinstance(one, bytes) else None
        if match is None:
            return None
        keys.append((match[1], int(match[2])))
    return sorted(range(len(keys)), key=keys.__getitem__)


def _cache_key(info: Any, folder: pathlib.Path, image_key: str, label_key: str) -> str:
    """Returns a key that changes with the prepared set and with the cache format."""
    digest = hashlib.sha256()
    for file in ("dataset_info.json", "features.json"):
        digest.update((folder / file).read_bytes())
    return f"{_CACHE_FORMAT} {info.full_name} {image_key} {label_key} {digest.hexdigest()}"


def _read_cache(
    path: pathlib.Path, key: str, shapes: list[tuple[int, ...]]
) -> Arrays | None:
    """Returns the arrays; None if the cache is missing, corrupt or of other data."""
    try:
        # NumPy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            if str(held["key"]) != key:
                return None
            arrays = Arrays(*(held[field] for field in Arrays._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return arrays if [array.shape for array in arrays] == shapes else None


def _write_cache(path: pathlib.Path, key: str, arrays: Arrays) -> None:
    """Replaces the cache atomically; does nothing in a read-only folder."""
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, key=np.array(key), **arrays._asdict())
    except OSError as error:
        if error.errno not in _READ_ONLY:
            _warn_not_cached(path, error)


def _warn_not_cached(path: pathlib.Path, error: OSError) -> None:
    logging.getLogger(__name__).warning(
        "%s could not be written (%s), so the records will be decoded again next time",
        path,
        error,
    )
