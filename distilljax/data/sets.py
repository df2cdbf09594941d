"""Data sets as arrays: loading, validation and splitting."""

import hashlib
import importlib.resources
import importlib.util
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import checks
from distilljax.checks import integer
from distilljax.data import own, prepared
from distilljax.data.matrices import channel_statistics
from distilljax.data.own import arrays as own_arrays
from distilljax.data.own import images as own_images
from distilljax.data.own.tables import ENDINGS as TABLES
from distilljax.data.registered import check_transform
from distilljax.types import InputError, RealSet, Transform

_EMBEDDED_FILE = "fashion_mnist_subset.npz"
_EMBEDDED_FINGERPRINT = "6f9b43a82c1c1324046a7ca50c13d7138591a102dd9b960d20c14669d863910f"
_NPZ_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
_MIN_SIDE = 8
_CHANNEL_FIRST = "it looks like [n, c, h, w]: use images.transpose(0, 2, 3, 1)"


class Split(NamedTuple):
    """Images with their labels.

    Attributes:
      images: u8[n, h, w, c].
      labels: i32[n], 0..k-1.
    """

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A validated image classification set.

        >>> import distilljax
        >>> data = distilljax.data.load("embedded")
        >>> data.num_classes, data.image_shape, data.class_names[0]
        (10, (28, 28, 1), 't-shirt/top')

    Attributes:
      name: how messages and records call the data.
      train: training images.
      test: test images.
      class_names: k names; label j is class_names[j].
      source: 'embedded', 'arrays', or such as 'npz', 'folder,size=32x32', 'tfds ...'.
      fingerprint: SHA-256 of the arrays, hex; see `fingerprint`.
      mean: of each channel over the training images, in [0, 1].
      std: likewise; population standard deviation.
      notes: what was done to the images, and what to know of them.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    source: str
    fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        height, width, channels = self.image_shape
        return (
            f"Dataset({self.name}: {len(self.train.labels)} training and "
            f"{len(self.test.labels)} test images of {height}x{width}x{channels}, "
            f"{self.num_classes} classes)"
        )

    @property
    def num_classes(self) -> int:
        """Number of classes, k."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image, (h, w, c)."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def load(name: str | os.PathLike[str] = "embedded", data_dir: str | None = None) -> Dataset:
    """Loads and validates a data set.

    >>> sets.load("embedded").train.images.shape
    (8000, 28, 28, 1)

    Args:
      name: one of
        'embedded', the subset of Fashion-MNIST that comes with the package;
        the folder of a data set of your own: images in one subfolder for each class, also
        under train/, validation/ and test/, or tables; written ./NAME where TFDS knows
        NAME too;
        the path of a table (.csv, .tsv, .parquet, .arrow) with the image (bytes, path, or
        pixels) and the label of each row;
        the path of an .npz file with uint8 images, [n, h, w, c] with c = 1 or 3 or
        [n, h, w], and integer labels, [n] or [n, 1], 0..k-1, as `train_images`,
        `train_labels`, `test_images`, `test_labels`, or x_train, y_train and so on; and
        perhaps `class_names`, [k] strings;
        a TFDS name, such as 'cifar10', 'emnist/letters', 'cifar10:3.0.2'.
        Options follow with commas, see `own.request.Request`:
        'pets,size=32,colour=grey,test_share=0.2'.
      data_dir: folder of prepared TFDS sets, used for TFDS names only; None for the TFDS
        default.

    Raises:
      InputError: the data cannot be found or read, or are not a valid image classification
        set.
    """
    name = checks.path(name, "name", "the name or the path of a data set")
    request = own.parse(name)
    if request.path == "embedded":
        return _changed(_load_embedded(), request)
    if _is_own(request.path, data_dir):
        found = own.read(request)
        arrays = prepared.Arrays(*found[:4])
        loaded = _dataset(
            request.stem, found.source, request.path, arrays, found.class_names
        )
        return loaded._replace(notes=found.notes)
    arrays, class_names, source = prepared.read(request.path, data_dir)
    return _changed(_dataset(request.path, source, source, arrays, class_names), request)


def _is_own(path: str, data_dir: str | None) -> bool:
    """Whether a name is the path of the user's own file or folder."""
    if path.lower().endswith((".npz", *TABLES)):
        return True
    if path.startswith(("/", "./", "../", "~")) or path in (".", ".."):
        return True
    return os.path.isdir(path) and not prepared.knows(path, data_dir)


