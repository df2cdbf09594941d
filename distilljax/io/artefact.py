"""The artefact: a distilled set in one file, with all that is needed to use it.

An `.npz` of plain arrays and one JSON string. Reading it never executes anything:
pickled objects are refused.
"""

import json
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax.data import preprocess
from distilljax.io.files import replacing
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import DistilledSet, InputError, Transform

FORMAT = 1


class Artefact(NamedTuple):
    """A distilled set and where it comes from."""

    distilled: DistilledSet
    transform: Transform  # what real images go through before they meet the set
    class_names: tuple[str, ...]
    dataset: Mapping[str, Any]  # name, source, fingerprint
    method: str
    config: Mapping[str, Any]  # of the run that made it
    protocol: EvaluationProtocol  # the evaluation it was made for
    version: str  # of distilljax
    notes: Mapping[str, Any]  # steps, scores; anything JSON can hold


_SET = DistilledSet._fields
_UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
_META = ("class_names", "dataset", "method", "config", "version", "notes")


def save(path: pathlib.Path | str, artefact: Artefact) -> None:
    """Writes the artefact; an existing file is replaced only by a whole one.

    Raises:
      InputError: what `load` would refuse (NaN, shapes that do not fit).
    """
    _check(pathlib.Path(path), artefact)
    kind, arrays = preprocess.to_arrays(artefact.transform)
    meta = {name: getattr(artefact, name) for name in _META}
    meta |= {"format": FORMAT, "transform": kind, "protocol": artefact.protocol.to_dict()}
    held: dict[str, Any] = {"meta": np.array(json.dumps(meta))}
    held |= {name: np.asarray(getattr(artefact.distilled, name)) for name in _SET}
    held |= {f"transform.{name}": array for name, array in arrays.items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **held)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    def unreadable(why: object) -> InputError:
        return InputError(
            f"{path}: not a readable distilled set ({why}); it may be truncated, or made "
            "by another program"
        )

    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                raise unreadable("it is no .npz archive")
            file.seek(0)
            with np.load(file, allow_pickle=False) as held:
                return {name: held[name] for name in held.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        # numpy refuses an array of objects in words that advise to allow them.
        pickled = "allow_pickle" in str(error)
        raise unreadable("it holds pickled objects" if pickled else error) from None
    except _UNREADABLE as error:
        raise unreadable(error) from None


def load(path: pathlib.Path | str) -> Artefact:
    """Reads an artefact.

    Raises:
      InputError: no such file, a truncated or foreign one, or contents that do not
        fit together (shapes, NaN, class names, a newer format).
    """
    path = pathlib.Path(path)
    arrays = _read(path)
    if missing := [name for name in ("meta", *_SET) if name not in arrays]:
        raise InputError(
            f"{path}: not a distilled set of distilljax, it has no {', '.join(missing)}"
        )
    try:
        meta = json.loads(str(arrays["meta"]))
        if meta["format"] > FORMAT:
            raise InputError(
                f"format {meta['format']} is newer than this library reads "
                f"({FORMAT}); upgrade distilljax"
            )
        transform = preprocess.from_arrays(
            meta["transform"],
            {
                name.removeprefix("transform."): array
                for name, array in arrays.items()
                if name.startswith("transform.")
            },
        )
        protocol = EvaluationProtocol.from_dict(meta["protocol"])
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
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: its description is damaged ({error!r})") from None
    _check(path, artefact)
    return artefact


def _check(path: pathlib.Path, artefact: Artefact) -> None:
    images, label_logits, log_lr = artefact.distilled
    k = len(artefact.class_names)
    if images.ndim != 4 or label_logits.shape != (images.shape[0], k) or log_lr.shape:
        raise InputError(
            f"{path}: images {images.shape}, label logits {label_logits.shape} and "
            f"{k} class names do not fit together"
        )
    for name, array in zip(_SET, artefact.distilled, strict=True):
        if not bool(jnp.isfinite(array).all()):
            raise InputError(f"{path}: {name} holds NaN or infinite values")
    try:
        shown = jax.eval_shape(artefact.transform.inverse, images[:1]).shape
    except (TypeError, ValueError):
        shown = None
    if shown != images[:1].shape:
        raise InputError(
            f"{path}: its preprocessing is not one of {images.shape[1:]} images"
        )
