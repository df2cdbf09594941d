"""Measures of kernel matrices, and kernel regression.

A kernel is an array: f32[n1, n2], shared by all outputs, or f32[n1, n2, k, k], between
outputs as well (the forms `trace` and `full` of `distilljax.curvature.ntk`). Distances and
alignments of a zero kernel are NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from distilljax import exported
from distilljax.types import Array, InputError

_PRECISE = jax.lax.Precision.HIGHEST


@exported.named
class Dynamics(NamedTuple):
    """Outputs along training, one entry per time.

    Attributes:
      train: f32[s, n, k].
      test: f32[s, t, k].
    """

    train: Array
    test: Array | None


def inner(k1: Array, k2: Array) -> Array:
    """Returns the Frobenius inner product `<K1, K2>`, f32[].

    >>> float(kernels.inner(np.eye(2), np.ones((2, 2))))
    2.0
    """
    _check_alike(k1, k2)
    return jnp.vdot(k1, k2, precision=_PRECISE)


def _unit(kernel: Array) -> Array:
    return kernel / jnp.sqrt(inner(kernel, kernel))


def kernel_distance(k1: Array, k2: Array) -> Array:
    """Returns `1 - <K1, K2> / (|K1| |K2|)`, f32[] (Fort et al. 2020, arXiv 2010.15110).

    Zero for proportional kernels, at most one for positive semidefinite ones. It is
    computed as half the squared distance of the normalised kernels, which is equal but
    accurate for small distances.

    >>> round(float(kernels.kernel_distance(jnp.eye(2), jnp.ones((2, 2)))), 3)
    0.293

    Raises:
      InputError: different shapes.
    """
    _check_alike(k1, k2)
    return jnp.square(_unit(k1) - _unit(k2)).sum() / 2


def kernel_velocity(k1: Array, k2: Array, time: Array | float) -> Array:
    """Returns the kernel distance divided by the elapsed time, f32[].

    Fort et al. 2020, arXiv 2010.15110, for two points of one training run.

    >>> round(float(kernels.kernel_velocity(jnp.eye(2), jnp.ones((2, 2)), time=10)), 4)
    0.0293

    Args:
      k1: the kernel at the start.
      k2: the kernel at the end, of the same shape.
      time: elapsed time in any unit, such as iterations or epochs.

    Raises:
      InputError: different shapes, or a time that is not positive.
    """
    if isinstance(time, float | int) and time <= 0:
        raise InputError(f"time={time}: a velocity needs time that has elapsed")
    return kernel_distance(k1, k2) / time


def centre(kernel: Array) -> Array:
    """Centres a kernel: returns the kernel of the centred features.

    For a kernel between two sets, the features of each set are centred separately (Cortes,
    Mohri & Rostamizadeh 2012, section 2).

    >>> kernels.centre(jnp.eye(2)).tolist()
    [[0.5, -0.5], [-0.5, 0.5]]

    Args:
      kernel: f32[n1, n2].

    Raises:
      InputError: a wrong shape.
    """
    _check_plain(kernel)
    rows = kernel - kernel.mean(axis=1, keepdims=True)
    return rows - rows.mean(axis=0, keepdims=True)


def alignment(k1: Array, k2: Array, *, centred: bool = False) -> Array:
    """Returns `<K1, K2> / (|K1| |K2|)`, f32[] in [-1, 1]; >= 0 for semidefinite kernels.

    Cristianini, Shawe-Taylor, Elisseeff & Kandola 2002; centred, Cortes, Mohri &
    Rostamizadeh 2012 (arXiv 1203.0550), section 2.

    >>> round(float(kernels.alignment(jnp.eye(2), 3 * jnp.eye(2))), 3)
    1.0

    Args:
      k1: a kernel.
      k2: a kernel of the same shape, possibly of other images.
      centred: whether to apply `centre` first; for kernels f32[n1, n2].

    Raises:
      InputError: different shapes, or shapes that cannot be centred.
    """
    _check_alike(k1, k2)
    if centred:
        k1, k2 = centre(k1), centre(k2)
    return inner(_unit(k1), _unit(k2))


def label_kernel(labels1: Array, labels2: Array | None = None) -> Array:
    """Returns Y1 Y2^T; for one-hot labels, one where two images have the same class.

    >>> kernels.label_kernel(jnp.eye(2), jnp.array([[1.0, 0.0]])).tolist()
    [[1.0], [0.0]]

    Args:
      labels1: f32[n1, k].
      labels2: f32[n2, k]; None for labels1.

    Returns:
      f32[n1, n2].

    Raises:
      InputError: labels of wrong shapes.
    """
    labels2 = labels1 if labels2 is None else labels2
    if labels1.ndim != 2 or labels2.ndim != 2 or labels1.shape[1] != labels2.shape[1]:
        raise InputError(
            f"labels {list(labels1.shape)} and {list(labels2.shape)}: expected [n1, k] and "
            "[n2, k]; make class numbers one-hot"
        )
    return _matmul(labels1, labels2.T)


def label_alignment(
    kernel: Array, labels1: Array, labels2: Array | None = None, *, centred: bool = False
) -> Array:
    """Returns the `alignment` of a kernel with that of the labels, f32[].

    >>> round(float(kernels.label_alignment(jnp.eye(2), jnp.eye(2))), 3)
    1.0

    Args:
      kernel: f32[n1, n2].
      labels1: f32[n1, k].
      labels2: f32[n2, k]; None for labels1.
      centred: see `alignment`; uncentred, images of a single class have alignment.

    Raises:
      InputError: labels incompatible with the kernel.
    """
    _check_labels(kernel, labels1, labels2)
    return alignment(kernel, label_kernel(labels1, labels2), centred=centred)


def class_means(kernel: Array, labels1: Array, labels2: Array | None = None) -> Array:
    """Returns the mean of a kernel over the images of each pair of classes.

    This is the kernel between class means of features, so that data sets with the same
    classes and different numbers of images can be compared:

        alignment(class_means(k_s, labels_s), class_means(k_r, labels_r), centred=True)

    >>> labels = jnp.eye(2)[np.array([0, 1, 1])]
    >>> kernels.class_means(jnp.arange(9.0).reshape(3, 3), labels).tolist()
    [[0.0, 1.5], [4.5, 6.0]]

    Args:
      kernel: f32[n1, n2].
      labels1: f32[n1, k]; a soft label distributes its image over classes.
      labels2: f32[n2, k]; None for labels1.

    Returns:
      f32[k, k]; NaN where a class has no images.

    Raises:
      InputError: labels incompatible with the kernel.
    """
    _check_labels(kernel, labels1, labels2)
    labels2 = labels1 if labels2 is None else labels2
    weights1, weights2 = (y / jnp.sum(y, axis=0) for y in (labels1, labels2))
    return _matmul(_matmul(weights1.T, kernel), weights2)


def as_matrix(kernel: Array) -> Array:
    """Reshapes a kernel between outputs, f32[n1, n2, k, k], to a matrix f32[n1 k, n2 k].

    Row i k + a is output a of image i.

    >>> kernels.as_matrix(jnp.zeros((3, 2, 5, 5))).shape
    (15, 10)

    Raises:
      InputError: a wrong shape.
    """
    if kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3]:
        raise InputError(f"a kernel {list(kernel.shape)}: expected [n1, n2, k, k]")
    n1, n2, k, _ = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(n1 * k, n2 * k)


def spectrum(kernel: Array) -> Array:
    """Returns the eigenvalues of a symmetric kernel f32[n, n] in descending order, f32[n].

    Values below the largest times machine epsilon times n are rounding errors of either
    sign.

    >>> kernels.spectrum(jnp.diag(jnp.array([1.0, 3.0]))).tolist()
    [3.0, 1.0]

    Raises:
      InputError: a kernel that is not square; see `as_matrix` for f32[n, n, k, k].
    """
    _check_plain(kernel)
    if kernel.shape[0] != kernel.shape[1]:
        raise InputError(f"a kernel {list(kernel.shape)} is not square: no eigenvalues")
    return jnp.linalg.eigvalsh(kernel)[::-1]


def effective_rank(eigenvalues: Array) -> Array:
    """Returns the exponential of the entropy of the eigenvalues (Roy & Vetterli 2007).

    The entropy is that of the eigenvalues divided by their sum: f32[..., n] -> f32[...], in
    [1, n]. Negative eigenvalues, due to rounding, count as zero.

    >>> round(float(kernels.effective_rank(jnp.array([1.0, 1.0, 0.0]))), 4)
    2.0
    """
    positive = jnp.maximum(eigenvalues, 0)
    shares = positive / positive.sum(axis=-1, keepdims=True)
    return jnp.exp(jax.scipy.special.entr(shares).sum(axis=-1))


def participation_ratio(eigenvalues: Array) -> Array:
    """Returns (sum)^2 / sum of squares of eigenvalues, f32[..., n] -> f32[...], in [1, n].

    It is n for equal eigenvalues, and at most `effective_rank`.

    >>> float(kernels.participation_ratio(jnp.array([1.0, 1.0, 0.0])))
    2.0
    """
    total = eigenvalues.sum(axis=-1, keepdims=True)
    return 1 / jnp.square(eigenvalues / total).sum(axis=-1)


def condition_number(eigenvalues: Array) -> Array:
    """Returns the largest over the smallest absolute eigenvalue, f32[..., n] -> f32[...].

    Infinite for a singular matrix; values above 1 / machine epsilon mean numerically
    singular.

    >>> float(kernels.condition_number(jnp.array([4.0, 2.0])))
    2.0
    """
    sizes = jnp.abs(eigenvalues)
    return sizes.max(axis=-1) / sizes.min(axis=-1)


def kernel_ridge(k_ss: Array, y: Array, *, ridge: Array | float) -> Array:
    """Returns the coefficients of kernel ridge regression, (K_ss + ridge d I)^-1 y.

    d is the mean of the diagonal of K_ss: the ridge is relative to the kernel, and the
    predictions are independent of the kernel's scale. For an absolute ridge r pass r / d.
    Solved by Cholesky: NaN if the matrix is not positive definite, which can happen in
    single precision for a ridge below about 1e-6.

    >>> jnp.round(kernels.kernel_ridge(jnp.eye(2), jnp.eye(2), ridge=1.0), 3).tolist()
    [[0.5, 0.0], [0.0, 0.5]]

    Args:
      k_ss: f32[n, n], one kernel for all outputs, or f32[n, n, k, k]; symmetric.
      y: f32[n, k], targets; for a linearised network, minus its initial outputs.
      ridge: relative to d, at least zero.

    Returns:
      f32[n, k], for `predict`.

    Raises:
      InputError: incompatible shapes, or a negative ridge.
    """
    _check_targets(k_ss, y)
    factor = jax.scipy.linalg.cho_factor(_regularised(k_ss, ridge), lower=True)
    return jax.scipy.linalg.cho_solve(factor, _columns(k_ss, y)).reshape(y.shape)


def predict(k_ts: Array, coefficients: Array) -> Array:
    """Returns predictions at t points, sum_i K(x, x_i) c_i, f32[t, k].

    >>> kernels.predict(jnp.ones((1, 2)), jnp.eye(2)).tolist()
    [[1.0, 1.0]]

    Args:
      k_ts: f32[t, n] or f32[t, n, k, k].
      coefficients: f32[n, k], from `kernel_ridge`.

    Raises:
      InputError: incompatible shapes.
    """
    _check_cross(k_ts, coefficients)
    product = _matmul(_matrix(k_ts), _columns(k_ts, coefficients))
    return product.reshape(k_ts.shape[0], coefficients.shape[1])


def predict_linearised(
    k_ss: Array, k_ts: Array, y: Array, f0: Array, f0_test: Array, *, ridge: Array | float
) -> Array:
    """Returns the predictions of a linearised network trained to convergence.

    f0_test + K_ts (K_ss + ridge d I)^-1 (y - f0), which for ridge -> 0 is the limit of
    gradient descent on the squared error (Lee et al. 2019, arXiv 1902.06720, section 2.2).
    With a ridge, and the kernel f32[n, n, k, k], it minimises the sum of
    |f(params, x) - y|^2 over the training set plus ridge d |params - params0|^2.

    >>> found = kernels.predict_linearised(
    ...     jnp.eye(2), jnp.ones((1, 2)), jnp.eye(2), jnp.zeros((2, 2)), jnp.zeros((1, 2)),
    ...     ridge=1.0)
    >>> jnp.round(found, 3).tolist()
    [[0.5, 0.5]]

    Args:
      k_ss: f32[n, n] or f32[n, n, k, k], the empirical NTK of the training set.
      k_ts: f32[t, n] or f32[t, n, k, k], between test and training set.
      y: f32[n, k], targets.
      f0: f32[n, k], outputs of the network at the linearisation point.
      f0_test: f32[t, k], likewise on the test set.
      ridge: see `kernel_ridge`.

    Returns:
      f32[t, k].

    Raises:
      InputError: incompatible shapes, or a negative ridge.
    """
    _check_outputs(y, f0, k_ts, f0_test)
    _check_cross(k_ts, y, k_ss)
    return f0_test + predict(k_ts, kernel_ridge(k_ss, y - f0, ridge=ridge))


def leave_one_out(k_ss: Array, k_ts: Array, y: Array, ridge: Array | float) -> Array:
    """Returns predictions of kernel ridge regression without each training point j.

    With B = (K_ss + ridge d I)^-1 and c = B y, leaving out j changes the coefficients by
    -B_:j B_jj^-1 c_j (block inverse), which makes the j-th zero: one inverse serves all j.
    The ridge is that of the whole set: d is not recomputed.

    >>> found = kernels.leave_one_out(jnp.eye(2), jnp.ones((1, 2)), jnp.eye(2), 1.0)
    >>> jnp.round(found, 3).tolist()
    [[[0.0, 0.5]], [[0.5, 0.0]]]

    Args:
      k_ss: f32[n, n] or f32[n, n, k, k], symmetric.
      k_ts: f32[t, n] or f32[t, n, k, k].
      y: f32[n, k], targets; for a linearised network pass y - f0 and add f0_test.
      ridge: see `kernel_ridge`.

    Returns:
      f32[n, t, k]; entry j without training point j.

    Raises:
      InputError: incompatible shapes, or a negative ridge.
    """
    _check_targets(k_ss, y)
    _check_cross(k_ts, y, k_ss)
    (n, k), t = y.shape, k_ts.shape[0]
    size = 1 if k_ss.ndim == 2 else k  # matrix rows per point
    factor = jax.scipy.linalg.cho_factor(_regularised(k_ss, ridge), lower=True)
    inverse = jax.scipy.linalg.cho_solve(factor, jnp.eye(n * size, dtype=k_ss.dtype))
    coefficients = jax.scipy.linalg.cho_solve(factor, _columns(k_ss, y))
    diagonal = jnp.einsum("iaib->iab", inverse.reshape(n, size, n, size))
    own = jnp.linalg.solve(diagonal, coefficients.reshape(n, size, -1))
    cross = _matrix(k_ts)
    change = jnp.einsum(
        "tajb,jbc->jtac",
        _matmul(cross, inverse).reshape(t, size, n, size),
        own,
        precision=_PRECISE,
    )
    return _matmul(cross, coefficients).reshape(t, k) - change.reshape(n, t, k)


def gradient_flow(
    k_ss: Array,
    y: Array,
    f0: Array,
    times: Array,
    k_ts: Array | None = None,
    f0_test: Array | None = None,
) -> Dynamics:
    """Returns outputs of a linearised network under gradient flow, in closed form.

    Gradient flow on the loss 1/(2n) sum_i |f(x_i) - y_i|^2 is df/dt = -K_ss (f - y) / n,

        f(t) = y + exp(-K_ss t / n) (f0 - y),
        f_test(t) = f0_test + K_ts K_ss^-1 (I - exp(-K_ss t / n)) (y - f0),

    Lee et al. 2019, arXiv 1902.06720, section 2.2, for the mean over images, not the sum.

    >>> found = kernels.gradient_flow(
    ...     jnp.eye(2), jnp.ones((2, 1)), jnp.zeros((2, 1)), jnp.array([0.0, 2.0]))
    >>> round(float(found.train[1, 0, 0]), 3)
    0.632

    Args:
      k_ss: f32[n, n, k, k], the empirical NTK; or f32[n, n], one kernel for all outputs,
        best approximated by the mean over outputs, the form `trace` divided by k.
      y: f32[n, k], targets.
      f0: f32[n, k], initial outputs.
      times: f32[s], in units of learning rate times steps (with momentum, divided by one
        minus it).
      k_ts: f32[t, n, k, k] or f32[t, n], between test and training set; optional.
      f0_test: f32[t, k], initial outputs on the test set.

    Raises:
      InputError: incompatible shapes, or one of k_ts and f0_test without the other.
    """
    _check_targets(k_ss, y)
    _check_outputs(y, f0)
    if (k_ts is None) != (f0_test is None):
        raise InputError("outputs on a test set need both k_ts and f0_test; give the other")
    if k_ts is not None:
        _check_cross(k_ts, y, k_ss)
        _check_outputs(y, f0, k_ts, f0_test)
    if times.ndim != 1:
        raise InputError(f"times {list(times.shape)}: expected [s]")
    n, k = y.shape
    values, vectors = jnp.linalg.eigh(_matrix(k_ss))
    values = jnp.maximum(values, 0)
    gap = _matmul(vectors.T, _columns(k_ss, y - f0))
    scaled_times = times[:, None] / n
    exponents = values * scaled_times

    def combine(matrix: Array, weights: Array) -> Array:
        """Returns the matrix times weights * gap for each time, f32[s, m, k]."""
        products = _matmul(matrix, weights[:, :, None] * gap)
        return products.reshape(times.size, -1, k)

    train = y - combine(vectors, jnp.exp(-exponents))
    if k_ts is None or f0_test is None:
        return Dynamics(train, None)
    # (1 - exp(-value t / n)) / value, and its limit at zero.
    positive = values > 0
    weights = -jnp.expm1(-exponents) / jnp.where(positive, values, 1)
    weights = jnp.where(positive, weights, scaled_times)
    return Dynamics(train, f0_test + combine(_matmul(_matrix(k_ts), vectors), weights))


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=_PRECISE)


def _matrix(kernel: Array) -> Array:
    """Returns [n1, n2] unchanged and [n1, n2, k, k] as [n1 k, n2 k]."""
    return kernel if kernel.ndim == 2 else as_matrix(kernel)


def _columns(kernel: Array, y: Array) -> Array:
    """Reshapes targets f32[n, k] for the kernel matrix: [n, k] or [n k, 1]."""
    return y if kernel.ndim == 2 else y.reshape(-1, 1)


def _regularised(k_ss: Array, ridge: Array | float) -> Array:
    if isinstance(ridge, float | int) and ridge < 0:
        raise InputError(f"ridge={ridge}: must not be negative")
    matrix = _matrix(k_ss)
    mean = jnp.diagonal(matrix).mean()
    return matrix + ridge * mean * jnp.eye(matrix.shape[0], dtype=matrix.dtype)


def _check_alike(k1: Array, k2: Array) -> None:
    if k1.shape != k2.shape:
        raise InputError(
            f"kernels {list(k1.shape)} and {list(k2.shape)}: expected the same shape; "
            "class_means makes kernels of two data sets comparable"
        )


def _check_plain(kernel: Array) -> None:
    if kernel.ndim != 2:
        raise InputError(
            f"a kernel {list(kernel.shape)}: expected [n1, n2]; take the form `trace`, one "
            "of the `classes`, or as_matrix of a `full` one"
        )


def _check_labels(kernel: Array, labels1: Array, labels2: Array | None) -> None:
    _check_plain(kernel)
    labels2 = labels1 if labels2 is None else labels2
    shapes = labels1.shape, labels2.shape
    fit = tuple(shape[0] for shape in shapes if len(shape) == 2) == kernel.shape
    if not fit or shapes[0][1] != shapes[1][1]:
        raise InputError(
            f"labels {list(shapes[0])} and {list(shapes[1])} for a kernel "
            f"{list(kernel.shape)}: expected [n1, k] and [n2, k] for [n1, n2]; make class "
            "numbers one-hot"
        )


def _check_targets(k_ss: Array, y: Array) -> None:
    n, k = y.shape if y.ndim == 2 else (-1, -1)
    if k_ss.shape not in ((n, n), (n, n, k, k)):
        raise InputError(
            f"a kernel {list(k_ss.shape)} and targets {list(y.shape)}: expected [n, n] or "
            "[n, n, k, k], and [n, k]"
        )


def _check_cross(k_ts: Array, y: Array, k_ss: Array | None = None) -> None:
    n, k = y.shape if y.ndim == 2 else (-1, -1)
    if k_ts.ndim not in (2, 4) or k_ts.shape[1:] not in ((n,), (n, k, k)):
        raise InputError(
            f"a cross kernel {list(k_ts.shape)} and training points {list(y.shape)}: "
            "expected [t, n] or [t, n, k, k], and [n, k]"
        )
    if k_ss is not None and k_ss.ndim != k_ts.ndim:
        raise InputError(
            f"a kernel {list(k_ss.shape)} and a cross kernel {list(k_ts.shape)}: expected "
            "the same form"
        )


def _check_outputs(
    y: Array, f0: Array, k_ts: Array | None = None, f0_test: Array | None = None
) -> None:
    if f0.shape != y.shape:
        raise InputError(
            f"outputs {list(f0.shape)} and targets {list(y.shape)}: expected the same shape"
        )
    if k_ts is None or f0_test is None:
        return
    if f0_test.shape != (k_ts.shape[0], y.shape[1]):
        raise InputError(
            f"outputs {list(f0_test.shape)} on a test set with a cross kernel "
            f"{list(k_ts.shape)} and targets {list(y.shape)}: expected [t, k]"
        )
