"""Real images that distilled sets are compared with: random ones and coresets."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import data, memory
from distilljax.analysis import coresets
from distilljax.core import sampling
from distilljax.keys import subset_seed
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Array, Batch, InputError, RealSet, Transform

RANDOM = "random"

BASELINES = (RANDOM, *coresets.CORESETS)

VALIDATION = 500  # images of each class, at most a tenth of them


def _require_memory(seeds: int, num_values: int) -> None:
    memory.require(
        4 * seeds * num_values,
        f"{seeds:,} networks, each with images of its own,",
        "train fewer",
    )


def random_subsets(
    split: data.Split, ipc: int, seeds: int, transform: Transform, seed: int = 0
) -> Batch:
    """Draws `seeds` independent sets of `ipc` real images a class, stacked.

    Args:
      split: the images.
      ipc: images a class.
      seeds: number of sets.
      transform: preprocessing.
      seed: random seed.

    Returns:
      images f32[s, n, h, w, c], labels f32[s, n, k].
    """
    num_images = ipc * len(np.unique(split.labels))
    _require_memory(seeds, num_images * split.images[0].size)
    drawn = [
        data.subset(split, ipc, seed=subset_seed(number, seed)) for number in range(seeds)
    ]
    k = int(split.labels.max()) + 1
    return Batch(
        jnp.stack([transform(jnp.asarray(one.images)) for one in drawn]),
        jnp.stack([jax.nn.one_hot(one.labels, k) for one in drawn]),
    )


def repeated(batch: Batch, seeds: int) -> Batch:
    """Repeats a set for each of `seeds` networks, in the shape of `random_subsets`."""
    _require_memory(seeds, batch.images.size)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, *x.shape)), batch)


def check_baselines(
    names: Sequence[str], train: data.Split, real: RealSet, ipc: int
) -> None:
    """Refuses baselines for which there are too few images, before anything is trained.

    The arguments are those of `select_baselines`.

    Raises:
      InputError: a class has fewer images.
    """
    for name in names:
        sizes = np.bincount(train.labels) if name == RANDOM else real.class_sizes
        if ipc > (smallest := int(np.min(sizes))):
            raise InputError(
                f"baselines: {name} takes {ipc} images of each class, the smallest has "
                f"{smallest}; leave {name} out"
            )


def select_baselines(
    names: Sequence[str],
    train: data.Split,
    real: RealSet,
    ipc: int,
    seeds: int,
    seed: int = 0,
) -> dict[str, Batch]:
    """Returns name -> `ipc` images a class so chosen, stacked as `random_subsets` does.

    Args:
      names: of `BASELINES`.
      train: `random` draws from it, for each of `seeds` networks anew.
      real: coresets choose from it, once for all networks; its transform is applied to
        all.
      ipc: images a class.
      seeds: number of networks.
      seed: random seed of `random`.

    Raises:
      InputError: a class has fewer images.
    """
    check_baselines(names, train, real, ipc)
    sets = {}
    for name in names:
        if name == RANDOM:
            sets[name] = random_subsets(train, ipc, seeds, real.transform, seed)
        else:
            positions = coresets.select(coresets.CORESETS[name], real, ipc)
            sets[name] = repeated(sampling.take(real, positions), seeds)
    return sets


def real_labels(labels: Array, protocol: EvaluationProtocol) -> Array:
    """Returns distributions f32[..., k] as the loss of the protocol reads them."""
    return labels if protocol.loss == "cross_entropy" else labels - 1 / labels.shape[-1]


def validation_images(
    protocol: EvaluationProtocol, train: data.Split, transform: Transform, num_classes: int
) -> RealSet | None:
    """Returns the held-out images that a protocol looks at; None where it looks at none.

    They are a tenth of the training images, at most 500 of each class, drawn once.
    """
    if protocol.check_every is None:
        return None
    smallest = int(np.bincount(train.labels, minlength=num_classes).min())
    each = max(1, min(VALIDATION, smallest // 10))
    return data.on_device(data.subset(train, each, 0), transform, num_classes)
