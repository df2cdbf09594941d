"""Pools of reference networks trained on real data, many in one program.

Yang et al. 2024 (arXiv 2406.04284, section 4.1) compare networks trained on a distilled set
with networks trained on random subsets of the real data, and with networks stopped early on
all of it. A pool holds the test predictions of its networks, for `agreement.matched`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from distilljax import checks, devices, exported, varying
from distilljax.analysis import agreement
from distilljax.analysis.agreement import Match
from distilljax.core import inner, losses, sampling
from distilljax.core.inner import InnerState
from distilljax.core.scan import scan
from distilljax.training import evaluation
from distilljax.types import Array, InputError, Key, Model, Params, RealSet


class Subsets(NamedTuple):
    """Random subsets of a labelled set, padded to the largest, on the host.

    Attributes:
      positions: i32[s, m], each row the subset, padded with zeros.
      sizes: i32[s], sizes of the subsets; m is the largest.
      fractions: f64[s], fraction of each class.
    """

    positions: np.ndarray
    sizes: np.ndarray
    fractions: np.ndarray


@exported.named
class Predicted(NamedTuple):
    """Predictions of networks for the test images.

    Attributes:
      classes: u8[..., n], or i32 for more than 256 classes.
      finite: bool[...], whether all logits of a network are finite.
    """

    classes: Array
    finite: Array


def subsets(labels: np.ndarray, num: int, low: float, high: float, seed: int) -> Subsets:
    """Samples random subsets with the same fraction of every class.

    The fraction is uniform in [low, high]. Each class contributes the nearest whole number
    of images, at least one, without replacement. A subset depends on its index and the seed
    alone.

    Args:
      labels: i[n], with every class of 0..k-1.
      num: number of subsets, s.
      low: minimum fraction, above 0.
      high: maximum fraction, at most 1.
      seed: random seed.

    Raises:
      InputError: invalid fractions, or no subset.
    """
    if not (0 < low <= high <= 1 and num > 0):
        raise InputError(
            f"{num} subsets with shares {low:g}..{high:g} of each class: expected at least "
            "one subset and 0 < low <= high <= 1"
        )
    of_class = [np.flatnonzero(labels == j) for j in range(int(labels.max()) + 1)]
    chosen, fractions = [], []
    for number in range(num):
        rng = np.random.default_rng([seed, number])
        fractions.append(rng.uniform(low, high))
        chosen.append(
            np.concatenate(
                [
                    rng.choice(where, max(1, round(fractions[-1] * len(where))), False)
                    for where in of_class
                ]
            )
        )
    sizes = np.array([len(one) for one in chosen], np.int32)
    positions = np.zeros((num, sizes.max()), np.int32)
    for row, one in zip(positions, chosen, strict=True):
        row[: len(one)] = one
    return Subsets(positions, sizes, np.array(fractions))


def order(key: Key, epoch: Array | int, positions: Array, size: Array | int) -> Array:
    """Returns the order in which `train_on_subset` visits a subset in an epoch.

    Args:
      key: key of the network.
      epoch: i32[], from 0.
      positions: i32[m], positions of the subset, then padding.
      size: i32[], size of the subset.

    Returns:
      i32[m], whose first `size` entries are a permutation of the subset.
    """
    _, order_key = jax.random.split(key)
    most = positions.shape[0]
    scores = jax.random.bits(jax.random.fold_in(order_key, epoch), (most,), jnp.uint32)
    return positions[jnp.lexsort((scores, jnp.arange(most) >= size))]


def train_on_subset(
    key: Key,
    model: Model,
    real: RealSet,
    positions: Array,
    size: Array,
    *,
    epochs: int,
    batch: int,
    optimizer: optax.GradientTransformation,
    chunk: int | None = None,
) -> Params:
    """Trains a new network on a subset of a real set.

    The size may be traced: one program serves subsets of all sizes, at a cost proportional
    to the size. An epoch has ceil(size / batch) steps on a new permutation of the subset,
    divided into batches of sizes as equal as possible, so that no image is left out. A step
    costs its number of images rounded up to whole chunks.

    Args:
      key: PRNG key of the initial weights and the order of the images.
      model: the network; it must process images independently.
      real: the real set.
      positions: i32[m], positions of the subset, then padding.
      size: i32[], size of the subset, at most m; 0 for no training.
      epochs: number of epochs.
      batch: maximum batch size.
      optimizer: optax optimizer.
      chunk: images whose gradient is computed at a time; None for a whole batch.
    """
    checks.one_key(key)
    most = positions.shape[0]
    batch = min(batch, most)
    chunk = min(chunk or batch, batch)
    init_key, _ = jax.random.split(key)
    each = losses.cross_entropy(model.apply).each

    def gradient(params: Params, seen: Array, first: Array, last: Array) -> Params:
        """Returns the gradient of the mean loss on seen[first:last]."""

        def add(i: Array, total: Params) -> Params:
            places = first + i * chunk + jnp.arange(chunk)
            weights = (places < last) / (last - first)
            images = sampling.take(real, seen[jnp.minimum(places, most - 1)])

            def loss(params: Params) -> Array:
                return weights @ each(params, images)

            return jax.tree.map(jnp.add, total, varying.grad(loss)(params))

        nothing = jax.tree.map(jnp.zeros_like, params)
        return varying.fori_loop(0, -(-(last - first) // chunk), add, nothing)

    num_batches = -(-size // batch)

    def one_epoch(epoch: Array, state: InnerState) -> InnerState:
        seen = order(key, epoch, positions, size)

        def step(number: Array, state: InnerState) -> InnerState:
            ends = (number + jnp.arange(2)) * size // num_batches
            grads = gradient(state.params, seen, *ends)
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            return InnerState(optax.apply_updates(state.params, updates), opt_state)

        return varying.fori_loop(0, num_batches, step, state)

    state = inner.init(model.init(init_key), optimizer)
    return varying.fori_loop(0, epochs, one_epoch, state).params


def subset_trained(
    keys: Key,
    model: Model,
    real: RealSet,
    positions: Array,
    sizes: Array,
    test: RealSet,
    *,
    epochs: int,
    batch: int,
    optimizer: optax.GradientTransformation,
    chunk: int | None = None,
    together: int = 1,
    mesh: Mesh | None = None,
) -> Predicted:
    """Returns predictions of one new network for each subset, see `train_on_subset`.

    Networks that are vmapped together take the time of their largest subset.

    Args:
      keys: key[s], one per network.
      model: the network.
      real: the real set.
      positions: i32[s, m].
      sizes: i32[s].
      test: the test set, n images.
      epochs: number of epochs.
      batch: maximum batch size.
      optimizer: optax optimizer.
      chunk: see `train_on_subset` and `predicted`.
      together: networks vmapped at a time (`batch_size` of `jax.lax.map`).
      mesh: devices that share the networks, see `distilljax.devices`; None for one.

    Returns:
      classes [s, n], finite [s].
    """
    keys = checks.several_keys(keys)

    def one(given: tuple[Key, Array, Array]) -> Predicted:
        key, where, size = given
        params = train_on_subset(
            key,
            model,
            real,
            where,
            size,
            epochs=epochs,
            batch=batch,
            optimizer=optimizer,
            chunk=chunk,
        )
        return predicted(model, params, test, chunk)

    return devices.spread(
        one, (keys, positions, sizes), mesh, together=together, costs=sizes
    )


def early_stopped(
    keys: Key,
    model: Model,
    real: RealSet,
    test: RealSet,
    *,
    iterations: int,
    every: int,
    batch: int,
    optimizer: optax.GradientTransformation,
    chunk: int | None = None,
    together: int = 1,
    mesh: Mesh | None = None,
) -> Predicted:
    """Returns predictions of networks at many iterations of training on a whole real set.

    Batches split permutations evenly, see `sampling.even_batches`. Predictions do not
    affect the training: the run at iteration i equals a run of i iterations.

    Args:
      keys: key[s], one per run.
      model: the network.
      real: the training set.
      test: the test set, n images.
      iterations: steps of each run, rounded down to a multiple of `every`.
      every: steps between predictions.
      batch: maximum batch size.
      optimizer: optax optimizer.
      chunk: see `predicted`.
      together: networks vmapped at a time (`batch_size` of `jax.lax.map`).
      mesh: devices that share the networks, see `distilljax.devices`; None for one.

    Returns:
      classes [s, t, n] and finite [s, t] after `every`, 2 `every`, ... iterations, t =
      iterations // every.

    Raises:
      InputError: `every` exceeds `iterations`.
    """
    keys = checks.several_keys(keys)
    num_looks = iterations // every
    if not num_looks:
        raise InputError(
            f"no prediction: every={every} is more than iterations={iterations}; lower it"
        )
    num = real.labels.shape[0]
    size, per_epoch = sampling.even_batches(num, batch)
    loss_fn = losses.cross_entropy(model.apply)

    def one(key: Key) -> Predicted:
        init_key, order_key = jax.random.split(key)
        order = sampling.epochs(order_key, num, size, num_looks * every, per_epoch)

        def advance(state: InnerState, order: Array) -> tuple[InnerState, Predicted]:
            state, _ = inner.unroll(
                loss_fn,
                optimizer,
                lambda where: sampling.take(real, where),
                state,
                order,
                remat="none",
                chunk=inner.cache_chunk(size, state.params),
            )
            return state, predicted(model, state.params, test, chunk)

        state = inner.init(model.init(init_key), optimizer)
        blocks = order.reshape(num_looks, every, size)
        return scan(advance, state, blocks, remat="none")[1]

    return devices.spread(one, keys, mesh, together=together)


def predicted(
    model: Model, params: Params, test: RealSet, chunk: int | None = None
) -> Predicted:
    """Returns the predictions of a network for the test images, classes [n], finite [].

    `chunk` images are computed at a time, see `evaluation.predict`.
    """
    logits = evaluation.predict(model.apply, params, test, chunk=chunk)
    dtype = jnp.uint8 if logits.shape[-1] <= 256 else jnp.int32
    return Predicted(jnp.argmax(logits, axis=-1).astype(dtype), jnp.isfinite(logits).all())


class MeanError(NamedTuple):
    """Error of a mean over networks due to the choice of the pool, on the host.

    Attributes:
      error: standard error; NaN if a window has one run only.
      num_runs: runs of the pool in the windows.
    """

    error: float
    num_runs: int


def mean_error(matches: Sequence[Match], groups: np.ndarray) -> MeanError:
    """Returns the error of a mean of matched agreements due to the choice of the pool.

    The matched networks share the pool, so their errors are correlated. Jackknife over
    runs: sqrt((g - 1) / g sum_r (mean_-r - mean of these)^2), with mean_-r the mean over
    networks without the members of run r. Windows are otherwise unchanged.

    Args:
      matches: matches of several networks with one pool.
      groups: i[m], the training run of each member of the pool.
    """
    runs_of = [groups[match.window.members] for match in matches]
    runs = np.unique(np.concatenate(runs_of))
    without = np.zeros((len(runs), len(matches)))
    for column, (match, those) in enumerate(zip(matches, runs_of, strict=True)):
        without[:, column] = match.estimate.value
        for run in np.unique(those):
            keep = those != run
            if not keep.any():
                return MeanError(math.nan, len(runs))
            estimate = agreement.at_accuracy(
                match.accuracies[keep], match.agreements[keep], match.accuracy
            )
            without[runs == run, column] = estimate.value
    num = len(runs)
    return MeanError(math.sqrt((num - 1) * np.var(without.mean(axis=1))), num)
