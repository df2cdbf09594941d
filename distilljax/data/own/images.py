"""Images of files and of tables: decoded, brought to one size and one kind of colour."""

import io
import pathlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from distilljax import memory
from distilljax.data.own.request import Request
from distilljax.types import InputError

ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm"),
)
_PLAIN = {"1": "grey", "L": "grey", "RGB": "rgb"}
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_WORDS = (";16B", ";16L", ";16N")  # ends of raw modes of 16 bits a channel
_INSTALL = "pip install 'pillow>=10' 'pyarrow>=17'"
_ORIENTATION = 0x0112  # tag of EXIF
_BITS_PER_SAMPLE = 0x0102  # tag of TIFF
_CHANNELS = {"grey": 1, "rgb": 3}


class Encoded(NamedTuple):
    """An image that is not decoded yet.

    Attributes:
      where: its name in messages.
      content: a file, or the contents of one.
    """

    where: str
    content: pathlib.Path | bytes


Images = Sequence[Encoded] | np.ndarray  # or pixels, u8[n, h, w, c]


class Decoded(NamedTuple):
    """Images of one size and one kind of colour.

    Attributes:
      images: u8[n, h, w, c].
      notes: what was done to them.
    """

    images: np.ndarray
    notes: list[str]


class _Header(NamedTuple):
    size: tuple[int, int]  # height, width, as it is shown
    mode: str
    turned: bool


def require(module: str, what: str) -> None:
    """Refuses to go on without a package.

    >>> images.require("json", "records")

    Raises:
      InputError: it is not installed.
    """
    try:
        __import__(module)
    except ImportError:
        raise InputError(f"reading {what} needs {module}; {_INSTALL}") from None


def decode(images: Images, request: Request) -> Decoded:
    """Decodes, resizes and converts images as the request says, and no further.

    >>> from distilljax.data.own import request
    >>> pixels = np.zeros((2, 16, 16, 1), np.uint8)
    >>> images.decode(pixels, request.parse("pets,size=8")).images.shape
    (2, 8, 8, 1)

    Raises:
      InputError: a file that is no image, or has more than 8 bits a channel; images of
        several sizes without `size`, or of several or other kinds of colour without
        `colour`; more than fit into memory.
    """
    if isinstance(images, np.ndarray):
        return _from_pixels(images, request)
    require("PIL", "images")
    headers = [_header(one) for one in images]
    colour = request.colour or _common_colour(images, headers, request)
    height, width = request.size or _common_size(images, headers, request)
    shape = (len(images), height, width, _CHANNELS[colour])
    memory.require(
        float(np.prod(shape, dtype=float)),
        f"{len(images)} images of {height} x {width} pixels",
        "give a smaller ,size= or fewer images with ,per_class=",
    )
    pixels = np.empty(shape, np.uint8)
    for row, one in enumerate(images):
        with _opened(one) as image:
            pixels[row] = _brought(image, (height, width), colour, request.fit)
    return Decoded(pixels, _notes(headers, request, colour))


@contextmanager
def _opened(one: Encoded) -> Iterator[Any]:
    """Gives a PIL image; all that goes wrong is an `InputError` that names it."""
    from PIL import Image

    given = one.content
    file = io.BytesIO(given) if isinstance(given, bytes) else given
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                yield image
    except InputError:
        raise
    except Exception as error:  # decoders fail in many ways
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        why = (
            "it is no image" if type(error).__name__ == "UnidentifiedImageError" else first
        )
        raise InputError(
            f"{one.where} cannot be read ({why}); repair it, or remove it"
        ) from None


def _header(one: Encoded) -> _Header:
    with _opened(one) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise InputError(
                f"{one.where} has {image.n_frames} frames; keep one image of it"
            )
        check_depth(image, one.where)
        turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        width, height = image.size[::-1] if turned else image.size
        return _Header((height, width), image.mode, turned)


def check_depth(image: Any, where: str) -> None:
    """Refuses a PIL image of a file, not read yet, of which a channel has more than 8 bits.

    >>> import io, PIL.Image
    >>> PIL.Image.new("RGB", (8, 8)).save(file := io.BytesIO(), "PNG")
    >>> images.check_depth(PIL.Image.open(file), "a.png")

    Raises:
      InputError: it has; the message begins with `where`.
    """
    if _is_deep(image):
        raise InputError(f"{where} has more than 8 bits a channel; convert it to 8 bits")


def _is_deep(image: Any) -> bool:
    """Whether an image in its file has more than 8 bits a channel.

    PIL gives 16-bit RGB the mode RGB; until pixels are read `tile` tells how they are held,
    for a TIFF file of planes its tag alone.
    """
    if max(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))) > 8:
        return True
    for decoder, _, _, told in image.tile:
        raw, *more = told if isinstance(told, tuple) else (told,)
        if str(raw).endswith(_WORDS):
            return True
        if decoder[:3] == "ppm" and max(more, default=0) > 255:  # its largest value
            return True
    return image.mode in _DEEP


