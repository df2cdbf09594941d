"""Kernel ridge regression (`kernel`; KIP, FRePo, RCIG).

The outer loss is that of the regression from the distilled images X_s with real-valued
labels y_s to a real batch X_t with labels y_t, one-hot less 1/k, both b and n images:

    min_{X_s, y_s}  1/(2b) || y_t - K_ts (K_ss + r tr(K_ss)/n I)^-1 y_s ||^2

KIP (Nguyen et al. 2021, arXiv 2011.00050 and 2107.13034, eq. 2) takes a neural tangent
kernel. FRePo (Zhou et al. 2022, arXiv 2206.00719, algorithm 1) takes the products of the
last features of one of a pool of online networks, which after each outer step is trained a
step on the set, and renewed after `max_age` steps; it adds for labels that are learned

    - mean over distilled labels of min(largest - second largest entry, 1/k).

RCIG (Loo et al. 2023, arXiv 2302.06755) trains such a network linearised, to the end, and
differentiates by implicit gradients (`kernel=linearised`, `core.regression`); its
outer loss is the cross-entropy at the best temperature (`loss=cross_entropy`).

Labels are values, not probabilities: the sets of this method hold y_s itself in
`label_logits` (`LABELS = "targets"`; `core.distilled.separate_targets` takes them apart),
and `init` makes them of the labels it is given: (softmax(label_logits) - 1/k) times
`label_scale`. The inner learning rate is not used.

Departures: KIP's kernel is that of infinitely wide networks; here it is the empirical one
of a new network each step, its trace over outputs, so a stochastic estimate, and the loss
is a sum over classes, not a mean. Networks train on the mirror images too. FRePo's labels
begin at one-hot less 1/k over sqrt(k/10): set `label_scale` to its inverse where k is not
10. As in the code of FRePo all networks begin untrained, with staggered numbers of steps
left, and LAMB has no weight decay. `kernel=linear` regresses on pixels.

RCIG takes 20 steps of Adam inside and 20 for the inverse Hessian, conjugate gradients here;
learns the temperature, here the best of each batch; shortens the implicit gradient to the
norm of the direct one, here whole; smooths the ReLU of its networks; bounds the margin by
1/(2k); trains a network up to 15 steps, a drawn number; and keeps a running mean of the
set, here the last.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from distilljax import checks, devices, exported, varying
from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.core import inner, losses, regression, sampling
from distilljax.core.augment import Augmentation
from distilljax.core.inner import InnerState
from distilljax.core.outer import (
    After,
    Descent,
    Method,
    Optimizers,
    OuterLoss,
    OuterState,
    from_outer_loss,
    method_rules,
)
from distilljax.core.parametrisations import DIRECT, Parametrisation
from distilljax.curvature import kernels, ntk
from distilljax.types import Array, Batch, DistilledSet, Key, Model, Params, RealSet

SOURCE = "real"
# What `label_logits` of the method's sets hold.
LABELS = "targets"

# Settings to lower when the outer loss diverges, in this order.
LOWER = ("image_lr", "label_lr", "network_lr")
# Options that draw so many different images of the whole set.
DRAWN = ("real_batch",)

_PRECISE = jax.lax.Precision.HIGHEST

# (params, X_s f32[n, h, w, c], X_t f32[b, h, w, c]) -> K_ss f32[n, n], K_ts f32[b, n]
Kernel = Callable[[Params, Array, Array], tuple[Array, Array]]
# (params, X_s and y_s f32[n, k], X_t) -> predictions f32[b, k]
Regression = Callable[[Params, Batch, Array], Array]


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Settings of `kernel`."""

    kernel: Literal["features", "ntk", "linear", "linearised"] = option(
        "features",
        "Kernel: products of last features, empirical NTK summed over outputs, products of "
        "pixels; or the linearised network, whose kernel is the whole empirical NTK.",
    )
    loss: Literal["squared_error", "cross_entropy"] = option(
        "squared_error",
        "Of the predictions: half the squared error, or the cross-entropy at the batch's "
        "best temperature.",
    )
    pool: int = option(10, "Online networks.", low=1)
    max_age: int = option(
        100, "Training steps before a network is renewed; 0: a new one each step.", low=0
    )
    network_lr: float = option(3e-4, "Adam learning rate of the networks.", above=0)
    network_steps: int = option(
        1, "Training steps of a network after its outer step.", low=1
    )
    ridge: float = option(1e-6, "Ridge, relative to the kernel's mean diagonal.", above=0)
    weight_decay: float = option(
        5e-4,
        "Ridge, absolute, for each distilled image.",
        above=0,
        selected_by=("kernel", "linearised"),
    )
    solver_iters: int = option(
        20,
        "Conjugate-gradient steps, for each solve.",
        low=1,
        selected_by=("kernel", "linearised"),
    )
    flips: bool = option(True, "The set is doubled by its mirror images.")
    real_batch: int = option(1024, "Real images of an outer step.", low=1)
    outer: Literal["lamb", "adam", "adabelief"] = option("lamb", "Outer optimizer.")
    image_lr: float = option(3e-3, "Outer learning rate of the images.", above=0)
    label_lr: float = option(
        3e-3, "Outer learning rate of the labels; 0: not learned.", low=0
    )
    label_scale: float = option(1.0, "Factor of the labels at the start.", above=0)
    margin: float = option(
        1.0, "Weight of the margin of learned labels in the outer loss.", low=0
    )
    cosine_steps: int | None = option(
        None, "Steps in which a cosine lowers the rates to a tenth; none: constant.", low=1
    )


