"""Distilled sets written for other programs."""

import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from distilljax.config import FieldError
from distilljax.core import distilled as sets
from distilljax.disk.files import replacing
from distilljax.io.artefact import Artefact
from distilljax.io.foreign import pickles
from distilljax.types import InputError


class TorchSet(NamedTuple):
    """A distilled set as PyTorch's tensors.

    Attributes:
      images: f32[n, c, h, w], what networks see.
      labels: f32[n, k], probabilities; the targets where the set has some.
      learning_rate: inner learning rate.
    """

    images: Any
    labels: Any
    learning_rate: float


def to_torch(artefact: Artefact) -> TorchSet:
    """Returns images, label probabilities (or targets) and the learned rate.

    `torch.nn.functional.cross_entropy(network(images), labels)` trains on them.

    >>> import distilljax
    >>> tensors = exports.to_torch(distilljax.load("distilled.npz"))  # doctest: +SKIP

    Raises:
      InputError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise InputError("to_torch needs the package torch; install torch") from None
    labels = artefact.targets
    if labels is None:
        labels = jax.nn.softmax(artefact.distilled.label_logits)
    return TorchSet(
        torch.from_numpy(_channels_first(artefact)),
        torch.from_numpy(np.array(labels)),
        float(np.exp(artefact.distilled.log_lr)),
    )


def _channels_first(artefact: Artefact) -> np.ndarray:
    images = np.asarray(artefact.distilled.images, np.float32)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def are_hard(artefact: Artefact) -> bool:
    """Returns whether each label is one class, so that class numbers are all of it.

    >>> import distilljax
    >>> exports.are_hard(distilljax.load("distilled.npz"))  # doctest: +SKIP
    True
    """
    probabilities = jax.nn.softmax(artefact.distilled.label_logits)
    soft = float(1 - probabilities.max(axis=1).min())
    return artefact.targets is None and soft <= 1e-6


def folder_names(artefact: Artefact) -> tuple[str, ...]:
    """Returns the names of folders of `png`: class names, or numbers where they cannot be.

    >>> import distilljax
    >>> exports.folder_names(distilljax.load("distilled.npz"))  # doctest: +SKIP
    ('ant', 'bee')
    """
    names = artefact.class_names
    if len(set(names)) < len(names) or any(
        "/" in n or n.startswith(".") or not n for n in names
    ):
        return tuple(map(str, range(len(names))))
    return names


def _classes(artefact: Artefact, layout: str) -> np.ndarray:
    """i64[n]; labels must be hard, since the layout holds class numbers alone."""
    if not are_hard(artefact):
        raise FieldError(
            "layout",
            layout,
            "holds class numbers alone, and the set's labels are learned; "
            "choose mtt or npz",
        )
    return np.asarray(sets.hard_labels(artefact.distilled), np.int64)


def _write_dc(artefact: Artefact, path: pathlib.Path) -> None:
    labels = _classes(artefact, "dc")
    snapshot = [_channels_first(artefact), labels]
    pickles.write(path, {"data": [snapshot], "accs_all_exps": {}})


def _write_mtt(artefact: Artefact, path: pathlib.Path) -> None:
    if artefact.targets is not None:
        reason = "holds logits, and the set's labels are real-valued targets; choose npz"
        raise FieldError("layout", "mtt", reason)
    # As its programs have them: class numbers; logits only where labels are learned.
    labels: np.ndarray = np.asarray(artefact.distilled.label_logits, np.float32)
    if are_hard(artefact):
        labels = _classes(artefact, "mtt")
    rate = np.asarray(np.exp(np.float64(artefact.distilled.log_lr)), np.float32)

    def fill(folder: pathlib.Path) -> None:
        pickles.write(folder / "images_best.pt", _channels_first(artefact))
        pickles.write(folder / "labels_best.pt", labels)
        pickles.write(folder / "lr_best.pt", rate)

    _whole_folder(path, fill)


def _write_rat(artefact: Artefact, path: pathlib.Path) -> None:
    try:
        import h5py
    except ImportError:
        raise InputError("layout=rat: it needs the package h5py; install h5py") from None
    labels = _classes(artefact, "rat")
    num, k = len(labels), len(artefact.class_names)
    if not np.array_equal(labels, np.repeat(np.arange(k), num // k)):
        reason = "implies labels by order, and the set's images are not in order of classes"
        raise FieldError("layout", "rat", reason)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file["data"] = _channels_first(artefact).reshape(num, -1)


def _write_npz(artefact: Artefact, path: pathlib.Path) -> None:
    held: dict[str, Any] = {"images": _channels_first(artefact)}
    if artefact.targets is not None:
        held["labels"] = np.asarray(artefact.targets, np.float32)
    else:
        held["label_logits"] = np.asarray(artefact.distilled.label_logits, np.float32)
    held["learning_rate"] = np.exp(np.asarray(artefact.distilled.log_lr, np.float64))
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **held)


def _write_png(artefact: Artefact, path: pathlib.Path) -> None:
    try:
        from PIL import Image
    except ImportError:
        raise InputError(
            "layout=png: it needs the package pillow; install pillow"
        ) from None
    labels = _classes(artefact, "png")
    pictures = np.asarray(artefact.transform.inverse(artefact.distilled.images))
    pixels = np.round(255 * np.clip(pictures, 0, 1)).astype(np.uint8)
    names = folder_names(artefact)

    def fill(folder: pathlib.Path) -> None:
        for number, (label, image) in enumerate(zip(labels, pixels, strict=True)):
            target = folder / names[label] / f"{number:06}.png"
            target.parent.mkdir(exist_ok=True)
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(target)

    _whole_folder(path, fill)


def _whole_folder(path: pathlib.Path, fill: Callable[[pathlib.Path], None]) -> None:
    """Fills a new folder; it is there whole, or not at all."""
    if path.exists():
        raise InputError(f"{path}: is there already; give a new folder")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        fill(temporary)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


EXPORTS: dict[str, Callable[[Artefact, pathlib.Path], None]] = {
    "dc": _write_dc,
    "mtt": _write_mtt,
    "rat": _write_rat,
    "npz": _write_npz,
    "png": _write_png,
}


def export(artefact: Artefact, path: pathlib.Path | str, *, layout: str) -> None:
    """Writes a distilled set in a layout of `foreign.LAYOUTS`, as `EXPORTS` names them.

    Preprocessed images are written as they are, but for `png`: there the preprocessing is
    taken back, values are clipped to 0..255 and rounded, and what a program makes of the
    pictures is no longer the set to the last bit; its folders are class numbers where the
    class names cannot be names of folders. No layout holds the preprocessing.

    >>> import distilljax
    >>> made = distilljax.load("distilled.npz")  # doctest: +SKIP
    >>> exports.export(made, "images_best.pt", layout="mtt")  # doctest: +SKIP

    Raises:
      FieldError: of `layout`: an unknown one, or one that cannot hold the set's labels.
      InputError: a package that the layout needs is absent; a folder that is there already.
    """
    if layout not in EXPORTS:
        raise FieldError("layout", layout, f"choose one of {', '.join(EXPORTS)}")
    EXPORTS[layout](artefact, pathlib.Path(path))
