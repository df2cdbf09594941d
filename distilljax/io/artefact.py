"""The artefact: a distilled set in one file, with all that is needed to use it.

An `.npz` of plain arrays and one JSON string. Reading it never executes anything:
pickled objects are refused, and no member is read that is not needed.

Format 2 stores the matrix of a ZCA once, as a triangle, may hold
`targets`, and carries a SHA-256 of its arrays. Format 1 is read as well.
"""

import errno
import hashlib
import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import checks, pictures, processes
from distilljax.data import stored
from distilljax.disk import archives
from distilljax.disk.files import UNUSABLE, advice, replacing
from distilljax.training import protocols
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Array, DistilledSet, InputError, Transform

FORMAT = 2

# The training images of an artefact, of its `dataset` and its `config`.
FindImages = Callable[[Mapping[str, Any], Mapping[str, Any]], np.ndarray]


class Artefact(NamedTuple):
    """A distilled set and where it comes from.

    Of the example of `distil`:

        >>> made.artefact.class_names, made.artefact.config["ipc"]
        (('0', '1', '2'), 1)

    A notebook shows its picture.

    Attributes:
      distilled: the set, decoded.
      transform: what real images go through before they meet the set.
      class_names: k names; label j is class_names[j].
      dataset: name, source, fingerprint.
      method: name of the method that made it.
      config: of the run that made it.
      protocol: the evaluation it was made for.
      version: of distilljax.
      notes: steps, scores; anything JSON can hold.
      targets: f32[n, k], learned real-valued labels, which are no distributions. Where a
        set has them its label_logits are hard, the largest target's class; see
        `evaluation.as_batch`.
    """

    distilled: DistilledSet
    transform: Transform
    class_names: tuple[str, ...]
    dataset: Mapping[str, Any]
    method: str
    config: Mapping[str, Any]
    protocol: EvaluationProtocol
    version: str
    notes: Mapping[str, Any]
    targets: Array | None = None

    @property
    def pixels(self) -> np.ndarray:
        """The images for a picture, f32[n, h, w, c], clipped to 0..1, class-ordered."""
        return pictures.pixels(self.distilled.images, self.transform)

    def __repr__(self) -> str:
        n, h, w, c = self.distilled.images.shape
        source = self.dataset.get("name", "unknown data")
        return (
            f"Artefact({n} images of {h}x{w}x{c}, {len(self.class_names)} classes, "
            f"distilled from {source} by {self.method})"
        )

    def _repr_png_(self) -> bytes | None:
        return pictures.png(self.pixels, len(self.class_names))


_SET = DistilledSet._fields
_META = ("class_names", "dataset", "method", "config", "version", "notes")
_TRANSFORM = "transform."
_TARGETS = "targets"


