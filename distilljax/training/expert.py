"""Expert training: networks trained on real data, for trajectory matching.

See Cazenavette et al. 2022, arXiv 2203.11932. `init` and `epoch` train one expert; `vmap`
or `lax.map` over them trains many. Trajectories hold parameters as flat vectors, see
`distilljax.core.parameters`.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from distilljax import checks, varying
from distilljax.config import Config, option
from distilljax.core import inner, losses, sampling
from distilljax.core.augment import DSA, augment, parse
from distilljax.core.inner import InnerState
from distilljax.training import evaluation
from distilljax.types import Array, Batch, Key, LossFn, Model, Params, RealSet


@dataclasses.dataclass(frozen=True)
class Recipe(Config):
    """Training recipe of an expert: SGD with a constant learning rate."""

    lr: float = option(0.01, "Learning rate.", above=0)
    momentum: float = option(0.0, "Momentum.", low=0, high=1)
    weight_decay: float = option(0.0, "Weight decay, added to the gradient.", low=0)
    batch: int = option(256, "Batch size.", low=1)
    augment: str = option(DSA, "Augmentation of each batch; empty for none.")
    sam_rho: float = option(
        0.0, "Radius of sharpness-aware minimisation; 0: plain SGD.", low=0
    )

    curriculum: Literal["none", "pad"] = option(
        "none",
        "Images of an epoch: all, or PAD's: at first the easier three quarters, after 40 "
        "epochs without the easiest.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        parse(self.augment)


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Returns the SGD optimizer of a recipe.

    >>> rule = expert.optimizer(expert.Recipe(lr=0.5))
    >>> updates, _ = rule.update(jnp.ones(2), rule.init(jnp.zeros(2)), jnp.zeros(2))
    >>> updates.tolist()
    [-0.5, -0.5]
    """
    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay),
        optax.sgd(recipe.lr, momentum=recipe.momentum or None),
    )


def sharpness_aware(loss_fn: LossFn, rho: float) -> LossFn:
    """Returns the loss at the worst point near the weights, to first order.

    L(w + rho g / ||g||) with g = grad L(w) taken as a constant (Foret et al. 2021, arXiv
    2010.01412, eq. 2), so that its gradient is theirs (eq. 3). The norm is over all
    parameters; both gradients see the same batch.

    Departures: the flat-minimum experts of FTD (Du et al. 2023, arXiv 2211.11004) are
    trained with GSAM, which also minimises the gap between the two losses.

    >>> loss_fn = expert.sharpness_aware(
    ...     lambda w, batch: jnp.mean((batch - w) ** 2), rho=0.5)
    >>> float(loss_fn(jnp.ones(()), jnp.zeros(4)))
    2.25
    """

    def perturbed(params: Params, batch: Batch) -> Array:
        grads = jax.lax.stop_gradient(varying.grad(loss_fn)(params, batch))
        scale = rho / jnp.maximum(optax.tree.norm(grads), 1e-12)
        return loss_fn(jax.tree.map(lambda w, g: w + scale * g, params, grads), batch)

    return perturbed


def epoch_key(key: Key, which: Array | int, epoch: Array | int) -> Key:
    """Returns the key of one epoch of one expert; epoch 0 is its initialisation.

    It depends on nothing else, so experts can be trained in any order and grouping.

    >>> key = jax.random.key(0)
    >>> bool(expert.epoch_key(key, 0, 1) == expert.epoch_key(key, 0, 2))
    False
    """
    checks.one_key(key)
    return jax.random.fold_in(jax.random.fold_in(key, which), epoch)


def init(key: Key, model: Model, recipe: Recipe) -> InnerState:
    """Returns an expert at epoch 0; `key` is its `epoch_key` of epoch 0.

    >>> from distilljax.models import mlp
    >>> model = mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2)
    >>> key = expert.epoch_key(jax.random.key(0), 0, 0)
    >>> state = expert.init(key, model, expert.Recipe())
    """
    checks.one_key(key)
    checks.model(model)
    return inner.init(model.init(key), optimizer(recipe))


