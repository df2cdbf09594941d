"""Distances against sums written out."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.core.distances import (
    GradientDistance,
    characteristic_gap,
    class_mean_gap,
    gradient_distance,
    parameter_distance,
)
from distilljax.types import InputError


def complex_gap(ours, theirs, t):
    """The gap of characteristic functions from exp(i t.x), by NumPy."""
    s, r = (np.exp(1j * x @ t.T).mean(0) for x in (ours, theirs))
    amplitude = 0.5 * (abs(r) - abs(s)) ** 2
    phase = np.maximum(abs(r) * abs(s) - (r * s.conj()).real, 1e-12)
    np.testing.assert_allclose(amplitude + phase, 0.5 * abs(r - s) ** 2, atol=1e-6)
    return np.sqrt(amplitude + phase).mean()


def test_characteristic_gap_against_complex_numbers(float64):
    rng = np.random.default_rng(0)
    ours, theirs, t = (rng.normal(size=(n, 4)) for n in (3, 5, 50))
    expected = complex_gap(ours, theirs, t)
    np.testing.assert_allclose(characteristic_gap(ours, theirs, t), expected, rtol=1e-12)
    grad = jax.grad(characteristic_gap)(ours, theirs, t)
    step = 1e-6 * rng.normal(size=ours.shape)
    numeric = complex_gap(ours + step, theirs, t) - complex_gap(ours - step, theirs, t)
    np.testing.assert_allclose(2 * np.vdot(grad, step), numeric, rtol=1e-6)
    same = jax.grad(characteristic_gap)(jnp.asarray(ours), jnp.asarray(ours), t)
    assert np.isfinite(same).all()
    np.testing.assert_allclose(characteristic_gap(ours, ours, t), 1e-6, rtol=1e-3)


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


OURS = {"w": jnp.array([[3.0, 0.0], [4.0, 2.0]]), "b": jnp.array([1.0, 5.0])}
THEIRS = {"w": jnp.array([[4.0, 0.0], [3.0, -1.0]]), "b": jnp.array([1.0, 7.0])}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Columns (3, 4) and (4, 3): cosine 24/25; (0, 2) and (0, -1): cosine -1.
        ("rows", 1 / 25 + 2),
        # w: 1 + 0 + 1 + 9, b: 0 + 4.
        ("mse", 15.0),
        # The product is 12 + 0 + 12 - 2 + 1 + 35, the squared norms are 55 and 76.
        ("cosine", 1 - 58 / np.sqrt(55 * 76)),
    ],
)
def test_gradient_distances_by_hand(kind, expected):
    np.testing.assert_allclose(gradient_distance(OURS, THEIRS, kind), expected, rtol=1e-5)
    np.testing.assert_allclose(
        gradient_distance(OURS, OURS, kind), 0.0, atol=1e-6 if kind != "mse" else 0
    )


def test_the_rows_of_a_convolution_are_its_output_channels():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 3, 3, 2, 4))
    expected = 0.0
    for channel in range(4):
        u, v = ours[..., channel].ravel(), theirs[..., channel].ravel()
        expected += 1 - u @ v / np.sqrt((u @ u) * (v @ v))
    got = gradient_distance({"k": jnp.asarray(ours)}, {"k": jnp.asarray(theirs)})
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["rows", "mse", "cosine"])
def test_a_row_of_zeros_has_a_finite_derivative(kind):
    dead = {"w": OURS["w"].at[:, 1].set(0.0), "b": jnp.zeros(2)}
    if kind == "cosine":
        dead = jax.tree.map(jnp.zeros_like, dead)
    grads = jax.grad(lambda ours: gradient_distance(ours, THEIRS, kind))(dead)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="'l1': expected one of rows, cosine, mse"):
        gradient_distance(OURS, THEIRS, "l1")


def test_parameter_distance_by_hand():
    start, target = jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0])
    assert parameter_distance(start, start, target) == 1.0
    assert parameter_distance(target, start, target) == 0.0
    ours = jnp.array([3.0, 0.0])
    np.testing.assert_allclose(parameter_distance(ours, start, target), 16 / 25)


def test_a_millionth_is_added_to_a_product_of_norms():
    """Two equal gradients of norm 1e-3: the cosine is 1e-6 / (1e-6 + 1e-6)."""
    ours = {"w": jnp.array([[6e-4], [8e-4]])}
    np.testing.assert_allclose(gradient_distance(ours, ours, "rows"), 0.5, rtol=1e-5)
    np.testing.assert_allclose(gradient_distance(ours, ours, "cosine"), 0.5, rtol=1e-5)


@pytest.mark.parametrize("kind", get_args(GradientDistance))
def test_one_axis_counts_in_all_but_rows(kind):
    moved = OURS | {"b": jnp.array([5.0, -1.0])}
    same = gradient_distance(moved, THEIRS, kind) == gradient_distance(OURS, THEIRS, kind)
    slope = jax.grad(gradient_distance)(OURS, THEIRS, kind)["b"]
    assert same == (kind == "rows")
    assert np.any(slope != 0) == (kind != "rows")


@pytest.mark.parametrize("kind", get_args(GradientDistance))
def test_derivative_of_a_gradient_distance_is_the_difference_quotient(float64, kind):
    """Columns: ordinary, ours zero (its derivative: -theirs / 1e-6), theirs zero, both."""
    rng = np.random.default_rng(1)
    shapes = {"conv": (3, 3, 2, 4), "dense": (5, 4), "bias": (4,)}
    ours = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    theirs = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    for name in ("conv", "dense"):
        ours[name][..., [1, 3]] = 0.0
        theirs[name][..., [2, 3]] = 0.0

    value_and_slopes = jax.jit(
        jax.value_and_grad(lambda ours, theirs: gradient_distance(ours, theirs, kind))
    )
    _, slopes = value_and_slopes(ours, theirs)
    for name, shape in shapes.items():
        for channel in range(shape[-1]):
            step = np.zeros(shape)
            step[..., channel] = rng.normal(size=shape[:-1])
            # Beside a row of zeros the cosine bends where the product of norms is 1e-6.
            eps = 1e-6 if ours[name][..., channel].any() or kind != "rows" else 1e-11
            ahead, behind = (
                value_and_slopes(ours | {name: ours[name] + e * step}, theirs)[0]
                for e in (eps, -eps)
            )
            np.testing.assert_allclose(
                (slopes[name] * step).sum(),
                (ahead - behind) / (2 * eps),
                rtol=2e-3,
                atol=1e-7,
            )


@pytest.mark.parametrize(
    ("kind", "expected"), [("rows", 2.0), ("cosine", 1.0), ("mse", 0.0)]
)
def test_two_gradients_of_zero(kind, expected):
    zero = jax.tree.map(jnp.zeros_like, OURS)
    value, slopes = jax.value_and_grad(gradient_distance)(zero, zero, kind)
    assert value == expected
    assert all(np.all(slope == 0) for slope in jax.tree.leaves(slopes))


def test_rows_need_a_weight():
    with pytest.raises(InputError, match="no gradient has rows"):
        gradient_distance({"b": OURS["b"]}, {"b": THEIRS["b"]}, "rows")


def test_the_least_different_parameters_are_left_out(float64):
    """The value against a sort in NumPy, the gradient zero where it is left out."""
    rng = np.random.default_rng(3)
    ours, start, target = rng.normal(size=(3, 10))
    squares = (np.sort((x - target) ** 2)[4:].sum() for x in (ours, start))
    found, grad = jax.value_and_grad(parameter_distance)(ours, start, target, 0.4)
    top, bottom = squares
    np.testing.assert_allclose(found, top / bottom, rtol=1e-12)
    kept = np.argsort((ours - target) ** 2) >= 0
    kept[np.argsort((ours - target) ** 2)[:4]] = False
    expected = np.where(kept, 2 * (ours - target) / bottom, 0)
    np.testing.assert_allclose(grad, expected, rtol=1e-12)
    plain = parameter_distance(ours, start, target)
    gaps = [((x - target) ** 2).sum() for x in (ours, start)]
    np.testing.assert_allclose(plain, gaps[0] / gaps[1], rtol=1e-12)
