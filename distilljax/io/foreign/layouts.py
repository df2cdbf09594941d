"""Files of distilled sets as other programs write them, read as plain arrays.

Nothing is guessed here: what a layout does not say stays None.
"""

import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from distilljax.config import FieldError
from distilljax.disk import archives
from distilljax.io.foreign import folders, pickles
from distilljax.types import InputError

LabelKind = Literal["classes", "logits", "probabilities", "targets"]


class Found(NamedTuple):
    """What a file holds.

    Attributes:
      images: f32[n, h, w, c], what networks see; or u8[n, h, w, c], pixels.
      labels: i64[n], f32[n, k]; None where only their order is implied.
      kind: of labels; None where the layout does not say.
      learning_rate: inner learning rate; None where the file has none.
      notes: what else the file tells.
    """

    images: np.ndarray
    labels: np.ndarray | None
    kind: LabelKind | None
    learning_rate: float | None
    notes: Mapping[str, Any]


def _tensor(value: Any, what: str) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise InputError(f"{what} is a {type(value).__name__}, and should be a tensor")
    return value


def channels_last(images: np.ndarray, what: str = "images") -> np.ndarray:
    """f[n, c, h, w] -> f[n, h, w, c].

    >>> layouts.channels_last(np.zeros((2, 3, 8, 9))).shape
    (2, 8, 9, 3)
    """
    if images.ndim != 4:
        raise InputError(f"{what} have shape {list(images.shape)}, expected [n, c, h, w]")
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _classes_or_rows(labels: np.ndarray) -> tuple[np.ndarray, LabelKind | None]:
    return labels, None if labels.dtype.kind == "f" else "classes"


def read_dc(path: pathlib.Path, shape: tuple[int, ...], snapshot: int) -> Found:
    """DC, DSA, DM: {'data': [[images, labels], ...], ...}, one pair a snapshot.

    >>> import pathlib
    >>> from distilljax.io.foreign import pickles
    >>> images = np.zeros((2, 1, 8, 8), np.float32)
    >>> pickles.write("res_DC.pt", {"data": [[images, np.array([0, 1])]]})
    >>> layouts.read_dc(pathlib.Path("res_DC.pt"), (8, 8, 1), snapshot=-1).labels.tolist()
    [0, 1]
    """
    held = pickles.read(path)
    snapshots = held.get("data") if isinstance(held, dict) else None
    if not isinstance(snapshots, list) or not snapshots:
        raise InputError(
            "layout=dc: it has no list of snapshots under 'data'; choose another layout"
        )
    if not -len(snapshots) <= snapshot < len(snapshots):
        reason = f"the file has {len(snapshots)}; -1 is the last"
        raise FieldError("snapshot", snapshot, reason)
    pair = snapshots[snapshot]
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise InputError("layout=dc: a snapshot is no pair of images and labels")
    labels, kind = _classes_or_rows(_tensor(pair[1], "labels"))
    notes: dict[str, Any] = {"snapshots": len(snapshots), "snapshot": snapshot}
    recorded = held.get("accs_all_exps")
    if isinstance(recorded, dict):
        notes["recorded_accuracy"] = {
            str(name): [float(x) for x in values]
            for name, values in recorded.items()
            if isinstance(values, list) and values and all(map(_is_number, values))
        }
    return Found(channels_last(_tensor(pair[0], "images")), labels, kind, None, notes)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def read_mtt(path: pathlib.Path, shape: tuple[int, ...], snapshot: int) -> Found:
    """MTT, TESLA, FTD, DATM: images_X.pt with labels_X.pt and, where it is, lr_X.pt.

    `path` is the file of the images, or the folder, where X is `best`.

    >>> import pathlib
    >>> from distilljax.io.foreign import pickles
    >>> pickles.write("images_best.pt", np.zeros((2, 1, 8, 8), np.float32))
    >>> pickles.write("labels_best.pt", np.array([0, 1]))
    >>> layouts.read_mtt(pathlib.Path("images_best.pt"), (8, 8, 1), snapshot=-1).kind
    'classes'
    """
    if path.is_dir():
        path = path / "images_best.pt"
    tag = path.stem.removeprefix("images_")
    if tag == path.stem:
        raise InputError("layout=mtt: give the folder, or its file images_best.pt")
    images = _tensor(pickles.read(path), f"{path.name}")
    labels = _tensor(pickles.read(path.with_name(f"labels_{tag}.pt")), f"labels_{tag}.pt")
    kind: LabelKind = "logits" if labels.dtype.kind == "f" else "classes"
    rate = None
    for name in (f"lr_{tag}.pt", f"syn_lr_{tag}.pt", "syn_lr.pt"):
        if (file := path.with_name(name)).exists():
            rate = _rate(pickles.read(file), name)
            break
    return Found(channels_last(images), labels, kind, rate, {})


