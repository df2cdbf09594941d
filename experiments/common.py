"""What experiments share: the model a configuration asks for, accuracies over seeds."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from distilljax import data
from distilljax.config import Config, FieldError
from distilljax.core import distilled as distilled_set
from distilljax.core import evaluate
from distilljax.core.evaluate import Protocol
from distilljax.models import MODELS
from distilljax.types import Array, Batch, DistilledSet, Key, Model, RealSet, Transform
from experiments.runs import spread

Preprocess = Literal["normalise", "zca", "zca_normed", "none"]


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

    @jax.jit
    def compute(keys: Key, train_on: Batch | RealSet, test: RealSet, rate: Array) -> Array:
        return evaluate.fresh_accuracy(
            keys,
            model,
            train_on,
            test,
            protocol,
            learning_rate=rate,
            stacked=isinstance(train_on, Batch),
        )

    rate = jnp.asarray(learning_rate, jnp.float32)
    return spread(compute(jax.random.split(key, seeds), train_on, test, rate))


def against_random(
    key: Key,
    seeds: int,
    model: Model,
    distilled: DistilledSet,
    train: data.Split,
    test: RealSet,
    protocol: Protocol,
) -> dict[str, dict[str, Any]]:
    """Accuracies `distilled` and `random`, as many random real images of `train`."""
    ipc = distilled.images.shape[0] // distilled.label_logits.shape[1]
    sets = {
        "distilled": repeated(distilled_set.as_batch(distilled), seeds),
        "random": random_subsets(train, ipc, seeds, test.transform),
    }
    rate = jnp.exp(distilled.log_lr)
    return {
        name: accuracies(key, seeds, model, stack, test, protocol, learning_rate=rate)
        for name, stack in sets.items()
    }


TRAINED_ON = {
    "distilled": "the distilled set",
    "random": "as many random real images",
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


def displayable(transform: Transform, images: Array) -> np.ndarray:
    """What networks see -> f32[n, h, w, c] in 0..1 where it is in gamut."""
    return np.asarray(transform.inverse(images))
