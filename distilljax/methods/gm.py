"""Gradient matching (`gm`; DC, Zhao et al. 2021, arXiv 2006.05929, algorithm 1).

The gradients of real and distilled images of each class j are matched on a network that
is trained on the distilled set along the way (eq. 9):

    min_S  E_{w_0}  sum_t sum_j D( grad L_{real_j}(w_t), grad L_{S_j}(w_t) )

D sums 1 - cosine over the output channels of every weight (eq. 10). After each match the
network is trained on the distilled set for `inner_loop` epochs; after `outer_loop`
matches it is reinitialised. With one siamese augmentation for the real and the distilled
images of a class this is DSA (Zhao & Bilen 2021, arXiv 2102.08259); the network is then
trained with the same strategy, with separate parameters for each image.

An outer step is one match, so `outer_loop` of them are one iteration of the papers, which
have 1,000. Published settings: (outer, inner) loops (1, 1), (10, 50) and (50, 10) at 1, 10
and 50 images per class; 256 real images per class; SGD with learning rate 0.1 and
momentum 0.5 for the images, 0.01 for the network in batches of 256. The network's momentum
is 0.5 in the authors' first code and absent since DSA. DC starts from noise or real images,
DSA from real images with `augment=color_crop_cutout_flip_scale_rotate`.

Departures: the last minibatch of an epoch of the network is as large as the others. `scale`
and `rotate` sample with the corners of images aligned, the code of the authors with their
edges, PyTorch's default.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from distilljax import checks, devices, exported, platforms, varying
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.core import distilled as distilled_set
from distilljax.core import inner, losses, sampling
from distilljax.core.augment import Augmentation, augment, parse
from distilljax.core.distances import GradientDistance, gradient_distance
from distilljax.core.inner import InnerState
from distilljax.core.outer import (
    After,
    Descent,
    Method,
    Optimizers,
    OuterLoss,
    from_outer_loss,
    method_rules,
)
from distilljax.core.parametrisations import DIRECT, Parametrisation
from distilljax.core.scan import pieces, spread_sum
from distilljax.types import Array, Batch, DistilledSet, Key, Model, Params, RealSet

SOURCE = "real"

# Settings to lower when the outer loss diverges, in this order.
LOWER = ("image_lr", "image_momentum", "network_lr", "label_lr")


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Settings of `gm`."""

    distance: GradientDistance = option("rows", "Distance between gradients.")
    real_batch: int = option(256, "Real images per class.", low=1)
    classes_together: int | None = option(
        None,
        "Classes whose real gradients are vmapped at a time; none: one on a CPU, all "
        "elsewhere.",
        low=1,
    )
    augment: str = option("", "Siamese augmentation (DSA); empty for none (DC).")
    image_lr: float = option(0.1, "Outer SGD learning rate of the images.", above=0)
    image_momentum: float = option(0.5, "Outer momentum.", low=0, high=1)
    label_lr: float = option(
        0.0, "Outer SGD learning rate of the label logits; 0: not learned.", low=0
    )
    outer_loop: int = option(1, "Matches before the network is reinitialised.", low=1)
    inner_loop: int = option(1, "Epochs of network training between two matches.", low=1)
    network_lr: float = option(0.01, "Learning rate of the network.", above=0)
    network_momentum: float = option(0.5, "Momentum of the network.", low=0, high=1)
    network_batch: int | None = option(
        256, "Batch size of network training; none: the whole distilled set.", low=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        parse(self.augment)
        if self.outer_loop == 1 and self.inner_loop > 1:
            reason = "a network that is renewed after every match is not trained; raise "
            raise FieldError("inner_loop", self.inner_loop, f"{reason}outer_loop")


@exported.named
class Network(NamedTuple):
    """The network on which gradients are matched.

    Attributes:
      state: parameters and optimizer of the network.
      age: i32[], matches since its initialisation.
    """

    state: InnerState
    age: Array


def _rule(config: Config) -> optax.GradientTransformation:
    """Returns the optimizer of the network."""
    return optax.sgd(config.network_lr, momentum=config.network_momentum or None)


def new_network(config: Config, model: Model) -> Callable[[Key], Network]:
    """Returns the function that initialises a network, the first `aux` of the method.

    >>> from distilljax.models import mlp
    >>> config, model = gm.Config(), mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2)
    >>> network = gm.new_network(config, model)(jax.random.key(0))
    >>> int(network.age)
    0
    """

    def fresh(key: Key) -> Network:
        state = inner.init(model.init(key), _rule(config))
        return Network(state, jnp.zeros((), jnp.int32))

    return fresh


def outer_loss(
    config: Config,
    model: Model,
    augmentation: Augmentation | None = None,
    mesh: Mesh | None = None,
) -> OuterLoss:
    """Returns the distance of gradients on a network, `aux`, which is unchanged.

    >>> from distilljax.models import mlp
    >>> loss = gm.outer_loss(gm.Config(augment=""), mlp.make(mlp.Config(), (8, 8, 1), 2))

    Args:
      config: settings; those of outer optimizers are not read.
      model: the network.
      augmentation: siamese, in place of `config.augment`.
      mesh: devices that share the classes.
    """
    checks.settings(config, Config, model)
    loss_fn = losses.cross_entropy(model.apply)
    strategy = config.augment if augmentation is None else augmentation

    def gradient(params: Params, key: Key, batch: Batch) -> Params:
        images = augment(key, batch.images, strategy=strategy, siamese=True)
        chunk = inner.cache_chunk(len(images), params)
        batch = batch._replace(images=images)
        return inner.value_and_grad(loss_fn, params, batch, chunk)[1]

    def compute(
        distilled: DistilledSet, key: Key, network: Network, real: RealSet
    ) -> tuple[Array, Network]:
        checks.same_classes(distilled, real)
        batch_key, augment_key, *_ = _keys(key)
        params = network.state.params
        k = distilled.label_logits.shape[1]
        class_keys = jax.random.split(augment_key, k)

        # On a CPU one class at a time takes half the time and a tenth of the memory.
        most = 1 if platforms.on_cpu() else k
        drawn = sampling.class_positions(batch_key, real, config.real_batch)
        at_once = min(config.classes_together or most, k)

        def of_class(given: tuple[Key, Array]) -> Params:
            key, positions = given
            return gradient(params, key, sampling.take(real, positions))

        theirs = devices.spread(of_class, (class_keys, drawn), mesh, together=at_once)
        theirs = jax.lax.stop_gradient(theirs)

        def gaps(
            params: Params, classes: tuple[Key, Batch, Params], counts: Array
        ) -> Array:
            def gap(key: Key, batch: Batch, theirs: Params) -> Array:
                ours = gradient(params, key, batch)
                return gradient_distance(ours, theirs, config.distance)

            return jnp.where(counts, jax.vmap(gap)(*classes), 0).sum()

        ipc = len(distilled.images) // k
        by_class = pieces(distilled_set.as_batch(distilled), ipc)
        together = inner.cache_groups(-(-k // devices.size(mesh)), ipc, params)
        classes = (class_keys, by_class, theirs)
        return spread_sum(gaps, params, classes, mesh, together=together), network

    return compute


def ageing(config: Config, model: Model, augmentation: Augmentation | None = None) -> After:
    """Returns what follows a match: the network, `aux`, is trained or reinitialised.

    >>> from distilljax.models import mlp
    >>> after = gm.ageing(gm.Config(), mlp.make(mlp.Config(), (8, 8, 1), 2))

    Args:
      config: settings; those of outer optimizers are not read.
      model: the network.
      augmentation: of training batches, in place of `config.augment`.
    """
    loss_fn, rule = losses.cross_entropy(model.apply), _rule(config)
    strategy = config.augment if augmentation is None else augmentation
    fresh = new_network(config, model)

    def train(key: Key, state: InnerState, distilled: DistilledSet) -> InnerState:
        """Trains for `inner_loop` epochs on the distilled set."""
        order_key, augment_key = jax.random.split(key)
        data = distilled_set.as_batch(distilled)
        _, per_epoch = sampling.even_batches(data.labels.shape[0], config.network_batch)
        num_steps = config.inner_loop * per_epoch
        positions, read = sampling.minibatches(
            order_key, data, config.network_batch, num_steps
        )

        def sample_batch(given: tuple[Array, Key]) -> Batch:
            where, key = given
            batch = read(where)
            images = augment(key, batch.images, strategy=strategy)
            return batch._replace(images=images)

        inputs = (positions, jax.random.split(augment_key, num_steps))
        state, _ = inner.unroll(
            loss_fn,
            rule,
            sample_batch,
            state,
            inputs,
            remat="none",
            chunk=inner.cache_chunk(positions.shape[1], state.params),
        )
        return state

    def compute(
        distilled: DistilledSet, key: Key, network: Network, real: RealSet
    ) -> Network:
        *_, train_key, renew_key = _keys(key)
        if config.outer_loop == 1:
            return fresh(renew_key)
        age = network.age + 1
        # Skips the training when the network is about to be reinitialised.
        return varying.cond(
            age < config.outer_loop,
            lambda: Network(train(train_key, network.state, distilled), age),
            lambda: fresh(renew_key),
        )

    return compute


def make(
    config: Config,
    model: Model,
    parametrisation: Parametrisation = DIRECT,
    *,
    optimizers: Optimizers | None = None,
    augmentation: Augmentation | None = None,
    mesh: Mesh | None = None,
) -> Method:
    """Returns the method; its source is a `RealSet`, its distilled set is class-ordered.

    >>> from distilljax.models import mlp
    >>> method = gm.make(gm.Config(real_batch=8), mlp.make(mlp.Config(), (8, 8, 1), 2))

    Args:
      config: settings.
      model: the network.
      parametrisation: how the set is stored.
      optimizers: of the distilled set, in place of those of `config`.
      augmentation: in place of `config.augment`.
      mesh: devices that share the classes.
    """
    checks.settings(config, Config, model)

    def check(key: Key, distilled: DistilledSet) -> None:
        checks.network(model, key, distilled)
        checks.certain_order(distilled, "gm")
        if config.distance == "rows":
            checks.output_axis(model, key, distilled)

    rules = method_rules(
        "gm",
        optimizers,
        images=Descent("sgd", config.image_lr, config.image_momentum),
        label_logits=Descent("sgd", config.label_lr),
    )
    return from_outer_loss(
        outer_loss(config, model, augmentation, mesh),
        rules,
        new_network(config, model),
        after=ageing(config, model, augmentation),
        parametrisation=parametrisation,
        check=check,
    )


def _keys(key: Key) -> Key:
    """Splits a step key into batch, augmentation, training and renewal keys, key[4]."""
    return jax.random.split(key, 4)
