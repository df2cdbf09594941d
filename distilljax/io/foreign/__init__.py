"""Distilled sets of other programs, read into artefacts and written for them.

    loaded = data.load("cifar10", data_dir)
    artefact = foreign.read(
        "res_DC_CIFAR10_ConvNet_1ipc.pt", loaded, preprocess="published", protocol="dc"
    )
    foreign.export(artefact, "set.pt", layout="dc")
    images, labels, rate = foreign.to_torch(artefact)

Reading never executes anything. Where a file lacks information, an error names the argument
that gives it, and the answer is checked where that is possible.

    layout | file                                               | of
    dc     | .pt: {'data': [[images, labels], ...]}, n c h w    | DC, DSA, DM
    mtt    | images_X.pt, labels_X.pt, lr_X.pt, or their folder | MTT, TESLA, FTD, DATM
    rat    | .h5: data, f32[n, c h w]                           | RaT-BPTT
    npz    | .npz: images, n c h w, and labels                  | RFAD, KIP
    rcig   | flax checkpoint: x_proto, n h w c, and y_proto     | RCIG, FRePo
    png    | a folder of PNG files for each class               | anyone
    hf     | a split of Hugging Face `datasets` on disk         | anyone
"""

import hashlib
import importlib.metadata
import math
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from distilljax import data
from distilljax.config import FieldError
from distilljax.core import distilled as sets
from distilljax.io.artefact import Artefact
from distilljax.io.foreign import checks, folders, layouts
from distilljax.io.foreign.exports import EXPORTS, TorchSet, export, to_torch
from distilljax.models import convnet
from distilljax.training.evaluation import NETWORKS, PROTOCOLS
from distilljax.types import DistilledSet, InputError

__all__ = ["EXPORTS", "LAYOUTS", "TorchSet", "export", "from_tensors", "read", "to_torch"]

LAYOUTS = tuple(layouts.READERS)
Labels = Literal["in_order", "classes", "logits", "probabilities", "targets"]

_ROWS = ("logits", "probabilities", "targets")


def read(
    path: pathlib.Path | str,
    loaded: data.Dataset,
    *,
    preprocess: str | None = None,
    protocol: str | None = None,
    labels: Labels | None = None,
    layout: str | None = None,
    snapshot: int = -1,
    learning_rate: float | None = None,
    method: str = "imported",
    width: int | None = None,
    unchecked: bool = False,
) -> Artefact:
    """Reads a distilled set that another program made.

    Its images are put in the order of classes, for rows of labels by the largest entry. If
    these are not equally many of each class, the order is that of the file, and `order` in
    the notes says so.

    >>> from distilljax import data
    >>> labels = np.arange(40) % 2
    >>> images = np.random.default_rng(0).integers(0, 99, (40, 8, 8, 1))
    >>> images = (images + 99 * labels.reshape(40, 1, 1, 1)).astype(np.uint8)
    >>> real = data.dataset(images, labels, images, labels)
    >>> tensors = images[:12].transpose(0, 3, 1, 2) / np.float32(255)  # as in PyTorch
    >>> np.savez("mine.npz", images=tensors, labels=np.eye(2, dtype="f4")[labels[:12]])
    >>> made = foreign.read("mine.npz", real, preprocess="none", labels="probabilities",
    ...     protocol="study", learning_rate=0.01)
    >>> made.distilled.images.shape
    (12, 8, 8, 1)

    Args:
      path: the file or folder, see the module.
      loaded: the data set that it was distilled from.
      preprocess: what its images went through, one of `data.KINDS`. It is fitted to the
        training images of `loaded`.
      protocol: one of `PROTOCOLS`, by which its authors evaluate it. It settles the
        network too, see `evaluation.NETWORKS`.
      labels: where the file does not tell: `in_order` for a file without labels, n / k
        images of each class in turn; the kind of real-valued rows.
      layout: one of `LAYOUTS`; if None as `path` shows it.
      snapshot: of a file with several; the last if -1.
      learning_rate: the learned rate, where the file holds none and `protocol` needs one.
      method: what the artefact is to name as its method.
      width: channels of the ConvNet; that of the protocol if None.
      unchecked: accepts arguments that the check against real images rejects, as it may
        for a set that is little more than noise.

    Raises:
      FieldError: an argument that is needed and absent, or does not fit; its path is the
        name of the argument.
      InputError: a file that is absent, damaged, hostile or of other data.
    """
    path = pathlib.Path(path)
    _check_names(preprocess, protocol, layout)
    layout = layout or layouts.detect(path)
    try:
        found = layouts.READERS[layout](path, loaded.image_shape, snapshot)
        source = {"file": path.name, "layout": layout, "sha256": _fingerprint(path)}
        return _artefact(
            found,
            loaded,
            preprocess=preprocess,
            protocol=protocol,
            labels=labels,
            learning_rate=learning_rate,
            method=method,
            width=width,
            unchecked=unchecked,
            source=source,
        )
    except FieldError:
        raise
    except InputError as error:
        text = str(error)
        raise InputError(
            text if text.startswith(str(path)) else f"{path}: {text}"
        ) from None


