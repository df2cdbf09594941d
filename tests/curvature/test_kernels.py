"""Kernel measures against numbers by hand and plain numpy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.curvature import kernels
from distilljax.types import InputError

N, T, K = 6, 4, 3


class Data:
    """Kernels of random features: one for every output, and one between outputs."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(N + T, K, 40))
        full = np.einsum("iap,jbp->ijab", features, features)
        plain = np.einsum("ijaa->ij", full) / K
        self.y, self.f0 = rng.normal(size=(2, N, K))
        self.f0_test = rng.normal(size=(T, K))
        self.full = full[:N, :N], full[N:, :N]
        self.plain = plain[:N, :N], plain[N:, :N]


@pytest.fixture
def data(float64):
    return Data()


def dense(kernel):
    """The matrix [n1 k, n2 k]; kernels [n1, n2] are the same for every output."""
    if kernel.ndim == 2:
        return np.kron(kernel, np.eye(K))
    return np.block(
        [[kernel[i, j] for j in range(kernel.shape[1])] for i in range(len(kernel))]
    )


def solve(k_ss, k_ts, y, r):
    """Kernel ridge regression of a ridge r in the units of the kernel."""
    system = dense(k_ss) + r * np.eye(y.size)
    return (dense(k_ts) @ np.linalg.solve(system, y.reshape(-1))).reshape(-1, K)


def mean_diagonal(kernel):
    return np.trace(dense(kernel)) / (len(kernel) * K)


A = np.array([[2.0, 1.0], [1.0, 2.0]])
B = np.array([[1.0, 0.0], [0.0, 3.0]])


def test_measures_by_hand(float64):
    """|A|^2 = 10, |B|^2 = 10, <A, B> = 8."""
    assert kernels.inner(A, B) == 8
    np.testing.assert_allclose(kernels.alignment(A, B), 0.8, rtol=1e-12)
    np.testing.assert_allclose(kernels.kernel_distance(A, B), 0.2, rtol=1e-12)
    np.testing.assert_allclose(kernels.kernel_velocity(A, B, 4.0), 0.05, rtol=1e-12)
    np.testing.assert_allclose(kernels.kernel_velocity(A, B, 0.5), 0.4, rtol=1e-12)
    # Without a ridge: A^-1 [1, 0] = [2, -1] / 3.
    weights = kernels.kernel_ridge(A, np.array([[1.0], [0.0]]), ridge=0)
    np.testing.assert_allclose(weights[:, 0], [2 / 3, -1 / 3], rtol=1e-12)
    # Centred: [[1, -1], [-1, 1]] times 1/2 and 1.
    np.testing.assert_allclose(kernels.centre(A), [[0.5, -0.5], [-0.5, 0.5]], atol=1e-12)
    np.testing.assert_allclose(kernels.centre(B), [[1, -1], [-1, 1]], atol=1e-12)
    np.testing.assert_allclose(kernels.alignment(A, B, centred=True), 1, rtol=1e-12)
    np.testing.assert_allclose(kernels.spectrum(A), [3, 1], rtol=1e-12)


def test_alignment_does_not_depend_on_scale(data):
    (k1, cross), other = data.plain, Data(1).plain[0]
    for kernel in (k1, cross, data.full[0]):
        np.testing.assert_allclose(kernels.alignment(kernel, 7 * kernel), 1, rtol=1e-12)
        np.testing.assert_allclose(
            kernels.kernel_distance(kernel, 7 * kernel), 0, atol=1e-15
        )
    np.testing.assert_allclose(
        kernels.alignment(3 * k1, other, centred=True),
        kernels.alignment(k1, other / 5, centred=True),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        kernels.kernel_distance(k1, other), 1 - kernels.alignment(k1, other), rtol=1e-10
    )


def test_small_distances_survive_single_precision():
    kernel = jnp.asarray(Data().plain[0], jnp.float32)
    turned = kernel.at[0, 1].add(1e-4 * jnp.sqrt(kernels.inner(kernel, kernel)))
    unit, move = np.asarray(kernel, float), np.asarray(turned, float)
    cosine = (unit * move).sum() / np.linalg.norm(unit) / np.linalg.norm(move)
    np.testing.assert_allclose(
        kernels.kernel_distance(kernel, turned), 1 - cosine, rtol=1e-2
    )
    assert 0 < 1 - cosine < 1e-8


