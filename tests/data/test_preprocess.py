"""Transforms against the defining formula, written directly in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.data import FITTERS, KINDS, PUBLISHED, fit, from_arrays, load, to_arrays
from distilljax.types import InputError

SHAPE = (8, 9, 3)


def correlated_images(num, seed):
    """Smooth random images: features as strongly correlated as in photographs."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(num, 3, 3, 3)).repeat(3, 1).repeat(3, 2)[:, :8]
    values = 120 + 50 * coarse + 8 * rng.normal(size=(num, *SHAPE))
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def train():
    return correlated_images(400, seed=0)


@pytest.fixture(scope="module")
def test():
    return correlated_images(50, seed=1)


def flat(images):
    return images.reshape(len(images), -1).astype(np.float64)


def inverse_root(matrix):
    """M^(-1/2) by Denman-Beavers iteration, which uses no eigendecomposition."""
    root, inverse = matrix, np.eye(len(matrix))
    for _ in range(15):
        root, inverse = (
            (root + np.linalg.inv(inverse)) / 2,
            (inverse + np.linalg.inv(root)) / 2,
        )
    return inverse


def reference_none(train, images):
    return images / 255.0


def reference_normalise(train, images):
    unit = train / 255.0
    return (images / 255.0 - unit.mean((0, 1, 2))) / unit.std((0, 1, 2))


def reference_zca(train, images):
    unit = flat(train) / 255
    covariance = np.cov(unit.T, ddof=1)
    whiten = inverse_root(covariance + 0.1 * np.eye(len(covariance)))
    return ((flat(images) / 255 - unit.mean(0)) @ whiten).reshape(images.shape)


def reference_zca_normed(train, images):
    def normed(x):
        x = flat(x)
        x = x - x.mean(1, keepdims=True)
        return x / np.sqrt((x**2).sum(1, keepdims=True))

    second = normed(train).T @ normed(train) / len(train)
    ridge = 0.1 * np.linalg.eigvalsh(second).mean()
    whiten = inverse_root(second + ridge * np.eye(len(second)))
    return (normed(images) @ whiten).reshape(images.shape)


def scaled(train, images):
    unit = train / 255.0
    return flat((images / 255.0 - unit.mean((0, 1, 2))) / unit.std((0, 1, 2)))


def reference_zca_scaled(train, images):
    x = scaled(train, train)
    covariance = np.cov(x.T, ddof=0)
    ridge = 0.1 * np.trace(covariance) / len(covariance)
    whiten = inverse_root(covariance + ridge * np.eye(len(covariance)))
    return ((scaled(train, images) - x.mean(0)) @ whiten).reshape(images.shape)


def reference_zca_uncentred(train, images):
    x = scaled(train, train)
    second = x.T @ x / len(x)
    ridge = 0.1 * np.trace(second) / len(second)
    whiten = inverse_root(second + ridge * np.eye(len(second)))
    return (scaled(train, images) @ whiten).reshape(images.shape)


REFERENCES = {
    "none": reference_none,
    "normalise": reference_normalise,
    "zca": reference_zca,
    "zca_normed": reference_zca_normed,
    "zca_scaled": reference_zca_scaled,
    "zca_uncentred": reference_zca_uncentred,
}


def test_every_kind_has_a_reference():
    assert set(REFERENCES) == set(FITTERS)


