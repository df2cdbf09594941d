"""The data, the sets and the network that all runs of the experiment share."""

from collections.abc import Mapping
from typing import NamedTuple

import jax

from distilljax import data
from distilljax.comparison.real import random_subsets
from distilljax.config import FieldError
from distilljax.probes.base import Source
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Batch, Model, RealSet, Transform
from experiments.dynamics.options import REAL, Choice, Config
from experiments.lab.data import load_data_of
from experiments.lab.kept import digest
from experiments.lab.networks import model_of
from experiments.lab.options import expand
from experiments.lab.protocols import batch_of
from experiments.lab.sets import Named, shared_transform, transform_digest

CROSS_ENTROPY = EvaluationProtocol()  # what networks learn, and probes measure, here


class Setting(NamedTuple):
    """Data, sets and network."""

    loaded: data.Dataset
    model: Model
    reference: RealSet  # test images, for probes that compare
    train_on: Source
    trained_on: str  # SHA-256 of `train_on`
    sets: Mapping[str, Source]
    fingerprints: Mapping[str, str]  # set -> SHA-256


def prepare(config: Config, choice: Choice) -> Setting:
    """Loads data and sets, and makes the network.

    Raises:
      InputError: data that cannot be had; sets or a network that do not fit them.
    """
    loaded, transform = _data(config, choice.artefacts)
    k = loaded.num_classes
    train = data.on_device(loaded.train, transform, k)
    test = data.on_device(loaded.test, transform, k)
    smallest = int(train.class_sizes.min())
    if "random" in choice.real_sets and config.ipc > smallest:
        reason = f"the smallest class has {smallest} training images"
        raise FieldError("ipc", config.ipc, reason)
    sets: dict[str, Source] = {}
    for name in choice.real_sets:
        if name == "random":
            drawn = random_subsets(loaded.train, config.ipc, 1, transform, config.seed)
            sets[name] = jax.tree.map(lambda x: x[0], drawn)
        else:
            sets[name] = train if name == "train" else test
    for name, named in choice.artefacts.items():
        sets[name] = batch_of(
            name, named.artefact, CROSS_ENTROPY, config.labels, selects=None
        )
    train_on: Source = train
    if config.train_on != REAL:
        path = expand(config.train_on)
        (name,) = (n for n, a in choice.artefacts.items() if a.path == path)
        train_on = sets[name]
    real = [loaded.fingerprint, transform_digest(transform)]

    def fingerprint(source: Source) -> str:
        return digest(real, source if isinstance(source, Batch) else ())

    return Setting(
        loaded,
        model_of(config, loaded.image_shape, k),
        test,
        train_on,
        fingerprint(train_on),
        sets,
        {name: fingerprint(source) for name, source in sets.items()},
    )


def _data(config: Config, artefacts: Mapping[str, Named]) -> tuple[data.Dataset, Transform]:
    if not artefacts:
        loaded = data.load(config.dataset or "embedded", config.data_dir)
        return loaded, data.fit(config.preprocess, loaded.train.images, loaded.name)
    transform = shared_transform(artefacts)
    first = next(iter(artefacts.values()))
    return load_data_of(first, config.dataset, config.data_dir), transform
