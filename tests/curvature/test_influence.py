"""Influence functions against training again, and their solver against dense algebra."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.curvature import influence
from distilljax.types import InputError

DECAY = 0.01


class Points(NamedTuple):
    inputs: np.ndarray  # f64[b, d]
    targets: np.ndarray  # f64[b, ...]


def hvp(loss_fn, params):
    return lambda v: jax.jvp(jax.grad(loss_fn), (params,), (v,))[1]


def minimum(loss_fn, params, num_steps=12):
    """By Newton's method with the dense Hessian."""
    start, restore = jax.flatten_util.ravel_pytree(params)

    def own(w):
        return loss_fn(restore(w))

    def newton(_, w):
        return w - jnp.linalg.solve(jax.hessian(own)(w), jax.grad(own)(w))

    return restore(jax.lax.fori_loop(0, num_steps, newton, start))


def square_losses(params, data):
    return 0.5 * jnp.square(data.inputs @ params["w"] + params["b"] - data.targets)


def softmax_losses(params, data):
    logits = data.inputs @ params["w"] + params["b"]
    return -(data.targets * jax.nn.log_softmax(logits)).sum(axis=-1)


def regularised(losses):
    """The weighted mean loss, with weight decay."""

    def loss_fn(params, data, weights):
        squares = sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params))
        data_loss = (weights * losses(params, data)).sum() / weights.sum()
        return data_loss + 0.5 * DECAY * squares

    return loss_fn


def without(num, j):
    return (jnp.arange(num) != j).astype(float)


def matvecs(loss_fn, params, train):
    """Products with the Hessian on all examples, and with that on all but one."""
    num = len(train.inputs)
    whole = hvp(lambda p: loss_fn(p, train, jnp.ones(num)), params)
    return whole, lambda j: hvp(lambda p: loss_fn(p, train, without(num, j)), params)


def ridge(num, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(num, 4)) * np.array([3.0, 1.0, 1.0, 0.3])
    return Points(inputs, inputs @ rng.normal(size=4) + 1 + rng.normal(size=num))


def ridge_solution(data):
    """Normal equations; the last weight is the offset, with decay as the others."""
    x = np.c_[data.inputs, np.ones(len(data.inputs))]
    gram = x.T @ x / len(x) + DECAY * np.eye(5)
    return np.linalg.solve(gram, x.T @ data.targets / len(x)), gram


def as_params(solution):
    return {"w": jnp.asarray(solution[:4]), "b": jnp.asarray(solution[4])}