@exported.named
class Pool(NamedTuple):
    """Online networks.

    Attributes:
      states: parameters and optimizers, leaves [m, ...].
      ages: i32[m], steps since the renewal.
    """

    states: InnerState
    ages: Array


def features_kernel(model: Model) -> Kernel:
    """Returns the products of last features; those of the real batch are constants.

    >>> from distilljax.models import mlp
    >>> model = mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2)
    >>> images, params = jnp.ones((5, 2, 2, 1)), model.init(jax.random.key(0))
    >>> k_ss, k_ts = kernel.features_kernel(model)(params, images[:2], images)
    >>> k_ss.shape, k_ts.shape
    ((2, 2), (5, 2))
    """

    def kernel(params: Params, ours: Array, theirs: Array) -> tuple[Array, Array]:
        num = len(theirs)
        parts = inner.filled(theirs, inner.cache_chunk(num, params) or num)
        real = jax.lax.map(lambda x: model.features(params, x), parts)
        real = jax.lax.stop_gradient(real.reshape(-1, real.shape[-1])[:num])
        found = model.features(params, ours)
        return _products(found, found), _products(real, found)

    return kernel


def ntk_kernel(model: Model) -> Kernel:
    """Returns the trace over outputs of the empirical neural tangent kernel.

    >>> from distilljax.models import mlp
    >>> model = mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2)
    >>> images, params = jnp.ones((5, 2, 2, 1)), model.init(jax.random.key(0))
    >>> k_ss, k_ts = kernel.ntk_kernel(model)(params, images[:2], images)
    >>> k_ss.shape, k_ts.shape
    ((2, 2), (5, 2))
    """

    def kernel(params: Params, ours: Array, theirs: Array) -> tuple[Array, Array]:
        def between(a: Array, b: Array | None) -> Array:
            return ntk.empirical_ntk(model.apply, params, a, b, form="trace")

        return between(ours, None), between(theirs, ours)

    return kernel


def linear_kernel(model: Model) -> Kernel:
    """Returns the products of pixels; the network plays no part.

    >>> from distilljax.models import mlp
    >>> model = mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2)
    >>> images = jnp.ones((5, 2, 2, 1))
    >>> k_ss, k_ts = kernel.linear_kernel(model)((), images[:2], images)
    >>> k_ss.shape, k_ts.shape
    ((2, 2), (5, 2))
    """

    def kernel(params: Params, ours: Array, theirs: Array) -> tuple[Array, Array]:
        ours, theirs = (x.reshape(len(x), -1) for x in (ours, theirs))
        return _products(ours, ours), _products(theirs, ours)

    return kernel


KERNELS: dict[str, Callable[[Model], Kernel]] = {
    "features": features_kernel,
    "ntk": ntk_kernel,
    "linear": linear_kernel,
}


def kernel_regression(kernel: Kernel, ridge: float) -> Regression:
    """Returns ridge regression by a kernel; see `kernels.kernel_ridge`.

    >>> from distilljax.types import Batch
    >>> pixels = kernel.linear_kernel(None)
    >>> predict = kernel.kernel_regression(pixels, ridge=1.0)
    >>> x, y = jnp.eye(2)[:, :, None, None], jnp.eye(2)
    >>> predict(None, Batch(x, y), x).round(3).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """

    def predict(params: Params, ours: Batch, theirs: Array) -> Array:
        k_ss, k_ts = kernel(params, ours.images, theirs)
        return kernels.predict(k_ts, kernels.kernel_ridge(k_ss, ours.labels, ridge=ridge))

    return predict


