"""`kernel` against ridge regression in NumPy, dense Jacobians and one step by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.core import distilled as distilled_set
from distilljax.core import sampling
from distilljax.methods import kernel
from distilljax.types import InputError

PLAIN = {"flips": False, "real_batch": 9, "max_age": 0, "ridge": 0.01}


def double(tree):
    return jax.tree.map(
        lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree
    )


@pytest.fixture
def exact(problem, float64):
    """The problem in double precision."""
    return problem._replace(
        model=problem.model._replace(init=lambda key: double(problem.model.init(key))),
        real=double(problem.real),
        distilled=double(problem.distilled),
    )


def regression(features_s, features_t, y_s, y_t, ridge):
    """Half the squared error of ridge regression, solved for the weights of the features.

    (F^T F + r I)^-1 F^T y: the other side of the kernel's (F F^T + r I)^-1.
    """
    penalty = ridge * np.square(features_s).sum() / len(features_s)
    gram = features_s.T @ features_s + penalty * np.eye(features_s.shape[1])
    weights = np.linalg.solve(gram, features_s.T @ y_s)
    return 0.5 * np.square(features_t @ weights - y_t).sum() / len(y_t)


def numeric_gradient(function, x, eps=1e-6):
    grad = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[at] = eps
        grad[at] = (function(x + step) - function(x - step)) / (2 * eps)
    return grad


def test_kip_on_a_linear_kernel_is_ridge_regression(exact):
    """Value, and gradient by images and labels, of a closed form in NumPy."""
    config = kernel.Config(kernel="linear", margin=0.0, label_scale=0.7, **PLAIN)
    method, key = kernel.make(config, exact.model), jax.random.key(3)
    start = method.init(jax.random.key(0), exact.distilled)
    one_hot = np.eye(3)[np.repeat(np.arange(3), 2)]
    np.testing.assert_allclose(start.distilled.label_logits, 0.7 * (one_hot - 1 / 3))
    _, info = jax.jit(method.step)(key, start, exact.real)

    batch = sampling.batch(jax.random.split(key)[1], exact.real, 9)
    theirs, y_t = np.asarray(batch.images).reshape(9, -1), np.asarray(batch.labels) - 1 / 3
    x_s, y_s = (np.asarray(x) for x in start.distilled[:2])

    def loss(x, y):
        return regression(x.reshape(6, -1), theirs, y, y_t, config.ridge)

    np.testing.assert_allclose(info.loss, loss(x_s, y_s), rtol=1e-10)
    by_images = numeric_gradient(lambda x: loss(x, y_s), x_s)
    by_labels = numeric_gradient(lambda y: loss(x_s, y), y_s)
    norm = np.sqrt(np.square(by_images).sum() + np.square(by_labels).sum())
    np.testing.assert_allclose(info.grad_norm, norm, rtol=1e-6)


def mirrored(images):
    return np.concatenate([images, images[:, :, ::-1]])


def test_frepo_is_the_equation_and_takes_one_lamb_step(exact):
    """Features of a network of the pool, mirror images, margin; a direct solve."""
    config = kernel.Config(
        pool=3, real_batch=9, ridge=0.01, image_lr=0.1, label_lr=0.02, network_lr=0.01
    )
    method, key = kernel.make(config, exact.model), jax.random.key(5)
    start = method.init(jax.random.key(1), exact.distilled)
    # Labels that nobody would mistake for one another, and margins above and below 1/3.
    labels = np.random.default_rng(0).normal(size=(6, 3))
    start = start._replace(
        distilled=start.distilled._replace(label_logits=jnp.asarray(labels))
    )
    assert start.aux.ages.tolist() == [0, 33, 66]
    state, info = jax.jit(method.step)(key, start, exact.real)

    trained = np.flatnonzero(np.asarray(state.aux.ages) != np.asarray(start.aux.ages))
    (which,) = trained
    params = jax.tree.map(lambda x: x[which], start.aux.states.params)
    batch = sampling.batch(jax.random.split(key)[1], exact.real, 9)
    theirs = np.asarray(exact.model.features(params, batch.images))
    y_t = np.asarray(batch.labels) - 1 / 3
    features = jax.jit(exact.model.features)

    def loss(x, y):
        found = np.asarray(features(params, jnp.asarray(mirrored(x))))
        order = np.sort(y, axis=1)
        gain = np.minimum(order[:, 2] - order[:, 1], 1 / 3).mean()
        doubled = np.concatenate([y, y])
        return regression(found, theirs, doubled, y_t, config.ridge) - gain

    images = np.asarray(start.distilled.images)
    np.testing.assert_allclose(info.loss, loss(images, labels), rtol=1e-9)
    for before, after, rate, by in (
        (images, state.distilled.images, 0.1, lambda x: loss(x, labels)),
        (labels, state.distilled.label_logits, 0.02, lambda y: loss(images, y)),
    ):
        grad = numeric_gradient(by, before)
        step = grad / (np.abs(grad) + 1e-6)  # Adam's first
        step *= np.linalg.norm(before) / np.linalg.norm(step)
        sure = np.abs(grad) > 1e-4
        assert sure.mean() > 0.5
        np.testing.assert_allclose(
            np.asarray(after)[sure], (before - rate * step)[sure], atol=1e-4 * rate
        )

    # The network that was drawn takes an Adam step on the new set, the others none.
    doubled = np.concatenate([state.distilled.label_logits] * 2)

    def squared_error(params):
        found = exact.model.apply(params, mirrored(np.asarray(state.distilled.images)))
        return 0.5 * jnp.square(found - doubled).sum(1).mean()

    grads = jax.grad(squared_error)(params)
    for before, after, grad in zip(
        jax.tree.leaves(start.aux.states.params),
        jax.tree.leaves(state.aux.states.params),
        jax.tree.leaves(grads),
        strict=True,
    ):
        expected = np.array(before)
        expected[which] -= 0.01 * np.asarray(grad) / (np.abs(grad) + 1e-8)
        np.testing.assert_allclose(after, expected, atol=1e-7)


def test_networks_are_renewed_after_their_last_step(problem):
    config = kernel.Config(pool=1, max_age=2, real_batch=9, label_lr=0.0)
    method = kernel.make(config, problem.model)
    state, step = method.init(jax.random.key(0), problem.distilled), jax.jit(method.step)
    ages = []
    for key in jax.random.split(jax.random.key(1), 5):
        state, _ = step(key, state, problem.real)
        ages.append(int(state.aux.ages[0]))
        if ages[-1] == 0:
            assert all(not np.any(m) for m in jax.tree.leaves(state.aux.states[1][0].mu))
    assert ages == [1, 2, 0, 1, 2]


def test_the_ntk_is_that_of_the_dense_jacobian(exact):
    """Kernel and meta-gradient, by images, of the network that the step draws."""
    config = kernel.Config(kernel="ntk", label_lr=0.0, outer="adam", **PLAIN)
    method, key = kernel.make(config, exact.model), jax.random.key(2)
    start = method.init(jax.random.key(0), exact.distilled)
    _, info = jax.jit(method.step)(key, start, exact.real)
    network_key, batch_key = jax.random.split(key)
    params = exact.model.init(network_key)
    batch = sampling.batch(batch_key, exact.real, 9)

    def loss(images):
        def jacobian(x):
            found = jax.jacobian(exact.model.apply)(params, x)
            return jnp.concatenate(
                [leaf.reshape(len(x), 3, -1) for leaf in jax.tree.leaves(found)], axis=-1
            ).reshape(len(x), -1)

        ours, theirs = jacobian(images), jacobian(batch.images)
        k_ss = ours @ ours.T
        ridge = config.ridge * jnp.trace(k_ss) / 6 * jnp.eye(6)
        found = theirs @ ours.T @ jnp.linalg.inv(k_ss + ridge) @ start.distilled[1]
        return 0.5 * jnp.square(found - (batch.labels - 1 / 3)).sum(1).mean()

    value, grad = jax.jit(jax.value_and_grad(loss))(exact.distilled.images)
    np.testing.assert_allclose(info.loss, value, rtol=1e-9)
    np.testing.assert_allclose(info.grad_norm, jnp.linalg.norm(grad), rtol=1e-8)


def test_a_kernel_of_ones_own(problem):
    """Only this kernel is asked; a Gaussian one of pixels fits the set itself."""

    def gaussian(params, ours, theirs):
        def between(a, b):
            a, b = a.reshape(len(a), 1, -1), b.reshape(1, len(b), -1)
            return jnp.exp(-jnp.square(a - b).mean(-1))

        return between(ours, ours), between(theirs, ours)

    config = kernel.Config(label_lr=0.0, **PLAIN)
    method = kernel.make(config, problem.model, kernel=gaussian)
    state = method.init(jax.random.key(0), problem.distilled)
    _, info = jax.jit(method.step)(jax.random.key(1), state, problem.real)
    assert info.grad_norm > 0
    other = kernel.make(config, problem.model)
    assert other.step(jax.random.key(1), state, problem.real)[1].loss != info.loss


def test_targets_are_separated_from_hard_labels(problem):
    targets = jnp.asarray([[0.2, 0.9, -0.1], [1.4, 0.0, 0.3]])
    held = problem.distilled._replace(label_logits=targets)
    hard, found = distilled_set.separate_targets(held)
    np.testing.assert_array_equal(found, targets)
    labels = jax.nn.softmax(hard.label_logits)
    np.testing.assert_array_equal(labels, [[0, 1, 0], [1, 0, 0]])


def test_rcig_is_the_dense_tangent_kernel_and_cross_entropy(exact):
    """Loss and meta-gradient of the drawn network, by a direct solve of its whole NTK."""
    config = kernel.Config(
        kernel="linearised",
        loss="cross_entropy",
        weight_decay=0.05,
        solver_iters=60,
        pool=3,
        real_batch=9,
        network_steps=4,
        network_lr=0.01,
        outer="adabelief",
    )
    method, key = kernel.make(config, exact.model), jax.random.key(5)
    start = method.init(jax.random.key(1), exact.distilled)
    state, info = jax.jit(method.step)(key, start, exact.real)
    ages = np.asarray(state.aux.ages) - np.asarray(start.aux.ages)
    (which,) = np.flatnonzero(ages)
    assert ages[which] == 4
    params = jax.tree.map(lambda x: x[which], start.aux.states.params)
    batch = sampling.batch(jax.random.split(key)[1], exact.real, 9)

    def jacobian(x):
        found = jax.jacobian(exact.model.apply)(params, x)
        leaves = [y.reshape(3 * len(x), -1) for y in jax.tree.leaves(found)]
        return jnp.concatenate(leaves, axis=1)

    def loss(images, labels):
        doubled = jnp.concatenate([images, images[:, :, ::-1]])
        ours, theirs = jacobian(doubled), jacobian(batch.images)
        gram = ours @ ours.T + 0.05 * 6 * jnp.eye(3 * 12)
        found = theirs @ ours.T @ jnp.linalg.solve(gram, jnp.tile(labels, (2, 1)).ravel())
        logits = found.reshape(9, 3)
        factors = jnp.geomspace(1e-2, 1e4, 4000)
        scaled = factors[:, None, None] * jax.lax.stop_gradient(logits)
        shares = jax.nn.log_softmax(scaled)
        best = factors[jnp.argmin(-(shares * batch.labels).sum(2).mean(1))]
        shares = jax.nn.log_softmax(best * logits)
        top = jnp.sort(labels, axis=1)
        gain = jnp.minimum(top[:, 2] - top[:, 1], 1 / 3).mean()
        return -(shares * batch.labels).sum(1).mean() - gain

    images, labels = start.distilled[:2]
    value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(images, labels)
    np.testing.assert_allclose(info.loss, value, atol=1e-4)
    norm = jnp.sqrt(sum(jnp.square(g).sum() for g in grads))
    np.testing.assert_allclose(info.grad_norm, norm, rtol=5e-3)


def test_rcig_needs_features_and_learns(problem):
    config = kernel.Config(
        kernel="linearised", loss="cross_entropy", pool=2, real_batch=18, image_lr=0.05
    )
    method = kernel.make(config, problem.model)
    state, step = method.init(jax.random.key(0), problem.distilled), jax.jit(method.step)
    found = []
    for key in jax.random.split(jax.random.key(1), 12):
        state, info = step(key, state, problem.real)
        found.append(float(info.loss))
    assert np.mean(found[-3:]) < np.mean(found[:3])
    blind = problem.model._replace(features=None)
    with pytest.raises(InputError, match="features"):
        kernel.make(config, blind).init(jax.random.key(0), problem.distilled)