def from_tensors(
    images: Any,
    labels: Any,
    loaded: data.Dataset,
    *,
    preprocess: str | None = None,
    protocol: str | None = None,
    kind: Labels | None = None,
    learning_rate: float | None = None,
    method: str = "imported",
    width: int | None = None,
    unchecked: bool = False,
) -> Artefact:
    """Makes an artefact of tensors in memory, PyTorch's or any that numpy reads.

    >>> from distilljax import data
    >>> labels = np.arange(40) % 2
    >>> images = np.random.default_rng(0).integers(0, 99, (40, 8, 8, 1))
    >>> images = (images + 99 * labels.reshape(40, 1, 1, 1)).astype(np.uint8)
    >>> real = data.dataset(images, labels, images, labels)
    >>> tensors = images[:12].transpose(0, 3, 1, 2) / np.float32(255)  # as in PyTorch
    >>> made = foreign.from_tensors(
    ...     tensors, labels[:12], real, preprocess="none", protocol="study",
    ...     learning_rate=0.01)
    >>> made.distilled.images.shape
    (12, 8, 8, 1)

    Args:
      images: f32[n, c, h, w], what networks see.
      labels: i64[n]; f32[n, k]; or None where images are in order of classes.
      loaded: the data set that they were distilled from.
      preprocess: see `read`.
      protocol: see `read`.
      kind: the `labels` of `read`.
      learning_rate: see `read`.
      method: see `read`.
      width: see `read`.
      unchecked: see `read`.

    Raises:
      FieldError: see `read`.
      InputError: shapes or values that do not fit.
    """
    _check_names(preprocess, protocol, None)
    array = _numpy(images)
    rows = None if labels is None else _numpy(labels)
    classes = rows is not None and rows.dtype.kind in "iu"
    found = layouts.Found(
        layouts.channels_last(array), rows, "classes" if classes else None, None, {}
    )
    return _artefact(
        found,
        loaded,
        preprocess=preprocess,
        protocol=protocol,
        labels=kind,
        learning_rate=learning_rate,
        method=method,
        width=width,
        unchecked=unchecked,
        source={"layout": "tensors"},
    )


def _numpy(tensor: Any) -> np.ndarray:
    for name in ("detach", "cpu", "numpy"):
        tensor = getattr(tensor, name)() if hasattr(tensor, name) else tensor
    array = np.asarray(tensor)
    if array.dtype.kind not in "fiu":
        raise InputError(f"tensors hold {array.dtype}, and should hold numbers")
    return array


def _check_names(preprocess: str | None, protocol: str | None, layout: str | None) -> None:
    if preprocess not in data.KINDS:
        reason = (
            "a file does not tell what its images went through; choose one of "
            f"{', '.join(data.KINDS)}"
        )
        raise FieldError("preprocess", preprocess, reason)
    if protocol not in PROTOCOLS:
        reason = (
            "a file does not tell how its authors evaluate it; choose one of "
            f"{', '.join(PROTOCOLS)}"
        )
        raise FieldError("protocol", protocol, reason)
    if layout is not None and layout not in LAYOUTS:
        raise FieldError("layout", layout, f"choose one of {', '.join(LAYOUTS)}")


def _fingerprint(path: pathlib.Path) -> str:
    """SHA-256, hex, of the file, or of the names and contents of a folder's files."""
    found = hashlib.sha256()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            found.update(b"" if file == path else str(file.relative_to(path)).encode())
            found.update(file.read_bytes())
    return found.hexdigest()