def test_centring_is_that_of_features(float64):
    rng = np.random.default_rng(0)
    x1, x2 = rng.normal(size=(5, 9)) + 1, rng.normal(size=(7, 9)) - 2
    expected = (x1 - x1.mean(0)) @ (x2 - x2.mean(0)).T
    np.testing.assert_allclose(kernels.centre(x1 @ x2.T), expected, atol=1e-12)


def test_label_kernels(float64):
    labels = jnp.eye(3)[jnp.array([0, 2, 2])]
    np.testing.assert_array_equal(
        kernels.label_kernel(labels), [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    )
    soft = jnp.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(
        kernels.label_kernel(labels, soft), [[0.5, 0], [0, 1], [0, 1]]
    )
    # <K, Y Y^T> = 5, |K| = 3, |Y Y^T| = sqrt(5).
    np.testing.assert_allclose(
        kernels.label_alignment(jnp.ones((3, 3)), labels), 5 / (3 * 5**0.5), rtol=1e-12
    )
    np.testing.assert_allclose(
        kernels.label_alignment(labels @ soft.T, labels, soft, centred=True), 1, rtol=1e-12
    )


def test_class_means_are_a_kernel_of_means(float64):
    rng = np.random.default_rng(0)
    k_of, k_alike = [], []
    means = 3 * rng.normal(size=(3, 20))
    for counts in ([2, 3, 1], [4, 1, 5]):
        classes = np.repeat(np.arange(3), counts)
        x = means[classes] + rng.normal(size=(len(classes), 20))
        labels = np.eye(3)[classes]
        own = np.stack([x[classes == j].mean(0) for j in range(3)])
        found = kernels.class_means(x @ x.T, labels)
        np.testing.assert_allclose(found, own @ own.T, atol=1e-12)
        k_of.append((x, labels, own))
        k_alike.append(found)
    (x1, labels1, own1), (x2, labels2, own2) = k_of
    found = kernels.class_means(x1 @ x2.T, labels1, labels2)
    np.testing.assert_allclose(found, own1 @ own2.T, atol=1e-12)
    assert kernels.alignment(*k_alike, centred=True) > 0.8
    assert jnp.isnan(kernels.class_means(x1 @ x1.T, np.eye(4)[np.repeat(0, 6)])).any()


def test_full_kernel_as_a_matrix(data):
    np.testing.assert_array_equal(kernels.as_matrix(data.full[1]), dense(data.full[1]))


def test_spectra(data):
    matrix = dense(data.full[0])
    found = kernels.spectrum(kernels.as_matrix(data.full[0]))
    expected = np.linalg.eigvalsh(matrix)[::-1]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)
    values = jnp.array([[4.0, 4.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [5.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(kernels.effective_rank(values), [2, 4, 1], rtol=1e-12)
    np.testing.assert_allclose(kernels.participation_ratio(values), [2, 4, 1], rtol=1e-12)
    np.testing.assert_allclose(
        kernels.effective_rank(jnp.array([3.0, 1.0, -1e-9])), 4 / 3**0.75, rtol=1e-12
    )
    np.testing.assert_allclose(
        kernels.participation_ratio(jnp.array([3.0, 1.0])), 1.6, rtol=1e-12
    )
    np.testing.assert_allclose(
        kernels.condition_number(jnp.array([[8.0, -2.0], [1.0, 0.0]])), [4, np.inf]
    )


@pytest.mark.parametrize("form", ["plain", "full"])
def test_kernel_ridge(data, form):
    (k_ss, k_ts), ridge = getattr(data, form), 0.1
    coefficients = kernels.kernel_ridge(k_ss, data.y, ridge=ridge)
    assert coefficients.shape == (N, K)
    expected = solve(k_ss, k_ts, data.y, ridge * mean_diagonal(k_ss))
    np.testing.assert_allclose(kernels.predict(k_ts, coefficients), expected, atol=1e-10)
    scaled = kernels.kernel_ridge(9 * k_ss, data.y, ridge=ridge)
    np.testing.assert_allclose(kernels.predict(9 * k_ts, scaled), expected, atol=1e-10)
    found = kernels.predict_linearised(
        k_ss, k_ts, data.y, data.f0, data.f0_test, ridge=ridge
    )
    expected = solve(k_ss, k_ts, data.y - data.f0, ridge * mean_diagonal(k_ss))
    np.testing.assert_allclose(found, data.f0_test + expected, atol=1e-10)


@pytest.mark.parametrize("form", ["plain", "full"])
def test_leave_one_out_is_solving_again(data, form):
    (k_ss, k_ts), ridge = getattr(data, form), 0.05
    found = kernels.leave_one_out(k_ss, k_ts, data.y, ridge)
    r = ridge * mean_diagonal(k_ss)
    for j in range(N):
        rest = np.delete(np.arange(N), j)
        expected = solve(k_ss[np.ix_(rest, rest)], k_ts[:, rest], data.y[rest], r)
        np.testing.assert_allclose(found[j], expected, atol=1e-10)


class Linear:
    """A linear model f(w, x) = J(x) w and its gradient descent, in plain numpy."""

    def __init__(self):
        rng = np.random.default_rng(3)
        self.train, self.test = rng.normal(size=(2, 4, K, 30)) / 30**0.5
        self.y, self.start = rng.normal(size=(4, K)), rng.normal(size=30)

    def kernel(self, other):
        return np.einsum("iap,jbp->ijab", other, self.train)

    def descend(self, learning_rate, num_steps):
        w = self.start.copy()
        for _ in range(num_steps):
            gap = self.train @ w - self.y
            w -= learning_rate * np.einsum("iap,ia->p", self.train, gap) / len(self.y)
        return self.train @ w, self.test @ w


def test_gradient_flow_is_gradient_descent_by_small_steps(float64):
    model = Linear()
    times = np.array([0.0, 0.5, 5.0])
    found = kernels.gradient_flow(
        model.kernel(model.train),
        model.y,
        model.train @ model.start,
        times,
        model.kernel(model.test),
        model.test @ model.start,
    )
    errors = []
    for learning_rate in (1e-2, 1e-3):
        steps = [model.descend(learning_rate, round(t / learning_rate)) for t in times]
        gaps = [
            [abs(ours - theirs).max() for ours, theirs in zip(pair, step, strict=True)]
            for pair, step in zip(
                zip(found.train, found.test, strict=True), steps, strict=True
            )
        ]
        errors.append(np.max(gaps, axis=1))
    assert errors[0][0] < 1e-12  # at time zero
    assert (errors[1] < 2e-3).all()
    # The error of Euler's method is proportional to its step.
    np.testing.assert_allclose(errors[1][1:] / errors[0][1:], 0.1, rtol=0.05)


def test_gradient_flow_ends_at_ridgeless_regression(data):
    for form in ("plain", "full"):
        k_ss, k_ts = getattr(data, form)
        found = kernels.gradient_flow(
            k_ss, data.y, data.f0, np.array([1e6]), k_ts, data.f0_test
        )
        expected = data.f0_test + solve(k_ss, k_ts, data.y - data.f0, 0)
        np.testing.assert_allclose(found.train[0], data.y, atol=1e-8)
        np.testing.assert_allclose(found.test[0], expected, atol=1e-8)


def test_gradient_flow_of_a_singular_kernel(float64):
    """Two images that are the same, one output: df/dt = -K (f - y) / 2, K of ones."""
    y, f0 = jnp.array([[1.0], [3.0]]), jnp.zeros((2, 1))
    t = jnp.array([0.7])
    found = kernels.gradient_flow(
        jnp.ones((2, 2)), y, f0, t, jnp.array([[1.0, 1.0], [1.0, -1.0]]), jnp.zeros((2, 1))
    )
    mean = 2 * (1 - np.exp(-0.7))
    np.testing.assert_allclose(found.train[0], [[mean], [mean]], atol=1e-12)
    # K_ts rows along the mean gap, and along the gap that never closes: t / n times -2.
    np.testing.assert_allclose(found.test[0], [[mean], [-0.7]], atol=1e-12)
    assert kernels.gradient_flow(jnp.ones((2, 2)), y, f0, t).test is None


def test_under_jit(data):
    """Ridge and time may be traced."""
    (k_ss, k_ts), labels = data.full, np.eye(K)[np.arange(N) % K]

    def every(k_ss, k_ts, y, ridge, time):
        plain = k_ss[..., 0, 0]
        return (
            kernels.predict(k_ts, kernels.kernel_ridge(k_ss, y, ridge=ridge)),
            kernels.leave_one_out(k_ss, k_ts, y, ridge),
            kernels.kernel_velocity(plain, plain**2, time),
            kernels.label_alignment(plain, labels, centred=True),
            kernels.class_means(plain, labels),
        )

    inputs = (k_ss, k_ts, data.y, 0.1, 2.0)
    for a, b in zip(jax.jit(every)(*inputs), every(*inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


ONES = np.ones


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: kernels.kernel_distance(ONES((2, 2)), ONES((3, 3))),
            r"\[2, 2\] and \[3, 3\]",
        ),
        (lambda: kernels.alignment(ONES((2, 2)), ONES((3, 3))), r"\[2, 2\] and \[3, 3\]"),
        (lambda: kernels.kernel_velocity(ONES((2, 2)), ONES((2, 2)), 0), "time=0"),
        (lambda: kernels.centre(ONES((2, 2, 3, 3))), "as_matrix"),
        (lambda: kernels.centre(ONES(2)), r"kernel \[2\]: expected \[n1, n2\]"),
        (lambda: kernels.spectrum(ONES((2, 3))), r"\[2, 3\] is not square"),
        (lambda: kernels.as_matrix(ONES((2, 2))), r"kernel \[2, 2\]: expected"),
        (lambda: kernels.label_kernel(ONES((2, 3)), ONES((2, 4))), r"\[2, 4\]"),
        (lambda: kernels.label_alignment(ONES((2, 2)), ONES(2)), r"labels \[2\]"),
        (lambda: kernels.class_means(ONES((2, 4)), ONES((2, 3))), r"kernel \[2, 4\]"),
        (
            lambda: kernels.class_means(ONES((2, 4)), ONES((2, 3)), ONES((4, 2))),
            r"labels \[2, 3\] and \[4, 2\]",
        ),
        (
            lambda: kernels.kernel_ridge(ONES((2, 3)), ONES((2, 1)), ridge=1),
            r"kernel \[2, 3\]",
        ),
        (lambda: kernels.kernel_ridge(ONES((2, 2)), ONES((2, 1)), ridge=-1), "ridge=-1"),
        (lambda: kernels.predict(ONES((4, 3)), ONES((2, 1))), r"cross kernel \[4, 3\]"),
        (
            lambda: kernels.leave_one_out(
                ONES((2, 2)), ONES((4, 2, 3, 3)), ONES((2, 3)), ridge=1
            ),
            r"\[2, 2\] and a cross kernel \[4, 2, 3, 3\]",
        ),
        (
            lambda: kernels.predict_linearised(
                ONES((2, 2)),
                ONES((4, 2)),
                ONES((2, 3)),
                ONES((2, 3)),
                ONES((5, 3)),
                ridge=1,
            ),
            r"outputs \[5, 3\]",
        ),
        (
            lambda: kernels.gradient_flow(
                ONES((2, 2)), ONES((2, 3)), ONES((2, 2)), ONES(1)
            ),
            r"outputs \[2, 2\] and targets \[2, 3\]",
        ),
        (
            lambda: kernels.gradient_flow(
                ONES((2, 2)), ONES((2, 3)), ONES((2, 3)), ONES(1), ONES((4, 2))
            ),
            "both k_ts and f0_test",
        ),
        (
            lambda: kernels.gradient_flow(
                ONES((2, 2)), ONES((2, 3)), ONES((2, 3)), ONES((1, 1))
            ),
            r"times \[1, 1\]",
        ),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(InputError, match=message):
        call()
