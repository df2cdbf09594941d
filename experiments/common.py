"""What experiments share: data and model of a configuration, accuracies over seeds."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from distilljax import data, io
from distilljax.config import Config, FieldError, option
from distilljax.core import distilled as distilled_set
from distilljax.core import evaluate
from distilljax.core.evaluate import Protocol
from distilljax.models import MODELS
from distilljax.types import Array, Batch, DistilledSet, Key, Model, RealSet, Transform
from experiments.runs import spread

Preprocess = Literal["normalise", "published", "zca", "zca_normed", "none"]


@dataclasses.dataclass(frozen=True)
class DataOptions(Config):
    """Which data, what they go through, and what of them is held out."""

    dataset: str = option(
        "embedded", "`embedded`, a TFDS name such as cifar10, or the path of an .npz file."
    )
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    preprocess: Preprocess = option("normalise", "What images go through first.")
    held_out: int = option(
        50, "Training images of each class held out, to choose the best set.", low=1
    )
    split_seed: int = option(0, "Settles which images are held out.", low=0, high=2**31 - 1)


class Prepared(NamedTuple):
    """Real data, divided, on the device."""

    data: data.Dataset
    rest: data.Split  # training images that are not held out
    transform: Transform  # fitted on `rest`
    real: RealSet  # `rest` on the device
    held_out: RealSet


def prepare(config: DataOptions) -> Prepared:
    """The data that the options ask for.

    Raises:
      InputError: data that cannot be had.
      FieldError: more images are held out than a class has.
    """
    loaded = data.load(config.dataset, config.data_dir)
    k, labels = loaded.num_classes, loaded.train.labels
    smallest = min(int((labels == j).sum()) for j in range(k))
    if config.held_out >= smallest:
        reason = f"the smallest class has {smallest} training images; hold out fewer"
        raise FieldError("held_out", config.held_out, reason)
    rest, held_out = data.hold_out(loaded.train, config.held_out, config.split_seed)
    transform = data.fit(config.preprocess, rest.images, config.dataset)
    return Prepared(
        loaded,
        rest,
        transform,
        data.on_device(rest, transform, k),
        data.on_device(held_out, transform, k),
    )


def model_of(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> Model:
    """The model that `--model` and its options describe.

    Raises:
      FieldError: the model does not fit images of this shape.
    """
    options: Any = config
    group = getattr(options, options.model)
    model = MODELS[options.model].make(group, image_shape, num_classes)
    try:
        jax.eval_shape(model.init, jax.random.key(0))
    except ValueError as error:
        raise FieldError("model", options.model, str(error)) from None
    return model


def random_subsets(split: data.Split, ipc: int, seeds: int, transform: Transform) -> Batch:
    """`seeds` independent random sets of `ipc` real images a class, stacked.

    Returns:
      images f32[s, n, h, w, c], labels f32[s, n, k].
    """
    drawn = [data.subset(split, ipc, seed=1000 + seed) for seed in range(seeds)]
    k = int(split.labels.max()) + 1
    return Batch(
        jnp.stack([transform(jnp.asarray(one.images)) for one in drawn]),
        jnp.stack([jax.nn.one_hot(one.labels, k) for one in drawn]),
    )


def repeated(batch: Batch, seeds: int) -> Batch:
    """The same set for each of `seeds` networks, in the shape of `random_subsets`."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, *x.shape)), batch)


def accuracies(
    key: Key,
    seeds: int,
    model: Model,
    train_on: Batch | RealSet,
    test: RealSet,
    protocol: Protocol,
    *,
    learning_rate: Array | float = 0.01,
) -> dict[str, Any]:
    """Test accuracy of fresh networks: mean, std, seeds, values.

    Args:
      key: settles everything random.
      seeds: number of networks.
      model: the network.
      train_on: a real set, or stacked small sets, one for each network.
      test: what to test on.
      protocol: how to train.
      learning_rate: the rate where the protocol leaves it to the set.
    """
    rate = jnp.asarray(learning_rate, jnp.float32)
    keys = jax.random.split(key, seeds)
    return spread(_fresh_accuracy(model, protocol, keys, train_on, test, rate))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _fresh_accuracy(
    model: Model,
    protocol: Protocol,
    keys: Key,
    train_on: Batch | RealSet,
    test: RealSet,
    rate: Array,
) -> Array:
    """Compiled once for all sets of one shape."""
    return evaluate.fresh_accuracy(
        keys,
        model,
        train_on,
        test,
        protocol,
        learning_rate=rate,
        stacked=isinstance(train_on, Batch),
    )


def against(
    key: Key,
    seeds: int,
    model: Model,
    distilled: DistilledSet,
    baselines: Mapping[str, Batch],
    test: RealSet,
    protocol: Protocol,
) -> dict[str, dict[str, Any]]:
    """Accuracies of `distilled` and of each baseline, sets of real images.

    Args:
      key: settles everything random.
      seeds: number of networks.
      model: the network.
      distilled: the set, decoded.
      baselines: name -> stacked sets, one for each network, see `random_subsets`.
      test: what to test on.
      protocol: how to train.
    """
    sets = {"distilled": repeated(distilled_set.as_batch(distilled), seeds), **baselines}
    rate = jnp.exp(distilled.log_lr)
    return {
        name: accuracies(key, seeds, model, stack, test, protocol, learning_rate=rate)
        for name, stack in sets.items()
    }


TRAINED_ON = {
    "distilled": "the distilled set",
    "random": "as many random real images",
    "herding": "as many by herding",
    "k_centre": "as many by k-centre",
    "whole": "the whole training set",
}


def accuracy_table(rows: dict[str, dict[str, Any]], title: str) -> None:
    """Prints accuracies, one row a training set, by the names of `TRAINED_ON`."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("trained on", "accuracy", "std", "seeds"):
        table.add_column(column, justify="left" if column == "trained on" else "right")
    for name, row in rows.items():
        std = "-" if row["std"] is None else f"{row['std']:.2%}"
        table.add_row(TRAINED_ON[name], f"{row['mean']:.2%}", std, str(row["seeds"]))
    Console().print(table)


def percent(accuracy: Mapping[str, Any]) -> str:
    """Mean and standard deviation for a cell of a table, such as 73.2 ±0.5."""
    return f"{100 * accuracy['mean']:.1f} ±{100 * accuracy['std']:.1f}"


def stored_ipc(artefact: io.Artefact) -> int:
    """Images a class whose storage the set takes; a parametrised one decodes to more."""
    num, k = artefact.distilled.label_logits.shape
    return int(artefact.config.get("ipc", num // k))


def displayable(transform: Transform, images: Array) -> np.ndarray:
    """What networks see -> f32[n, h, w, c] in 0..1 where it is in gamut."""
    return np.asarray(transform.inverse(images))
