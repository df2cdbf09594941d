"""Differentiable siamese augmentation (DSA; Zhao & Bilen 2021, arXiv 2102.08259).

One operation of a strategy is sampled for each batch. In the siamese mode all images
share one sample of its parameters, which depends on the key and not on the batch: a real
and a distilled batch augmented with the same key have comparable gradients. In the
per-image mode, for training and evaluation, each image has its own parameters. Every
operation is differentiable with respect to the images, which are preprocessed; the
padding value is zero.

An operation takes one image, f32[h, w, c], and u, three uniform numbers in [0, 1), of which
it may read fewer; it returns f32[h, w, c].
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from distilljax import checks, varying
from distilljax.types import Array, InputError, Key

DSA = "color_crop_cutout_flip_scale_rotate"
# `flip_color_crop_rotate_translate_cutout` of FRePo (Zhou et al. 2022) and RCIG (Loo et al.
# 2023), whose operations are milder than DSA's and repeat the border.
FREPO = "flip_jitter_zoom_turn_translate_hole"
# `crop_scale_rotate` of DC (Zhao et al. 2021), by which MNIST is evaluated: stronger than
# DSA's, an operation of its own for each image, and not differentiable in its sizes. It
# fills with means of the image, the authors' code with those of the batch.
DC = "shift_stretch_tilt"

MAX_SHIFT = 0.125  # fraction of the image side
CUTOUT = 0.5  # fraction of the image side
MAX_SCALE = 1.2
MAX_ANGLE = 15.0  # degrees
JITTER = 0.25  # added, and log of the largest factor
HOLE = 4  # times smaller than the side
ZOOM = (0.8, 1.25)
SHIFT = 4  # pixels
STRETCH = 0.2
MAX_TILT = 45  # degrees


def color(image: Array, u: Array) -> Array:
    """Changes brightness, then saturation, then contrast; f32[h, w, c], u f32[3] in [0, 1).

    Brightness adds u0 - 1/2; saturation scales the deviation from the mean over channels
    by 2 u1; contrast scales the deviation from the image mean by u2 + 1/2.

    >>> image = jnp.ones((2, 2, 3)) / 2
    >>> float(augment.color(image, jnp.array([0.75, 0.5, 0.5])).max())
    0.75
    """
    image = image + (u[0] - 0.5)
    grey = image.mean(axis=-1, keepdims=True)
    image = (image - grey) * (2.0 * u[1]) + grey
    mean = image.mean()
    return (image - mean) * (u[2] + 0.5) + mean


def crop(image: Array, u: Array) -> Array:
    """Shifts by whole pixels, at most an eighth of the side; fills with zeros.

    >>> float(augment.crop(jnp.ones((8, 8, 1)), jnp.array([0.99, 0.5])).sum())
    56.0
    """
    h, w, _ = image.shape
    most_y, most_x = (int(side * MAX_SHIFT + 0.5) for side in (h, w))
    shift_y = jnp.floor(u[0] * (2 * most_y + 1)).astype(jnp.int32)
    shift_x = jnp.floor(u[1] * (2 * most_x + 1)).astype(jnp.int32)
    padded = jnp.pad(image, ((most_y, most_y), (most_x, most_x), (0, 0)))
    return jax.lax.dynamic_slice(padded, (shift_y, shift_x, jnp.int32(0)), image.shape)


def cutout(image: Array, u: Array) -> Array:
    """Sets a square of half the side to zero; it may extend beyond the border.

    >>> float(augment.cutout(jnp.ones((8, 8, 1)), jnp.array([0.5, 0.5])).sum())
    48.0
    """

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
    """Flips horizontally if u0 < 1/2.

    >>> augment.flip(jnp.arange(3.0).reshape(1, 3, 1), jnp.array([0.2])).ravel().tolist()
    [2.0, 1.0, 0.0]
    """
    return jnp.where(u[0] < 0.5, image[:, ::-1], image)


def _resample(image: Array, matrix: Array, align_corners: bool) -> Array:
    """Resamples bilinearly: output(p) = input(matrix @ p), zero outside.

    p = (x, y) runs over [-1, 1]^2; with `align_corners` -1 and 1 are the centres of
    the outermost pixels, else their outer edges. The centre of a single pixel is 0.
    """
    h, w, _ = image.shape

    def grid(side: int) -> Array:
        pixels = jnp.arange(side, dtype=image.dtype)
        if align_corners and side > 1:
            return pixels * 2 / (side - 1) - 1
        return (2 * pixels + 1) / side - 1

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
    """Scales width and height independently, each by U(1/1.2, 1.2).

    >>> augment.scale(jnp.ones((8, 8, 1)), jnp.array([0.5, 0.5])).shape
    (8, 8, 1)
    """
    factors = u[:2] * (MAX_SCALE - 1 / MAX_SCALE) + 1 / MAX_SCALE
    return _resample(image, jnp.diag(factors), align_corners)


def rotate(image: Array, u: Array, *, align_corners: bool = True) -> Array:
    """Rotates about the centre by U(-15, 15) degrees.

    >>> image = jnp.eye(8)[..., None]
    >>> bool(jnp.allclose(augment.rotate(image, jnp.array([0.5])), image, atol=1e-5))
    True
    """
    angle = (u[0] * 2 - 1) * (MAX_ANGLE / 180 * math.pi)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    return _resample(image, matrix, align_corners)


def jitter(image: Array, u: Array) -> Array:
    """Brightness, contrast and saturation, mildly; f32[h, w, c], u f32[3] in [0, 1).

    x + U(-1/4, 1/4); exp(U(-1/4, 1/4)) times the distance from the mean of the image; the
    same times the distance from the mean over channels.

    >>> image = jnp.ones((2, 2, 3)) / 2
    >>> float(augment.jitter(image, jnp.array([0.75, 0.5, 0.5])).max())
    0.625
    """
    between = (2 * u - 1) * JITTER
    image = image + between[0]
    mean = image.mean()
    image = (image - mean) * jnp.exp(between[1]) + mean
    grey = image.mean(axis=-1, keepdims=True)
    return (image - grey) * jnp.exp(between[2]) + grey


def hole(image: Array, u: Array) -> Array:
    """A square of a quarter of the side, wholly inside, is set to zero.

    >>> float(augment.hole(jnp.ones((8, 8, 1)), jnp.array([0.5, 0.5])).sum())
    60.0
    """

    def outside(side: int, u: Array) -> Array:
        size = side // HOLE
        first = jnp.floor(u * (side - size + 1)).astype(jnp.int32)
        pixels = jnp.arange(side)
        return (pixels < first) | (pixels >= first + size)

    h, w, _ = image.shape
    keep = outside(h, u[0])[:, None] | outside(w, u[1])[None, :]
    return image * keep[..., None].astype(image.dtype)


def _turned(places: Array, matrix: Array) -> Array:
    """Returns matrix @ p for each place, f32[..., 2], as exact on accelerators."""
    return jnp.matmul(places, matrix.T, precision=jax.lax.Precision.HIGHEST)


def _move(image: Array, matrix: Array, shift: Array) -> Array:
    """Bilinear, the border repeated: the output at p takes the input at matrix @ p + shift.

    p = (y, x) counts pixels from the centre.
    """
    h, w, _ = image.shape
    centre = jnp.array([h / 2 - 0.5, w / 2 - 0.5], image.dtype)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij"), axis=-1)
    at = _turned(grid.astype(image.dtype) - centre, matrix) + shift + centre
    return jax.vmap(
        lambda channel: map_coordinates(
            channel, [at[..., 0], at[..., 1]], order=1, mode="nearest"
        ),
        in_axes=-1,
        out_axes=-1,
    )(image)


def translate(image: Array, u: Array) -> Array:
    """A shift by parts of pixels, at most an eighth of the side, the border repeated.

    >>> image = jnp.ones((8, 8, 1))
    >>> bool(jnp.allclose(augment.translate(image, jnp.array([0.9, 0.1])), image))
    True
    """
    sides = jnp.array(image.shape[:2], image.dtype)
    return _move(image, jnp.eye(2, dtype=image.dtype), (1 - 2 * u[:2]) * MAX_SHIFT * sides)


def zoom(image: Array, u: Array) -> Array:
    """A part of the image is enlarged, or the whole made smaller, the border repeated.

    The factor is log-uniform in 0.8..1.25; the place of the part is uniform.

    >>> augment.zoom(jnp.ones((8, 8, 1)), jnp.array([0.5, 0.5, 0.5])).shape
    (8, 8, 1)
    """
    low, high = map(math.log, ZOOM)
    factor = jnp.exp(low + u[2] * (high - low))
    sides = jnp.array(image.shape[:2], image.dtype)
    shift = (2 * u[:2] - 1) * jnp.abs(sides * (factor - 1) / 2)
    return _move(image, jnp.eye(2, dtype=image.dtype) / factor, shift / factor)


def turn(image: Array, u: Array) -> Array:
    """A turn about the centre by U(-15, 15) degrees, the border repeated.

    >>> image = jnp.eye(8)[..., None]
    >>> bool(jnp.allclose(augment.turn(image, jnp.array([0.5])), image, atol=1e-5))
    True
    """
    angle = (u[0] * 2 - 1) * (MAX_ANGLE / 180 * math.pi)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])
    return _move(image, matrix, jnp.zeros(2, image.dtype))


def shift(image: Array, u: Array) -> Array:
    """A shift by -4..3 whole pixels on each axis, filled with the mean of each channel.

    >>> image = jnp.ones((8, 8, 1))
    >>> bool(jnp.allclose(augment.shift(image, jnp.array([0.9, 0.1])), image))
    True
    """
    mean = image.mean(axis=(0, 1))
    padded = jnp.pad(image - mean, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    first = jnp.floor(u[:2] * (2 * SHIFT)).astype(jnp.int32)
    at = (first[0], first[1], jnp.int32(0))
    return jax.lax.dynamic_slice(padded, at, image.shape) + mean


def stretch(image: Array, u: Array) -> Array:
    """Height and width, each U(0.8, 1.2) times as large in whole pixels; zero outside.

    Each pixel is the nearest of the image; the result lies centred in, or is cut to, the
    size of the image.

    >>> augment.stretch(jnp.ones((8, 8, 1)), jnp.array([0.5, 0.5])).shape
    (8, 8, 1)
    """
    h, w, _ = image.shape
    factors = 1 - STRETCH + 2 * STRETCH * u[:2]
    sizes = jnp.floor(factors * jnp.array([h, w], u.dtype)).astype(jnp.int32)
    canvas = jnp.maximum(sizes.max(), max(h, w))

    def along(side: int, size: Array) -> tuple[Array, Array]:
        place = jnp.arange(side) + (canvas - side) // 2 - (canvas - size) // 2
        inside = (place >= 0) & (place < size)
        return place * side // size, inside

    (rows, in_rows), (columns, in_columns) = along(h, sizes[0]), along(w, sizes[1])
    inside = in_rows[:, None] & in_columns[None, :]
    return jnp.where(inside[..., None], image[rows][:, columns], 0)


def tilt(image: Array, u: Array) -> Array:
    """A turn about the centre by -45..44 whole degrees, filled with the mean of the image.

    Bilinear, where the authors' code has cubic splines.

    >>> image = jnp.ones((8, 8, 1))
    >>> bool(jnp.allclose(augment.tilt(image, jnp.array([0.9])), image))
    True
    """
    h, w, _ = image.shape
    mean = image.mean()
    angle = (jnp.floor(u[0] * 2 * MAX_TILT) - MAX_TILT) * (math.pi / 180)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    centre = jnp.array([h / 2 - 0.5, w / 2 - 0.5], image.dtype)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij"), axis=-1)
    matrix = jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])]).astype(image.dtype)
    at = _turned(grid.astype(image.dtype) - centre, matrix) + centre
    return (
        jax.vmap(
            lambda channel: map_coordinates(
                channel - mean, [at[..., 0], at[..., 1]], order=1, mode="constant"
            ),
            in_axes=-1,
            out_axes=-1,
        )(image)
        + mean
    )


Operation = Callable[..., Array]  # (f32[h, w, c], u f32[3]) -> f32[h, w, c]

# (key, f32[b, h, w, c]) -> f32[b, h, w, c], an augmentation of the caller's own.
Augmentation = Callable[[Key, Array], Array]

OPERATIONS: dict[str, Operation] = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
    "jitter": jitter,
    "zoom": zoom,
    "turn": turn,
    "translate": translate,
    "hole": hole,
    "shift": shift,
    "stretch": stretch,
    "tilt": tilt,
}


_REGISTERED: dict[str, Augmentation] = {}


def register(name: str, augmentation: Augmentation) -> None:
    """Makes an augmentation an operation of strategies: in options, protocols, artefacts.

    It has to be registered again in each process that reads the name. A function of the
    same name takes the place of an earlier one.

    >>> augment.register("negative", lambda key, images: -images)
    >>> augment.parse("flip_negative")
    ('flip', 'negative')

    Args:
      name: letters and digits; it may be joined with others, as in `flip_NAME`.
      augmentation: (key, f32[b, h, w, c]) -> f32[b, h, w, c], differentiable. In the
        siamese mode it is called for each image alone, with the same key.

    Raises:
      InputError: the name of a built-in operation, or one with other characters.
    """
    if not isinstance(name, str) or not name.isalnum() or name in OPERATIONS:
        raise InputError(
            f"augmentation {name!r}: a name has letters and digits alone, and is none of "
            f"{', '.join(OPERATIONS)}"
        )
    if not callable(augmentation):
        raise InputError(f"augmentation {name!r}: give a function of (key, images)")
    _REGISTERED[name] = augmentation


def parse(strategy: str) -> tuple[str, ...]:
    """Returns the operations of a strategy such as `color_crop_flip`; none if empty.

    >>> augment.parse("color_crop_flip")
    ('color', 'crop', 'flip')

    Raises:
      InputError: an unknown operation.
    """
    if not isinstance(strategy, str):
        raise InputError(
            f"augmentation {strategy!r:.40}: give operations joined by underscores, such "
            "as 'flip_crop', or '' for none"
        )
    names = tuple(strategy.split("_")) if strategy else ()
    known = (*OPERATIONS, *_REGISTERED)
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"augmentation {strategy!r} has no operation {unknown[0]!r}: "
            f"join some of {', '.join(known)} with underscores"
        )
    return names


def _apply_own(augmentation: Augmentation, key: Key, images: Array, siamese: bool) -> Array:
    """Applies an augmentation of the caller's own; siamese: each image under one key."""
    checks.call(augmentation, "an augmentation", "key", "images")

    def call(images: Array) -> Array:
        found = augmentation(key, images)
        if jnp.shape(found) != images.shape:
            raise InputError(
                f"the augmentation returned {list(jnp.shape(found))} for images "
                f"{list(images.shape)}; it must keep their shape"
            )
        return jnp.asarray(found, images.dtype)

    return jax.vmap(lambda image: call(image[None])[0])(images) if siamese else call(images)


