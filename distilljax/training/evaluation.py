"""Training fresh networks on a set and testing them: many seeds, one dispatch."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from distilljax.config import Config, FieldError, option
from distilljax.core import inner, losses, sampling
from distilljax.core.augment import DSA, augment, parse
from distilljax.types import Array, Batch, Key, Model, Params, RealSet


@dataclasses.dataclass(frozen=True)
class EvaluationProtocol(Config):
    """How a network is trained on a set before it is tested. SGD with momentum."""

    steps: int | None = option(300, "Training steps; none: counted in epochs.", low=1)
    epochs: int | None = option(None, "Passes over the set, in place of steps.", low=1)
    batch: int | None = option(None, "Images a step; none: the whole set.", low=1)
    lr: float | None = option(0.01, "Learning rate; none: the set's own.", above=0)
    momentum: float = option(0.9, "Momentum.", low=0, high=1)
    weight_decay: float = option(0.0, "Weight decay, added to the gradient.", low=0)
    decay_at: float | None = option(
        None, "Share of the training after which the rate falls tenfold.", low=0, high=1
    )
    augment: str = option("", "Augmentation of each batch, such as color_crop_flip.")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse(self.augment)
        if self.steps is None and self.epochs is None:
            raise FieldError("steps", None, "give a number of steps or of epochs")

    def num_steps(self, num_images: int) -> int:
        """Steps on a set of `num_images`; an epoch is ceil(num_images / batch)."""
        if self.epochs is None:
            return self.steps or 0
        return self.epochs * math.ceil(num_images / (self.batch or num_images))


PROTOCOLS = {
    # Yang et al. 2024, section 2: the study's standard evaluation.
    "study": EvaluationProtocol(),
    # Zhao et al. 2021 (DC), Zhao & Bilen 2021 (DSA), Cazenavette et al. 2022 (MTT).
    "dc": EvaluationProtocol(
        steps=None, epochs=300, batch=256, lr=0.01, weight_decay=5e-4, decay_at=0.5
    ),
    "dsa": EvaluationProtocol(
        steps=None,
        epochs=1000,
        batch=256,
        lr=0.01,
        weight_decay=5e-4,
        decay_at=0.5,
        augment=DSA,
    ),
    "mtt": EvaluationProtocol(
        steps=None,
        epochs=1000,
        batch=256,
        lr=None,
        weight_decay=5e-4,
        decay_at=0.5,
        augment=DSA,
    ),
}


def optimizer(
    protocol: EvaluationProtocol, num_steps: int, learning_rate: Array | float
) -> optax.GradientTransformation:
    """SGD as the protocol asks; `learning_rate` serves where the protocol has none."""
    rate: Any = learning_rate if protocol.lr is None else protocol.lr
    schedule: Any = rate
    if protocol.decay_at is not None:
        fall = int(num_steps * protocol.decay_at)

        def schedule(count: Array) -> Array:
            return jnp.where(count < fall, rate, 0.1 * rate)

    return optax.chain(
        optax.add_decayed_weights(protocol.weight_decay),
        optax.sgd(schedule, momentum=protocol.momentum or None),
    )


def train(
    key: Key,
    model: Model,
    data: Batch | RealSet,
    protocol: EvaluationProtocol,
    *,
    learning_rate: Array | float = 0.01,
) -> Params:
    """A fresh network, trained on `data`.

    Args:
      key: for the initial weights, the order of the batches and the augmentation.
      model: the network.
      data: a small set as one batch, or a real set from which batches are drawn.
        The batch size is lowered to split the set evenly, as in 250 + 250 for 500
        images in batches of at most 256.
      protocol: how to train.
      learning_rate: the rate where the protocol leaves it to the set.
    """
    init_key, order_key, augment_key = jax.random.split(key, 3)
    num = data.labels.shape[0]
    num_steps = protocol.num_steps(num)
    size, per_epoch = sampling.even_batches(num, protocol.batch)

    if size == num:
        positions = jnp.zeros((num_steps, 0), jnp.int32)
    else:
        positions = sampling.epochs(order_key, num, size, num_steps, per_epoch)

    def sample_batch(given: tuple[Array, Key]) -> Batch:
        where, key = given
        if isinstance(data, RealSet):
            batch = sampling.take(data, where if size < num else jnp.arange(num))
        else:
            batch = data if size == num else jax.tree.map(lambda x: x[where], data)
        return batch._replace(images=augment(key, batch.images, strategy=protocol.augment))

    rule = optimizer(protocol, num_steps, learning_rate)
    state = inner.init(model.init(init_key), rule)
    inputs = (positions, jax.random.split(augment_key, num_steps))
    loss_fn = losses.cross_entropy(model.apply)
    state, _ = inner.unroll(
        loss_fn,
        rule,
        sample_batch,
        state,
        inputs,
        remat="none",
        chunk=inner.cache_chunk(size),
    )
    return state.params


def predict(
    apply: Callable[[Params, Array], Array],
    params: Params,
    real: RealSet,
    *,
    chunk: int | None = None,
) -> Array:
    """Logits of every image, f32[n, k].

    `chunk` images are computed at a time; if None 32 on a CPU, which is quickest with what
    its cache holds (at width 32 and 28x28 images three times as quick as with 500), and
    500 elsewhere.
    """
    num = real.labels.shape[0]
    chunk = min(chunk or (32 if jax.default_backend() == "cpu" else 500), num)
    num_chunks = -(-num // chunk)
    images = jnp.pad(
        real.images, ((0, num_chunks * chunk - num), *((0, 0),) * (real.images.ndim - 1))
    ).reshape(num_chunks, chunk, *real.images.shape[1:])
    logits = jax.lax.map(lambda part: apply(params, real.transform(part)), images)
    return logits.reshape(num_chunks * chunk, -1)[:num]


def fresh_accuracy(
    keys: Key,
    model: Model,
    data: Batch | RealSet,
    test: RealSet,
    protocol: EvaluationProtocol,
    *,
    learning_rate: Array | float = 0.01,
    stacked: bool = False,
    together: int = 1,
) -> Array:
    """Test accuracy of one fresh network for each key, trained on `data`.

    Args:
      keys: key[s], one a network.
      model: the network.
      data: what to train on, see `train`.
      test: what to test on.
      protocol: how to train.
      learning_rate: see `train`; one for all networks.
      stacked: `data` has a leading axis s, one set for each network.
      together: how many networks train side by side; the others wait their turn.

    Returns:
      f32[s], in 0..1.
    """

    def one(given: tuple[Key, Any]) -> Array:
        key, own = given
        params = train(
            key, model, own if stacked else data, protocol, learning_rate=learning_rate
        )
        return losses.accuracy(predict(model.apply, params, test), test.labels)

    batch_size = together if together > 1 else None
    return jax.lax.map(one, (keys, data if stacked else None), batch_size=batch_size)