def _rate(value: Any, name: str) -> float:
    numbers = np.asarray(value, np.float64).ravel() if _is_real(value) else np.zeros(0)
    if numbers.size != 1:
        raise InputError(f"{name} holds no single number")
    return float(numbers[0])


def _is_real(value: Any) -> bool:
    return _is_number(value) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
    )


def read_rat(path: pathlib.Path, shape: tuple[int, ...], snapshot: int) -> Found:
    """RaT-BPTT: HDF5 with one array `data`, f32[n, c h w], images in order of classes.

    >>> import pathlib
    >>> found = layouts.read_rat(pathlib.Path("set.h5"), (32, 32, 3), -1)  # doctest: +SKIP
    """
    try:
        import h5py
    except ImportError:
        raise InputError("layout=rat: it needs the package h5py; install h5py") from None
    if not path.is_file():
        raise InputError("no such file")
    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get("data", getlink=True), h5py.HardLink):
                raise InputError("layout=rat: it has no array 'data'")
            held = file["data"]
            if not isinstance(held, h5py.Dataset) or held.is_virtual or held.external:
                raise InputError("layout=rat: 'data' is no array of this file")
            if held.dtype.kind != "f" or held.ndim != 2:
                raise InputError(f"layout=rat: 'data' is {held.dtype}{list(held.shape)}")
            size = held.size * held.dtype.itemsize
            if size > archives.LIMIT:
                raise InputError(
                    f"it unfolds to {size} bytes, and at most {archives.LIMIT} are read"
                )
            flat = held[:]
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(
            f"not a readable HDF5 file ({str(error).splitlines()[0]}); it may be truncated"
        ) from None
    h, w, c = shape
    if flat.shape[1] != h * w * c:
        raise InputError(
            f"its images have {flat.shape[1]} values, and those of the data set {h} x {w} "
            f"x {c}; give the set's own data (dataset)"
        )
    return Found(channels_last(flat.reshape(-1, c, h, w)), None, None, None, {})


def read_npz(path: pathlib.Path, shape: tuple[int, ...], snapshot: int) -> Found:
    """RFAD, KIP: arrays `images`, f32[n, c, h, w], and `labels`, f32[n, k], targets.

    FRePo's own form (`image`, `label`, channels last) and that of `export` are read too.

    >>> import pathlib
    >>> images, labels = np.zeros((2, 1, 8, 8), "f4"), np.eye(2, dtype="f4")
    >>> np.savez("rfad.npz", images=images, labels=labels)
    >>> found = layouts.read_npz(pathlib.Path("rfad.npz"), (8, 8, 1), snapshot=-1)
    >>> found.images.shape, found.kind
    ((2, 8, 8, 1), 'targets')
    """
    with archives.opened(path, ".npz file") as archive:
        names = archives.npz_names(archive)
        if {"image", "label"} <= set(names):
            held = archives.npz_arrays(archive, ("image", "label"))
            images = _tensor(held["image"], "image")
            return Found(images, _tensor(held["label"], "label"), "targets", None, {})
        return _npz(archive, names)


def _npz(archive: zipfile.ZipFile, names: list[str]) -> Found:
    wanted = [n for n in ("labels", "label_logits") if n in names]
    if "images" not in names or len(wanted) != 1:
        raise InputError(
            "layout=npz: it holds "
            f"{', '.join(names) or 'nothing'}, and should hold images and labels"
        )
    scalars = [n for n in ("learning_rate", "valid_loss", "k", "jit") if n in names]
    held = archives.npz_arrays(archive, ("images", *wanted, *scalars))
    labels = _tensor(held[wanted[0]], wanted[0])
    kind: LabelKind = "targets" if labels.dtype.kind == "f" else "classes"
    if wanted == ["label_logits"]:
        kind = "logits"
    rate = (
        _rate(held["learning_rate"], "learning_rate") if "learning_rate" in held else None
    )
    notes: dict[str, Any] = {n: _rate(held[n], n) for n in scalars if n != "learning_rate"}
    images = channels_last(_tensor(held["images"], "images"))
    return Found(images, labels, kind, rate, notes)


