"""Datamodelling scores and TRAK, against closed forms and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from distilljax.analysis import datamodels
from distilljax.curvature import ntk
from distilljax.types import InputError


def test_members_have_their_size_and_are_a_beginning():
    key = jax.random.key(0)
    many = np.asarray(datamodels.random_members(key, 300, 8, 4))
    assert many.shape == (300, 8)
    assert (many.sum(axis=1) == 4).all()
    few = datamodels.random_members(key, 5, 8, 4)
    np.testing.assert_array_equal(few, many[:5])
    assert abs(many.mean(axis=0) - 0.5).max() < 0.12  # standard deviation 0.03
    assert len({tuple(row) for row in many.tolist()}) > 50  # of 70
    for size in (0, 8):
        with pytest.raises(InputError, match="all are one"):
            datamodels.random_members(key, 5, 8, size)


def test_the_score_of_a_sum_is_one_and_noise_lowers_it():
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(6, 5))
    members = np.asarray(datamodels.random_members(jax.random.key(1), 40, 6, 3))
    outputs = members @ effects
    score = datamodels.linear_datamodelling_score(effects, members, outputs)
    np.testing.assert_allclose(score, 1, atol=1e-4)  # rounding may break ties
    noisy = outputs + rng.normal(size=outputs.shape)
    found = datamodels.linear_datamodelling_score(effects, members, noisy)
    expected = [
        scipy.stats.spearmanr(members @ effects[:, t], noisy[:, t]).statistic
        for t in range(5)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    turned = datamodels.linear_datamodelling_score(-effects, members, noisy)
    np.testing.assert_allclose(turned, -found, atol=1e-4)


def test_shapes_that_do_not_fit_are_refused():
    ones = jnp.ones
    for shapes in (
        ((6, 5), (4, 6), (4, 4)),
        ((5, 5), (4, 6), (4, 5)),
        ((6, 5), (2, 6), (2, 5)),
        ((6, 5), (4, 6), (4,)),
        ((6,), (4, 6), (4, 5)),
        ((6, 5), (6,), (4, 5)),
    ):
        given = [ones(shape) for shape in shapes]
        with pytest.raises(InputError, match="m from 3"):
            datamodels.linear_datamodelling_score(*given)


def test_a_margin_is_the_log_odds():
    logits = jax.random.normal(jax.random.key(0), (7, 4))
    classes = jnp.array([0, 1, 2, 3, 0, 1, 2])
    p = np.asarray(jax.nn.softmax(logits))[np.arange(7), classes]
    np.testing.assert_allclose(
        datamodels.margin(logits, classes), np.log(p / (1 - p)), rtol=1e-4, atol=1e-5
    )


def test_features_of_margins_are_those_of_the_function_itself():
    """Projected gradients of the logits, combined; and of the margin, by forward mode."""
    key = jax.random.key(2)
    params = {
        "w": jax.random.normal(key, (3, 5)),
        "v": jax.random.normal(jax.random.key(3), (5, 4)),
    }
    x, classes = jax.random.normal(jax.random.key(4), (6, 3)), jnp.array([0, 1, 2, 3, 1, 0])

    def apply(params, x):
        return jnp.tanh(x @ params["w"]) @ params["v"]

    def margins(params, given):
        x, classes = given[:, :3], given[:, 3].astype(jnp.int32)
        return datamodels.margin(apply(params, x), classes)[:, None]

    features = ntk.sketch(apply, params, x, key, 8)
    found = datamodels.margin_features(features, apply(params, x), classes)
    given = jnp.concatenate([x, classes[:, None]], axis=1)
    expected = ntk.sketch(margins, params, given, key, 8)[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num", [5, 12])
def test_trak_is_its_equation_with_few_and_many_images(num):
    rng = np.random.default_rng(5)
    train, test = rng.normal(size=(num, 9)), rng.normal(size=(3, 9))
    unsure = rng.random(num)
    ridge = 0.1 * np.mean((train**2).sum(axis=1))
    inverse = np.linalg.inv(train.T @ train + ridge * np.eye(9))
    expected = (test @ inverse @ train.T * unsure).T
    found = datamodels.trak(*map(jnp.asarray, (train, test, unsure)), 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_trak_is_one_newton_step_of_logistic_regression():
    """Margins linear in the weights, at weights 0: p = 1/2, and Q is one half.

    Leaving i out of sum log(1 + exp(-f)) changes its gradient by (1 - p) phi_i; a step by
    the features' second moments takes phi(t) H^-1 phi_i (1 - p) from the margin of t.
    """
    rng = np.random.default_rng(6)
    train, test = rng.normal(size=(30, 4)), rng.normal(size=(2, 4))

    def loss(w, left_out):
        each = jnp.log1p(jnp.exp(-jnp.asarray(train) @ w))
        return each.sum() - each[left_out]

    step = np.linalg.inv(train.T @ train)
    gradient = np.stack([jax.grad(loss)(jnp.zeros(4), i) for i in range(30)])
    whole = np.asarray(jax.grad(lambda w: loss(w, 0))(jnp.zeros(4))) - train[0] / 2
    without, with_all = -gradient @ step @ test.T, -whole @ step @ test.T
    found = datamodels.trak(*map(jnp.asarray, (train, test, np.full(30, 0.5))), 1e-7)
    np.testing.assert_allclose(found, with_all - without, rtol=1e-2, atol=2e-4)
