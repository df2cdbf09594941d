"""What can be checked of the answers that a foreign file does not give itself."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from distilljax import data
from distilljax.config import FieldError
from distilljax.types import InputError, Transform

# A set has 0.7 to 1.2 of its data's spread where its preprocessing is the right one, in the
# published sets of DC, RaT-BPTT, RFAD and RCIG; under others 0.3 or 1.4 and far more.
MOST_SPREAD = 2.0
MOST_SHIFT = 0.15

_CHEAP = ("none", "normalise", "published")


def _shown(transform: Transform, images: np.ndarray) -> tuple[float, float]:
    """Mean and deviation of the pictures that a preprocessing makes of images."""
    pictures = np.asarray(transform.inverse(jnp.asarray(images)), np.float64)
    return float(pictures.mean()), float(pictures.std())


def spread(transform: Transform, images: np.ndarray, loaded: data.Dataset) -> float:
    """Returns the deviation of the set's pictures over that of the data's."""
    unit = loaded.train.images[:: max(1, len(loaded.train.images) // 2000)] / 255
    return _shown(transform, images)[1] / float(unit.std())


def check_preprocess(
    kind: str, transform: Transform, images: np.ndarray, loaded: data.Dataset
) -> dict[str, Any]:
    """Compares the set's pictures with the data's pixels; returns what was found.

    With the preprocessing taken back, images of a distilled set have about the mean and the
    spread of real ones. A wrong answer shows as pictures far too flat or too harsh.

    Args:
      kind: the answer, of `data.KINDS`.
      transform: fitted to the data.
      images: f32[n, h, w, c], what networks see.
      loaded: the data.

    Raises:
      FieldError: of `preprocess`: mean or spread are far from the data's.
    """
    expected = float(loaded.train.images.mean() / 255)
    mean, ratio = _shown(transform, images)[0], spread(transform, images, loaded)
    found = {"spread": ratio, "mean": mean, "data_mean": expected}
    if 1 / MOST_SPREAD <= ratio <= MOST_SPREAD and abs(mean - expected) <= MOST_SHIFT:
        return found
    fitting = [other for other in _CHEAP if other != kind and _fits(other, images, loaded)]
    hint = f"; {' or '.join(fitting)} would fit" if fitting else ""
    raise FieldError(
        "preprocess",
        kind,
        f"does not fit: with it taken back the images have {ratio:.2g} times the spread of "
        f"the data set's and mean {mean:.2f} (the data set's is {expected:.2f}){hint}",
    )


def _fits(kind: str, images: np.ndarray, loaded: data.Dataset) -> bool:
    try:
        transform = data.fit(kind, loaded.train.images, loaded.name)
    except InputError:
        return False
    expected = float(loaded.train.images.mean() / 255)
    ratio = spread(transform, images, loaded)
    near = abs(_shown(transform, images)[0] - expected) <= MOST_SHIFT
    return near and 1 / MOST_SPREAD <= ratio <= MOST_SPREAD


def check_images(images: np.ndarray, loaded: data.Dataset) -> None:
    """Refuses images that are not of the data set's shape, or not finite.

    Raises:
      InputError: such images.
    """
    if images.ndim != 4 or not len(images):
        raise InputError(f"its images have shape {list(images.shape)}")
    if images.shape[1:] != loaded.image_shape:
        raise InputError(
            f"its images are {list(images.shape[1:])} (height, width, channels), and "
            f"those of {loaded.name} {list(loaded.image_shape)}; give the set's own data "
            "(dataset)"
        )
    if not np.isfinite(images).all():
        raise InputError("its images hold NaN or infinite values")


def check_classes(labels: np.ndarray, num_images: int, k: int, name: str) -> None:
    """Refuses class numbers that are not those of k classes, as many images of each.

    Raises:
      InputError: such labels.
    """
    if labels.shape != (num_images,):
        raise InputError(f"it has labels {list(labels.shape)} for {num_images} images")
    if labels.size and not 0 <= labels.min() <= labels.max() < k:
        raise InputError(
            f"its labels go from {labels.min()} to {labels.max()}, and {name} has classes "
            f"0..{k - 1}; give the set's own data (dataset)"
        )
    counts = np.bincount(labels, minlength=k)
    if len(set(counts.tolist())) > 1:
        few, many = int(counts.argmin()), int(counts.argmax())
        raise InputError(
            f"its labels give class {few} {counts[few]} images and class {many} "
            f"{counts[many]}; a set has as many of each of the {k} classes of {name}"
        )


def check_rows(labels: np.ndarray, kind: str, num_images: int, k: int, name: str) -> None:
    """Refuses rows of real labels that are not of the kind said.

    Raises:
      InputError: a shape that does not fit, NaN.
      FieldError: of `labels`: values that are of another kind.
    """
    if labels.shape != (num_images, k):
        raise InputError(
            f"its labels have shape {list(labels.shape)}, expected [{num_images}, {k}] for "
            f"the {k} classes of {name}; give the set's own data (dataset)"
        )
    if not np.isfinite(labels).all():
        raise InputError("its labels hold NaN or infinite values")
    off = np.abs(labels.sum(axis=1) - 1).max()
    distributions = bool(labels.min() >= 0 and off < 1e-3)
    if kind == "probabilities" and not distributions:
        reason = (
            f"rows do not sum to one (off by {off:.2g}) or are negative: logits, targets?"
        )
        raise FieldError("labels", kind, reason)
    if kind != "probabilities" and distributions:
        reason = "every row is a distribution; say labels=probabilities"
        raise FieldError("labels", kind, reason)


def check_divides(num_images: int, k: int, name: str) -> None:
    """Refuses a number of images that k classes do not divide.

    Raises:
      InputError: such a number.
    """
    if num_images % k:
        raise InputError(
            f"it has {num_images} images, which the {k} classes of {name} do not divide; "
            "check that it is whole and of these data (dataset)"
        )
