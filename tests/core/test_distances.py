"""Distances against sums written out."""

import jax
import jax.numpy as jnp
import numpy as np

from distilljax.core.distances import class_mean_gap


def test_class_mean_gap_by_hand():
    """Class 0: means (2, 0) and (1, 2), gap 1 + 4; class 1: (1, 1) and (4, 1), gap 9."""
    ours = jnp.array([[[1.0, 0.0], [3.0, 0.0]], [[0.0, 2.0], [2.0, 0.0]]])
    theirs = jnp.array([[[1.0, 2.0]], [[4.0, 1.0]]])
    gap = class_mean_gap(ours, theirs)
    assert gap.shape == ()
    assert gap == 14.0
    assert class_mean_gap(theirs, ours) == 14.0
    assert class_mean_gap(ours, ours[:, ::-1]) == 0.0


def test_class_mean_gap_and_its_gradient_against_loops():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 7, 5))
    gap, expected = 0.0, np.zeros_like(ours)
    for j in range(3):
        difference = sum(ours[j]) / 4 - sum(theirs[j]) / 7
        gap += float(difference @ difference)
        expected[j] = 2 * difference / 4
    value, grad = jax.value_and_grad(class_mean_gap)(
        jnp.asarray(ours, jnp.float32), jnp.asarray(theirs, jnp.float32)
    )
    np.testing.assert_allclose(value, gap, rtol=1e-5)
    np.testing.assert_allclose(grad, expected, atol=1e-6)
