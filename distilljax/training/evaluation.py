"""Training fresh networks on a set and testing them: many seeds, one dispatch."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from distilljax import checks, devices, exported, platforms, varying
from distilljax.core import distilled as sets
from distilljax.core import inner, losses, sampling
from distilljax.core.augment import augment
from distilljax.training import protocols
from distilljax.training.protocols import (
    NETWORKS,
    PROTOCOLS,
    EvaluationProtocol,
    optimizer,
)
from distilljax.types import (
    Array,
    Batch,
    DistilledSet,
    InputError,
    Key,
    LossFn,
    Model,
    Params,
    RealSet,
)

__all__ = [
    "NETWORKS",
    "PROTOCOLS",
    "Centred",
    "EvaluationProtocol",
    "as_batch",
    "fresh_accuracy",
    "network",
    "optimizer",
    "predict",
    "train",
]

Labels = Literal["own", "hard"]


def as_batch(
    distilled: DistilledSet,
    protocol: EvaluationProtocol,
    *,
    targets: Array | None = None,
    labels: Labels = "own",
) -> Batch:
    """Returns the whole set as one batch with the labels that the protocol's loss reads.

    Cross-entropy reads distributions, softmax(label_logits); a squared error reads
    `targets` where the set has them, else the distributions less 1/k.

    >>> from distilljax.core import distilled
    >>> images = jnp.zeros((2, 8, 8, 1))
    >>> made = distilled.create(images, np.array([0, 1]), 2, learning_rate=0.1)
    >>> found = evaluation.as_batch(made, evaluation.PROTOCOLS["study"])
    >>> jnp.round(found.labels, 3).tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    Args:
      distilled: the set.
      protocol: only its loss counts.
      targets: f32[n, k], learned real-valued labels (`io.Artefact.targets`).
      labels: `hard` puts in place of the set's own labels the most likely class of each.

    Raises:
      InputError: unknown labels; targets, which are no distributions, for cross-entropy.
    """
    if labels not in get_args(Labels):
        raise InputError(f"labels={labels!r}: choose {' or '.join(get_args(Labels))}")
    checks.fields_of_set(distilled)
    protocols.check(protocol)
    squared = protocol.loss != "cross_entropy"
    k = distilled.label_logits.shape[1]
    if labels == "own" and targets is not None:
        if not squared:
            raise InputError(
                "labels=own: those of this set are learned real-valued targets, no "
                "distributions, and cross-entropy cannot read them; choose labels=hard, or "
                "a protocol with a squared error (frepo, rcig, rfad)"
            )
        return Batch(distilled.images, jnp.asarray(targets, jnp.float32))
    if labels == "hard":
        classes = sets.hard_labels(distilled)
        batch = Batch(distilled.images, jax.nn.one_hot(classes, k, dtype=jnp.float32))
    else:
        batch = sets.as_batch(distilled)
    return batch._replace(labels=batch.labels - 1 / k) if squared else batch


def _running_mean(decay: float) -> optax.GradientTransformation:
    """A rule that leaves updates alone and keeps the mean of the weights after them."""

    def init(params: Params) -> optax.EmaState:
        return optax.EmaState(jnp.int32(0), jax.tree.map(jnp.zeros_like, params))

    def update(updates: Params, state: optax.EmaState, params: Params | None = None) -> Any:
        new = optax.apply_updates(params, updates)
        ema = jax.tree.map(lambda m, w: decay * m + (1 - decay) * w, state.ema, new)
        return updates, optax.EmaState(state.count + 1, ema)

    return optax.GradientTransformation(init, update)


def _loss(model: Model, protocol: EvaluationProtocol) -> LossFn:
    """Returns the loss of the protocol; a squared error reads labels already scaled."""
    if protocol.loss == "cross_entropy":
        return losses.cross_entropy(model.apply)
    if protocol.loss == "squared_error":
        return losses.squared_error(model.apply)

    def mean_squared_error(params: Params, batch: Batch) -> Array:
        outputs = model.apply(params, batch.images)
        checks.label_rows(outputs, batch.labels)
        square = jnp.square(outputs - batch.labels)
        return square.mean() / protocol.label_scale**2

    return mean_squared_error


@exported.named
class Centred(NamedTuple):
    """The weights of a network of which the output at the start is subtracted.

    Attributes:
      start: parameters at the start.
      now: parameters after training.
    """

    start: Params
    now: Params


def network(model: Model, protocol: EvaluationProtocol) -> Model:
    """Returns what a protocol trains and tests: the model, or one centred at its start.

    The weights of the latter are `Centred`; its features are those of the model.

    >>> from distilljax.models import mlp
    >>> model = mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2)
    >>> evaluation.network(model, evaluation.PROTOCOLS["study"]) is model
    True
    """
    checks.model(model)
    protocols.check(protocol)
    if not protocol.centre:
        return model

    def init(key: Key) -> Centred:
        params = model.init(key)
        return Centred(params, params)

    def apply(params: Centred, images: Array) -> Array:
        return model.apply(params.now, images) - model.apply(params.start, images)

    return Model(init, lambda params, x: model.features(params.now, x), apply)


def _prepared(
    model: Model, start: Params, data: Batch | RealSet, protocol: EvaluationProtocol
) -> tuple[int, Callable[[Array | None], Batch]]:
    """Returns the number of images and (positions, or None for all) -> batch."""
    if not isinstance(data, RealSet):
        checks.batch(data)
    num = data.labels.shape[0]
    squared = protocol.loss != "cross_entropy"
    if isinstance(data, RealSet):
        if protocol.flips and protocol.centre:
            raise InputError(
                "flips and centre: not together on a real set; train on a batch"
            )
        first = predict(model.apply, start, data) if protocol.centre else None

        def take(where: Array | None) -> Batch:
            where = jnp.arange(num * (1 + protocol.flips)) if where is None else where
            batch = sampling.take(data, where % num if protocol.flips else where)
            images, labels = batch
            if protocol.flips:
                mirrored = (where >= num)[:, None, None, None]
                images = jnp.where(mirrored, images[:, :, ::-1], images)
            if squared:
                labels = protocol.label_scale * (labels - 1 / labels.shape[-1])
            return Batch(images, labels if first is None else labels + first[where])

        return num * (1 + protocol.flips), take

    images, labels = data
    if squared:
        labels = protocol.label_scale * labels
    if protocol.flips:
        images = jnp.concatenate([images, images[:, :, ::-1]])
        labels = jnp.concatenate([labels, labels])
    if protocol.centre:
        outputs = model.apply(start, images)
        checks.label_rows(outputs, labels)
        labels = labels + outputs
    batch = Batch(images, labels)
    return num * (
        1 + protocol.flips
    ), lambda where: batch if where is None else jax.tree.map(lambda x: x[where], batch)


def train(
    key: Key,
    model: Model,
    data: Batch | RealSet,
    protocol: EvaluationProtocol,
    *,
    learning_rate: Array | float = 0.01,
    validation: RealSet | None = None,
    start: Params | None = None,
) -> Params:
    """A fresh network, trained on `data`.

    >>> from distilljax.models import mlp
    >>> from distilljax.types import Batch
    >>> model = mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2)
    >>> images = jnp.array([1.0, -1.0]).reshape(2, 1, 1, 1) * jnp.ones((1, 2, 2, 1))
    >>> two = Batch(images, jnp.eye(2))
    >>> protocol = evaluation.EvaluationProtocol(steps=50, lr=0.1)
    >>> params = evaluation.train(jax.random.key(0), model, two, protocol)
    >>> model.apply(params, two.images).argmax(1).tolist()
    [0, 1]

    Args:
      key: for the initial weights, the order of the batches and the augmentation.
      model: the network.
      data: a small set as one batch with the labels that the loss reads (`as_batch`), or
        a real set from which batches are drawn. The batch size is lowered to split the set
        evenly, as in 250 + 250 for 500 images in batches of at most 256.
      protocol: how to train.
      learning_rate: the rate where the protocol leaves it to the set.
      validation: held-out images, where the protocol looks at some (`check_every`).
      start: initial weights, in place of those that `key` gives.

    Returns:
      The weights of `network(model, protocol)`: those of the model, or `Centred` ones.

    Raises:
      InputError: labels that are not a row for each image, images that are not
        preprocessed; a protocol that looks at held-out images, and none are given.
    """
    checks.one_key(key)
    checks.model(model)
    protocols.check(protocol)
    init_key, order_key, augment_key = jax.random.split(key, 3)
    start = model.init(init_key) if start is None else start
    num, take = _prepared(model, start, data, protocol)
    num_steps = protocol.num_steps(num)
    size, per_epoch = sampling.even_batches(num, protocol.batch)

    if size == num:
        positions = jnp.zeros((num_steps, 0), jnp.int32)
    else:
        positions = sampling.epochs(order_key, num, size, num_steps, per_epoch)

    def sample_batch(given: tuple[Array, Key]) -> Batch:
        where, key = given
        batch = take(where if size < num else None)
        images = augment(
            key, batch.images, strategy=protocol.augment, each=protocol.augment_each
        )
        return batch._replace(images=images)

    rule = optimizer(protocol, num_steps, learning_rate)
    if protocol.average:
        rule = optax.chain(rule, _running_mean(protocol.average))
    loss_fn = _loss(model, protocol)

    def advance(state: inner.InnerState, inputs: Any) -> inner.InnerState:
        chunk = inner.cache_chunk(size, start)
        return inner.unroll(
            loss_fn, rule, sample_batch, state, inputs, remat="none", chunk=chunk
        )[0]

    def tested(state: inner.InnerState) -> Params:
        params = state.params
        if protocol.average:
            count, ema = state.opt_state[1]
            share = 1 - protocol.average ** jnp.maximum(count, 1)
            params = jax.tree.map(
                lambda m, w: jnp.where(count > 0, m / share, w), ema, params
            )
        return Centred(start, params) if protocol.centre else params

    state = inner.init(start, rule)
    inputs = (positions, jax.random.split(augment_key, num_steps))
    if protocol.check_every is None:
        return tested(advance(state, inputs))
    if validation is None:
        raise InputError(
            "the protocol looks at held-out images while it trains (check_every="
            f"{protocol.check_every}); give some as validation"
        )
    apply = network(model, protocol).apply

    def score(state: inner.InnerState) -> Array:
        return losses.accuracy(predict(apply, tested(state), validation), validation.labels)

    return _best(state, inputs, advance, score, tested, protocol, num_steps)


class _Looks(NamedTuple):
    """A training of which the best look counts."""

    state: inner.InnerState
    step: Array  # i32[]
    best: Params
    best_score: Array  # f32[]
    best_step: Array  # i32[]


def _best(
    state: inner.InnerState,
    inputs: Any,
    advance: Callable[[inner.InnerState, Any], inner.InnerState],
    score: Callable[[inner.InnerState], Array],
    tested: Callable[[inner.InnerState], Params],
    protocol: EvaluationProtocol,
    num_steps: int,
) -> Params:
    """Trains until no look for `patience` steps was better; returns the best weights."""
    every = protocol.check_every or num_steps
    if num_steps % every:
        raise InputError(f"check_every={every}: does not divide the {num_steps} steps")

    def body(looks: _Looks) -> _Looks:
        part = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, looks.step, every), inputs
        )
        state, step = advance(looks.state, part), looks.step + every
        found = score(state)
        better = found > looks.best_score
        best = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), tested(state), looks.best
        )
        return _Looks(
            state,
            step,
            best,
            jnp.maximum(found, looks.best_score),
            jnp.where(better, step, looks.best_step),
        )

    zero = jnp.int32(0)
    first = _Looks(state, zero, tested(state), score(state), zero)
    return varying.while_loop(
        lambda looks: (
            (looks.step < num_steps) & (looks.step < looks.best_step + protocol.patience)
        ),
        body,
        first,
    ).best


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

    >>> from distilljax import data
    >>> from distilljax.models import mlp
    >>> model = mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2)
    >>> images = np.arange(16, dtype=np.uint8).reshape(4, 2, 2, 1)
    >>> split = data.Split(images, np.arange(4) % 2)
    >>> real = data.on_device(split, data.Identity(), num_classes=2)
    >>> evaluation.predict(model.apply, model.init(jax.random.key(0)), real).shape
    (4, 2)
    """
    checks.real_set(real)
    num = real.labels.shape[0]
    if chunk is None:
        chunk = 32 if platforms.on_cpu() else 500
    chunk = min(checks.positive(chunk, "chunk"), num)
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
    chunk: int | None = None,
    validation: RealSet | None = None,
    mesh: Mesh | None = None,
) -> Array:
    """Test accuracy of one fresh network for each key, trained on `data`.

    >>> from distilljax import data
    >>> from distilljax.models import mlp
    >>> model = mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2)
    >>> images = np.arange(16, dtype=np.uint8).reshape(4, 2, 2, 1)
    >>> split = data.Split(images, np.arange(4) % 2)
    >>> real = data.on_device(split, data.Identity(), num_classes=2)
    >>> keys = jax.random.split(jax.random.key(0), 3)  # three networks
    >>> protocol = evaluation.EvaluationProtocol(steps=5)
    >>> evaluation.fresh_accuracy(keys, model, real, real, protocol).shape
    (3,)

    Args:
      keys: key[s], one a network.
      model: the network.
      data: what to train on, see `train`.
      test: what to test on.
      protocol: how to train.
      learning_rate: see `train`; one for all networks.
      stacked: `data` has a leading axis s, one set for each network.
      together: how many networks train side by side; the others wait their turn.
      chunk: test images that each of them predicts at a time, see `predict`.
      validation: see `train`.
      mesh: devices that share the networks, see `distilljax.devices`; None for one.

    Returns:
      f32[s], in 0..1.

    Raises:
      InputError: see `train`; a test set of another number of classes than the network.
    """
    keys = checks.several_keys(keys)
    apply = network(model, protocol).apply

    def one(given: tuple[Key, Any]) -> Array:
        key, own = given
        params = train(
            key,
            model,
            own if stacked else data,
            protocol,
            learning_rate=learning_rate,
            validation=validation,
        )
        logits = predict(apply, params, test, chunk=chunk)
        checks.outputs_of_classes(logits, test)
        return losses.accuracy(logits, test.labels)

    given = (keys, data if stacked else None)
    return devices.spread(one, given, mesh, together=together)
