"""What can be checked of the answers that a foreign file does not give itself."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from distilljax import data
from distilljax.config import FieldError
from distilljax.types import InputError, Transform

# With its own preprocessing taken back the published sets of DC, RaT-BPTT, RFAD and RCIG
# have 0.7 to 1.9 times the spread of their data, and as networks see them 0.9 to 2.9 times
# the roughness; with another kind of preprocessing most are outside these bounds.
SPREAD = (0.4, 2.5)
ROUGHNESS = (0.45, 6.0)
SHIFT = 0.15
SHUFFLES = 1000

_CHEAP = ("none", "normalise", "published")  # to fit


class Fit(NamedTuple):
    """How a set compares with real images under a preprocessing.

    Attributes:
      spread: deviation of its pictures over that of the data.
      shift: mean of its pictures less that of the data, which is in 0..1.
      roughness: variance of differences of neighbours over variance, likewise.
    """

    spread: float
    shift: float
    roughness: float


def _roughness(images: np.ndarray) -> float:
    return float(np.diff(images, axis=1).var() / max(images.var(), 1e-12))


def compare(transform: Transform, images: np.ndarray, loaded: data.Dataset) -> Fit:
    """Compares a set, f32[n, h, w, c] as networks see it, with some real images.

    >>> from distilljax import data
    >>> labels = np.arange(40) % 2
    >>> images = np.random.default_rng(0).integers(0, 99, (40, 8, 8, 1))
    >>> images = (images + 99 * labels.reshape(40, 1, 1, 1)).astype(np.uint8)
    >>> real = data.dataset(images, labels, images, labels)
    >>> found = checks.compare(data.Identity(), images / np.float32(255), real)
    >>> round(found.spread, 2), round(found.shift, 2), round(found.roughness, 2)
    (1.0, 0.0, 1.0)
    """
    every = max(1, len(loaded.train.images) // 1000)
    raw = loaded.train.images[::every]
    pictures = np.asarray(transform.inverse(jnp.asarray(images)), np.float64)
    real = np.asarray(transform(jnp.asarray(raw)), np.float64)
    unit = raw / 255
    return Fit(
        float(pictures.std() / unit.std()),
        float(pictures.mean() - unit.mean()),
        _roughness(images.astype(np.float64)) / _roughness(real),
    )


def _fits(fit: Fit) -> bool:
    within = (SPREAD[0] <= fit.spread <= SPREAD[1], abs(fit.shift) <= SHIFT)
    return all(within) and ROUGHNESS[0] <= fit.roughness <= ROUGHNESS[1]


def check_preprocess(
    kind: str, transform: Transform, images: np.ndarray, loaded: data.Dataset
) -> dict[str, Any]:
    """Compares the set with real images under the preprocessing; returns what was found.

    >>> from distilljax import data
    >>> labels = np.arange(40) % 2
    >>> images = np.random.default_rng(0).integers(0, 99, (40, 8, 8, 1))
    >>> images = (images + 99 * labels.reshape(40, 1, 1, 1)).astype(np.uint8)
    >>> real = data.dataset(images, labels, images, labels)
    >>> seen = images / np.float32(255)
    >>> found = checks.check_preprocess("none", data.Identity(), seen, real)
    >>> sorted(found)
    ['roughness', 'shift', 'spread']

    Args:
      kind: the answer, of `data.KINDS`.
      transform: fitted to the data.
      images: f32[n, h, w, c], what networks see.
      loaded: the data.

    Raises:
      FieldError: of `preprocess`: the set is far from what real images become.
    """
    found = compare(transform, images, loaded)
    if _fits(found):
        return found._asdict()
    fitting = []
    for other in _CHEAP:
        try:
            fitted = data.fit(other, loaded.train.images, loaded.name)
        except InputError:
            continue
        if other != kind and _fits(compare(fitted, images, loaded)):
            fitting.append(other)
    hint = f"; {' or '.join(fitting)} would fit" if fitting else ""
    raise FieldError(
        "preprocess",
        kind,
        f"does not fit: with it taken back the images have {found.spread:.2g} times the "
        f"spread of the data set's and a mean off by {found.shift:.2f}, and they are "
        f"{found.roughness:.2g} times as rough{hint}; unchecked takes it all the same",
    )


def check_labels(
    transform: Transform, images: np.ndarray, classes: np.ndarray, loaded: data.Dataset
) -> dict[str, Any]:
    """Compares images with the mean real image of their classes; returns what was found.

    The statistic is the sum over images of the product with the mean of their own class,
    the mean over classes taken away; it is compared with the same under shuffled labels.
    Labels in another order of classes show; two classes exchanged among many need not.

    >>> from distilljax import data
    >>> labels = np.arange(40) % 2
    >>> images = np.random.default_rng(0).integers(0, 99, (40, 8, 8, 1))
    >>> images = (images + 99 * labels.reshape(40, 1, 1, 1)).astype(np.uint8)
    >>> real = data.dataset(images, labels, images, labels)
    >>> seen = images / np.float32(255)
    >>> found = checks.check_labels(data.Identity(), seen, labels, real)
    >>> sorted(found)
    ['as_good', 'shuffles']

    Args:
      transform: fitted to the data.
      images: f32[n, h, w, c], what networks see.
      classes: i64[n], of largest label.
      loaded: the data.

    Raises:
      InputError: more than one in twenty shuffles fit as well or better.
    """
    k = loaded.num_classes
    per_class = max(1, 5000 // k)
    means = []
    for j in range(k):
        raw = loaded.train.images[loaded.train.labels == j][:per_class]
        means.append(np.asarray(transform(jnp.asarray(raw)), np.float64).mean(axis=0))
    mean = np.stack(means).reshape(k, -1)
    scores = images.reshape(len(images), -1).astype(np.float64) @ (mean - mean.mean(0)).T
    scores -= scores.mean(axis=1, keepdims=True)
    rows, rng = np.arange(len(images)), np.random.default_rng(0)
    own = scores[rows, classes].sum()
    shuffled = [scores[rows, rng.permutation(classes)].sum() for _ in range(SHUFFLES)]
    better = int((np.array(shuffled) >= own - 1e-9 * abs(own)).sum())
    if better > SHUFFLES / 20:
        raise InputError(
            f"its labels fit the classes of {loaded.name} no better than chance: of "
            f"{SHUFFLES} shuffles of them {better} fit real images as well or better; "
            "check their order (labels) and the data set (dataset), or say unchecked"
        )
    return {"shuffles": SHUFFLES, "as_good": better}


def check_images(images: np.ndarray, loaded: data.Dataset) -> None:
    """Refuses images that are not of the data set's shape, or not finite.

    >>> from distilljax import data
    >>> labels = np.arange(40) % 2
    >>> images = np.random.default_rng(0).integers(0, 99, (40, 8, 8, 1))
    >>> images = (images + 99 * labels.reshape(40, 1, 1, 1)).astype(np.uint8)
    >>> real = data.dataset(images, labels, images, labels)
    >>> checks.check_images(images / np.float32(255), real)

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

    >>> checks.check_classes(np.array([0, 1]), num_images=2, k=2, name="mine.pt")

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

    >>> checks.check_rows(np.eye(2), "probabilities", num_images=2, k=2, name="mine.pt")

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

    >>> checks.check_divides(num_images=20, k=10, name="mine.pt")

    Raises:
      InputError: such a number.
    """
    if num_images % k:
        raise InputError(
            f"it has {num_images} images, which the {k} classes of {name} do not divide; "
            "check that it is whole and of these data (dataset)"
        )