@pytest.mark.parametrize("kind", FITTERS)
def test_formula(kind, train, test):
    out = fit(kind, train)(test)
    expected = REFERENCES[kind](train, test)
    assert out.dtype == jnp.float32
    assert np.abs(out - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("kind", sorted(set(REFERENCES) - {"zca_normed"}))
def test_inverse(kind, train, test):
    transform = fit(kind, train)
    back = transform.inverse(transform(test))
    assert back.dtype == jnp.float32
    assert np.abs(back - test / 255.0).max() < 1e-4


def test_inverse_of_normed(train, test):
    transform = fit("zca_normed", train)
    unit = flat(test) / 255
    mean = unit.mean(1)
    norm = np.linalg.norm(unit - mean[:, None], axis=1)
    back = transform.inverse(transform(test), mean, norm)
    assert np.abs(back - test / 255.0).max() < 1e-4


def test_default_inverse_of_normed_uses_training_averages(train, test):
    transform = fit("zca_normed", train)
    unit = flat(train) / 255
    means = unit.mean(1)
    norms = np.linalg.norm(unit - means[:, None], axis=1)
    np.testing.assert_allclose(transform.image_mean, means.mean(), rtol=1e-6)
    np.testing.assert_allclose(transform.image_norm, norms.mean(), rtol=1e-6)
    x = flat(test) / 255
    x = x - x.mean(1, keepdims=True)
    expected = x / np.linalg.norm(x, axis=1, keepdims=True) * norms.mean() + means.mean()
    back = transform.inverse(transform(test))
    assert np.abs(flat(np.asarray(back)) - expected).max() < 1e-4


def test_zca_whitens_all_but_the_ridge(train):
    out = flat(np.asarray(fit("zca", train)(train)))
    eigenvalues = np.linalg.eigvalsh(np.cov(flat(train).T / 255))
    expected = eigenvalues / (eigenvalues + 0.1)
    np.testing.assert_allclose(np.linalg.eigvalsh(np.cov(out.T)), expected, atol=1e-4)


def test_normed_ignores_brightness_and_contrast(train):
    transform = fit("zca_normed", train)
    image = np.random.default_rng(2).integers(0, 100, (1, *SHAPE), dtype=np.uint8)
    np.testing.assert_allclose(transform(image), transform(2 * image + 40), atol=1e-3)


def test_normed_of_a_constant_image_is_zero(train):
    out = fit("zca_normed", train)(np.full((1, *SHAPE), 77, np.uint8))
    np.testing.assert_array_equal(out, np.zeros_like(out))


def test_fitting_in_chunks_changes_nothing(train, monkeypatch):
    whole = {kind: to_arrays(fit(kind, train))[1] for kind in FITTERS}
    monkeypatch.setattr("distilljax.data.matrices.CHUNK", 37)
    for kind, arrays in whole.items():
        for name, array in to_arrays(fit(kind, train))[1].items():
            np.testing.assert_allclose(array, arrays[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", FITTERS)
def test_round_trip_through_arrays(kind, train, test):
    transform = fit(kind, train)
    stored, arrays = to_arrays(transform)
    assert stored == kind
    assert all(array.dtype == np.float32 for array in arrays.values())
    again = from_arrays(stored, arrays)
    assert type(again) is type(transform)
    np.testing.assert_array_equal(again(test), transform(test))
    np.testing.assert_array_equal(
        again.inverse(again(test)), transform.inverse(again(test))
    )


@pytest.mark.parametrize("kind", FITTERS)
def test_is_an_argument_of_jitted_functions(kind, train, test):
    traces = []

    @jax.jit
    def both(transform, images):
        traces.append(kind)
        out = transform(images)
        return out, transform.inverse(out)

    for fitted_on in (train, train[:200]):
        transform = fit(kind, fitted_on)
        out, back = both(transform, jnp.asarray(test))
        np.testing.assert_allclose(out, transform(test), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(back, transform.inverse(out), rtol=1e-4, atol=1e-4)
    assert len(traces) == 1


def test_inverse_can_be_differentiated(train, test):
    transform = fit("zca", train)
    gradient = jax.grad(lambda z: transform.inverse(z).sum())(transform(test))
    expected = np.asarray(transform.unwhiten).sum(1).reshape(SHAPE)
    np.testing.assert_allclose(gradient[0], expected, rtol=1e-4, atol=1e-5)


PAPERS = {
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    "embedded": ([0.2861], [0.3530]),
    "fashion_mnist": ([0.2861], [0.3530]),
    "mnist": ([0.1307], [0.3081]),
}


def test_every_published_set_is_tested():
    assert set(PAPERS) == set(PUBLISHED)
    assert set(KINDS) == {*FITTERS, "published"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_constants(name, test):
    mean, std = map(np.array, PAPERS[name])
    images = test[..., : len(mean)]
    transform = fit("published", images, name)
    out = transform(images)
    assert out.dtype == jnp.float32
    expected = (images / 255.0 - mean) / std
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(transform.inverse(out), images / 255.0, atol=1e-6)
    np.testing.assert_array_equal(out, fit("published", images[:1], name)(images))


def test_published_is_stored_as_any_normalisation(train, test):
    transform = fit("published", train, "cifar10:3.0.2")
    kind, arrays = to_arrays(transform)
    assert kind == "normalise"
    np.testing.assert_array_equal(from_arrays(kind, arrays)(test), transform(test))
    with pytest.raises(InputError, match="no preprocessing 'published'"):
        from_arrays("published", arrays)


def test_embedded_images_are_as_the_papers_say():
    mean, std = PAPERS["embedded"]
    data = load("embedded")
    np.testing.assert_allclose(data.mean, mean, atol=2e-3)
    np.testing.assert_allclose(data.std, std, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "cifar100",
            lambda x: x,
            "'cifar100', only for cifar10, embedded, fashion_mnist, mnist; .*'normalise'",
        ),
        (None, lambda x: x, "no published constants for the data set None"),
        ("sets/cifar10.npz", lambda x: x, "no published constants"),
        ("mnist", lambda x: x, "images have 3 channels, .* of mnist are for 1;"),
        ("cifar10", lambda x: x / 255.0, "uint8.*float64"),
    ],
)
def test_published_refusals(name, change, message, train):
    with pytest.raises(InputError, match=message):
        fit("published", change(train), name)


def constant_channel(train):
    images = train.copy()
    images[..., 2] = 9
    return images


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("pca", lambda x: x, "no preprocessing 'pca'.*none, normalise, zca, zca_normed"),
        ("zca", lambda x: x / 255.0, "uint8.*float64"),
        ("normalise", lambda x: x[0], r"\[n, h, w, c\].*\[8, 9, 3\]"),
        ("none", lambda x: x[:0], r"uint8\[0, 8, 9, 3\]"),
        ("normalise", constant_channel, r"channel 2 .*constant \(value 9\)"),
        ("zca", lambda x: x[:1], "at least 2"),
        ("zca_scaled", constant_channel, "channel 2 .*constant"),
        ("zca_uncentred", lambda x: x / 255.0, "uint8.*float64"),
        ("zca_normed", lambda x: np.full_like(x, 3), "of one colour"),
        ("zca", lambda x: x.tolist(), r"got a list; give numpy\.asarray"),
        ("none", lambda x: None, "got a NoneType"),
        (["zca"], lambda x: x, r"no preprocessing \['zca'\]"),
    ],
)
def test_fit_refusals(kind, change, message, train):
    with pytest.raises(InputError, match=message):
        fit(kind, change(train))


ONES = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("kind", "arrays", "message"),
    [
        ("pca", {}, "no preprocessing 'pca'"),
        ("normalise", {"mean": ONES}, r"\['mean', 'std'\], got \['mean'\]"),
        ("none", {"mean": ONES}, r"\[\], got \['mean'\]"),
        ("normalise", {"mean": ONES, "std": ONES[:2]}, r"std .*shape \(2,\)"),
        ("normalise", {"mean": ONES, "std": 0 * ONES}, "positive"),
        ("normalise", {"mean": ONES * np.nan, "std": ONES}, "NaN"),
        ("normalise", {"mean": np.arange(3), "std": ONES}, "floats, got int64"),
        (
            "zca",
            {"mean": ONES, "whiten": np.eye(3)[:2], "unwhiten": np.eye(3)},
            r"whiten .*\(2, 3\)",
        ),
        (
            "zca_normed",
            {
                "whiten": np.eye(3),
                "unwhiten": np.eye(3),
                "image_mean": ONES,
                "image_norm": np.float32(1),
            },
            r"image_mean .*\(3,\)",
        ),
    ],
)
def test_from_arrays_refusals(kind, arrays, message):
    with pytest.raises(InputError, match=message):
        from_arrays(kind, arrays)


