"""Preprocessing: normalisation and two kinds of ZCA, fitted on training images.

Every transform is a pytree (`distilljax.types.Transform`), so it can be an argument of
a jitted function, and has an inverse that leads back to images in 0..1. d = h * w * c.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from distilljax.types import Array, InputError, Transform

_CHUNK = 2000  # images; 49 MB of float64 at 32 x 32 x 3


def _unit(images: Array) -> Array:
    return jnp.asarray(images, jnp.float32) / 255


def _flat(images: Array) -> Array:
    return images.reshape(images.shape[0], -1)


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@flax.struct.dataclass
class Identity:
    """x / 255."""

    kind: ClassVar[str] = "none"

    def __call__(self, images: Array) -> Array:
        """u8[b, h, w, c] -> f32[b, h, w, c] in 0..1."""
        return _unit(images)

    def inverse(self, images: Array) -> Array:
        """f32[b, h, w, c] in 0..1, unchanged."""
        return images

    @classmethod
    def fit(cls, images: np.ndarray) -> "Identity":
        """u8[n, h, w, c] -> Identity; the images are only checked."""
        _check_images(images)
        return cls()


@flax.struct.dataclass
class Normalise:
    """(x / 255 - mean) / std, per channel."""

    kind: ClassVar[str] = "normalise"

    mean: Array  # f32[c]; fitted: of x / 255
    std: Array  # f32[c]; fitted: population standard deviation of x / 255

    def __call__(self, images: Array) -> Array:
        """u8[b, h, w, c] -> f32[b, h, w, c]; fitted: mean 0, deviation 1 a channel."""
        return (_unit(images) - self.mean) / self.std

    def inverse(self, images: Array) -> Array:
        """f32[b, h, w, c], normalised -> f32[b, h, w, c], 0..1 if in gamut."""
        return images * self.std + self.mean

    @classmethod
    def fit(cls, images: np.ndarray) -> "Normalise":
        """u8[n, h, w, c] -> Normalise.

        Raises:
          InputError: not such images, or a channel is constant.
        """
        _check_images(images)
        mean, std = channel_statistics(images)
        if not std.all():
            raise InputError(
                f"channel {int(np.argmin(std))} of the training images is constant "
                f"(value {255 * mean[np.argmin(std)]:g}), so it cannot be scaled to unit "
                "deviation; drop that channel or use preprocessing 'none'"
            )
        return cls(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))


@flax.struct.dataclass
class ZCA:
    """(x / 255 - mean) W with W = U diag(1 / sqrt(S + 0.1)) U^T.

    U diag(S) U^T is the covariance of the features over the training images,
    normalised by n - 1. The form that trajectory matching (Cazenavette et al. 2022) uses.
    """

    kind: ClassVar[str] = "zca"
    ridge: ClassVar[float] = 0.1

    mean: Array  # f32[d], of x / 255
    whiten: Array  # f32[d, d], symmetric
    unwhiten: Array  # f32[d, d], the inverse of `whiten`

    def __call__(self, images: Array) -> Array:
        """u8[b, h, w, c] -> f32[b, h, w, c], whitened."""
        features = _flat(_unit(images)) - self.mean
        return _matmul(features, self.whiten).reshape(images.shape)

    def inverse(self, images: Array) -> Array:
        """f32[b, h, w, c], whitened -> f32[b, h, w, c], 0..1 if in gamut."""
        features = _matmul(_flat(images), self.unwhiten) + self.mean
        return features.reshape(images.shape)

    @classmethod
    def fit(cls, images: np.ndarray) -> "ZCA":
        """u8[n, h, w, c], n >= 2 -> ZCA; the covariance is float64[d, d].

        Raises:
          InputError: not such images, or fewer than two.
        """
        _check_images(images)
        num = len(images)
        if num < 2:
            raise InputError(f"zca needs at least 2 training images, got {num}")
        mean, second = _moments(features / 255 for features in _chunks(images))
        covariance = (second - num * np.outer(mean, mean)) / (num - 1)
        whiten, unwhiten = _whitening(covariance, cls.ridge)
        return cls(jnp.asarray(mean, jnp.float32), whiten, unwhiten)


@flax.struct.dataclass
class NormedZCA:
    """((x - m) / |x - m|) W with m an image's own mean; brightness and contrast go.

    W = (C + r I)^(-1/2), where C is the second moment over n of the training images so
    centred and scaled, and r = 0.1 times the mean eigenvalue of C. The form of kernel
    inducing points (Nguyen et al. 2021) and of RaT-BPTT (Feng et al. 2023). They work on
    pixels in 0..255; the result is the same in 0..1, which is the unit of the fields here.
    """

    kind: ClassVar[str] = "zca_normed"
    ridge: ClassVar[float] = 0.1

    whiten: Array  # f32[d, d], symmetric
    unwhiten: Array  # f32[d, d], the inverse of `whiten`
    image_mean: Array  # f32[], the average over training images of m
    image_norm: Array  # f32[], the average over training images of |x - m|

    def __call__(self, images: Array) -> Array:
        """u8[b, h, w, c] -> f32[b, h, w, c], whitened; a constant image gives zeros."""
        features = _flat(_unit(images))
        features = features - features.mean(axis=1, keepdims=True)
        norm = jnp.linalg.norm(features, axis=1, keepdims=True)
        # A constant image is centred to rounding error only, which must not be scaled up.
        features = jnp.where(norm > 1e-4, features / jnp.maximum(norm, 1e-4), 0.0)
        return _matmul(features, self.whiten).reshape(images.shape)

    def inverse(
        self,
        images: Array,
        image_mean: Array | None = None,
        image_norm: Array | None = None,
    ) -> Array:
        """f32[b, h, w, c], whitened -> f32[b, h, w, c], 0..1 if in gamut.

        An image's own mean and norm cannot be known from `images`.

        Args:
          images: f32[b, h, w, c].
          image_mean: f32[b] or f32[], mean of each image in 0..1; the training average
            if absent.
          image_norm: f32[b] or f32[], norm of each centred image in 0..1; the training
            average if absent.
        """
        mean = self.image_mean if image_mean is None else jnp.asarray(image_mean)
        norm = self.image_norm if image_norm is None else jnp.asarray(image_norm)
        features = _matmul(_flat(images), self.unwhiten)
        features = features * norm.reshape(-1, 1) + mean.reshape(-1, 1)
        return features.reshape(images.shape)

    @classmethod
    def fit(cls, images: np.ndarray) -> "NormedZCA":
        """u8[n, h, w, c] -> NormedZCA; the second moment is float64[d, d].

        Raises:
          InputError: not such images, or every one of them is constant.
        """
        _check_images(images)
        means, norms = [], []

        def normed() -> Iterator[np.ndarray]:
            for features in _chunks(images):
                features = features / 255
                mean = features.mean(axis=1, keepdims=True)
                norm = np.linalg.norm(features - mean, axis=1, keepdims=True)
                means.append(mean)
                norms.append(norm)
                yield (features - mean) / np.where(norm > 1e-4, norm, np.inf)

        covariance = _moments(normed())[1] / len(images)
        ridge = cls.ridge * np.trace(covariance) / len(covariance)
        if ridge == 0:
            raise InputError(
                f"each of the {len(images)} training images is of one colour, so "
                "zca_normed has nothing to fit; check the images"
            )
        return cls(
            *_whitening(covariance, ridge),
            image_mean=jnp.asarray(np.concatenate(means).mean(), jnp.float32),
            image_norm=jnp.asarray(np.concatenate(norms).mean(), jnp.float32),
        )


_TRANSFORMS = (Identity, Normalise, ZCA, NormedZCA)

_CLASSES: dict[str, Any] = {cls.kind: cls for cls in _TRANSFORMS}

FITTERS: dict[str, Callable[[np.ndarray], Transform]] = {
    kind: cls.fit for kind, cls in _CLASSES.items()
}

# Name as `load` takes it -> mean and std of the channels of x / 255, as distillation
# papers since Zhao et al. 2021 (DC) use them. For CIFAR-10 these deviations are averages
# over images of each image's own, a fifth below the population's; for the others they are
# the population's.
PUBLISHED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "embedded": ((0.2861,), (0.3530,)),  # of Fashion-MNIST, which it is a subset of
    "fashion_mnist": ((0.2861,), (0.3530,)),
    "mnist": ((0.1307,), (0.3081,)),
}

KINDS = (*FITTERS, "published")

# Equal letters must be equal sizes; letters are sizes of arrays in `from_arrays`.
_SHAPES = {
    "none": {},
    "normalise": {"mean": "c", "std": "c"},
    "zca": {"mean": "d", "whiten": "dd", "unwhiten": "dd"},
    "zca_normed": {"whiten": "dd", "unwhiten": "dd", "image_mean": "", "image_norm": ""},
}


def fit(kind: str, images: np.ndarray, name: str | None = None) -> Transform:
    """A transform of one of `KINDS` for the training images, u8[n, h, w, c].

    Args:
      kind: one of `FITTERS`, which are fitted; or `published`, a `Normalise` with the
        literature's constants, for which images are only checked.
      images: u8[n, h, w, c].
      name: the data set, as `load` was given it; only `published` asks.

    Raises:
      InputError: unknown kind, other images, images that cannot be fitted, or a data set
        without published constants.
    """
    _check_kind(kind, KINDS)
    return _published(name, images) if kind == "published" else FITTERS[kind](images)


def _published(name: str | None, images: np.ndarray) -> Normalise:
    _check_images(images)
    bare = (name or "").partition(":")[0]  # without TFDS's version
    if bare not in PUBLISHED:
        raise InputError(
            f"there are no published constants for the data set {name!r}, only for "
            f"{', '.join(PUBLISHED)}; use preprocessing 'normalise', which fits them"
        )
    mean, std = PUBLISHED[bare]
    if images.shape[-1] != len(mean):
        raise InputError(
            f"images have {images.shape[-1]} channels, and the published constants of "
            f"{bare} are for {len(mean)}; check the data set, or use 'normalise'"
        )
    return Normalise(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))


def to_arrays(transform: Transform) -> tuple[str, dict[str, np.ndarray]]:
    """The kind of a transform and its fields, f32, as a file can hold them.

    Raises:
      InputError: a transform that is not of this module.
    """
    if not isinstance(transform, _TRANSFORMS):
        raise InputError(
            f"{type(transform).__name__} cannot be stored; kinds that can are "
            f"{', '.join(FITTERS)}"
        )
    fields = (field.name for field in dataclasses.fields(transform))
    return transform.kind, {name: np.asarray(getattr(transform, name)) for name in fields}


def from_arrays(kind: str, arrays: Mapping[str, np.ndarray]) -> Transform:
    """The inverse of `to_arrays`.

    Raises:
      InputError: unknown kind; absent or unknown arrays; shapes that disagree; values
        that are not finite floats; a standard deviation that is not positive.
    """
    _check_kind(kind, FITTERS)
    shapes = _SHAPES[kind]
    if set(arrays) != set(shapes):
        raise InputError(
            f"a stored {kind!r} transform has arrays {sorted(shapes)}, got {sorted(arrays)}"
        )
    sizes: dict[str, int] = {}
    for name, letters in shapes.items():
        array = np.asarray(arrays[name])
        if not np.issubdtype(array.dtype, np.floating):
            raise InputError(
                f"{name} of a stored {kind!r} transform must be floats, got {array.dtype}"
            )
        if not np.isfinite(array).all():
            raise InputError(f"{name} of a stored {kind!r} transform has NaN or infinity")
        if array.ndim == len(letters):
            for letter, size in zip(letters, array.shape, strict=True):
                sizes.setdefault(letter, size)
        if array.shape != tuple(sizes.get(letter) for letter in letters):
            raise InputError(
                f"{name} of a stored {kind!r} transform has shape {array.shape}, expected "
                f"[{', '.join(letters)}]" + (f" with {sizes}" if sizes else "")
            )
    if kind == "normalise" and not (np.asarray(arrays["std"]) > 0).all():
        raise InputError(
            f"std of a stored 'normalise' transform must be positive, got {arrays['std']}"
        )
    fields = {name: jnp.asarray(arrays[name], jnp.float32) for name in shapes}
    return _CLASSES[kind](**fields)


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of each channel of x / 255.

    Args:
      images: u8[n, h, w, c].

    Returns:
      f64[c] and f64[c], from exact counts of the 256 values.
    """
    channels = images.shape[-1]
    counts = np.zeros((channels, 256))
    for start in range(0, len(images), _CHUNK):
        for channel in range(channels):
            values = images[start : start + _CHUNK, ..., channel].ravel()
            counts[channel] += np.bincount(values, minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    levels = np.arange(256) / 255
    mean = share @ levels
    variance = (share * (levels - mean[:, None]) ** 2).sum(axis=1)
    constant = counts.max(axis=1) == counts.sum(axis=1)
    return mean, np.where(constant, 0.0, np.sqrt(variance))


def _check_kind(kind: str, known: Collection[str]) -> None:
    if kind not in known:
        raise InputError(
            f"there is no preprocessing {kind!r}; choose one of {', '.join(known)}"
        )


def _check_images(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise InputError(
            "preprocessing is fitted on uint8 images [n, h, w, c], got "
            f"{images.dtype}{list(images.shape)}"
        )


def _chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    """f64[m, d] in 0..255, a piece at a time."""
    for start in range(0, len(images), _CHUNK):
        piece = images[start : start + _CHUNK]
        yield piece.reshape(len(piece), -1).astype(np.float64)


def _moments(chunks: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean f64[d] and sum of outer products f64[d, d] over all rows."""
    first = next(chunks)
    num, total, second = len(first), first.sum(axis=0), first.T @ first
    for features in chunks:
        num += len(features)
        total += features.sum(axis=0)
        second += features.T @ features
    return total / num, second


def _whitening(covariance: np.ndarray, ridge: float) -> tuple[Array, Array]:
    """(C + ridge I)^(-1/2) and (C + ridge I)^(1/2), computed in float64, f32[d, d]."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root = np.sqrt(np.maximum(eigenvalues, 0) + ridge)
    whiten = (vectors / root) @ vectors.T
    unwhiten = (vectors * root) @ vectors.T
    return jnp.asarray(whiten, jnp.float32), jnp.asarray(unwhiten, jnp.float32)