def linearised_regression(config: Config, model: Model) -> Regression:
    """Returns ridge regression by the linearised network; see `linearised_ridge`.

    >>> from distilljax.models import mlp
    >>> model = mlp.make(mlp.Config(width=4), (2, 2, 1), 2)
    >>> predict = kernel.linearised_regression(kernel.Config(flips=False), model)
    >>> x, y = jnp.eye(4)[:2].reshape(2, 2, 2, 1), jnp.eye(2)
    >>> predict(model.init(jax.random.key(0)), Batch(x, y), x).shape
    (2, 2)
    """

    def predict(params: Params, ours: Batch, theirs: Array) -> Array:
        num = len(ours.images) // (1 + config.flips)
        return regression.linearised_ridge(
            model.apply,
            params,
            ours.images,
            ours.labels,
            theirs,
            ridge=config.weight_decay * num,
            num_iters=config.solver_iters,
            features=model.features,
        )

    return predict


def squared_error(predictions: Array, labels: Array) -> Array:
    """Returns half the squared error to labels less 1/k, f32[].

    A sum over classes, a mean over rows of f32[b, k].

    >>> round(float(kernel.squared_error(jnp.zeros((1, 2)), jnp.eye(2)[:1])), 3)
    0.25
    """
    targets = labels - 1 / labels.shape[1]
    return 0.5 * jnp.square(targets - predictions).sum(axis=1).mean()


LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "squared_error": squared_error,
    "cross_entropy": losses.tempered_cross_entropy,
}


def margin(labels: Array) -> Array:
    """Returns the mean of min(largest - second largest entry, 1/k) over rows, f32[].

    >>> float(kernel.margin(jnp.array([[1.0, 0.75], [0.0, 1.0]])))
    0.375
    """
    top = jax.lax.top_k(labels, 2)[0]
    return jnp.minimum(top[:, 0] - top[:, 1], 1 / labels.shape[1]).mean()


def _support(config: Config, distilled: DistilledSet) -> Batch:
    """Returns the images and labels that are regressed from, mirror images too."""
    images, labels = distilled.images, distilled.label_logits
    if not config.flips:
        return Batch(images, labels)
    return Batch(
        jnp.concatenate([images, images[:, :, ::-1]]), jnp.concatenate([labels, labels])
    )


def _rule(config: Config) -> optax.GradientTransformation:
    """Returns the optimizer of the online networks."""
    return optax.adam(config.network_lr)


def _drawn(config: Config, key: Key) -> Array:
    """Returns the network of an outer step, i32[]."""
    return jax.random.randint(key, (), 0, config.pool, jnp.int32)


def new_pool(config: Config, model: Model) -> Callable[[Key], Pool | tuple[()]]:
    """Returns the function that initialises the networks, the first `aux`.

    >>> from distilljax.models import mlp
    >>> model = mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2)
    >>> pool = kernel.new_pool(kernel.Config(pool=2), model)(jax.random.key(0))
    """

    def begin(key: Key) -> Pool | tuple[()]:
        if not config.max_age:
            return ()
        ages = jnp.arange(config.pool, dtype=jnp.int32) * config.max_age // config.pool
        each = jax.random.split(key, config.pool)
        return Pool(
            jax.vmap(lambda k: inner.init(model.init(k), _rule(config)))(each), ages
        )

    return begin


