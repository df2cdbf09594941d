"""Transforms as arrays that a file can hold, and back. d = h * w * c."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from distilljax.data import registered
from distilljax.data.matrices import (
    check_matrices,
    inverse,
    side,
    sketch,
    symmetric,
    triangle,
)
from distilljax.data.preprocess import CLASSES, FITTERS, check_images, check_kind
from distilljax.types import InputError, Transform

# Equal letters must be equal sizes; letters are sizes of arrays in `from_arrays`. t is
# d (d + 1) / 2: a symmetric matrix is stored as its upper triangle, row by row.
_SCALED = {"channel_mean": "c", "channel_std": "c", "mean": "d", "whiten": "t"}
_SHAPES = {
    "none": {},
    "normalise": {"mean": "c", "std": "c"},
    "zca": {"mean": "d", "whiten": "t"},
    "zca_normed": {"whiten": "t", "image_mean": "", "image_norm": ""},
    "zca_scaled": _SCALED,
    "zca_uncentred": _SCALED,
}
_POSITIVE = {"std", "channel_std", "image_norm"}
_MATRICES = ("whiten", "unwhiten")  # both whole in format 1 of an artefact

SKETCH = "sketch"  # in place of `whiten`, where that is fitted again


def to_arrays(
    transform: Transform, *, matrices: bool = True
) -> tuple[str, dict[str, np.ndarray]]:
    """The kind of a transform and its fields, f32, as a file can hold them.

    Of a ZCA the upper triangle of `whiten` is stored; `unwhiten` is computed from it.

    >>> from distilljax.data import preprocess
    >>> images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    >>> kind, arrays = stored.to_arrays(preprocess.fit("normalise", images))
    >>> kind, sorted(arrays)
    ('normalise', ['mean', 'std'])

    Args:
      transform: of this package, or of a class that was registered with `register`.
      matrices: if false, `whiten` is left out, and an f32[d, 4] `sketch` of it takes its
        place, by which `from_arrays` knows the matrix when it fits it again.

    Raises:
      InputError: a transform of another class, or whose matrices are not
        symmetric and each other's inverse.
    """
    if (own := registered.to_arrays(transform)) is not None:
        return own
    if not isinstance(transform, tuple(CLASSES.values())):
        raise InputError(
            f"{type(transform).__name__} cannot be stored; kinds that can are "
            f"{', '.join(FITTERS)}, and classes registered with distilljax.data.register"
        )
    known: Any = transform
    fields = [field.name for field in dataclasses.fields(known)]
    arrays = {name: np.asarray(getattr(transform, name)) for name in fields}
    if "whiten" in arrays:
        whiten, unwhiten = arrays.pop("whiten"), arrays.pop("unwhiten")
        check_matrices(whiten, unwhiten)
        if matrices:
            arrays["whiten"] = triangle(whiten)
        else:
            arrays[SKETCH] = sketch(whiten)
    return known.kind, arrays


def from_arrays(
    kind: str, arrays: Mapping[str, np.ndarray], images: np.ndarray | None = None
) -> Transform:
    """The inverse of `to_arrays`; matrices stored whole are read as well.

    >>> from distilljax.data import preprocess
    >>> images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    >>> kind, arrays = stored.to_arrays(preprocess.fit("normalise", images))
    >>> transform = stored.from_arrays(kind, arrays)
    >>> np.round(transform(images)).ravel().tolist()
    [-1.0, 1.0]

    Args:
      kind: of the transform.
      arrays: its fields.
      images: u8[n, h, w, c], those the transform was fitted on; read where a sketch is in
        place of the matrix, which is then fitted again.

    Raises:
      InputError: unknown kind; absent or unknown arrays; shapes that disagree; values
        that are not finite floats; a standard deviation that is not positive; images that
        are absent or not the ones fitted on.
    """
    check_kind(kind, (*FITTERS, *registered.registered()))
    if kind in registered.registered():
        return registered.from_arrays(kind, arrays)
    shapes = dict(_SHAPES[kind])
    if SKETCH in arrays and "whiten" in shapes:
        shapes[SKETCH] = "d4"
        del shapes["whiten"]
    elif "unwhiten" in arrays and "whiten" in shapes:
        shapes |= dict.fromkeys(_MATRICES, "dd")
    if set(arrays) != set(shapes):
        raise InputError(
            f"a stored {kind!r} transform has arrays {sorted(_SHAPES[kind])}, got "
            f"{sorted(arrays)}"
        )
    _check_arrays(kind, arrays, shapes)
    fields = {name: jnp.asarray(arrays[name], jnp.float32) for name in shapes}
    if SKETCH in fields:
        return _fit_again(kind, arrays, images)
    if shapes.get("whiten") == "t":
        whiten = symmetric(np.asarray(arrays["whiten"], np.float32))
        fields["whiten"] = jnp.asarray(whiten)
        fields["unwhiten"] = jnp.asarray(inverse(whiten, kind))
    return CLASSES[kind](**fields)


def array_names(kind: str) -> tuple[str, ...]:
    """Returns the names that arrays of a stored transform may have, all forms together.

    >>> stored.array_names("normalise")
    ('mean', 'std')

    Raises:
      InputError: unknown kind.
    """
    check_kind(kind, (*FITTERS, *registered.registered()))
    if kind in registered.registered():
        return registered.field_names(kind)
    names = tuple(_SHAPES[kind])
    return (*names, "unwhiten", SKETCH) if "whiten" in names else names


def _check_arrays(
    kind: str, arrays: Mapping[str, np.ndarray], shapes: Mapping[str, str]
) -> None:
    sizes: dict[str, int] = {"4": 4}
    for name, letters in shapes.items():
        array = np.asarray(arrays[name])
        if not np.issubdtype(array.dtype, np.floating):
            raise InputError(
                f"{name} of a stored {kind!r} transform must be floats, got {array.dtype}"
            )
        if not np.isfinite(array).all():
            raise InputError(f"{name} of a stored {kind!r} transform has NaN or infinity")
        if letters == "t" and array.ndim == 1:
            d = side(array.size)
            if d is not None and sizes.setdefault("d", d) == d:
                continue
        elif array.ndim == len(letters):
            for letter, size in zip(letters, array.shape, strict=True):
                sizes.setdefault(letter, size)
        if array.shape != tuple(sizes.get(letter) for letter in letters):
            raise InputError(
                f"{name} of a stored {kind!r} transform has shape {array.shape}, expected "
                f"[{', '.join(letters)}]" + (f" with {sizes}" if sizes else "")
            )
    for name in _POSITIVE & set(arrays):
        if not (np.asarray(arrays[name]) > 0).all():
            raise InputError(
                f"{name} of a stored {kind!r} transform must be positive, "
                f"got {arrays[name]}"
            )


def _fit_again(
    kind: str, arrays: Mapping[str, np.ndarray], images: np.ndarray | None
) -> Transform:
    if images is None:
        raise InputError(
            f"its preprocessing {kind!r} is to be fitted again, and the images it was "
            "fitted on are not given; give them as train_images"
        )
    check_images(images)
    stored = np.asarray(arrays[SKETCH])
    if images[0].size != len(stored):
        raise InputError(
            f"train_images: images of {list(images.shape[1:])} are not the ones its "
            f"preprocessing was fitted on, which have {len(stored)} values"
        )
    transform: Any = FITTERS[kind](images)
    for name, array in arrays.items():
        found = sketch(transform.whiten) if name == SKETCH else getattr(transform, name)
        if np.abs(found - array).max() > 1e-4 * np.abs(array).max():
            raise InputError(
                f"train_images: fitted to them, the preprocessing {kind!r} is another (its "
                f"{name}); give the training images it was fitted on, less those that were "
                "held out"
            )
    return transform