def _changed(loaded: Dataset, request: own.Request) -> Dataset:
    """Returns a data set that is there as a whole, resized or converted as asked.

    Raises:
      InputError: another option, which has a meaning for the user's own data alone.
    """
    others = [n for n in own.OPTIONS if n not in ("size", "fit", "colour")]
    if given := request.given(*others):
        raise InputError(
            f"{request.path}: {given[0]} has a meaning for files and folders of your own "
            f"alone; {request.path} takes size, fit and colour"
        )
    if request.size is None and request.colour is None:
        return loaded
    splits = [own_images.decode(s.images, request) for s in (loaded.train, loaded.test)]
    notes = [
        f"{name}: {text}"
        for name, one in zip(("train", "test"), splits, strict=True)
        for text in one.notes
    ]
    arrays = prepared.Arrays(
        splits[0].images, loaded.train.labels, splits[1].images, loaded.test.labels
    )
    source = ",".join([loaded.source, *request.told()])
    changed = _dataset(loaded.name, source, request.path, arrays, loaded.class_names)
    return changed._replace(notes=tuple(notes))


def dataset(
    train_images: Any,
    train_labels: Any,
    test_images: Any,
    test_labels: Any,
    *,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
) -> Dataset:
    """Validates arrays in memory as a data set, by the rules of an .npz file.

        >>> import numpy as np
        >>> import distilljax
        >>> images, labels = np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 3
        >>> distilljax.dataset(images, labels, images, labels).class_names
        ('0', '1', '2')

    Args:
      train_images: u8[n, h, w, c] in 0..255 with c = 1 or 3, or u8[n, h, w]; a numpy or
        JAX array, or a list of arrays of one shape.
      train_labels: i[n], 0..k-1; each class has an image.
      test_images: the same, of the same height, width and channels.
      test_labels: i[n], the same classes.
      class_names: k strings; the class numbers if None.
      name: how messages and records call the data.

    Returns:
      A data set whose source is 'arrays'. The arrays are not copied where they need no
      conversion.

    Raises:
      InputError: the arrays are not a valid image classification set.
    """
    if not isinstance(name, str):
        raise InputError(f"name={name!r:.40}: give text, by which messages call the data")
    given = (train_images, train_labels, test_images, test_labels)
    arrays = (_array(x, f"{name}: {key}") for key, x in zip(_NPZ_KEYS, given, strict=True))
    names = None if class_names is None else _names(class_names, name)
    return _dataset(name, "arrays", name, prepared.Arrays(*arrays), names)


def _array(values: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{what} cannot be one array ({str(error).splitlines()[0]}); bring all entries "
            "to one shape"
        ) from error
    if array.dtype.kind not in "biufc":
        raise InputError(f"{what} is {array.dtype}, and must be numeric")
    if np.ma.is_masked(values):
        raise InputError(f"{what} has masked entries; leave these images out, or fill them")
    return array


def _names(names: Any, where: str) -> tuple[str, ...]:
    names = names.tolist() if hasattr(names, "tolist") else names
    listed = isinstance(names, Sequence) and not isinstance(names, str)
    if not listed or not all(isinstance(one, str) for one in names):
        raise InputError(f"{where}: class_names must be a list of strings, one a class")
    if twice := [one for one in names if names.count(one) > 1]:
        raise InputError(
            f"{where}: class_names has {twice[0]!r} twice, and is to tell classes apart; "
            "rename one"
        )
    return tuple(map(str, names))