def outer_loss(
    config: Config,
    model: Model,
    augmentation: Augmentation | None = None,
    mesh: Mesh | None = None,
    *,
    kernel: Kernel | None = None,
) -> OuterLoss:
    """Returns the loss of the regression; aux, the pool of networks, is unchanged.

    >>> from distilljax.models import mlp
    >>> loss = kernel.outer_loss(kernel.Config(), mlp.make(mlp.Config(), (8, 8, 1), 2))

    Args:
      config: settings; those of outer optimizers are not read.
      model: the network.
      augmentation: of the real batch; None for none.
      mesh: devices that share the images of the real batch.
      kernel: a kernel in place of that of `config.kernel`.
    """
    checks.settings(config, Config, model)
    if kernel is None and config.kernel == "linearised":
        predict = linearised_regression(config, model)
    else:
        between = kernel or KERNELS[config.kernel](model)
        predict = kernel_regression(between, config.ridge)

    def compute(
        distilled: DistilledSet, key: Key, pool: Any, real: RealSet
    ) -> tuple[Array, Any]:
        checks.same_classes(distilled, real)
        network_key, batch_key = jax.random.split(key)
        if config.max_age:
            which = _drawn(config, network_key)
            params = jax.tree.map(lambda x: x[which], pool.states.params)
        else:
            params = model.init(network_key)
        batch = devices.split(sampling.batch(batch_key, real, config.real_batch), mesh)
        images = batch.images
        if augmentation is not None:
            images = augmentation(jax.random.fold_in(batch_key, 1), images)
        batch = batch._replace(images=images)

        def fitted(shared: Any, own: Batch) -> Array:
            params, distilled = shared
            found = predict(params, _support(config, distilled), own.images)
            return LOSSES[config.loss](found, own.labels)

        loss = devices.averaged(fitted, (params, distilled), batch, mesh)
        if config.label_lr and config.margin:
            loss -= config.margin * margin(distilled.label_logits)
        return loss, pool

    return compute


def ageing(config: Config, model: Model) -> After:
    """Returns what follows an outer step: its network is trained, or renewed.

    >>> from distilljax.models import mlp
    >>> after = kernel.ageing(kernel.Config(), mlp.make(mlp.Config(), (8, 8, 1), 2))
    """
    rule, loss_fn = _rule(config), losses.squared_error(model.apply)

    def compute(distilled: DistilledSet, key: Key, pool: Any, real: RealSet) -> Any:
        if not config.max_age:
            return pool
        network_key = jax.random.split(key)[0]
        which = _drawn(config, network_key)
        state = jax.tree.map(lambda x: x[which], pool.states)
        batch = _support(config, distilled)
        age = pool.ages[which] + config.network_steps
        chunk = inner.cache_chunk(len(batch.images), state.params)
        new = jax.random.fold_in(network_key, 1)

        def train() -> InnerState:
            return varying.fori_loop(
                0,
                config.network_steps,
                lambda _, state: inner.step(loss_fn, rule, state, batch, chunk=chunk)[0],
                state,
            )

        state, age = varying.cond(
            age > config.max_age,
            lambda: (inner.init(model.init(new), rule), jnp.zeros_like(age)),
            lambda: (train(), age),
        )
        states = jax.tree.map(lambda all, one: all.at[which].set(one), pool.states, state)
        return Pool(states, pool.ages.at[which].set(age))

    return compute


def make(
    config: Config,
    model: Model,
    parametrisation: Parametrisation = DIRECT,
    *,
    optimizers: Optimizers | None = None,
    augmentation: Augmentation | None = None,
    mesh: Mesh | None = None,
    kernel: Kernel | None = None,
) -> Method:
    """Returns the method; its source is a `RealSet`.

    >>> from distilljax.models import mlp
    >>> method = kernel.make(kernel.Config(), mlp.make(mlp.Config(), (8, 8, 1), 2))

    Args:
      config: settings.
      model: the network.
      parametrisation: how the images are stored.
      optimizers: in place of those of `config`.
      augmentation: of the real batch; None for none.
      mesh: devices that share the images of the real batch.
      kernel: a kernel in place of that of `config.kernel`.
    """
    checks.settings(config, Config, model)

    def check(key: Key, distilled: DistilledSet) -> None:
        if config.kernel in ("features", "linearised") and kernel is None:
            checks.network(model, key, distilled, "features")
        checks.network(model, key, distilled)

    rules = method_rules(
        "kernel",
        optimizers,
        images=_descent(config, config.image_lr),
        label_logits=_descent(config, config.label_lr),
    )
    method = from_outer_loss(
        outer_loss(config, model, augmentation, mesh, kernel=kernel),
        rules,
        new_pool(config, model),
        after=ageing(config, model),
        parametrisation=parametrisation,
        check=check,
    )

    def init(key: Key, distilled: DistilledSet) -> OuterState:
        labels = jax.nn.softmax(distilled.label_logits)
        targets = config.label_scale * (labels - 1 / labels.shape[1])
        return method.init(key, distilled._replace(label_logits=targets))

    return method._replace(init=init)


def _descent(config: Config, rate: float) -> Descent:
    if rate and config.cosine_steps is not None:
        schedule = optax.cosine_decay_schedule(rate, config.cosine_steps, alpha=0.1)
        return Descent(config.outer, schedule)
    return Descent(config.outer, rate)


def _products(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b.T, precision=_PRECISE)
