"""Differentiable siamese augmentation (DSA; Zhao & Bilen 2021, arXiv 2102.08259).

One operation of a strategy is drawn for a batch. In the siamese form all images
share one draw of its parameters, and the same key gives the same draw whatever the
batch: augment the real and the distilled batch with one key and their gradients
can be matched. In the per-image form, for training and evaluation, each image has
its own parameters. Every operation is differentiable with respect to the images,
which are the ones networks see (preprocessed, zero = the padding value).
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from distilljax.types import Array, InputError, Key

DSA = "color_crop_cutout_flip_scale_rotate"

MAX_SHIFT = 0.125  # of the side
CUTOUT = 0.5  # of the side
MAX_SCALE = 1.2
MAX_ANGLE = 15.0  # degrees


def color(image: Array, u: Array) -> Array:
    """Brightness, saturation and contrast, in turn; f32[h, w, c], u f32[3] in [0, 1).

    x + (u0 - 1/2); 2 u1 times the distance from the mean over channels;
    (u2 + 1/2) times the distance from the mean of the image.
    """
    image = image + (u[0] - 0.5)
    grey = image.mean(axis=-1, keepdims=True)
    image = (image - grey) * (2.0 * u[1]) + grey
    mean = image.mean()
    return (image - mean) * (u[2] + 0.5) + mean


def crop(image: Array, u: Array) -> Array:
    """A shift by whole pixels, at most an eighth of the side, zeros moving in."""
    h, w, _ = image.shape
    most_y, most_x = (int(side * MAX_SHIFT + 0.5) for side in (h, w))
    shift_y = jnp.floor(u[0] * (2 * most_y + 1)).astype(jnp.int32)
    shift_x = jnp.floor(u[1] * (2 * most_x + 1)).astype(jnp.int32)
    padded = jnp.pad(image, ((most_y, most_y), (most_x, most_x), (0, 0)))
    return jax.lax.dynamic_slice(padded, (shift_y, shift_x, jnp.int32(0)), image.shape)


def cutout(image: Array, u: Array) -> Array:
    """A square of half the side is set to zero; it may reach over the border."""

    def outside(side: int, u: Array) -> Array:
        size = int(side * CUTOUT + 0.5)
        centre = jnp.floor(u * (side + 1 - size % 2)).astype(jnp.int32)
        first = centre - size // 2
        pixels = jnp.arange(side)
        return (pixels < first) | (pixels >= first + size)

    h, w, _ = image.shape
    keep = outside(h, u[0])[:, None] | outside(w, u[1])[None, :]
    return image * keep[..., None].astype(image.dtype)


def flip(image: Array, u: Array) -> Array:
    """Left and right exchanged where u0 < 1/2."""
    return jnp.where(u[0] < 0.5, image[:, ::-1], image)


def _resample(image: Array, matrix: Array, align_corners: bool) -> Array:
    """Bilinear: the output at p takes the input at matrix @ p, zero outside.

    p = (x, y) runs over [-1, 1]^2; with `align_corners` -1 and 1 are the centres of
    the outermost pixels, else their outer edges.
    """
    h, w, _ = image.shape

    def grid(side: int) -> Array:
        pixels = jnp.arange(side, dtype=image.dtype)
        return pixels * 2 / (side - 1) - 1 if align_corners else (2 * pixels + 1) / side - 1

    def pixel(p: Array, side: int) -> Array:
        return (p + 1) * (side - 1) / 2 if align_corners else ((p + 1) * side - 1) / 2

    y, x = jnp.meshgrid(grid(h), grid(w), indexing="ij")
    source_x, source_y = (
        matrix[0, 0] * x + matrix[0, 1] * y,
        matrix[1, 0] * x + matrix[1, 1] * y,
    )
    at = [pixel(source_y, h), pixel(source_x, w)]
    return jax.vmap(
        lambda channel: map_coordinates(channel, at, order=1, mode="constant"),
        in_axes=-1,
        out_axes=-1,
    )(image)


def scale(image: Array, u: Array, *, align_corners: bool = True) -> Array:
    """Width and height stretched apart, each by U(1/1.2, 1.2)."""
    factors = u[:2] * (MAX_SCALE - 1 / MAX_SCALE) + 1 / MAX_SCALE
    return _resample(image, jnp.diag(factors), align_corners)


def rotate(image: Array, u: Array, *, align_corners: bool = True) -> Array:
    """A turn about the centre by U(-15, 15) degrees."""
    angle = (u[0] * 2 - 1) * (MAX_ANGLE / 180 * math.pi)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    return _resample(image, matrix, align_corners)


Operation = Callable[..., Array]  # (f32[h, w, c], u f32[3]) -> f32[h, w, c]

OPERATIONS: dict[str, Operation] = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}


def parse(strategy: str) -> tuple[str, ...]:
    """The operations named in a strategy such as `color_crop_flip`; none for ``.

    Raises:
      InputError: a name that is no operation.
    """
    names = tuple(strategy.split("_")) if strategy else ()
    if unknown := [name for name in names if name not in OPERATIONS]:
        raise InputError(
            f"augmentation {strategy!r} has no operation {unknown[0]!r}: "
            f"join some of {', '.join(OPERATIONS)} with underscores"
        )
    return names


def augment(
    key: Key,
    images: Array,
    *,
    strategy: str = DSA,
    siamese: bool = False,
    align_corners: bool = True,
) -> Array:
    """One operation of the strategy, drawn for the batch, applied to every image.

    Args:
      key: what to draw from; in the siamese form it settles everything.
      images: f32[b, h, w, c].
      strategy: operations joined by underscores; empty leaves the images alone.
      siamese: one draw of parameters for all images, instead of one for each.
      align_corners: the convention of bilinear sampling, see `torch` `grid_sample`.

    Returns:
      f32[b, h, w, c].

    Raises:
      InputError: a strategy with an unknown operation.
    """
    names = parse(strategy)
    if not names:
        return images
    choose, draw = jax.random.split(key)
    u = jax.random.uniform(draw, (3,) if siamese else (images.shape[0], 3), images.dtype)

    def apply_to_all(name: str, images: Array) -> Array:
        operation = OPERATIONS[name]
        if name in ("scale", "rotate"):
            operation = functools.partial(operation, align_corners=align_corners)
        return jax.vmap(operation, in_axes=(0, None if siamese else 0))(images, u)

    branches = [functools.partial(apply_to_all, name) for name in names]
    chosen = jax.random.randint(choose, (), 0, len(names), jnp.int32)
    return jax.lax.switch(chosen, branches, images)