def _load_embedded() -> Dataset:
    resource = importlib.resources.files("distilljax.data.embedded") / _EMBEDDED_FILE
    where = "the embedded data set"
    if importlib.util.find_spec("_lzma") is None:
        raise InputError(
            f"{where} is compressed by LZMA, which this Python was built without; take "
            "another, or build it again with liblzma installed"
        )
    with importlib.resources.as_file(resource) as path:
        found = own_arrays.read(path, own.Request(str(path)))
    train, test = found.splits["train"], found.splits["test"]
    arrays = prepared.Arrays(*map(np.asarray, (*train, *test)))
    data = _dataset("embedded Fashion-MNIST", "embedded", where, arrays, found.class_names)
    if data.fingerprint != _EMBEDDED_FINGERPRINT:
        raise InputError(
            f"{where} has SHA-256 {data.fingerprint}, expected {_EMBEDDED_FINGERPRINT}: "
            "the installation is damaged; reinstall distilljax"
        )
    return data


def _dataset(
    name: str,
    source: str,
    where: str,
    arrays: prepared.Arrays,
    class_names: tuple[str, ...] | None,
) -> Dataset:
    """Validates arrays and returns a `Dataset`; `where` names the data in messages."""
    train_images = _valid_images(arrays.train_images, f"{where}: train_images")
    test_images = _valid_images(arrays.test_images, f"{where}: test_images")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise InputError(
            f"{where}: train images are {list(train_images.shape[1:])} and test images "
            f"{list(test_images.shape[1:])}; bring both to one height, width and number of "
            "channels"
        )
    pairs = (
        ("train", train_images, arrays.train_labels),
        ("test", test_images, arrays.test_labels),
    )
    for split, images, labels in pairs:
        _check_labels(labels, len(images), f"{where}: {split}_labels")
    if class_names is None:
        top = max(int(labels.max()) for _, _, labels in pairs)
        if top >= len(train_images):
            raise InputError(
                f"{where}: labels go up to {top} with {len(train_images)} train images, so "
                "some class has none; number the classes 0..k-1 without gaps"
            )
        class_names = tuple(map(str, range(max(top, 0) + 1)))
    num_classes = len(class_names)
    for split, _, labels in pairs:
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if len(wrong):
            raise InputError(
                f"{where}: {split}_labels has {wrong[0]}; with {num_classes} classes "
                f"labels are 0..{num_classes - 1}"
            )
    if num_classes < 2:
        raise InputError(
            f"{where}: there is only one class; classification needs at least two"
        )
    for split, _, labels in pairs:
        counts = np.bincount(labels.astype(np.int64), minlength=num_classes)
        absent = np.flatnonzero(counts == 0)
        if len(absent):
            numbers = [
                str(j) if class_names[j] == str(j) else f"{j} ({class_names[j]})"
                for j in absent[:10]
            ]
            shown = ", ".join(numbers) + ", ..." * (len(absent) > 10)
            raise InputError(
                f"{where}: {split}_labels has no image of class {shown} of "
                f"{num_classes}; number the classes without gaps, or add images"
            )
    train = Split(train_images, arrays.train_labels.astype(np.int32))
    test = Split(test_images, arrays.test_labels.astype(np.int32))
    mean, std = channel_statistics(train.images)
    return Dataset(
        name=name,
        train=train,
        test=test,
        class_names=class_names,
        source=source,
        fingerprint=fingerprint(train, test),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
    )


