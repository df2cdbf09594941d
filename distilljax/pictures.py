"""One picture of a set of images, for notebooks and TensorBoard."""

import io

import numpy as np

from distilljax.types import Array, Transform

MOST_COLUMNS = 10
SIDE = 56  # least pixels of an image that is shown


def pixels(images: Array, transform: Transform) -> np.ndarray:
    """Returns preprocessed images as pixels, f32[n, h, w, c], clipped to 0..1.

    >>> import numpy as np
    >>> from distilljax import data, pictures
    >>> float(pictures.pixels(2 * np.ones((1, 8, 8, 1)), data.Identity()).max())
    1.0
    """
    return np.clip(np.asarray(transform.inverse(images)), 0, 1)


def tile(images: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns one picture of a set, u8[height, width, c], images a black pixel apart.

    A row for each class, of up to ten images; at one image a class, rows of ten classes.

        >>> import numpy as np
        >>> from distilljax.watching import tile
        >>> tile(np.ones((6, 8, 8, 1)), num_classes=3).shape
        (26, 17, 1)

    Args:
      images: f32[n, h, w, c] in 0..1, class-ordered.
      num_classes: k.
    """
    n, h, w, c = images.shape
    rows = images.reshape(num_classes, n // num_classes, h, w, c)[:, :MOST_COLUMNS]
    if rows.shape[1] == 1:
        columns = min(num_classes, MOST_COLUMNS)
        missing = -num_classes % columns
        rows = np.concatenate([rows[:, 0], np.zeros((missing, h, w, c))])
        rows = rows.reshape(-1, columns, h, w, c)
    framed = np.pad(rows, [(0, 0), (0, 0), (0, 1), (0, 1), (0, 0)])
    k, columns, *_ = framed.shape
    picture = framed.swapaxes(1, 2).reshape(k * (h + 1), columns * (w + 1), c)
    return np.rint(np.clip(picture[:-1, :-1], 0, 1) * 255).astype(np.uint8)


def coloured(picture: np.ndarray) -> np.ndarray:
    """Returns a picture with 3 or 4 channels; of others the grey of their mean, in 3.

    >>> import numpy as np
    >>> from distilljax import pictures
    >>> pictures.coloured(np.ones((8, 8, 1), np.uint8)).shape
    (8, 8, 3)

    Args:
      picture: u8[height, width, c].
    """
    if picture.shape[-1] in (3, 4):
        return picture
    grey = picture.mean(-1, keepdims=True).astype(np.uint8)
    return np.repeat(grey, 3, axis=-1)


def png(images: np.ndarray, num_classes: int) -> bytes | None:
    """Returns the tiled set as a PNG file, small images enlarged; None without Pillow.

    >>> import numpy as np
    >>> from distilljax import pictures
    >>> pictures.png(np.ones((3, 8, 8, 1)), num_classes=3)[1:4]
    b'PNG'

    Args:
      images: f32[n, h, w, c] in 0..1, class-ordered.
      num_classes: k.
    """
    try:
        from PIL import Image
    except ImportError:
        return None
    times = max(1, -(-SIDE // images.shape[1]))
    picture = coloured(tile(images, num_classes)).repeat(times, 0).repeat(times, 1)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return file.getvalue()
