"""Measured attributes: colour, light, background, edges, the object, symmetry.

Definitions, for images in 0..1; the luma of a grey image is its value, of a coloured one
.299 R + .587 G + .114 B:

- *Background*: the border, a frame max(1, round(min(h, w) / 16)) pixels wide. Its colour
  is the median of the border by channel.
- *Saliency* of a pixel: its distance from the background's colour, sqrt(mean over channels
  of the squared difference), in 0..1. The *object* is where that is above .15, its place
  the centroid of the saliency. That holds for things on a plain ground; on a cluttered one
  it says how unlike the border the middle is.
- *Edges*: central differences of the luma (np.gradient, one-sided at the border), per
  pixel. The energy of an edge is the squared length of the gradient; its direction is
  across the gradient: horizontal or vertical within 22.5 degrees, else diagonal.
- *Colour* of a pixel, from HSV (hexcone): black where V < .2; else without colour where
  S < .2, then white above V = .8 and grey up to it; else by its hue, see `HUES`.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from experiments.attributes.annotators.table import Annotations, Kind, unit_range

CHUNK = 1000  # images at a time
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
BLACK, COLOURLESS, WHITE = 0.2, 0.2, 0.8  # V below; S below; V above
# Name -> first and last degree of the hue, of [first, last); red goes through 0.
HUES = {
    "red": (345, 375),
    "orange": (15, 45),
    "yellow": (45, 70),
    "green": (70, 165),
    "cyan": (165, 195),
    "blue": (195, 260),
    "purple": (260, 345),
}
SHADES = ("black", "grey", "white")
PLAIN = 0.05  # a background whose variation is below is plain
SALIENT = 0.15
STRONG = 0.1  # length of a gradient, per pixel


class _Column(NamedTuple):
    name: str
    kind: Kind
    description: str
    values: np.ndarray  # [n]


class Measured:
    """The annotator. Images of one channel have no columns about hue."""

    name = "measured"
    identity = "measured, version 1"

    def __call__(self, images: np.ndarray) -> Annotations:
        """Returns the table of u8[n, h, w, c], or f[n, h, w, c] in 0..1; h, w >= 2."""
        parts = [
            list(_columns(unit_range(images[start : start + CHUNK])))
            for start in range(0, len(images), CHUNK)
        ]
        values = [np.stack([c.values for c in part], axis=1) for part in parts]
        names, kinds, descriptions = zip(*(column[:3] for column in parts[0]), strict=True)
        return Annotations(
            names, kinds, descriptions, np.concatenate(values).astype(np.float32)
        )


def _columns(images: np.ndarray) -> Iterator[_Column]:
    luma = images[..., 0] if images.shape[-1] == 1 else images @ LUMA
    return itertools.chain(
        _light(luma), _background(images), _edges(luma), _object(images), _colour(images)
    )


def _light(luma: np.ndarray) -> Iterator[_Column]:
    flat = luma.reshape(len(luma), -1)
    yield _Column("brightness", "continuous", "Mean luma, 0 to 1.", flat.mean(axis=1))
    contrast = flat.std(axis=1)
    yield _Column("contrast", "continuous", "Standard deviation of the luma.", contrast)
    centred = flat - flat.mean(axis=1, keepdims=True)
    mirrored = luma[:, :, ::-1].reshape(flat.shape) - flat.mean(axis=1, keepdims=True)
    power = (centred**2).sum(axis=1)
    flatness = power < 1e-6 * flat.shape[1]
    symmetry = (centred * mirrored).sum(axis=1) / np.where(flatness, 1, power)
    yield _Column(
        "symmetry",
        "continuous",
        "Correlation of the luma with its mirror image, left for right; 1 if uniform.",
        np.where(flatness, 1, symmetry),
    )


def border(shape: tuple[int, int]) -> np.ndarray:
    """Returns the frame that counts as background, bool[h, w]."""
    width = max(1, round(min(shape) / 16))
    inside = np.zeros(shape, bool)
    inside[width : shape[0] - width, width : shape[1] - width] = True
    return ~inside


def _background(images: np.ndarray) -> Iterator[_Column]:
    pixels = images[:, border(images.shape[1:3])]
    level = pixels.mean(axis=1)
    level = level[:, 0] if images.shape[-1] == 1 else level @ LUMA
    yield _Column("background brightness", "continuous", "Mean luma of the border.", level)
    variation = np.sqrt(pixels.var(axis=1).mean(axis=-1))
    yield _Column(
        "background variation",
        "continuous",
        "Standard deviation of the border's pixels, root mean square over channels.",
        variation,
    )
    yield _Column(
        "plain background",
        "boolean",
        f"The border varies by less than {PLAIN:g}.",
        variation < PLAIN,
    )


def _edges(luma: np.ndarray) -> Iterator[_Column]:
    down, right = np.gradient(luma, axis=(1, 2))
    power = down**2 + right**2
    strong = (power > STRONG**2).mean(axis=(1, 2))
    yield _Column(
        "edge density",
        "continuous",
        f"Share of pixels whose luma changes by more than {STRONG:g} a pixel.",
        strong,
    )
    total = power.sum(axis=(1, 2))
    # Angle of the gradient, 0 to 90 degrees: 0 is across a vertical edge.
    angle = np.degrees(np.arctan2(np.abs(down), np.abs(right)))
    sectors = {
        "horizontal edges": angle > 67.5,
        "vertical edges": angle < 22.5,
        "diagonal edges": (angle >= 22.5) & (angle <= 67.5),
    }
    for name, sector in sectors.items():
        share = (power * sector).sum(axis=(1, 2)) / np.where(total == 0, 1, total)
        yield _Column(
            name,
            "continuous",
            f"Share of {name} in the energy of all edges; 0 if there is none.",
            share,
        )


def saliency(images: np.ndarray) -> np.ndarray:
    """Returns distances from the border's colour, f32[n, h, w], of f32[n, h, w, c]."""
    colour = np.median(images[:, border(images.shape[1:3])], axis=1)
    return np.sqrt(((images - colour[:, None, None]) ** 2).mean(axis=-1))