def _valid_images(images: np.ndarray, what: str) -> np.ndarray:
    """Validates images and returns them as u8[n, h, w, c], C-contiguous."""
    _check_bytes(images, what)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise InputError(
            f"{what} has shape {list(images.shape)}, and must be [n, h, w, c], or "
            "[n, h, w] for greyscale"
        )
    num, height, width, channels = images.shape
    if num == 0:
        raise InputError(f"{what} is empty; both splits need images")
    if channels not in (1, 3):
        advice = "store grey or RGB images as [n, h, w, c]"
        if height in (1, 3):
            advice = _CHANNEL_FIRST
        raise InputError(
            f"{what} has shape {list(images.shape)}, so {channels} channels, and must have "
            f"1 or 3; {advice}"
        )
    if min(height, width) < _MIN_SIDE:
        raise InputError(
            f"{what} has images of {height} x {width} pixels, and the smallest that are "
            f"taken are {_MIN_SIDE} x {_MIN_SIDE}; enlarge them"
        )
    return np.ascontiguousarray(images)


def _check_bytes(images: np.ndarray, what: str) -> None:
    if images.dtype == np.uint8:
        return
    advice = "convert them to uint8 values in 0..255"
    if images.dtype.kind in "fiu" and images.size:
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            bad = "NaN" if np.isnan(images).any() else "infinity"
            advice = f"they contain {bad}; repair them, then {advice}"
        elif images.min() < 0 or images.max() > 255:
            low, high = images.min(), images.max()
            advice = f"they span {low:g}..{high:g}, and must be bytes: scale to 0..255"
        elif images.dtype.kind == "f" and images.max() <= 1:
            advice += ": numpy.round(255 * images).astype(numpy.uint8)"
        else:
            advice += ": numpy.round(images).astype(numpy.uint8)"
    raise InputError(f"{what} is {images.dtype}, and must be uint8; {advice}")


def _check_labels(labels: np.ndarray, num_images: int, what: str) -> None:
    if labels.dtype.kind not in "iu" and labels.ndim < 2:
        raise InputError(
            f"{what} is {labels.dtype}, and must be integers; give the class numbers 0..k-1"
        )
    if labels.ndim != 1:
        advice = (
            "use labels.argmax(axis=1) if it is one-hot"
            if labels.ndim == 2 and labels.shape[1] > 1
            else "use labels.ravel()"
        )
        raise InputError(
            f"{what} has shape {list(labels.shape)}, and must be [n], one class number an "
            f"image; {advice}"
        )
    if len(labels) != num_images:
        raise InputError(
            f"{what} has {len(labels)} labels for {num_images} images; give one an image"
        )


def fingerprint(train: Split, test: Split) -> str:
    """Returns the hex SHA-256 of train, then test: shape, pixels, little-endian i32 labels.

    It depends on the contents and their order alone, not on their source.

    >>> split = sets.Split(np.zeros((1, 2, 2, 1), np.uint8), np.zeros(1, np.uint8))
    >>> sets.fingerprint(split, split)[:8]
    '3ec37861'
    """
    digest = hashlib.sha256()
    for images, labels in (train, test):
        digest.update(repr(tuple(map(int, images.shape))).encode())
        digest.update(np.ascontiguousarray(images).data)
        digest.update(labels.astype("<i4").tobytes())
    return digest.hexdigest()


def _check_split(split: Split) -> None:
    checks.instance(split, Split, "split", "a Split, such as data.train of a Dataset")


def _draw(split: Split, num_per_class: int, seed: int, leave: int) -> list[np.ndarray]:
    """Samples positions of `num_per_class` images per class, leaving at least `leave`.

    The sample of a class depends on the seed, the class and its images only; a smaller
    sample is a prefix of a larger one.
    """
    _check_split(split)
    num_per_class = checks.positive(num_per_class, "num_per_class")
    seed = integer(seed, "seed")
    if seed < 0:
        raise InputError(f"seed={seed}: must be at least 0")
    counts = np.bincount(split.labels)
    for label, count in enumerate(counts):
        if count < num_per_class + leave:
            raise InputError(
                f"num_per_class={num_per_class}: class {label} has {count} images"
                + (", and at least one must be left" if leave else "")
                + f"; choose at most {max(counts.min() - leave, 0)}"
            )
    return [
        np.random.default_rng([seed, label]).permutation(
            np.flatnonzero(split.labels == label)
        )[:num_per_class]
        for label in range(len(counts))
    ]