TRIANGLE = np.array([2, 0, 1, 3, 0, 1], np.float32)  # of (2 0 1; 0 3 0; 1 0 1)


def test_a_triangle_is_the_upper_half_row_by_row():
    transform = from_arrays("zca", {"mean": ONES, "whiten": TRIANGLE})
    expected = np.array([[2, 0, 1], [0, 3, 0], [1, 0, 1]])
    np.testing.assert_array_equal(transform.whiten, expected)
    np.testing.assert_allclose(transform.unwhiten, np.linalg.inv(expected), atol=1e-7)
    np.testing.assert_array_equal(to_arrays(transform)[1]["whiten"], TRIANGLE)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": ONES, "whiten": TRIANGLE[:5]}, r"whiten .*shape \(5,\)"),
        ({"mean": ONES[:2], "whiten": TRIANGLE}, r"whiten .*shape \(6,\)"),
        ({"mean": ONES, "whiten": 0 * TRIANGLE}, "no inverse"),
        ({"mean": ONES, "whiten": TRIANGLE, "sketch": ONES}, "sketch"),
        (
            {"mean": ONES, "sketch": np.ones((3, 4), np.float32)},
            "give them as train_images",
        ),
        ({"mean": ONES, "sketch": np.ones((3, 3), np.float32)}, r"sketch .*\(3, 3\)"),
    ],
)
def test_triangles_and_sketches_that_do_not_fit(arrays, message):
    with pytest.raises(InputError, match=message):
        from_arrays("zca", arrays)


def test_to_arrays_refuses_strangers():
    with pytest.raises(InputError, match="function cannot be stored"):
        to_arrays(flat)