@processes.once
def save(path: pathlib.Path | str, artefact: Artefact, *, matrices: bool = True) -> None:
    """Writes the artefact; an existing file is replaced only by a whole one.

    Of the example of `distil`, as `made.save` does it:

        >>> distilljax.save("distilled.npz", made.artefact)

    Args:
      path: of the file.
      artefact: what to write.
      matrices: if false, the matrix of a ZCA is left out (19 MB at 32 x 32 x 3), and
        `load` needs the images it was fitted on.

    Raises:
      InputError: what `load` would refuse (NaN, shapes that do not fit), values that JSON
        cannot hold in `dataset`, `config` or `notes`, such as NaN; no such folder, or a
        place that cannot be written.
      OSError: the disk is full.
    """
    path = pathlib.Path(checks.path(path))
    if not path.name:
        raise InputError(f"{path}: no name of a file; give one, such as distilled.npz")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; create it first")
    checks.instance(
        artefact, Artefact, "artefact", "an Artefact: that of what distil or load returned"
    )
    checks.distilled_set(artefact.distilled)
    protocols.check(artefact.protocol)
    kind, arrays = stored.to_arrays(artefact.transform, matrices=matrices)
    _check(path, artefact)
    held: dict[str, Any] = {
        name: np.asarray(value)
        for name, value in checks.at_least_float32(artefact.distilled)._asdict().items()
    }
    held |= {_TRANSFORM + name: array for name, array in arrays.items()}
    if artefact.targets is not None:
        held[_TARGETS] = np.asarray(artefact.targets, np.float32)
    meta = {name: getattr(artefact, name) for name in _META}
    meta |= {"format": FORMAT, "transform": kind, "protocol": artefact.protocol.to_dict()}
    meta["sha256"] = digest(held)
    try:
        held["meta"] = np.array(json.dumps(meta, default=_plain, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: dataset, config or notes cannot be stored as JSON ({error}); give "
            "finite numbers, and text as keys"
        ) from None
    try:
        _description(held["meta"])
    except InputError as error:
        raise InputError(f"{path}: load would refuse this artefact: {error}") from None
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **held)
    except OSError as error:
        if error.errno not in (*UNUSABLE, errno.ENOENT):
            raise
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); {advice(error)}"
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return value.tolist()
    raise InputError(
        f"{type(value).__name__} {value!r:.40} cannot be stored; give numbers, text, "
        "lists, arrays or dictionaries"
    )


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256, hex, of names, types, shapes and values, in order of names.

    >>> artefact.digest({"images": np.zeros(3)})[:8]
    'd0f4b0f5'
    """
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {list(array.shape)}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def load(
    path: pathlib.Path | str, train_images: np.ndarray | FindImages | None = None
) -> Artefact:
    """Reads an artefact.

    Of the example of `save`:

        >>> artefact = distilljax.load("distilled.npz")
        >>> artefact.transform.inverse(artefact.distilled.images).shape
        (3, 8, 8, 1)

    Args:
      path: of the file.
      train_images: u8[n, h, w, c], what the preprocessing was fitted on, or a function
        that returns them, of the artefact's `dataset` and `config`; read or called only
        where the file was saved without matrices.

    Raises:
      InputError: no such file, a truncated or foreign one, or contents that do not
        fit together (checksum, shapes, NaN, class names, a newer format), or the
        preprocessing is to be fitted again to other images.
    """
    path = pathlib.Path(checks.path(path))
    with archives.opened(path, "distilled set") as archive:
        meta, arrays = _read(archive)
        protocol = EvaluationProtocol.from_dict(meta["protocol"])
        kind = meta["transform"]
        for name, array in arrays.items():
            if array.dtype.kind != "f":
                raise InputError(f"{name} holds {array.dtype}, and must hold real floats")
        if meta["format"] > 1 and meta["sha256"] != digest(arrays):
            raise InputError(
                "its arrays do not have the SHA-256 that it states; it is damaged, or was "
                "changed after it was written"
            )
        fitted = {
            name.removeprefix(_TRANSFORM): array
            for name, array in arrays.items()
            if name.startswith(_TRANSFORM)
        }
        if stored.SKETCH not in fitted:
            transform = stored.from_arrays(kind, fitted)
    if stored.SKETCH in fitted:
        if callable(train_images):
            train_images = train_images(meta["dataset"], meta["config"])
        try:
            transform = stored.from_arrays(kind, fitted, train_images)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    targets = arrays.get(_TARGETS)
    artefact = Artefact(
        DistilledSet(*(jnp.asarray(arrays[name], jnp.float32) for name in _SET)),
        transform,
        tuple(meta["class_names"]),
        meta["dataset"],
        meta["method"],
        meta["config"],
        protocol,
        meta["version"],
        meta["notes"],
        None if targets is None else jnp.asarray(targets, jnp.float32),
    )
    _check(path, artefact)
    return artefact


def _read(archive: zipfile.ZipFile) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the arrays that it and this library know."""
    names = archives.npz_names(archive)
    if missing := [name for name in ("meta", *_SET) if name not in names]:
        raise InputError(
            f"not a distilled set of distilljax, it has no {', '.join(missing)}"
        )
    meta = _description(archives.npz_arrays(archive, ["meta"])["meta"])
    known = [_TRANSFORM + name for name in stored.array_names(meta["transform"])]
    if strange := [n for n in names if n.startswith(_TRANSFORM) and n not in known]:
        raise InputError(
            f"a stored {meta['transform']!r} transform has no {strange[0]}; it is damaged"
        )
    wanted = [name for name in (*_SET, _TARGETS, *known) if name in names]
    return meta, archives.npz_arrays(archive, wanted)


def _description(array: np.ndarray) -> dict[str, Any]:
    try:
        if array.shape or array.dtype.kind != "U":
            raise ValueError(f"{array.dtype}{list(array.shape)}")
        meta = json.loads(str(array))
        number = meta["format"]
        known = isinstance(number, int) and not isinstance(number, bool) and number >= 1
        if not known:
            raise ValueError(f"format {number!r} is no number of a format")
        if number > FORMAT:
            raise InputError(
                f"format {number} is newer than this library reads ({FORMAT}); upgrade "
                "distilljax"
            )
        needed = (*_META, "transform", "protocol", *(["sha256"] if number > 1 else []))
        if absent := [name for name in needed if name not in meta]:
            raise KeyError(absent[0])
        expected = {"class_names": list, "dataset": dict, "config": dict, "notes": dict}
        expected |= dict.fromkeys(("transform", "method", "version"), str)
        for name, kind in (expected | {"protocol": dict}).items():
            if not isinstance(meta[name], kind):
                raise ValueError(f"{name} is {meta[name]!r}")
        if not all(isinstance(name, str) for name in meta["class_names"]):
            raise ValueError("class_names are no texts")
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"its description is damaged ({error!r})") from None
    return meta


def _check(path: pathlib.Path, artefact: Artefact) -> None:
    images, label_logits, log_lr = artefact.distilled
    k = len(artefact.class_names)
    if images.ndim != 4 or label_logits.shape != (images.shape[0], k) or log_lr.shape:
        raise InputError(
            f"{path}: images {images.shape}, label logits {label_logits.shape} and "
            f"{k} class names do not fit together"
        )
    for name, array in zip(_SET, artefact.distilled, strict=True):
        if not np.isfinite(np.asarray(array)).all():
            raise InputError(f"{path}: {name} holds NaN or infinite values")
    if artefact.targets is not None:
        if np.shape(artefact.targets) != label_logits.shape:
            raise InputError(
                f"{path}: targets {np.shape(artefact.targets)} and label logits "
                f"{label_logits.shape} do not fit together"
            )
        if not np.isfinite(np.asarray(artefact.targets)).all():
            raise InputError(f"{path}: targets holds NaN or infinite values")
    try:
        shown = jax.eval_shape(artefact.transform.inverse, images[:1]).shape
    except (TypeError, ValueError):
        shown = None
    if shown != images[:1].shape:
        raise InputError(
            f"{path}: its preprocessing is not one of {images.shape[1:]} images"
        )
