"""Leave-one-out training: the effect of each training image on the test losses.

One compiled program serves all networks: the image left out has weight zero in a mean loss,
so that all shapes are those of the whole set. `leave_one_out` trains all networks in one
dispatch; `pairs`, `retrain` and `arrange` are its steps, for callers that save progress in
between.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from distilljax import checks, devices, exported
from distilljax.analysis.statistics import std_bias
from distilljax.core import inner, losses, sampling
from distilljax.training import protocols
from distilljax.training.evaluation import EvaluationProtocol, optimizer, predict
from distilljax.types import Array, Batch, Estimate, InputError, Key, Model, Params, RealSet


@exported.named
class Retrained(NamedTuple):
    """Results of trained networks on the test set.

    Attributes:
      losses: f32[..., t], cross-entropy of each test image.
      predictions: i32[..., t], predicted class of each test image.
      accuracy: f32[...], in [0, 1].
    """

    losses: Array
    predictions: Array
    accuracy: Array


@exported.named
class LeaveOneOut(NamedTuple):
    """Results for s initialisations, trained on n images and on all but one of them.

    Attributes:
      without: [s, n, ...], [i, j]: seed i, image j left out.
      whole: [s, ...], trained on all images.
    """

    without: Retrained
    whole: Retrained


def pairs(keys: Key, num_images: int) -> tuple[Key, Array]:
    """Lists the networks of a leave-one-out study, seed by seed.

    Args:
      keys: key[s], one per seed.
      num_images: number of images in the set, n.

    Returns:
      key[s * (n + 1)], and i32[s * (n + 1)], the image left out: for each seed -1, which
      leaves nothing out, then 0..n-1.
    """
    keys = checks.several_keys(keys)
    num_seeds = keys.shape[0]
    left_out = jnp.tile(jnp.arange(-1, num_images, dtype=jnp.int32), num_seeds)
    return jnp.repeat(keys, num_images + 1), left_out


def arrange(retrained: Retrained, num_seeds: int) -> LeaveOneOut:
    """Arranges results of `pairs`, leading axis s * (n + 1), by seed and image.

    Raises:
      InputError: a number of networks that is not s * (n + 1) for any n.
    """
    num = retrained.accuracy.shape[0]
    if num_seeds < 1 or num % num_seeds:
        raise InputError(
            f"{num} networks cannot be those of {num_seeds} seeds: each seed has as many, "
            "one a left-out image and one for the whole set"
        )
    grid = jax.tree.map(lambda x: x.reshape(num_seeds, -1, *x.shape[1:]), retrained)
    return LeaveOneOut(
        jax.tree.map(lambda x: x[:, 1:], grid), jax.tree.map(lambda x: x[:, 0], grid)
    )


def retrain(
    keys: Key,
    left_out: Array,
    model: Model,
    batch: Batch,
    test: RealSet,
    protocol: EvaluationProtocol,
    *,
    learning_rate: Array | float = 0.01,
    together: int = 1,
    chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Retrained:
    """Trains and tests one network for each pair of a key and a left-out image.

    See `retrain_on`. With nothing left out it equals `evaluation.train` with the same key.

    Args:
      keys: key[m]; equal keys start from equal weights.
      left_out: i32[m], positions in the set; -1 leaves nothing out. Calls with
        equal m share a compiled program.
      model: the network.
      batch: the training set, n images.
      test: the test set, t images.
      protocol: training protocol, with full batches and without augmentation.
      learning_rate: learning rate if the protocol leaves it to the set.
      together: networks vmapped at a time (`batch_size` of `jax.lax.map`). Results differ
        by rounding at most.
      chunk: test images that each of them predicts at a time, see `evaluation.predict`.
      mesh: devices that share the networks, see `distilljax.devices`; None for one.

    Returns:
      Leading axis m.

    Raises:
      InputError: a protocol with minibatches or augmentation, whose random choices leaving
        an image out would change; one with another loss, mirror images, a mean of the
        weights or looks at held-out images; shapes that do not fit; fewer than two images;
        a position that is not there (where it is not traced).
    """
    checks.batch(batch)
    num = batch.labels.shape[0]
    left_out = checks.indices(left_out, num, "left_out", low=-1)
    keys = checks.several_keys(keys)
    if keys.shape != left_out.shape:
        raise InputError(
            f"keys {list(keys.shape)}, left_out {list(left_out.shape)}: expected [m], [m]"
        )
    return retrain_on(
        keys,
        jnp.arange(num) != left_out[:, None],
        model,
        batch,
        test,
        protocol,
        learning_rate=learning_rate,
        together=together,
        chunk=chunk,
        mesh=mesh,
    )


def retrain_on(
    keys: Key,
    members: Array,
    model: Model,
    batch: Batch,
    test: RealSet,
    protocol: EvaluationProtocol,
    *,
    learning_rate: Array | float = 0.01,
    together: int = 1,
    chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Retrained:
    """Trains and tests one network for each pair of a key and a subset of the images.

    Every step minimises sum_i w_i l_i / sum_i w_i over the whole set, w_i = 1 for the
    images of the subset and 0 for the others. This equals training on the subset if the
    network processes images independently, as all of `distilljax.models` do.

    Args:
      keys: key[m]; equal keys start from equal weights.
      members: bool[m, n], the images of each subset, at least one. Calls with equal m share
        a compiled program.
      model: see `retrain`, as all that follow.
      batch: the whole set, n images.
      test: the test set, t images.
      protocol: training protocol, with full batches and without augmentation.
      learning_rate: learning rate if the protocol leaves it to the set.
      together: networks vmapped at a time.
      chunk: test images that each of them predicts at a time.
      mesh: devices that share the networks.

    Raises:
      InputError: see `retrain`.
    """
    checks.model(model)
    checks.batch(batch)
    protocols.check(protocol)
    num = batch.labels.shape[0]
    keys = checks.several_keys(keys)
    if members.shape != (keys.shape[0], num):
        raise InputError(
            f"keys {list(keys.shape)}, members {list(members.shape)}: expected [m] and "
            f"[m, {num}]"
        )
    if num < 2:
        raise InputError(
            f"images {list(batch.images.shape)}, labels {list(batch.labels.shape)}: "
            "expected [n, h, w, c] and [n, k], n at least 2, so that one can be left out"
        )
    if sampling.even_batches(num, protocol.batch)[0] < num:
        raise InputError(
            f"batch={protocol.batch}: leaving an image out would change the minibatches of "
            f"all others; give a protocol that takes all {num} images in every step"
        )
    if protocol.augment:
        raise InputError(
            f"augment={protocol.augment}: its random choices would hide the effect of one "
            "image; give a protocol without augmentation"
        )
    for name in ("loss", "flips", "average", "check_every"):
        value = getattr(protocol, name)
        if value != getattr(EvaluationProtocol, name):
            raise InputError(
                f"{name}={value}: here networks learn by cross-entropy, from the images "
                "alone, and their last weights are tested; give a protocol without it"
            )
    num_steps = protocol.num_steps(num)
    rule = optimizer(protocol, num_steps, learning_rate)

    loss_fn = losses.cross_entropy(model.apply)

    def each(params: Params, weighted: tuple[Batch, Array]) -> Array:
        given, weights = weighted
        return weights * loss_fn.each(params, given)

    def one(given: tuple[Key, Array]) -> Retrained:
        key, member = given
        present = member.astype(batch.labels.dtype)
        weights = present / present.mean()
        init_key, _, _ = jax.random.split(key, 3)  # as in `evaluation.train`
        params = model.init(init_key)
        state, _ = inner.unroll(
            losses.Mean(each),
            rule,
            lambda _: (batch, weights),
            inner.init(params, rule),
            jnp.arange(num_steps),
            remat="none",
            chunk=inner.cache_chunk(num, params),
        )
        logits = predict(model.apply, state.params, test, chunk=chunk)
        checks.outputs_of_classes(logits, test)
        tested = optax.losses.softmax_cross_entropy_with_integer_labels(logits, test.labels)
        predictions = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return Retrained(
            tested, predictions, (predictions == test.labels).mean(dtype=jnp.float32)
        )

    return devices.spread(one, (keys, members), mesh, together=together)


def leave_one_out(
    keys: Key,
    model: Model,
    batch: Batch,
    test: RealSet,
    protocol: EvaluationProtocol,
    *,
    learning_rate: Array | float = 0.01,
    together: int = 1,
    chunk: int | None = None,
    mesh: Mesh | None = None,
) -> LeaveOneOut:
    """Trains networks without each image and with all images from every initialisation.

    See `retrain` for details. Yang et al. 2024 (arXiv 2406.04284, section 5.2) use one
    initialisation; several separate influence from chance, see `reliability`.

    Args:
      keys: key[s], one per initialisation.
      model: the network.
      batch: the training set, n images.
      test: the test set, t images.
      protocol: training protocol.
      learning_rate: see `retrain`.
      together: see `retrain`.
      chunk: see `retrain`.
      mesh: see `retrain`.

    Returns:
      The results, about 8 s (n + 1) t bytes.

    Raises:
      InputError: see `retrain`.
    """
    checks.batch(batch)
    keys, num = checks.several_keys(keys), batch.labels.shape[0]
    retrained = retrain(
        *pairs(keys, num),
        model,
        batch,
        test,
        protocol,
        learning_rate=learning_rate,
        together=together,
        chunk=chunk,
        mesh=mesh,
    )
    return arrange(retrained, keys.shape[0])


def influence(without: Array, whole: Array) -> Array:
    """Returns test loss without a training image minus test loss with it.

    Positive where the image helped (Yang et al. 2024, arXiv 2406.04284, section 5.2).

    Args:
      without: f32[..., n, t], losses of the networks trained without one image.
      whole: f32[..., t], losses of the networks trained on all images.

    Returns:
      f32[..., n, t].

    Raises:
      InputError: incompatible shapes.
    """
    if without.ndim < 2 or (*without.shape[:-2], without.shape[-1]) != whole.shape:
        raise InputError(
            f"without {list(without.shape)}, whole {list(whole.shape)}: expected "
            "[..., n, t] and [..., t]"
        )
    return without - whole[..., None, :]


def mean_influence(influences: Array) -> Estimate:
    """Returns the mean of f32[s, n, t] over initialisations; its probes are the s seeds."""
    num = influences.shape[0]
    error = jnp.std(influences, axis=0, ddof=1) / jnp.sqrt(num)
    return Estimate(influences.mean(axis=0), error, jnp.int32(num), "influence")


def noise_floor(whole: Array) -> Array:
    """Returns how much each test loss varies with the initialisation alone.

    Args:
      whole: f32[s, t], losses of networks trained on the same set from s seeds.

    Returns:
      f32[t], the standard deviation over seeds, without bias for normal losses: that of a
      few seeds is on average too small, 0.886 times for three. A smaller influence is
      below the effect of the initial weights.

    Raises:
      InputError: fewer than two seeds, or a wrong shape.
    """
    if whole.ndim != 2 or whole.shape[0] < 2:
        raise InputError(
            f"losses {list(whole.shape)}: expected [s, t] with s at least 2, since a noise "
            "floor needs networks from several seeds"
        )
    return jnp.std(whole, axis=0, ddof=1) / std_bias(whole.shape[0])


def over_noise(influences: Array, whole: Array) -> Estimate:
    """Returns the mean absolute influence of single seeds over the mean noise floor.

    Args:
      influences: f32[s, n, t], of each seed, before their mean makes them smaller.
      whole: f32[s, t], losses of the networks trained on all images.

    Returns:
      The ratio. Its standard error is the ratio times that of its logarithm, a jackknife
      over seeds of sizes and floor together; NaN for two seeds. Intervals belong on the
      logarithm: of few seeds the floor is known to a factor.

    Raises:
      InputError: fewer than two seeds, or shapes that do not fit.
    """
    num = whole.shape[0]
    floor = noise_floor(whole).mean()
    if influences.ndim != 3 or (num, whole.shape[1]) != influences.shape[::2]:
        raise InputError(
            f"influences {list(influences.shape)}, losses {list(whole.shape)}: expected "
            "[s, n, t] and [s, t]"
        )
    sizes = jnp.abs(influences).mean(axis=(1, 2))
    value, relative = sizes.mean() / floor, jnp.float32(jnp.nan)
    if num > 2:
        others = [jnp.delete(jnp.arange(num), i) for i in range(num)]
        left = [sizes[i].mean() / noise_floor(whole[i]).mean() for i in others]
        relative = jnp.sqrt((num - 1) * jnp.var(jnp.log(jnp.stack(left))))
    return Estimate(value, value * relative, jnp.int32(num), "influence over noise")


def _ranks(row: Array) -> Array:
    """Returns the ranks of f32[n] from 1, the mean rank where values are equal, f32[n].

    All are NaN where a value is. `jax.scipy.stats.rankdata` cannot be traced under vmap
    inside shard_map.
    """
    place = functools.partial(jnp.searchsorted, jnp.sort(row), row, method="sort")
    ranks = (place(side="left") + place(side="right") + 1) / 2
    return jnp.where(jnp.isnan(row).any(), jnp.nan, ranks)


def _rank_scores(x: Array) -> Array:
    """Returns ranks along the last axis, centred, with unit norm; NaN if all are equal."""
    rows = x.reshape(-1, x.shape[-1])
    ranks = jax.vmap(_ranks)(rows).reshape(x.shape)
    centred = ranks - (x.shape[-1] + 1) / 2  # exactly 0 where all are equal
    return centred / jnp.linalg.norm(centred, axis=-1, keepdims=True)


def rank_correlation(a: Array, b: Array, axis: int = -1) -> Array:
    """Returns Spearman's rank correlation; ties have their mean rank.

    Args:
      a: f32[...].
      b: f32[...], of the same shape.
      axis: axis of the values to rank.

    Returns:
      f32 of the shape without `axis`, in [-1, 1]; NaN where either is constant or has a
      NaN.

    Raises:
      InputError: different shapes, or no values to rank.
    """
    if a.shape != b.shape or a.ndim == 0:
        raise InputError(
            f"shapes {list(a.shape)} and {list(b.shape)}: expected one [..., t]"
        )
    a, b = (_rank_scores(jnp.moveaxis(x, axis, -1)) for x in (a, b))
    return (a * b).sum(axis=-1)


@exported.named
class Reliability(NamedTuple):
    """Rank correlations of influences between initialisations.

    Attributes:
      correlations: f32[p, n], for each of p = s (s - 1) / 2 pairs of seeds.
      per_image: f32[n], mean over pairs.
      overall: f32[], mean over pairs and images.
    """

    correlations: Array
    per_image: Estimate
    overall: Estimate


def reliability(influences: Array) -> Reliability:
    """Returns rank correlations, over test images, of influences between initialisations.

    Pairs share seeds and are not independent: the standard errors are those of the
    jackknife over seeds, NaN for two seeds, and the probes are the seeds. A training image
    with equal influence on all test images has no ranks: its correlation is NaN, and so is
    the overall mean.

    Args:
      influences: f32[s, n, t].

    Raises:
      InputError: fewer than two seeds, or a wrong shape.
    """
    if influences.ndim != 3 or influences.shape[0] < 2:
        raise InputError(
            f"influences {list(influences.shape)}: expected [s, n, t] with s at least 2, "
            "since reliability compares seeds"
        )
    num = influences.shape[0]
    scores = _rank_scores(influences)
    firsts, seconds = np.triu_indices(num, 1)
    both = jax.lax.map(
        lambda pair: (scores[pair[0]] * scores[pair[1]]).sum(axis=-1),
        (jnp.asarray(firsts), jnp.asarray(seconds)),
    )

    def mean(correlations: Array, of: str) -> Estimate:
        without = [
            correlations[(firsts != seed) & (seconds != seed)].mean(axis=0)
            for seed in range(num)
        ]
        error = jnp.sqrt((num - 1) * jnp.var(jnp.stack(without), axis=0))
        return Estimate(correlations.mean(axis=0), error, jnp.int32(num), of)

    of = "rank correlation of influences between seeds"
    return Reliability(both, mean(both, of), mean(both.mean(axis=1), of))
