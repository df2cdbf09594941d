"""Making a distilled set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.core.distilled import as_batch, create, hard_labels
from distilljax.types import InputError

IMAGES = np.random.default_rng(0).normal(size=(20, 4, 5, 3)).astype(np.float32)
LABELS = np.repeat(np.arange(10, dtype=np.int32), 2)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("num_classes", [10, 1000])
def test_hard_labels_are_one_hot_to_the_last_bit(transform, num_classes):
    images = np.random.default_rng(0).normal(size=(num_classes, 4, 5, 3)).astype(np.float32)
    labels = np.arange(num_classes, dtype=np.int32)
    made = create(jnp.asarray(images), jnp.asarray(labels), num_classes, learning_rate=0.1)
    batch = transform(as_batch)(made)
    assert batch.labels.dtype == jnp.float32
    expected = np.eye(num_classes, dtype=np.float32)
    assert np.asarray(batch.labels).tobytes() == expected.tobytes()
    assert np.asarray(batch.images).tobytes() == images.tobytes()
    back = transform(hard_labels)(made)
    assert back.dtype == jnp.int32
    np.testing.assert_array_equal(back, labels)


def test_fields():
    made = create(jnp.asarray(IMAGES), jnp.asarray(LABELS), 10, learning_rate=0.02)
    assert made.label_logits.shape == (20, 10)
    assert made.log_lr.shape == ()
    np.testing.assert_allclose(np.exp(made.log_lr), 0.02, rtol=1e-6)
    assert {field.dtype for field in made} == {jnp.dtype("float32")}
    assert not any(field.weak_type for field in made)


def test_images_become_float32():
    made = create(jnp.ones((2, 2, 2, 1), jnp.bfloat16), jnp.arange(2), 2, learning_rate=1)
    assert made.images.dtype == jnp.float32
    assert made.log_lr == 0.0


def test_soft_labels_are_the_softmax_of_their_logits():
    made = create(jnp.asarray(IMAGES[:2]), jnp.array([0, 1]), 2, learning_rate=0.1)
    logits = jnp.log(jnp.array([[1.0, 3.0], [4.0, 1.0]]))
    labels = as_batch(made._replace(label_logits=logits)).labels
    np.testing.assert_allclose(labels, [[0.25, 0.75], [0.8, 0.2]], rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "labels"),
    [((6, 4, 5), (6,)), ((6, 4, 5, 3), (5,)), ((6, 4, 5, 3), (6, 10)), ((6, 4, 5, 3), ())],
)
def test_shapes_that_do_not_fit_are_refused(images, labels):
    with pytest.raises(InputError, match=r"expected \[n, h, w, c\] and \[n\]") as caught:
        create(jnp.zeros(images), jnp.zeros(labels, jnp.int32), 10, learning_rate=0.1)
    assert str(images) in str(caught.value)
    assert str(labels) in str(caught.value)


@pytest.mark.parametrize("rate", [0.0, -0.1, float("nan"), float("inf")])
def test_a_rate_that_is_not_positive_is_refused(rate):
    with pytest.raises(InputError, match=f"learning_rate={rate}: must be positive"):
        create(jnp.asarray(IMAGES), jnp.asarray(LABELS), 10, learning_rate=rate)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rate": "0.1"}, "learning_rate='0.1': must be positive"),
        ({"learning_rate": jnp.ones(2)}, r"learning_rate=Array\(.*: must be positive"),
        ({"confidence": [0.9]}, r"confidence=\[0.9\]: give a number"),
        ({"num_classes": 10.0}, r"num_classes=10\.0: give a whole number"),
        ({"images": IMAGES * np.nan}, "images hold NaN or infinity"),
    ],
)
def test_numbers_of_another_type_are_refused(wrong, message):
    given = {"images": IMAGES, "labels": LABELS, "num_classes": 10, "learning_rate": 0.1}
    with pytest.raises(InputError, match=message):
        create(**given | wrong)


def test_a_rate_may_be_traced():
    made = jax.jit(lambda rate: create(IMAGES, LABELS, 10, learning_rate=rate))(0.1)
    assert float(jnp.exp(made.log_lr)) == pytest.approx(0.1)


@pytest.mark.parametrize("confidence", [0.2, 0.5, 0.99])
def test_soft_labels_give_their_class_its_share(confidence):
    made = create(
        jnp.asarray(IMAGES),
        jnp.asarray(LABELS),
        10,
        learning_rate=0.1,
        confidence=confidence,
    )
    expected = np.full((20, 10), (1 - confidence) / 9)
    expected[np.arange(20), LABELS] = confidence
    np.testing.assert_allclose(as_batch(made).labels, expected, rtol=1e-5)
    gradient = jax.grad(lambda s: (as_batch(s).labels ** 2).sum())(made).label_logits
    assert (np.abs(gradient).max(-1) > 1e-3).all()


@pytest.mark.parametrize("confidence", [0.1, 0.0, 1.1])
def test_a_confidence_below_chance_or_above_one_is_refused(confidence):
    with pytest.raises(InputError, match=f"confidence={confidence}: must lie above 1/10"):
        create(
            jnp.asarray(IMAGES),
            jnp.asarray(LABELS),
            10,
            learning_rate=0.1,
            confidence=confidence,
        )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 3, 4], "labels has 4; with 4 classes give 0..3"),
        ([-1, 0, 1, 2], "labels has -1"),
        ([3, 2, 1, 0], "order of classes .*argsort"),
        ([0, 1, 0, 1], "0 of class 2 and 2 of class 0; .* as many images of each"),
        ([0, 0, 0, 1], "0 of class 2 and 3 of class 0"),
        (np.arange(4.0), "labels are float64"),
    ],
)
def test_labels_out_of_range_or_order_are_refused(labels, message):
    with pytest.raises(InputError, match=message):
        create(jnp.asarray(IMAGES[:4]), labels, 4, learning_rate=0.1)


def test_lists_and_traced_labels_are_taken():
    made = create(IMAGES[:4], [0, 0, 1, 1], 2, learning_rate=0.1)
    np.testing.assert_array_equal(hard_labels(made), [0, 0, 1, 1])
    traced = jax.jit(lambda y: create(jnp.asarray(IMAGES[:2]), y, 2, learning_rate=0.1))
    np.testing.assert_array_equal(hard_labels(traced(jnp.array([1, 0]))), [1, 0])


def test_bytes_are_no_preprocessed_images():
    with pytest.raises(InputError, match=r"images are uint8: .* transform\(images\)"):
        create(jnp.zeros((2, 4, 4, 1), jnp.uint8), jnp.arange(2), 2, learning_rate=0.1)