def _artefact(
    found: layouts.Found,
    loaded: data.Dataset,
    *,
    preprocess: str | None,
    protocol: str | None,
    labels: Labels | None,
    learning_rate: float | None,
    method: str,
    width: int | None,
    unchecked: bool,
    source: Mapping[str, Any],
) -> Artefact:
    assert preprocess is not None  # `_check_names`
    assert protocol is not None
    k = loaded.num_classes
    checks.check_images(found.images, loaded)
    kind, values, order = _labels(found, labels, loaded)
    rate = _rate(found, learning_rate, protocol)
    transform = data.fit(preprocess, loaded.train.images, loaded.name)
    images = found.images[order]
    pixels = images.dtype == np.uint8
    shown = np.asarray(transform(jnp.asarray(images)) if pixels else images, np.float32)
    classes = values if kind == "classes" else values.argmax(axis=1)
    in_order = np.array_equal(classes, np.repeat(np.arange(k), len(images) // k))
    facts: dict[str, Any] = {"preprocess": "unchecked", "labels": "unchecked"}
    if not unchecked:
        facts["preprocess"] = checks.check_preprocess(preprocess, transform, shown, loaded)
        facts["labels"] = checks.check_labels(transform, shown, classes, loaded)
    network = dict(NETWORKS.get(protocol, {})) | ({} if width is None else {"width": width})
    said = {"checks": facts, "order": "by class" if in_order else "as given"}
    notes = {"imported": dict(source) | said | dict(found.notes)}
    return Artefact(
        distilled=DistilledSet(
            jnp.asarray(shown), _logits(kind, values, k), jnp.float32(math.log(rate))
        ),
        transform=transform,
        class_names=loaded.class_names,
        dataset={
            "name": loaded.name,
            "source": loaded.source,
            "fingerprint": loaded.fingerprint,
        },
        method=method,
        config={
            "dataset": loaded.name,
            "preprocess": preprocess,
            "held_out": 0,
            "ipc": len(images) // k,
            "labels": kind,
            "protocol": protocol,
            "model": "convnet",
            "convnet": convnet.Config(**network).to_dict(),
        },
        protocol=PROTOCOLS[protocol],
        version=importlib.metadata.version("distilljax"),
        notes=notes,
        targets=jnp.asarray(values, jnp.float32) if kind == "targets" else None,
    )


def _labels(
    found: layouts.Found, said: Labels | None, loaded: data.Dataset
) -> tuple[str, np.ndarray, np.ndarray]:
    """The kind of labels, the labels in the order of classes, and that order of images.

    Rows whose largest entries are not as many of each class keep their order.
    """
    num, k, name = len(found.images), loaded.num_classes, loaded.name
    checks.check_divides(num, k, name)
    if found.labels is None:
        if said != "in_order":
            reason = (
                f"the file holds none; say in_order if its {num} images are {num // k} of "
                f"each of the {k} classes of {name}, in turn"
            )
            raise FieldError("labels", said, reason)
        return "classes", np.repeat(np.arange(k), num // k), np.arange(num)
    if found.labels.dtype.kind == "f":
        kind: str | None = said or found.kind
    else:
        kind = "classes"
    if kind == "classes":
        labels = found.labels
        if said not in (None, "classes"):
            raise FieldError("labels", said, "the file holds a class for each image")
        if labels.dtype.kind == "U":
            labels = folders.classes_of_names(labels, loaded.class_names)
        checks.check_classes(labels, num, k, name)
        order = np.argsort(labels, kind="stable")
        return "classes", labels[order], order
    if kind not in _ROWS:
        reason = "the file holds rows of real numbers; say logits, probabilities or targets"
        raise FieldError("labels", said, reason)
    checks.check_rows(found.labels, kind, num, k, name)
    rows = found.labels.astype(np.float32)
    largest = rows.argmax(axis=1)
    order = np.argsort(largest, kind="stable")
    if len(set(np.bincount(largest, minlength=k).tolist())) > 1:
        order = np.arange(num)
    return kind, rows[order], order


def _logits(kind: str, values: np.ndarray, k: int) -> Any:
    """f32[n, k], whose softmax is what the labels say; of targets the largest, hard."""
    if kind == "logits":
        return jnp.asarray(values, jnp.float32)
    if kind == "probabilities":
        return jnp.maximum(jnp.log(values), -sets.HARD)
    classes = values.argmax(axis=1) if kind == "targets" else values
    return sets.HARD * (jnp.eye(k)[classes] - 1)


def _rate(found: layouts.Found, said: float | None, protocol: str) -> float:
    if said is not None and found.learning_rate is not None:
        raise FieldError("learning_rate", said, f"the file holds {found.learning_rate}")
    rate = found.learning_rate if said is None else said
    if rate is None:
        rate = PROTOCOLS[protocol].lr
    if rate is None:
        reason = f"protocol {protocol} takes the set's own, which the file does not hold"
        raise FieldError("learning_rate", None, reason)
    if not (math.isfinite(rate) and rate > 0):
        raise FieldError("learning_rate", rate, "must be a positive number")
    return rate
