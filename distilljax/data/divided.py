"""A data set divided into training and held-out images, preprocessed, on the device."""

from typing import NamedTuple

import numpy as np

from distilljax import checks
from distilljax.config import FieldError
from distilljax.data.preprocess import fit
from distilljax.data.sets import Dataset, Split, hold_out, on_device
from distilljax.types import InputError, RealSet, Transform

HELD_OUT = 50  # images of each class


class Prepared(NamedTuple):
    """Real data, divided, on the device.

    Attributes:
      data: the data set.
      rest: training images that are not held out.
      transform: the preprocessing, fitted on `rest`.
      real: `rest` on the device.
      held_out: the held-out training images on the device.
    """

    data: Dataset
    rest: Split
    transform: Transform
    real: RealSet
    held_out: RealSet


def prepare(
    data: Dataset,
    preprocess: str | Transform = "normalise",
    *,
    held_out: int | None = None,
    split_seed: int = 0,
    name: str | None = None,
) -> Prepared:
    """Divides a data set, preprocesses it and puts its training images on the device.

    >>> labels = np.arange(20) % 2
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    >>> from distilljax import data
    >>> real = data.dataset(images, labels, images, labels)
    >>> prepared = divided.prepare(real, held_out=3)
    >>> prepared.held_out.class_sizes.tolist()
    [3, 3]

    Args:
      data: the data set.
      preprocess: a kind that `fit` knows, or a transform that is fitted already.
      held_out: training images of each class that are held out; None: 50, or a fifth of
        the smallest class where that is less.
      split_seed: random seed of the held-out images.
      name: how messages call the data, and by which `published` constants are looked up;
        None: the name of the data set.

    Raises:
      InputError: a class with one training image, or without a test image.
      FieldError: of `held_out`, more images than a class has.
    """
    checks.instance(data, Dataset, "data", "a Dataset, of distilljax.dataset or data.load")
    name = data.name if name is None else name
    k = data.num_classes
    train, test = (
        np.bincount(split.labels, minlength=k) for split in (data.train, data.test)
    )
    smallest = int(train.min())
    if smallest < 2:
        raise InputError(
            f"{name} has one training image of the class "
            f"{data.class_names[train.argmin()]!r}, and one has to be held out; add "
            "some, or leave the class out"
        )
    if held_out is None:
        held_out = min(HELD_OUT, max(1, smallest // 5))
    held_out = checks.positive(held_out, "held_out")
    if held_out >= smallest:
        reason = (
            f"the smallest class, {data.class_names[train.argmin()]!r}, has {smallest} "
            f"training images; hold out at most {smallest - 1}, better fewer: "
            f"held_out={max(1, smallest // 5)}"
        )
        raise FieldError("held_out", held_out, reason)
    if absent := [data.class_names[j] for j in np.flatnonzero(test == 0)]:
        raise InputError(
            f"{name} has no test image of the class {absent[0]!r}; add some, or "
            "leave the class out"
        )
    rest, held = hold_out(data.train, held_out, split_seed)
    transform = preprocess
    if isinstance(transform, str):
        transform = fit(transform, rest.images, name)
    real = on_device(rest, transform, k)
    if {device.platform for device in real.images.devices()} == {"cpu"}:
        # The same memory, not a second copy.
        rest = rest._replace(images=np.asarray(real.images))
    return Prepared(data, rest, transform, real, on_device(held, transform, k))