def read_rcig(path: pathlib.Path, shape: tuple[int, ...], snapshot: int) -> Found:
    """RCIG, FRePo: a flax checkpoint; `ema_average`, or `params` where that is empty.

    >>> import pathlib
    >>> path, shape = pathlib.Path("checkpoint_1"), (32, 32, 3)
    >>> found = layouts.read_rcig(path, shape, snapshot=-1)  # doctest: +SKIP
    """
    import msgpack
    from flax import serialization

    try:
        if path.stat().st_size > archives.LIMIT:
            raise InputError(f"it is larger than {archives.LIMIT} bytes")
        held = serialization.msgpack_restore(path.read_bytes())
    except FileNotFoundError:
        raise InputError("no such file") from None
    except (OSError, ValueError, TypeError, msgpack.UnpackException, KeyError) as error:
        raise InputError(
            f"not a readable flax checkpoint ({error}); it may be truncated"
        ) from None
    for part in ("ema_average", "params"):
        found = held.get(part) if isinstance(held, dict) else None
        if isinstance(found, dict) and {"x_proto", "y_proto"} <= set(found):
            images = _tensor(found["x_proto"], "x_proto")
            labels = _tensor(found["y_proto"], "y_proto")
            step = np.asarray(held.get("step", 0))
            notes = {"part": part, "step": int(step) if step.shape == () else None}
            return Found(images, labels, "targets", None, notes)
    raise InputError(
        "layout=rcig: it has no ema_average or params with x_proto and y_proto"
    )


def read_png(path: pathlib.Path, shape: tuple[int, ...], snapshot: int) -> Found:
    """A folder with a folder of PNG files for each class; names as labels, str[n].

    >>> import pathlib
    >>> path = pathlib.Path("pictures")
    >>> found = layouts.read_png(path, (32, 32, 3), -1)  # doctest: +SKIP
    """
    images, names = folders.read_png(path, shape)
    return Found(images, names, "classes", None, {})


def read_hf(path: pathlib.Path, shape: tuple[int, ...], snapshot: int) -> Found:
    """A split of Hugging Face `datasets`, as `save_to_disk` writes it.

    >>> import pathlib
    >>> found = layouts.read_hf(pathlib.Path("saved"), (32, 32, 3), -1)  # doctest: +SKIP
    """
    images, labels = folders.read_arrow(path, shape)
    return Found(images, labels, None if labels.ndim == 2 else "classes", None, {})


Reader = Callable[[pathlib.Path, tuple[int, ...], int], Found]

READERS: dict[str, Reader] = {
    "dc": read_dc,
    "mtt": read_mtt,
    "rat": read_rat,
    "npz": read_npz,
    "rcig": read_rcig,
    "png": read_png,
    "hf": read_hf,
}


def detect(path: pathlib.Path) -> str:
    """Returns the layout that a file's name and a folder's contents show.

    >>> import pathlib
    >>> layouts.detect(pathlib.Path("res_DC_CIFAR10_ConvNet_1ipc.pt"))
    'dc'

    Raises:
      FieldError: they show none.
    """
    name, suffix = path.name, path.suffix.lower()
    if path.is_dir():
        if (path / "images_best.pt").exists():
            return "mtt"
        if any(path.glob("*.arrow")) or (path / "dataset_dict.json").exists():
            return "hf"
        if any(path.glob("*/*.png")):
            return "png"
    elif suffix in (".pt", ".pth"):
        return "mtt" if name.startswith("images_") else "dc"
    else:
        by_suffix = {".h5": "rat", ".hdf5": "rat", ".npz": "npz", ".msgpack": "rcig"}
        if suffix in by_suffix:
            return by_suffix[suffix]
        if name.startswith("checkpoint_"):
            return "rcig"
    reason = f"{path} does not show it; choose one of {', '.join(READERS)}"
    raise FieldError("layout", None, reason)
