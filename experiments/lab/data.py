"""Real data of an experiment: loaded, divided and put on the device."""

import dataclasses
import pathlib
import sys
from typing import Literal

from distilljax import data, launch, processes
from distilljax.config import Config, option
from distilljax.data import Prepared
from distilljax.types import InputError
from experiments.lab.records import Common, DatasetRecord
from experiments.lab.sets import Named

Preprocess = Literal["normalise", "published", "zca", "zca_normed", "zca_scaled", "none"]


@dataclasses.dataclass(frozen=True)
class DataOptions(Config):
    """The data set, its preprocessing, and its held-out part."""

    dataset: str = option(
        "embedded",
        "`embedded`, a TFDS name such as cifar10, or data of your own: a folder with a "
        "subfolder of images a class, a .csv, .parquet or .npz file. Options follow: "
        "PATH,size=32,test_share=0.2 (experiments/README.md has the list).",
    )
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    preprocess: Preprocess = option("normalise", "Preprocessing of the images.")
    held_out: int = option(
        50, "Training images of each class that are held out, to choose a set by.", low=1
    )
    split_seed: int = option(
        0, "Random seed of the held-out images.", low=0, high=2**31 - 1, rare=True
    )


def prepare(config: DataOptions) -> Prepared:
    """Returns the data that the options name.

    Raises:
      InputError: data that cannot be had.
      FieldError: more images are held out than a class has.
    """
    loaded = data.load(config.dataset, config.data_dir)
    tell(loaded)
    return data.prepare(
        loaded,
        config.preprocess,
        held_out=config.held_out,
        split_seed=config.split_seed,
        name=config.dataset,
    )


def tell(loaded: data.Dataset) -> None:
    """Prints what was done to the images of a data set, and what to know of it.

    Raises:
      InputError: another process of the run has other data.
    """
    processes.same("the data", loaded.fingerprint)
    for note in loaded.notes:
        text = launch.printable(f"{loaded.name}: {note}")
        print(text, file=sys.stderr, flush=True)


def short_name(name: str) -> str:
    """Returns the last part of the name of a data set, to name folders by."""
    return data.own.parse(name).stem


def named_data(named: Named) -> str:
    """Returns the data that an artefact says it was made of.

    Raises:
      InputError: it names none.
    """
    name = named.artefact.dataset.get("name")
    if not isinstance(name, str) or not name:
        raise InputError(
            f"{named.path} does not say which data it was made of; give --dataset"
        )
    return name


def load_data_of(named: Named, dataset: str | None, data_dir: str | None) -> data.Dataset:
    """Returns the data that an artefact was made of, or other data that fit it.

    Names of classes need not agree where the images do: arrays in memory may have none.

    Args:
      named: the artefact.
      dataset: `--dataset`; none: those it was made of.
      data_dir: `--data_dir`.

    Raises:
      InputError: data that cannot be had, have other classes or another image shape, or,
        where `dataset` is none, are not what the artefact was made of.
    """
    path, artefact = named
    name = dataset or named_data(named)
    try:
        loaded = data.load(name, data_dir)
    except InputError:
        if dataset is not None or artefact.dataset.get("source") != "arrays":
            raise
        raise InputError(
            f"{path} was made of arrays in memory ({name}); give --dataset, the name or "
            "the file of the same images"
        ) from None
    shape = tuple(artefact.distilled.images.shape[1:])
    same = loaded.fingerprint == artefact.dataset.get("fingerprint")
    fits = loaded.class_names == artefact.class_names or (
        same and loaded.num_classes == len(artefact.class_names)
    )
    if not fits or loaded.image_shape != shape:
        raise InputError(
            f"{path} holds {shape} images of {len(artefact.class_names)} "
            f"classes ({artefact.class_names[0]}, ...), {name} has {loaded.image_shape} "
            f"images of {loaded.num_classes} classes ({loaded.class_names[0]}, ...); "
            "choose the --dataset it was made of"
        )
    tell(loaded)
    if dataset is None and not same:
        raise InputError(
            f"{name} is not what {path} was made of (its SHA-256 differs); "
            f"give --dataset={name} to test on it all the same"
        )
    return loaded


@processes.once
def check_same_data(
    workdir: pathlib.Path, dataset: str, data_dir: str | None, summary: Common
) -> None:
    """Refuses to show a finished run as that of data which have changed since.

    Where the data are not there any more, one line on stderr says so.

    Raises:
      InputError: the data are others than those of the record.
    """
    try:
        found = data.load(dataset, data_dir).fingerprint
    except InputError as error:
        text = f"{error}; so this run is not compared with its data"
        print(launch.printable(text), file=sys.stderr, flush=True)
        return
    if found != summary["dataset"]["fingerprint"]:
        raise InputError(
            f"workdir {workdir} holds a run on other data: {dataset} has changed since "
            "(its SHA-256 differs); choose another --workdir"
        )


def describe_dataset(loaded: data.Dataset) -> DatasetRecord:
    """Returns the data as records hold them."""
    return {
        "name": loaded.name,
        "source": loaded.source,
        "fingerprint": loaded.fingerprint,
        "num_classes": loaded.num_classes,
    }
