"""Energy among directions of feature space, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.analysis import spectrum
from distilljax.types import InputError

SCALES = np.array([4.0, 2.0, 1.0, 0.5])


@pytest.fixture(scope="module")
def rotated():
    """Features with variances 16, 4, 1, 1/4 along the columns of a rotation."""
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T  # uncorrelated
    return rotation, signs * SCALES @ rotation.T + 3.0


def test_the_basis_of_a_rotated_box_is_the_rotation(rotated):
    rotation, features = rotated
    found = spectrum.basis(jnp.asarray(features))
    np.testing.assert_allclose(found.mean, 3.0, rtol=1e-6)
    np.testing.assert_allclose(found.eigenvalues, SCALES**2, rtol=1e-5)
    np.testing.assert_allclose(np.abs(rotation.T @ found.vectors), np.eye(4), atol=1e-5)


def test_energy_of_class_means_along_the_axes(rotated):
    """Two images of each class at +-c: X^T Y / n is +-c / 2, its energy c^2 / 2."""
    rotation, features = rotated
    along = spectrum.basis(jnp.asarray(features))
    at = np.array([3.0, 0.0, 2.0, 1.0])
    images = np.array([at, at, -at, -at]) @ rotation.T + 3.0
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    found = spectrum.energy(jnp.asarray(images), jnp.asarray(labels), along)
    np.testing.assert_allclose(found, at**2 / 2, atol=1e-4)
    expected = (at[1:] ** 2).sum() / (at**2).sum()
    np.testing.assert_allclose(spectrum.weak_share(found, 1), expected, rtol=1e-5)


def test_energies_add_up_to_that_of_the_moments():
    """Parseval: in any orthonormal basis the energies sum to |X^T Y / n|^2."""
    rng = np.random.default_rng(1)
    real, images = rng.normal(size=(50, 6)), rng.normal(size=(9, 6))
    labels = rng.dirichlet(np.ones(3), size=9)
    along = spectrum.basis(jnp.asarray(real))
    found = spectrum.energy(jnp.asarray(images), jnp.asarray(labels), along)
    moments = (images - real.mean(axis=0)).T @ labels / 9
    np.testing.assert_allclose(found.sum(), (moments**2).sum(), rtol=1e-5)


def test_random_images_add_their_variance_over_their_number():
    """Labels that say nothing: E |u^T X^T Y / n|^2 is the eigenvalue over n k."""
    rng = np.random.default_rng(2)
    along = spectrum.Basis(jnp.zeros(4), jnp.asarray(SCALES**2), jnp.eye(4))
    labels = jnp.asarray(np.eye(2).repeat(10, axis=0))
    drawn = jnp.asarray(rng.normal(size=(4000, 20, 4)) * SCALES)
    found = jax.vmap(lambda one: spectrum.energy(one, labels, along))(drawn)
    np.testing.assert_allclose(found.mean(axis=0), SCALES**2 / 20, rtol=0.06)


def test_strong_directions_hold_the_share():
    eigenvalues = jnp.array([8.0, 1.0, 0.5, 0.5])
    numbers = [spectrum.num_strong(eigenvalues, share) for share in (0.1, 0.8, 0.85, 0.91)]
    assert numbers == [1, 1, 2, 3]
    drawn = np.sort(np.random.default_rng(18).exponential(size=512).astype(np.float32))
    assert spectrum.num_strong(jnp.asarray(drawn[::-1]), 1 - 1e-7) > 500
    for share, values in ((0.0, eigenvalues), (1.0, eigenvalues), (0.5, jnp.zeros(3))):
        with pytest.raises(InputError, match="expected a share between 0 and 1"):
            spectrum.num_strong(values, share)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"features \[3\]"):
        spectrum.basis(jnp.zeros(3))
    along = spectrum.basis(jnp.eye(3))
    with pytest.raises(InputError, match="expected \\[n, d\\], \\[n, k\\] and d"):
        spectrum.energy(jnp.zeros((2, 4)), jnp.zeros((2, 2)), along)
    with pytest.raises(InputError, match="expected \\[n, d\\]"):
        spectrum.energy(jnp.zeros((2, 3)), jnp.zeros((3, 2)), along)
    with pytest.raises(InputError, match=r"labels \[2\]"):
        spectrum.energy(jnp.zeros((2, 3)), jnp.zeros(2), along)
