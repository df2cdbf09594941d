"""Preprocessing: normalisation and four kinds of ZCA, fitted on training images.

Every transform is a pytree (`distilljax.types.Transform`), so it can be an argument of
a jitted function, and has an inverse that leads back to images in 0..1. d = h * w * c.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from distilljax import exported
from distilljax.data import registered
from distilljax.data.matrices import channel_statistics, chunks, moments, whitening
from distilljax.types import Array, InputError, Transform


def _unit(images: Array) -> Array:
    return jnp.asarray(images, jnp.float32) / 255


def _flat(images: Array) -> Array:
    return images.reshape(images.shape[0], -1)


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@exported.data
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
        check_images(images)
        return cls()


@exported.data
@flax.struct.dataclass
class Normalise:
    """(x / 255 - mean) / std, per channel."""

    kind: ClassVar[str] = "normalise"

    mean: Array  # f32[c]; fitted: of x / 255
    std: Array  # f32[c]; fitted: population standard deviation of x / 255

    def __call__(self, images: Array) -> Array:
        """u8[b, h, w, c] -> f32[b, h, w, c]; fitted: mean 0, deviation 1 a channel."""
        unit, channels = _unit(images), jnp.shape(self.mean)
        if channels and unit.shape[-1:] != channels:
            raise InputError(
                f"images {list(unit.shape)} for a transform fitted on {channels[0]} "
                f"channels: give [b, h, w, {channels[0]}]"
            )
        return (unit - self.mean) / self.std

    def inverse(self, images: Array) -> Array:
        """f32[b, h, w, c], normalised -> f32[b, h, w, c], 0..1 if in gamut."""
        return images * self.std + self.mean

    @classmethod
    def fit(cls, images: np.ndarray) -> "Normalise":
        """u8[n, h, w, c] -> Normalise.

        Raises:
          InputError: not such images, or a channel is constant.
        """
        check_images(images)
        mean, std = channel_statistics(images)
        if not std.all():
            raise InputError(
                f"channel {int(np.argmin(std))} of the training images is constant "
                f"(value {255 * mean[np.argmin(std)]:g}), so it cannot be scaled to unit "
                "deviation; drop that channel or use preprocessing 'none'"
            )
        return cls(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))


@exported.data
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
        check_images(images)
        num = len(images)
        if num < 2:
            raise InputError(f"zca needs at least 2 training images, got {num}")
        mean, second = moments(features / 255 for features in chunks(images))
        covariance = (second - num * np.outer(mean, mean)) / (num - 1)
        whiten = whitening(covariance, cls.ridge)
        return cls(jnp.asarray(mean, jnp.float32), *map(jnp.asarray, whiten))


@exported.data
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
        check_images(images)
        means, norms = [], []

        def normed() -> Iterator[np.ndarray]:
            for features in chunks(images):
                features = features / 255
                mean = features.mean(axis=1, keepdims=True)
                norm = np.linalg.norm(features - mean, axis=1, keepdims=True)
                means.append(mean)
                norms.append(norm)
                yield (features - mean) / np.where(norm > 1e-4, norm, np.inf)

        covariance = moments(normed())[1] / len(images)
        ridge = cls.ridge * np.trace(covariance) / len(covariance)
        if ridge == 0:
            raise InputError(
                f"each of the {len(images)} training images is of one colour, so "
                "zca_normed has nothing to fit; check the images"
            )
        whiten, unwhiten = map(jnp.asarray, whitening(covariance, ridge))
        return cls(
            whiten,
            unwhiten,
            image_mean=jnp.asarray(np.concatenate(means).mean(), jnp.float32),
            image_norm=jnp.asarray(np.concatenate(norms).mean(), jnp.float32),
        )


@exported.data
@flax.struct.dataclass
class ScaledZCA:
    """((x / 255 - m) / s - mean) W with m and s of the channels, as in `Normalise`.

    W = (C + r I)^(-1/2), where C is the covariance over n of the images so scaled, and r =
    0.1 times the mean eigenvalue of C. The form of FRePo (Zhou et al. 2022) and RCIG (Loo
    et al. 2023).
    """

    kind: ClassVar[str] = "zca_scaled"
    ridge: ClassVar[float] = 0.1
    centred: ClassVar[bool] = True

    channel_mean: Array  # f32[c], of x / 255
    channel_std: Array  # f32[c], population standard deviation of x / 255
    mean: Array  # f32[d], of the scaled images
    whiten: Array  # f32[d, d], symmetric
    unwhiten: Array  # f32[d, d], the inverse of `whiten`

    def __call__(self, images: Array) -> Array:
        """u8[b, h, w, c] -> f32[b, h, w, c], whitened."""
        scaled = (_unit(images) - self.channel_mean) / self.channel_std
        features = _flat(scaled) - self.mean
        return _matmul(features, self.whiten).reshape(images.shape)

    def inverse(self, images: Array) -> Array:
        """f32[b, h, w, c], whitened -> f32[b, h, w, c], 0..1 if in gamut."""
        features = _matmul(_flat(images), self.unwhiten) + self.mean
        return features.reshape(images.shape) * self.channel_std + self.channel_mean

    @classmethod
    def fit(cls, images: np.ndarray) -> "ScaledZCA":
        """u8[n, h, w, c] -> ScaledZCA; the covariance is float64[d, d].

        Raises:
          InputError: not such images, or a channel is constant.
        """
        channels = Normalise.fit(images)
        mean, std = channel_statistics(images)
        pixels = images.shape[1] * images.shape[2]
        tiled_mean, tiled_std = np.tile(mean, pixels), np.tile(std, pixels)
        mean, second = moments(
            (features / 255 - tiled_mean) / tiled_std for features in chunks(images)
        )
        covariance = second / len(images)
        if cls.centred:
            covariance -= np.outer(mean, mean)
        else:
            mean = np.zeros_like(mean)
        ridge = cls.ridge * np.trace(covariance) / len(covariance)
        return cls(
            channels.mean,
            channels.std,
            jnp.asarray(mean, jnp.float32),
            *map(jnp.asarray, whitening(covariance, ridge)),
        )


@exported.data
@flax.struct.dataclass
class UncentredZCA(ScaledZCA):
    """`ScaledZCA` with C the second moment and no mean removed: the form of RFAD.

    Loo et al. 2022, arXiv 2210.12067; its KIP-like sets of CIFAR are whitened so.
    """

    kind: ClassVar[str] = "zca_uncentred"
    centred: ClassVar[bool] = False


_TRANSFORMS = (Identity, Normalise, ZCA, NormedZCA, ScaledZCA, UncentredZCA)

CLASSES: dict[str, Any] = {cls.kind: cls for cls in _TRANSFORMS}

FITTERS: dict[str, Callable[[np.ndarray], Transform]] = {
    kind: cls.fit for kind, cls in CLASSES.items()
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


def fit(kind: str, images: np.ndarray, name: str | None = None) -> Transform:
    """A transform of one of `KINDS` for the training images, u8[n, h, w, c].

    >>> images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    >>> transform = preprocess.fit("normalise", images)
    >>> np.round(transform(images)).ravel().tolist()
    [-1.0, 1.0]

    Args:
      kind: one of `FITTERS`, which are fitted; or `published`, a `Normalise` with the
        literature's constants, for which images are only checked; or one that was
        registered with `register`.
      images: u8[n, h, w, c].
      name: the data set, as `load` was given it; only `published` asks.

    Raises:
      InputError: unknown kind, other images, images that cannot be fitted, or a data set
        without published constants.
    """
    own = registered.registered()
    check_kind(kind, (*KINDS, *own))
    if kind in own:
        check_images(images)
        transform = own[kind].fit(images)
        registered.check_transform(transform)
        return transform
    return _published(name, images) if kind == "published" else FITTERS[kind](images)


def _published(name: str | None, images: np.ndarray) -> Normalise:
    check_images(images)
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


def check_kind(kind: str, known: Collection[str]) -> None:
    """Refuses a kind that is none of the known ones.

    >>> preprocess.check_kind("zca", preprocess.FITTERS)
    """
    if not isinstance(kind, str) or kind not in known:
        raise InputError(
            f"there is no preprocessing {kind!r:.40}; choose one of {', '.join(known)}, or "
            "register your own with distilljax.data.register"
        )


def check_images(images: np.ndarray) -> None:
    """Refuses what no transform can be fitted on.

    >>> preprocess.check_images(np.zeros((2, 8, 8, 1), np.uint8))
    """
    if not hasattr(images, "dtype") or not hasattr(images, "shape"):
        raise InputError(
            "preprocessing is fitted on an array of uint8 images [n, h, w, c], got a "
            f"{type(images).__name__}; give numpy.asarray(images, numpy.uint8) of a list, "
            "data.train.images of a Dataset"
        )
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise InputError(
            "preprocessing is fitted on uint8 images [n, h, w, c], got "
            f"{images.dtype}{list(images.shape)}"
        )