def hold_out(split: Split, num_per_class: int, seed: int) -> tuple[Split, Split]:
    """Holds out random images, the same number per class.

    >>> split = sets.Split(np.zeros((6, 2, 2, 1), np.uint8), np.arange(6) % 2)
    >>> rest, held = sets.hold_out(split, 1, seed=0)
    >>> len(rest.labels), sorted(held.labels.tolist())
    (4, [0, 1])

    Returns:
      (rest, held out), both in the order of `split`.

    Raises:
      InputError: a class with at most `num_per_class` images; a number below 1; a negative
        seed.
    """
    chosen = np.concatenate(_draw(split, num_per_class, seed, leave=1))
    held = np.zeros(len(split.labels), bool)
    held[chosen] = True
    return (
        Split(split.images[~held], split.labels[~held]),
        Split(split.images[held], split.labels[held]),
    )


def subset(split: Split, num_per_class: int, seed: int) -> Split:
    """Samples images of each class without replacement, in class order.

    >>> split = sets.Split(np.zeros((6, 2, 2, 1), np.uint8), np.arange(6) % 2)
    >>> sets.subset(split, 2, seed=0).labels.tolist()
    [0, 0, 1, 1]

    Raises:
      InputError: a class has fewer than `num_per_class` images; a number below 1; a
        negative seed.
    """
    chosen = np.concatenate(_draw(split, num_per_class, seed, leave=0))
    return Split(split.images[chosen], split.labels[chosen])


def on_device(split: Split, transform: Transform, num_classes: int) -> RealSet:
    """Puts a split on the default device, with an index for sampling by class.

    >>> from distilljax.data import preprocess
    >>> split = sets.Split(np.zeros((6, 2, 2, 1), np.uint8), np.arange(6) % 2)
    >>> sets.on_device(split, preprocess.Identity(), num_classes=2).class_sizes.tolist()
    [3, 3]

    Raises:
      InputError: images that are not u8[n, h, w, c], labels that are not i[n]; a class
        without an image, or a label outside 0..num_classes-1; a transform that is no
        pytree of arrays with an inverse.
    """
    _check_split(split)
    check_transform(transform)
    num_classes = integer(num_classes, "num_classes")
    images = _array(split.images, "images")
    labels = _array(split.labels, "labels")
    _check_bytes(images, "images")
    if images.ndim != 4 or not len(images):
        advice = "give images[..., None]" if images.ndim == 3 else "give a batch of images"
        raise InputError(
            f"images has shape {list(images.shape)}, and must be [n, h, w, c]; {advice}"
        )
    if images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):
        raise InputError(f"images has shape {list(images.shape)}; {_CHANNEL_FIRST}")
    _check_labels(labels, len(images), "labels")
    if labels.min() < 0:
        raise InputError(
            f"labels has {labels.min()}; with {num_classes} classes labels are "
            f"0..{num_classes - 1}"
        )
    if labels.max() >= max(num_classes, len(labels)):
        raise InputError(
            f"labels has {labels.max()} with {len(labels)} images; with {num_classes} "
            f"classes labels are 0..{num_classes - 1}"
        )
    counts = np.bincount(labels.astype(np.int64), minlength=num_classes)
    if len(counts) != num_classes or not counts.all():
        raise InputError(
            f"each of {num_classes} classes needs an image, and there are no others; the "
            f"numbers of images are {counts[:20].tolist()}"
        )
    width = int(counts.max())
    rows = [
        np.resize(np.flatnonzero(labels == label), width) for label in range(num_classes)
    ]
    return RealSet(
        images=jax.device_put(images, may_alias=False),  # `asarray` has a second copy
        labels=jnp.asarray(labels, jnp.int32),
        class_index=jnp.asarray(np.stack(rows), jnp.int32),
        class_sizes=jnp.asarray(counts, jnp.int32),
        transform=transform,
    )
