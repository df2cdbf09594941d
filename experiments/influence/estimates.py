"""Approximations of influence that train nothing again, compared with leave-one-out."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distilljax.analysis import leave_one_out
from distilljax.analysis.statistics import spread
from distilljax.curvature import hessian, influence, kernels, ntk
from distilljax.curvature.influence import Influence
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Array, Batch, Key, Model, Params
from experiments.influence.record import (
    Correlation,
    Correlations,
    SolvedRidge,
    SolvedSystems,
)

GAUSS_NEWTON, NTK = "gauss_newton", "ntk"
ESTIMATES = (GAUSS_NEWTON, NTK)


class Approximation(NamedTuple):
    """Settings of the approximations."""

    damping: float | None  # of `gauss_newton`; None: by the training time
    ridge: float  # of `ntk`


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
