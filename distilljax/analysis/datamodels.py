"""Attributions judged by retraining on random subsets, and attribution by TRAK.

Ilyas et al. 2022 (arXiv 2202.00622): a datamodel predicts what a network trained on a
subset S of n images gives for a test image as a sum over S. The linear datamodelling score
of attributions a[i, t] (Park et al. 2023, arXiv 2303.14186, def. 2.5) is the rank
correlation, over random subsets S, of sum_{i in S} a[i, t] with what networks trained on S
give for t.
"""

import jax
import jax.numpy as jnp

from distilljax import checks
from distilljax.analysis.leave_one_out import rank_correlation
from distilljax.types import Array, InputError, Key

_PRECISE = jax.lax.Precision.HIGHEST


def random_members(key: Key, num: int, num_images: int, size: int) -> Array:
    """Returns random subsets as bool[num, num_images], each with `size` images.

    The subsets of a smaller `num` are the first ones of a larger.

    Raises:
      InputError: a size that is not within 1..num_images - 1.
    """
    if not 1 <= size < num_images:
        raise InputError(f"subsets of {size} of {num_images} images: all are one")
    checks.one_key(key)

    def one(number: Array) -> Array:
        order = jax.random.permutation(jax.random.fold_in(key, number), num_images)
        return jnp.zeros(num_images, bool).at[order[:size]].set(True)

    return jax.vmap(one)(jnp.arange(num))


def linear_datamodelling_score(
    attributions: Array, members: Array, outputs: Array
) -> Array:
    """Returns the score for each test image, f32[t], in [-1, 1].

    Args:
      attributions: f32[n, t], what image i adds to the output for test image t.
      members: bool[m, n], the subsets.
      outputs: f32[m, t], of networks trained on them.

    Returns:
      NaN where outputs or predictions are constant over the subsets.

    Raises:
      InputError: shapes that do not fit; fewer than three subsets.
    """
    fits = (
        attributions.ndim == outputs.ndim == 2
        and members.shape == (outputs.shape[0], attributions.shape[0])
        and attributions.shape[1] == outputs.shape[1]
    )
    if not fits or len(members) < 3:
        raise InputError(
            f"attributions {list(attributions.shape)}, members {list(members.shape)}, "
            f"outputs {list(outputs.shape)}: expected [n, t], [m, n] and [m, t], m from 3"
        )
    weights = members.astype(attributions.dtype)
    predicted = jnp.matmul(weights, attributions, precision=_PRECISE)
    return rank_correlation(predicted, outputs, axis=0)


def margin(logits: Array, classes: Array) -> Array:
    """Returns log(p / (1 - p)) of the probability p of each image's class, f32[b].

    Args:
      logits: f32[b, k].
      classes: i32[b].
    """
    own = jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]
    here = jnp.arange(logits.shape[1]) == classes[:, None]
    return own - jax.nn.logsumexp(jnp.where(here, -jnp.inf, logits), axis=1)


def margin_features(features: Array, logits: Array, classes: Array) -> Array:
    """Returns features of the margins from those of the logits, f32[b, r].

    The margin's gradient is that of its class's logit less the mean of the others',
    weighted by their probabilities among themselves. So random projections of the
    gradients of logits (`curvature.ntk.sketch`) give those of the margins.

    Args:
      features: f32[b, k, r], linear in the gradient of each logit.
      logits: f32[b, k].
      classes: i32[b].
    """
    here = jnp.arange(logits.shape[1]) == classes[:, None]
    others = jax.nn.softmax(jnp.where(here, -jnp.inf, logits), axis=1)
    return jnp.einsum("bk,bkr->br", here - others, features, precision=_PRECISE)


def trak(train: Array, test: Array, unsure: Array, ridge: float) -> Array:
    """Returns what each image adds to the margins of test images by TRAK, f32[n, t].

    Park et al. 2023 (eq. 13, one network): with projected gradients of the margins Phi,
    phi(t) (Phi^T Phi)^-1 Phi^T Q, Q the diagonal of 1 - p.

    Departures: a ridge in the inverse, since a distilled set has fewer images than the
    projection has directions. It equals k(t, S) (K + r I)^-1 Q for K = Phi Phi^T.

    Args:
      train: Phi, f32[n, r], of the images of the set.
      test: f32[t, r], by the same projection.
      unsure: 1 - p, f32[n], p the probability of an image's class.
      ridge: r, as a share of the mean of the diagonal of Phi Phi^T.
    """
    num, dim = train.shape
    added = ridge * jnp.square(train).sum() / num
    if dim < num:  # the smaller system is the better conditioned one
        moments = jnp.matmul(train.T, train, precision=_PRECISE) + added * jnp.eye(dim)
        solved = jnp.matmul(train, jnp.linalg.solve(moments, test.T), precision=_PRECISE)
    else:
        kernel = jnp.matmul(train, train.T, precision=_PRECISE) + added * jnp.eye(num)
        cross = jnp.matmul(train, test.T, precision=_PRECISE)
        solved = jnp.linalg.solve(kernel, cross)
    return unsure[:, None] * solved