def difficulty(
    key: Key,
    model: Model,
    real: RealSet,
    recipe: Recipe,
    *,
    networks: int = 3,
    epochs: int = 2,
) -> Array:
    """Returns how hard each image is to learn, f32[n], larger for harder ones.

    The norm of the gradient of its loss by the last layer, |softmax - label| times
    sqrt(|features|^2 + 1), a mean over networks early in training (GraNd: Paul et al. 2021,
    arXiv 2107.07075).

    >>> from distilljax import data
    >>> from distilljax.models import mlp
    >>> model = mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2)
    >>> images = np.arange(16, dtype=np.uint8).reshape(4, 2, 2, 1)
    >>> split = data.Split(images, np.arange(4) % 2)
    >>> real = data.on_device(split, data.Identity(), num_classes=2)
    >>> recipe = expert.Recipe(augment="")
    >>> expert.difficulty(jax.random.key(0), model, real, recipe, networks=1).shape
    (4,)

    Args:
      key: of the networks.
      model: the network; needs `features`.
      real: the images, which the networks are trained on.
      recipe: their training, here always on all images.
      networks: number of networks.
      epochs: length of their training.
    """
    recipe = dataclasses.replace(recipe, curriculum="none")

    def both(params: Params, images: Array) -> Array:
        features, logits = model.features(params, images), model.apply(params, images)
        square = jnp.square(features).sum(axis=1, keepdims=True)
        return jnp.concatenate([logits, square], axis=1)

    def scores(which: Array) -> Array:
        state = init(epoch_key(key, which, 0), model, recipe)
        for number in range(1, epochs + 1):
            at = epoch_key(key, which, number)
            state, _ = epoch(at, model, real, recipe, state)
        found = evaluation.predict(both, state.params, real)
        wrong = jax.nn.softmax(found[:, :-1])
        wrong -= jax.nn.one_hot(real.labels, wrong.shape[1], dtype=wrong.dtype)
        return jnp.linalg.norm(wrong, axis=1) * jnp.sqrt(found[:, -1] + 1)

    return jax.lax.map(scores, jnp.arange(networks)).mean(axis=0)


def taking_part(scores: Array, which: Array | int) -> Array:
    """Returns the images of an epoch under the curriculum of PAD, bool[n].

    Li et al. 2024 (arXiv 2408.03360): the easiest .75 of them, rising linearly to all after
    20 epochs; from epoch 41 on without the easiest .1, from 61 on without .2.

    Departures: the shares are those of all images, so that an easy class has more of them
    at first than a hard one; PAD's code takes them of each class. It drops the easiest one
    epoch later, and its epochs have fewer steps where fewer images take part.

    >>> expert.taking_part(jnp.array([0.3, 0.1, 0.9, 0.2]), 1).tolist()
    [True, True, False, True]

    Args:
      scores: f32[n], see `difficulty`.
      which: number of the epoch; 1 is the first.
    """
    num, before = len(scores), jnp.asarray(which) - 1
    ranks = jnp.argsort(jnp.argsort(scores))
    high = jnp.minimum(0.75 + 0.25 * before / 20, 1.0)
    low = jnp.where(before < 40, 0.0, jnp.where(before < 60, 0.1, 0.2))
    return (ranks >= jnp.floor(low * num)) & (ranks < jnp.ceil(high * num))


def epoch(
    key: Key,
    model: Model,
    real: RealSet,
    recipe: Recipe,
    state: InnerState,
    included: Array | None = None,
) -> tuple[InnerState, Array]:
    """Trains an expert for one epoch in random order.

    >>> from distilljax import data
    >>> from distilljax.models import mlp
    >>> model = mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2)
    >>> images = np.arange(16, dtype=np.uint8).reshape(4, 2, 2, 1)
    >>> split = data.Split(images, np.arange(4) % 2)
    >>> real = data.on_device(split, data.Identity(), num_classes=2)
    >>> recipe, key = expert.Recipe(batch=2, augment=""), jax.random.key(0)
    >>> state = expert.init(expert.epoch_key(key, 0, 0), model, recipe)
    >>> state, loss = expert.epoch(expert.epoch_key(key, 0, 1), model, real, recipe, state)
    >>> bool(jnp.isfinite(loss))
    True

    Args:
      key: the `epoch_key`, for order and augmentation.
      model: the network.
      real: training set. The batch size is lowered to split the set evenly, see
        `sampling.even_batches`; the remainder is left out of this epoch.
      recipe: training recipe.
      state: the expert after the previous epoch; may be batched under `vmap`.
      included: bool[n], images that take part, see `taking_part`. The epoch has as many
        steps as with all of them: those that take part are seen again, in the same order.
        None for all.

    Returns:
      The state after the epoch, and the mean of the losses before its steps, f32[]; with
      `sam_rho` of the perturbed losses.
    """
    checks.one_key(key)
    order_key, augment_key = jax.random.split(key)
    num = real.labels.shape[0]
    size, num_steps = sampling.even_batches(num, recipe.batch)
    if included is None:
        positions = sampling.epochs(order_key, num, size, num_steps, num_steps)
    else:
        order = jnp.argsort(jax.random.uniform(order_key, (num,)) + ~included)
        seen = jnp.arange(num_steps * size) % included.sum()
        positions = order[seen].reshape(num_steps, size)

    def sample_batch(given: tuple[Array, Key]) -> Batch:
        where, key = given
        batch = sampling.take(real, where)
        return batch._replace(images=augment(key, batch.images, strategy=recipe.augment))

    loss_fn: LossFn = losses.cross_entropy(model.apply)
    chunk = inner.cache_chunk(size, state.params)
    if recipe.sam_rho:  # the perturbation needs the gradient of the whole batch
        loss_fn, chunk = sharpness_aware(loss_fn, recipe.sam_rho), None
    inputs = (positions, jax.random.split(augment_key, num_steps))
    state, history = inner.unroll(
        loss_fn, optimizer(recipe), sample_batch, state, inputs, remat="none", chunk=chunk
    )
    return state, history.mean()