def test_ridge_regression_against_the_closed_form(float64):
    """First order is linear algebra at the whole's Hessian; the Newton step is exact."""
    train, test = ridge(30), ridge(7, seed=1)
    solution, gram = ridge_solution(train)
    params = as_params(solution)
    matvec, matvec_without = matvecs(regularised(square_losses), params, train)

    @jax.jit
    def run(params, train, test):
        given = (square_losses, params, train, square_losses, test)
        settings = {"damping": 0.0, "tolerance": 1e-10, "chunk": 3}
        first = influence.influence_function(matvec, *given, **settings)
        newton = influence.influence_function(
            matvec, *given, **settings, without=matvec_without, together=5
        )
        return first, newton

    first, newton = run(params, train, test)
    x, x_test = (np.c_[data.inputs, np.ones(len(data.inputs))] for data in (train, test))
    gradients = (x @ solution - train.targets)[:, None] * x
    slopes = (x_test @ solution - test.targets)[:, None] * x_test
    by_hand = np.linalg.solve(gram, (gradients - gradients.mean(0)).T / 29).T
    again = np.stack(
        [ridge_solution(Points(*(np.delete(a, j, 0) for a in train)))[0] for j in range(30)]
    )
    moved = (again - solution) @ slopes.T
    assert first.changes.shape == (30, 7)
    np.testing.assert_allclose(first.changes, by_hand @ slopes.T, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(newton.changes, moved, rtol=1e-6, atol=1e-10)
    gap = np.linalg.norm(first.changes - moved) / np.linalg.norm(moved)
    assert 0.02 < gap < 0.5  # p / n = 1/6
    for found in (first, newton):
        assert found.solve.converged.all()
        assert (found.solve.residual <= 1e-10).all()
        assert (found.solve.num_iters <= 6).all()  # five weights


def test_damping_is_added_to_the_curvature(float64):
    train, test = ridge(12), ridge(3, seed=1)
    solution, gram = ridge_solution(train)
    solution = solution + 0.3  # not a minimum
    params = as_params(solution)
    matvec, _ = matvecs(regularised(square_losses), params, train)
    chosen = jnp.array([7, 2])
    found = jax.jit(
        lambda damping: influence.influence_function(
            matvec,
            square_losses,
            params,
            train,
            square_losses,
            test,
            damping=damping,
            positions=chosen,
            tolerance=1e-10,
        )
    )(0.7)
    x, x_test = (np.c_[data.inputs, np.ones(len(data.inputs))] for data in (train, test))
    gradients = (x @ solution - train.targets)[:, None] * x
    slopes = (x_test @ solution - test.targets)[:, None] * x_test
    rhs = (gradients - gradients.mean(0))[[7, 2]] / 11
    expected = rhs @ np.linalg.inv(gram + 0.7 * np.eye(5)) @ slopes.T
    np.testing.assert_allclose(found.changes, expected, rtol=1e-8)


def test_softmax_regression_against_training_again(float64):
    """The Newton step's error is second order in 1/n, as is the test loss's own bend."""
    num, rng = 8000, np.random.default_rng(4)
    inputs = rng.normal(size=(num + 50, 3))
    logits = inputs @ rng.normal(size=(3, 3)) / 2 + rng.gumbel(size=(num + 50, 3))
    points = Points(inputs, np.eye(3)[logits.argmax(1)])
    train, test = (
        Points(*(a[part] for a in points)) for part in (slice(num), slice(num, None))
    )
    loss_fn = regularised(softmax_losses)
    zeros = {"w": jnp.zeros((3, 3)), "b": jnp.zeros(3)}
    whole = jax.jit(
        lambda train: minimum(lambda p: loss_fn(p, train, jnp.ones(num)), zeros)
    )
    params = whole(train)
    chosen = np.array([0, 5, 731, 1400, 7999])

    @jax.jit
    def run(params, train, test):
        matvec, matvec_without = matvecs(loss_fn, params, train)
        given = (softmax_losses, params, train, softmax_losses, test)
        settings = {"damping": 0.0, "tolerance": 1e-9, "positions": jnp.asarray(chosen)}
        first = influence.influence_function(matvec, *given, **settings)
        return first, influence.influence_function(
            matvec, *given, **settings, without=matvec_without
        )

    first, newton = run(params, train, test)

    @jax.jit
    def retrain(params, train, test):
        def one(j):
            again = minimum(lambda p: loss_fn(p, train, without(num, j)), params, 5)
            return softmax_losses(again, test) - softmax_losses(params, test)

        return jax.lax.map(one, chosen)

    actual = retrain(params, train, test)
    assert first.solve.converged.all()
    assert newton.solve.converged.all()
    for found, within in ((first, 3e-3), (newton, 1e-3)):
        gaps = np.linalg.norm(found.changes - actual, axis=1)
        assert (gaps < within * np.linalg.norm(actual, axis=1)).all()


def random_matrix(eigenvalues, seed=0):
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues),) * 2))
    return basis * eigenvalues @ basis.T, basis, rng


def tree(vector):
    return {"a": jnp.asarray(vector[:4]).reshape(2, 2), "b": (jnp.asarray(vector[4:]),)}


def flat(params):
    return np.concatenate([np.ravel(params["a"]), params["b"][0]])


@jax.jit
def solve(matrix, rhs, tolerance, max_iters):
    def matvec(v):
        product = matrix @ jnp.concatenate([v["a"].ravel(), v["b"][0]])
        return {"a": product[:4].reshape(2, 2), "b": (product[4:],)}

    return influence.conjugate_gradients(
        matvec, rhs, tolerance=tolerance, max_iters=max_iters
    )


def test_conjugate_gradients_solve_and_say_how_well(float64):
    matrix, _, rng = random_matrix(np.geomspace(0.01, 10, 9))
    rhs = rng.normal(size=9)
    x, report = solve(matrix, tree(rhs), 1e-8, 50)
    np.testing.assert_allclose(flat(x), np.linalg.solve(matrix, rhs), rtol=1e-5)
    assert report.converged
    assert 7 <= report.num_iters <= 15
    true = np.linalg.norm(rhs - matrix @ flat(x)) / np.linalg.norm(rhs)
    np.testing.assert_allclose(report.residual, true, rtol=1e-4)
    assert true <= 1e-8

    x, report = solve(matrix, tree(rhs), 1e-8, 3)  # too few
    true = np.linalg.norm(rhs - matrix @ flat(x)) / np.linalg.norm(rhs)
    assert not report.converged
    assert report.num_iters == 3
    assert true > 1e-3
    np.testing.assert_allclose(report.residual, true, rtol=1e-9)

    x, report = solve(matrix, tree(0 * rhs), 1e-8, 50)  # nothing to solve
    assert report.converged
    assert report.num_iters == 0
    assert not flat(x).any()


