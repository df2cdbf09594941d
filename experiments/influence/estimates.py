"""Approximations of influence that train nothing again, compared with leave-one-out."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distilljax.analysis import datamodels, leave_one_out
from distilljax.analysis.statistics import spread
from distilljax.curvature import hessian, influence, kernels, ntk
from distilljax.curvature.influence import Influence
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Array, Batch, Key, Model, Params
from experiments.influence.record import (
    Correlation,
    Correlations,
    Score,
    SolvedRidge,
    SolvedSystems,
)

GAUSS_NEWTON, NTK, TRAK = "gauss_newton", "ntk", "trak"
ESTIMATES = (GAUSS_NEWTON, NTK, TRAK)


BLOCK = 250  # images in one forward pass
DIRECTIONS = 1 << 20  # folded into the key of an initialisation, for random directions


class Approximation(NamedTuple):
    """Settings of the approximations."""

    damping: float | None  # of `gauss_newton`; None: by the training time
    ridge: float  # of `ntk` and `trak`
    projections: int  # random directions of `trak`


def estimate(
    name: str,
    settings: Approximation,
    key: Key,
    model: Model,
    protocol: EvaluationProtocol,
    batch: Batch,
    test: Batch,
) -> tuple[np.ndarray, SolvedSystems | SolvedRidge]:
    """Returns an approximation of all influences on one trained network.

    Args:
      name: of `ESTIMATES`.
      settings: damping and ridge.
      key: random key of the initialisation, as leave-one-out trains it.
      model: the network.
      protocol: how to train.
      batch: the distilled set, n images.
      test: t test images.

    Returns:
      f[n, t], and how the linear systems were solved.
    """
    params = _trained(model, protocol, key, batch)
    if name == NTK:
        changes = _ridge_changes(model, settings.ridge, params, batch, test)
        return np.asarray(changes), {"ridge": settings.ridge}
    if name == TRAK:
        direction_key = jax.random.fold_in(key, DIRECTIONS)
        changes = _trak_changes(
            model, settings.ridge, settings.projections, direction_key, params, batch, test
        )
        return np.asarray(changes), {"ridge": settings.ridge}
    damping = settings.damping
    if damping is None:
        steps = protocol.num_steps(batch.labels.shape[0])
        damping = (1 - protocol.momentum) / ((protocol.lr or 1.0) * steps)
    found = _influence_function(model, damping, params, batch, test)
    return np.asarray(found.changes), {
        "damping": damping,
        "converged": int(found.solve.converged.sum()),
        "most_iterations": int(found.solve.num_iters.max()),
        "largest_residual": float(found.solve.residual.max()),
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _trained(model: Model, protocol: EvaluationProtocol, key: Key, batch: Batch) -> Params:
    return evaluation.train(key, model, batch, protocol)


def _losses(model: Model) -> Callable[[Params, Batch], Array]:
    """Returns the loss of each image."""

    def each(params: Params, batch: Batch) -> Array:
        logits = model.apply(params, batch.images)
        return optax.losses.softmax_cross_entropy(logits, batch.labels)

    return each


@functools.partial(jax.jit, static_argnums=(0, 1))
def _influence_function(
    model: Model, damping: float, params: Params, batch: Batch, test: Batch
) -> Influence:
    return influence.influence_function(
        hessian.ggn(model.apply, params, batch),
        _losses(model),
        params,
        batch,
        _losses(model),
        test,
        damping=damping,
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _ridge_changes(
    model: Model, ridge: float, params: Params, batch: Batch, test: Batch
) -> Array:
    """Returns the change of squared error without each image, f32[n, t]."""
    k_ss = ntk.empirical_ntk(model.apply, params, batch.images, form="trace")
    k_st = ntk.empirical_ntk(model.apply, params, batch.images, test.images, form="trace")
    y = batch.labels - 1 / batch.labels.shape[1]
    fitted = kernels.predict(k_st.T, kernels.kernel_ridge(k_ss, y, ridge=ridge))
    without = kernels.leave_one_out(k_ss, k_st.T, y, ridge)
    target = test.labels - 1 / test.labels.shape[1]
    error = jnp.square(without - target).sum(-1) - jnp.square(fitted - target).sum(-1)
    return error / 2


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _trak_changes(
    model: Model,
    ridge: float,
    projections: int,
    key: Key,
    params: Params,
    batch: Batch,
    test: Batch,
) -> Array:
    """Returns the change of cross-entropy without each image, f32[n, t].

    To first order: the derivative of -log p by the margin is p - 1. Soft labels count by
    their most likely class.
    """

    def projected(data: Batch) -> tuple[Array, Array]:
        classes = data.labels.argmax(axis=-1)
        logits = model.apply(params, data.images)
        features = ntk.sketch(
            model.apply, params, data.images, key, projections, block=BLOCK
        )
        unsure = jax.nn.sigmoid(-datamodels.margin(logits, classes))
        return datamodels.margin_features(features, logits, classes), unsure

    (of_set, unsure), (of_test, unsure_test) = projected(batch), projected(test)
    return unsure_test * datamodels.trak(of_set, of_test, unsure, ridge)


def datamodelling(estimated: np.ndarray, members: np.ndarray, losses: np.ndarray) -> Score:
    """Returns how well influences foretell the losses of networks trained on subsets.

    Args:
      estimated: f[s, n, t], by how much leaving an image out raises a loss.
      members: bool[m, n], the subsets.
      losses: f[s, m, t], of networks trained on them from the same initialisations.
    """
    outputs, inside = jnp.asarray(-losses), jnp.asarray(members)

    def score(attributions: np.ndarray, outputs: Array) -> float:
        found = datamodels.linear_datamodelling_score(
            jnp.asarray(attributions), inside, outputs
        )
        return float(jnp.nanmean(found))

    each = [score(*pair) for pair in zip(estimated, outputs, strict=True)]
    return {
        **spread(each),
        "of_means": score(estimated.mean(axis=0), outputs.mean(axis=0)),
    }


def compare(
    estimated: np.ndarray, influences: np.ndarray, mean: np.ndarray
) -> Correlations:
    """Returns rank correlations over test images, each seed and left-out image alone.

    Args:
      estimated: f[s, n, t].
      influences: f[s, n, t], by leave-one-out.
      mean: f[n, t], over seeds.
    """
    ours = jnp.asarray(estimated)
    same = leave_one_out.rank_correlation(ours, jnp.asarray(influences))
    whole = jnp.broadcast_to(jnp.asarray(mean), estimated.shape)
    return {
        "with_the_same_initialisation": _correlation(np.asarray(same)),
        "with_the_mean_over_initialisations": _correlation(
            np.asarray(leave_one_out.rank_correlation(ours, whole))
        ),
    }


def _correlation(values: np.ndarray) -> Correlation:
    """Returns a summary of f[s, n]."""
    finite = values[np.isfinite(values)]
    return {
        **spread(np.nanmean(values, axis=1)),
        "over_images_std": float(finite.std(ddof=1)) if finite.size > 1 else None,
        "undefined": int(values.size - finite.size),
    }
