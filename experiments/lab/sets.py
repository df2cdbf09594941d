"""Distilled sets of an experiment, and the real images that stand beside them."""

import contextlib
import itertools
import os
import pathlib
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

import experiments
from distilljax import data, io
from distilljax.config import FieldError
from distilljax.types import Array, InputError, Transform
from experiments.lab.kept import digest
from experiments.lab.options import parse_paths

GALLERY = pathlib.Path(experiments.__file__).parent / "artefacts"
RESULT = "distilled.npz"


class Named(NamedTuple):
    """An artefact and where it lies."""

    path: str
    artefact: io.Artefact


def is_here(name: str) -> bool:
    """Returns whether the file of a committed set is here; a wheel has few of them."""
    return (GALLERY / name / RESULT).is_file()


def file_of(path: str) -> str:
    """Returns the file of a set: a path, or the name of one in `experiments/artefacts`.

    A folder stands for the `distilled.npz` in it.

    Raises:
      InputError: neither; a folder without; or a set whose file is not here, as where the
        commands are those of a wheel.
    """
    named = GALLERY / path / RESULT
    if "/" in path or pathlib.Path(path).exists():
        if not pathlib.Path(path).is_dir():
            return path
        if not pathlib.Path(path, RESULT).exists():
            raise InputError(f"{path} is a folder without {RESULT}; name the file of a set")
        return str(pathlib.Path(path, RESULT))
    if not named.parent.is_dir():
        raise InputError(
            f"{path}: no such file and no set of the gallery, which lists its own"
        )
    if not named.is_file():
        raise InputError(
            f"the file of the set {path} is in a clone of the repository alone; distil it "
            f"by the command in {named.with_name('config.json')}"
        )
    with contextlib.suppress(ValueError):
        return str(named.resolve().relative_to(pathlib.Path.cwd()))
    return str(named)


def load(path: str, data_dir: str | None = None) -> io.Artefact:
    """Reads an artefact; where it has no matrices, they are fitted again to its data.

    Args:
      path: of its file.
      data_dir: `--data_dir`, where those data are looked for.

    Raises:
      InputError: no artefact, or data that cannot be had or are not those it was made of.
    """

    def train_images(dataset: Mapping[str, Any], config: Mapping[str, Any]) -> np.ndarray:
        name, held_out = dataset.get("name"), config.get("held_out")
        if not isinstance(name, str) or not name:
            raise InputError(
                f"{path} has no matrices of its preprocessing and does not say to which "
                "data they were fitted; read it by distilljax.load, which takes them"
            )
        print(f"{path}: its preprocessing is fitted to {name} again", file=sys.stderr)
        loaded = data.load(name, data_dir)
        if loaded.fingerprint != dataset.get("fingerprint"):
            raise InputError(
                f"{name} is not what {path} was made of (its SHA-256 differs), and its "
                "preprocessing is fitted to that"
            )
        if held_out is None:
            return loaded.train.images
        try:
            rest, _ = data.hold_out(loaded.train, held_out, config.get("split_seed", 0))
        except InputError as error:
            raise InputError(f"{path}: of the images held out, {error}") from None
        return rest.images

    return io.load(path, train_images)


def load_artefacts(
    text: str, field: str = "artefacts", data_dir: str | None = None
) -> dict[str, Named]:
    """Returns label -> artefact of the paths, or gallery names, in a list with commas.

    The label of runs/x/distilled.npz is x, that of x.npz too; where two would be the
    same, paths are the labels.

    Raises:
      FieldError: of the option `field`: no path, or one that comes twice.
      InputError: a file that is no artefact; artefacts of different data.
    """
    paths = parse_paths(text, field)
    if not paths:
        reason = "name distilled sets, such as a/distilled.npz,b/distilled.npz"
        raise FieldError(field, text, reason)
    paths = [file_of(path) for path in paths]
    files = Counter(os.path.realpath(path) for path in paths)  # a link is no other set
    if twice := [path for path in paths if files[os.path.realpath(path)] > 1]:
        raise FieldError(field, text, f"{twice[-1]} is named twice")
    loaded = {path: load(path, data_dir) for path in paths}

    for earlier, path in itertools.combinations(paths, 2):
        if not _of_one_data(loaded[path], loaded[earlier]):
            raise InputError(
                f"{earlier} was made of {loaded[earlier].dataset.get('name')}, {path} of "
                f"other data ({loaded[path].dataset.get('name')}); evaluate them apart"
            )
    places = [pathlib.Path(path).resolve() for path in paths]
    labels = [p.parent.name if p.stem == "distilled" else p.stem for p in places]
    if len(set(labels)) < len(labels):
        labels = paths
    return {
        label: Named(path, loaded[path]) for label, path in zip(labels, paths, strict=True)
    }


def _of_one_data(one: io.Artefact, other: io.Artefact) -> bool:
    """Returns whether two sets were made of the same data.

    Arrays whose classes have no names have numbers in their place.
    """
    numbers = tuple(map(str, range(len(one.class_names))))
    return (
        one.dataset.get("fingerprint") == other.dataset.get("fingerprint")
        and one.distilled.images.shape[1:] == other.distilled.images.shape[1:]
        and len(one.class_names) == len(other.class_names)
        and (
            one.class_names == other.class_names
            or numbers in (one.class_names, other.class_names)
        )
    )


def stored_ipc(artefact: io.Artefact) -> int:
    """Returns the images a class whose storage the set takes; it may decode to more.

    Raises:
      InputError: the artefact names no such number.
    """
    num, k = artefact.distilled.label_logits.shape
    ipc = artefact.config.get("ipc", num // k)
    if not isinstance(ipc, int) or isinstance(ipc, bool) or not 1 <= ipc <= num:
        raise InputError(
            f"a distilled set of {num} images names {str(ipc)[:20]!r} as its images per "
            "class; it is damaged, or made by another program"
        )
    return ipc


def displayable(transform: Transform, images: Array) -> np.ndarray:
    """Returns preprocessed images as f32[n, h, w, c], in 0..1 where they are in gamut."""
    return np.asarray(transform.inverse(images))


def transform_digest(transform: Transform) -> str:
    """Returns the SHA-256, hex, of a preprocessing: its kind and fitted arrays."""
    kind, arrays = data.to_arrays(transform)
    return digest([kind, sorted(arrays)], (arrays[name] for name in sorted(arrays)))


def shared_transform(artefacts: Mapping[str, Named], field: str = "artefacts") -> Transform:
    """Returns the preprocessing of all artefacts.

    Raises:
      FieldError: of the option `field`: two of them differ, so that no one network can be
        shown both.
    """
    (first, (_, made)), *others = artefacts.items()
    for label, (_, artefact) in others:
        if transform_digest(artefact.transform) != transform_digest(made.transform):
            reason = (
                f"{first} and {label} were made under different preprocessing, and one "
                "network sees images under one; give them to commands of their own"
            )
            raise FieldError(field, ",".join(n.path for n in artefacts.values()), reason)
    return made.transform