def _object(images: np.ndarray) -> Iterator[_Column]:
    salient = saliency(images)
    size = (salient > SALIENT).mean(axis=(1, 2))
    yield _Column(
        "object size",
        "continuous",
        f"Share of pixels further than {SALIENT:g} from the border's colour.",
        size,
    )
    total = salient.sum(axis=(1, 2))
    total = np.where(total < 1e-6, 1, total)
    places, spreads = [], []
    for axis, length in ((2, images.shape[1]), (1, images.shape[2])):
        along = salient.sum(axis=axis)
        at = np.linspace(-1, 1, length)
        mean = along @ at / total
        places.append(mean)
        # The spread of one pixel, so that the logarithm below exists.
        spreads.append(along @ at**2 / total - mean**2 + 1 / length**2)
    vertical, horizontal = places
    yield _Column(
        "object left or right",
        "continuous",
        "Horizontal centroid of the saliency, -1 the left edge, 1 the right one.",
        horizontal,
    )
    yield _Column(
        "object up or down",
        "continuous",
        "Vertical centroid of the saliency, -1 the upper edge, 1 the lower one.",
        vertical,
    )
    yield _Column(
        "object tallness",
        "continuous",
        "Logarithm of the saliency's vertical over its horizontal standard deviation; the "
        "image's sides count alike.",
        0.5 * np.log(spreads[0] / spreads[1]),
    )


def colours(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the pixels of each colour: name -> bool[n, h, w], one true for each pixel.

    Args:
      images: f[n, h, w, c] in 0..1. With c = 1 there are `SHADES` only.
    """
    value, least = images.max(axis=-1), images.min(axis=-1)
    chroma = value - least
    black = value < BLACK
    colourless = ~black & (chroma < COLOURLESS * value)
    found = {
        "black": black,
        "grey": colourless & (value <= WHITE),
        "white": colourless & (value > WHITE),
    }
    if images.shape[-1] == 1:
        return found
    red, green, blue = np.moveaxis(images, -1, 0)
    safe = np.where(chroma == 0, 1, chroma)
    hue = 60 * np.select(
        [value == red, value == green],
        [(green - blue) / safe, 2 + (blue - red) / safe],
        4 + (red - green) / safe,
    )
    coloured = ~black & ~colourless
    for name, (first, last) in HUES.items():
        found[name] = coloured & ((hue - first) % 360 < last - first)
    return found


def _colour(images: np.ndarray) -> Iterator[_Column]:
    shares = {name: mask.mean(axis=(1, 2)) for name, mask in colours(images).items()}
    if images.shape[-1] == 3:
        value = images.max(axis=-1)
        chroma = value - images.min(axis=-1)
        saturation = (chroma / np.where(value == 0, 1, value)).mean(axis=(1, 2))
        yield _Column("saturation", "continuous", "Mean saturation (HSV).", saturation)
        for name in HUES:
            yield _Column(
                f"share of {name}",
                "continuous",
                f"Share of pixels that are {name}.",
                shares[name],
            )
    most = np.argmax(np.stack(list(shares.values())), axis=0)
    for i, name in enumerate(shares):
        yield _Column(
            f"mostly {name}",
            "boolean",
            f"More pixels are {name} than of any other colour.",
            most == i,
        )