def _common_size(
    images: Sequence[Encoded], headers: Sequence[_Header], request: Request
) -> tuple[int, int]:
    found = Counter(header.size for header in headers)
    if len(found) == 1:
        return headers[0].size
    (most, number), *_ = found.most_common(1)
    other = next(i for i, header in enumerate(headers) if header.size != most)
    raise InputError(
        f"{request.path}: its images are of {len(found)} sizes ({number} of {len(headers)} "
        f"are {_spelt(most)}, {images[other].where} is {_spelt(headers[other].size)}); "
        f"give one behind the path, such as {request.path},size=32"
    )


def _spelt(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _common_colour(
    images: Sequence[Encoded], headers: Sequence[_Header], request: Request
) -> str:
    kinds = Counter(_PLAIN.get(header.mode, header.mode) for header in headers)
    (first, *others) = kinds
    if not others and first in _CHANNELS:
        return first
    odd = next(i for i, header in enumerate(headers) if header.mode not in _PLAIN or others)
    listed = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    raise InputError(
        f"{request.path}: its images are not all grey or all RGB ({listed}; "
        f"{images[odd].where} is {headers[odd].mode}); convert them by ,colour=rgb or "
        f",colour=grey behind the path"
    )


def _brought(image: Any, size: tuple[int, int], colour: str, fit: str) -> np.ndarray:
    """Returns one image as u8[h, w, c]."""
    from PIL import ImageOps

    image = _opaque(ImageOps.exif_transpose(image))
    image = image.convert("L" if colour == "grey" else "RGB")
    return _resized(np.asarray(image), size, fit).reshape(*size, _CHANNELS[colour])


def _transparent(image: Any) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _opaque(image: Any) -> Any:
    """Returns an image with transparent parts on white."""
    from PIL import Image

    if not _transparent(image):
        return image
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _resized(pixels: np.ndarray, size: tuple[int, int], fit: str) -> np.ndarray:
    """Returns u8[h, w(, c)] at another size, bicubic, with antialiasing."""
    from PIL import Image, ImageOps

    if pixels.shape[:2] == size:
        return pixels
    image, wanted = Image.fromarray(pixels), size[::-1]
    how = Image.Resampling.BICUBIC
    if fit == "crop":
        return np.asarray(ImageOps.fit(image, wanted, how))
    if fit == "pad":
        return np.asarray(ImageOps.pad(image, wanted, how))
    return np.asarray(image.resize(wanted, how))


def _from_pixels(pixels: np.ndarray, request: Request) -> Decoded:
    """Resizes and converts images that are pixels, u8[n, h, w, c]."""
    if request.size is None and request.colour is None:
        return Decoded(pixels, [])
    require("PIL", "images to resize or convert them")
    from PIL import Image

    channels = pixels.shape[3]
    mode = {1: "L", 3: "RGB"}[channels]
    size = request.size or pixels.shape[1:3]
    colour = request.colour or {1: "grey", 3: "rgb"}[channels]
    new = np.empty((len(pixels), *size, _CHANNELS[colour]), np.uint8)
    for row, one in enumerate(pixels):
        image = Image.fromarray(one[..., 0] if channels == 1 else one)
        converted = np.asarray(image.convert("L" if colour == "grey" else "RGB"))
        new[row] = _resized(converted, size, request.fit).reshape(new.shape[1:])
    header = _Header((pixels.shape[1], pixels.shape[2]), mode, False)
    return Decoded(new, _notes([header] * len(pixels), request, colour))


def _notes(headers: Sequence[_Header], request: Request, colour: str) -> list[str]:
    """Returns what was done to the images, in words."""
    notes, num = [], len(headers)
    if request.size:
        height, width = request.size
        resized = [h.size for h in headers if h.size != request.size]
        if resized:
            odd = sum(abs(h * width - w * height) >= max(h, w) for h, w in resized)
            done = {
                "crop": "cropped to the middle, ,fit=pad or ,fit=stretch keeps the whole",
                "stretch": "stretched",
                "pad": "padded with black",
            }[request.fit]
            text = f"{len(resized)} of {num} images resized to {height} x {width} (bicubic)"
            larger = sum(h < height or w < width for h, w in resized)
            text += f", {larger} of them enlarged" if larger else ""
            notes.append(text + (f"; {odd} {done}" if odd else ""))
    converted = [h for h in headers if _PLAIN.get(h.mode) != colour]
    if converted:
        kinds = ", ".join(sorted({h.mode for h in converted}))
        how = "grey, by the luma of ITU-R 601" if colour == "grey" else "RGB"
        notes.append(f"{len(converted)} of {num} images converted from {kinds} to {how}")
    if any(h.mode in ("RGBA", "LA", "PA", "P") for h in headers):
        notes.append("transparent parts of images were put on white")
    if turned := sum(h.turned for h in headers):
        notes.append(f"{turned} of {num} images turned as their EXIF data say")
    return notes
