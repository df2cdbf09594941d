"""Images that are shown to networks, and how networks look at them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import data
from distilljax.comparison.real import random_subsets
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.probes import Point, accuracy
from distilljax.types import Array, Batch, Model, Params, RealSet
from experiments.lab.kept import digest
from experiments.lab.keys import images_of
from experiments.lab.networks import map_chunks
from experiments.lab.sets import Named, stored_ipc, transform_digest
from experiments.recognition.record import TEST, Shown


class Row(NamedTuple):
    """Images to show: one set for all networks, or one for each."""

    label: str
    sets: tuple[Batch | RealSet, ...]
    identity: str  # SHA-256
    about: Shown  # for `summary.json`

    def of(self, number: int) -> Batch | RealSet:
        """Returns the images shown to network `number`."""
        return self.sets[number if len(self.sets) > 1 else 0]


def make_rows(
    artefacts: Mapping[str, Named], loaded: data.Dataset, seeds: int, seed: int
) -> list[Row]:
    """Returns the artefacts, random real images of each size they have, the test set.

    Args:
      artefacts: by label, of one preprocessing.
      loaded: the real data.
      seeds: number of networks; each has random images of its own.
      seed: draws these.
    """
    k = loaded.num_classes
    transform = next(iter(artefacts.values())).artefact.transform
    real = [loaded.fingerprint, transform_digest(transform)]
    rows, random = list[Row](), dict[int, Row]()
    for label, (path, artefact) in artefacts.items():
        images, ipc = artefact.distilled.images, stored_ipc(artefact)
        labels = distilled_set.hard_labels(artefact.distilled)
        about: Shown = {
            "path": path,
            "method": artefact.method,
            "version": artefact.version,
            "num_images": len(labels),
            "images_per_class": ipc,
        }
        batch = Batch(images, jax.nn.one_hot(labels, k))
        rows.append(Row(label, (batch,), digest("distilled", (images, labels)), about))
        if ipc not in random:
            drawn = random_subsets(loaded.train, ipc, seeds, transform, seed)
            random[ipc] = Row(
                f"random, {ipc} per class",
                tuple(Batch(*one) for one in zip(*drawn, strict=True)),
                digest([*real, "random", ipc, seeds, *images_of(seed)]),
                {
                    "path": None,
                    "method": "random",
                    "num_images": k * ipc,
                    "images_per_class": ipc,
                },
            )
    test = data.on_device(loaded.test, transform, k)
    seen = Row(
        TEST,
        (test,),
        digest([*real, "test"]),
        {"path": None, "method": "test", "num_images": len(loaded.test.labels)},
    )
    return [*rows, *random.values(), seen]


class Looker:
    """Shows images to networks of one architecture; compiled once for each shape."""

    def __init__(self, model: Model, chunk: int):
        """Ready to look at `chunk` images at a time."""
        self._chunk = chunk
        self._restore = parameters.unflatten(model)
        probe = accuracy.make(accuracy.Config(chunk=chunk), model)

        def look(params: Params, source: Batch | RealSet) -> dict[str, Array]:
            point, key = Point(params, jnp.zeros(())), jax.random.key(0)
            _, found = probe.measure(key, (), point, source, source)
            return {name: estimate.value for name, estimate in found.items()}

        self._look, self._features = jax.jit(look), jax.jit(model.features)

    def params(self, vector: np.ndarray) -> Params:
        """Returns the parameters that lie in a vector, f32[p]."""
        return self._restore(jnp.asarray(vector))

    def look(self, params: Params, source: Batch | RealSet) -> tuple[float, float]:
        """Returns accuracy and mean cross-entropy."""
        found = self._look(params, source)
        return float(found["accuracy"]), float(found["loss"])

    def features(self, params: Params, images: Any) -> np.ndarray:
        """Returns inputs of the last layer, f32[n, d], of preprocessed f32[n, h, w, c]."""
        return map_chunks(lambda part: self._features(params, part), images, self._chunk)
