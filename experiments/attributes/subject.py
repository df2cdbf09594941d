"""The distilled set, its influences and the test images that they look at."""

import pathlib
from typing import NamedTuple

import numpy as np

from distilljax import data
from distilljax.config import FieldError
from distilljax.core import distilled as distilled_set
from distilljax.types import InputError
from experiments.attributes.groups import Influences, read_influences
from experiments.attributes.options import Config
from experiments.lab.data import load_data_of
from experiments.lab.kept import digest
from experiments.lab.sets import Named, load_artefacts, transform_digest


class Subject(NamedTuple):
    """A distilled set, with the test images that its influences look at."""

    label: str
    named: Named
    loaded: data.Dataset
    influences: Influences
    images: np.ndarray  # u8[t, h, w, c]
    classes: np.ndarray  # i[t]
    labels: np.ndarray  # i[n], of the distilled images


def load_subject(config: Config) -> Subject:
    """Reads the influences, and loads the set and the data that they are of.

    Raises:
      InputError: influences, a set or data that cannot be had, or do not belong together;
        too few test images.
    """
    if not config.influence:
        reason = "name a finished working directory of experiments.influence"
        raise FieldError("influence", "", reason)
    found = read_influences(pathlib.Path(config.influence).expanduser())
    path = config.artefact or found.artefact
    ((label, named),) = load_artefacts(path, "artefact", config.data_dir).items()
    loaded = load_data_of(named, config.dataset or found.dataset, config.data_dir)
    _check_same(config, found, named, loaded)
    classes = loaded.test.labels[found.positions]
    labels = np.asarray(distilled_set.hard_labels(named.artefact.distilled))
    fewest = min(int((classes == j).sum()) for j in np.unique(labels))
    if config.among == "class" and config.top >= fewest:
        reason = (
            f"the influences look at {fewest} test images of the smallest class, which "
            "leaves none to compare with; choose fewer, or give experiments.influence more "
            "--test_images"
        )
        raise FieldError("top", config.top, reason)
    images = loaded.test.images[found.positions]
    return Subject(label, named, loaded, found, images, classes, labels)


def _check_same(
    config: Config, found: Influences, named: Named, loaded: data.Dataset
) -> None:
    """Raises InputError where influences, set and data do not belong together."""
    if loaded.fingerprint != found.fingerprint:
        raise InputError(
            f"the influences in {config.influence} are of other data than {loaded.name} "
            "(the SHA-256 differs); give --dataset of those that they are of"
        )
    artefact = named.artefact
    identity = digest(
        [loaded.fingerprint, transform_digest(artefact.transform)], artefact.distilled
    )
    num = artefact.distilled.label_logits.shape[0]
    if found.values.shape[1] != num or found.identity != identity:
        raise InputError(
            f"the influences in {config.influence} are of another set than {named.path} "
            "holds; name theirs with --artefact, or run experiments.influence on this one"
        )
    if found.positions.min() < 0 or found.positions.max() >= len(loaded.test.labels):
        raise InputError(
            f"the influences in {config.influence} are damaged: their positions are "
            f"outside the test set of {loaded.name}; run experiments.influence again"
        )