@pytest.mark.parametrize("last", [-1.0, np.nan])
def test_a_matrix_that_is_not_positive_is_reported(last, float64):
    matrix, _, rng = random_matrix(np.array([1.0, 2, 3, 4, 5, 6, 7, 8, last]))
    x, report = solve(matrix, tree(rng.normal(size=9)), 1e-8, 50)
    assert not report.converged
    assert report.num_iters < 12
    assert np.isfinite(flat(x)).all()
    assert np.isnan(report.residual) == np.isnan(last)


def test_an_unsolved_image_is_reported_for_itself(float64):
    """Two examples, one whose gradient the solver meets in one step, one it cannot."""
    eigenvalues = jnp.array([1.0, 3.0, 10.0])
    params = jnp.zeros(3)
    # l_j = x_j . params, so that g_j - g = x_j for rows that sum to zero.
    train = Points(jnp.array([[2.0, 0, 0], [-1.0, 1, 1], [-1.0, -1, -1]]), jnp.zeros(3))

    def losses(params, data):
        return data.inputs @ params

    found = jax.jit(
        lambda together: influence.influence_function(
            lambda v: eigenvalues * v,
            losses,
            params,
            train,
            losses,
            train,
            damping=0.0,
            max_iters=1,
            together=together,
        ),
        static_argnums=0,
    )
    for together in (1, 3):
        report = found(together).solve
        assert report.converged.tolist() == [True, False, False]
        assert report.num_iters.tolist() == [1, 1, 1]
        assert (report.residual[1:] > 0.1).all()
    np.testing.assert_allclose(found(1).changes[0], np.array([4.0, -2.0, -2.0]) / 2)


def test_what_does_not_fit_is_refused():
    data = Points(jnp.zeros((3, 4)), jnp.zeros(3))

    def run(train=data, test=data, damping=0.1):
        return influence.influence_function(
            lambda v: v, square_losses, {}, train, square_losses, test, damping=damping
        )

    with pytest.raises(InputError, match=r"\(3, 4\), \(2,\)"):
        run(train=Points(jnp.zeros((3, 4)), jnp.zeros(2)))
    with pytest.raises(InputError, match=r"\(5, 4\), \(3,\)"):
        run(test=Points(jnp.zeros((5, 4)), jnp.zeros(3)))
    with pytest.raises(InputError, match="train has 1 example"):
        run(train=Points(jnp.zeros((1, 4)), jnp.zeros(1)))
    with pytest.raises(InputError, match=r"damping=-0\.1"):
        run(damping=-0.1)


def test_positions_are_positions_and_losses_are_one_for_each_example(float64):
    train, test = ridge(8), ridge(3, seed=1)
    params = as_params(ridge_solution(train)[0])
    matvec, _ = matvecs(regularised(square_losses), params, train)

    def run(positions, losses=square_losses, test_losses=square_losses):
        return influence.influence_function(
            matvec,
            losses,
            params,
            train,
            test_losses,
            test,
            damping=0.1,
            chunk=2,
            positions=positions,
        ).changes

    everything = run(None)
    assert everything.shape == (8, 3)
    for positions in ([7, 0], np.array([7, 0]), jnp.array([7, 0])):
        np.testing.assert_allclose(run(positions), everything[jnp.array([7, 0])], rtol=1e-9)
    assert run(np.int64(5)).shape == (1, 3)
    for wrong in ([6, 8], [-1], jnp.array([7, 999])):
        with pytest.raises(InputError, match=r"positions has .* in 0..7"):
            run(wrong)

    def mean(params, data):
        return square_losses(params, data).mean()

    with pytest.raises(InputError, match=r"^losses returned \[\] for 8 .* not their mean"):
        run(None, losses=mean)
    with pytest.raises(InputError, match=r"test_losses returned \[\] for 2 examples"):
        run(None, test_losses=mean)
    with pytest.raises(InputError, match="chunk=0: give at least one"):
        influence.influence_function(
            matvec, square_losses, params, train, square_losses, test, damping=0.1, chunk=0
        )