def augment(
    key: Key,
    images: Array,
    *,
    strategy: str | Augmentation = DSA,
    siamese: bool = False,
    align_corners: bool = True,
    each: bool = False,
) -> Array:
    """Applies one operation of the strategy, sampled for the batch, to every image.

    >>> images = jnp.ones((4, 8, 8, 1))
    >>> key = jax.random.key(0)
    >>> augment.augment(key, images, strategy="cutout").sum(axis=(1, 2, 3)).tolist()
    [60.0, 48.0, 52.0, 56.0]

    Args:
      key: PRNG key; in the siamese mode the whole augmentation depends on it alone.
      images: f32[b, h, w, c].
      strategy: operations joined by underscores, empty for no augmentation; or a function
        of (key, images), which in the siamese mode is called for each image alone, with the
        same key.
      siamese: sample one set of parameters for all images instead of one for each image.
      align_corners: convention of bilinear sampling, as in `torch` `grid_sample`.
      each: sample an operation for every image instead of one for the batch; not in the
        siamese mode. All operations are computed for all images.

    Returns:
      f32[b, h, w, c].

    Raises:
      InputError: a strategy with an unknown operation; `each` with `siamese`; a function
        that changes the shape of images; images that are not preprocessed, or not
        [b, h, w, c].
    """
    names = () if callable(strategy) else parse(strategy)
    if not names and not callable(strategy):
        return images
    checks.one_key(key)
    if getattr(images, "ndim", None) != 4:
        shown = list(getattr(images, "shape", [])) or f"a {type(images).__name__}"
        raise InputError(f"images are {shown}: give an array f32[b, h, w, c]")
    if each:
        if siamese:
            raise InputError("each=True: the siamese form has one operation for a batch")
        keys = jax.random.split(key, images.shape[0])
        one = functools.partial(augment, strategy=strategy, align_corners=align_corners)
        return jax.vmap(lambda key, image: one(key, image[None])[0])(keys, images)
    if callable(strategy):
        return _apply_own(strategy, key, images, siamese)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(
            f"images are {images.dtype}: operations take preprocessed images; give "
            "transform(images), with the transform of the real data"
        )
    choose, draw = jax.random.split(key)
    u = jax.random.uniform(draw, (3,) if siamese else (images.shape[0], 3), images.dtype)

    def apply_to_all(name: str, images: Array) -> Array:
        if name in _REGISTERED:
            return _apply_own(_REGISTERED[name], draw, images, siamese)
        operation = OPERATIONS[name]
        if name in ("scale", "rotate"):
            operation = functools.partial(operation, align_corners=align_corners)
        return jax.vmap(operation, in_axes=(0, None if siamese else 0))(images, u)

    branches = [functools.partial(apply_to_all, name) for name in names]
    chosen = jax.random.randint(choose, (), 0, len(names), jnp.int32)
    return varying.switch(chosen, branches, images)
