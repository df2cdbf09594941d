"""Data in memory: `dataset` and `on_device`, and what is said about what they refuse."""

import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data
from distilljax.types import InputError

K = 3
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 8, 9, 3), dtype=np.uint8)
IMAGES[0, 0, 0] = (0, 1, 255)
LABELS = np.arange(12) % K
GOOD = {
    "train_images": IMAGES,
    "train_labels": LABELS,
    "test_images": IMAGES[:6],
    "test_labels": LABELS[:6],
}


def test_numpy_jax_and_lists_make_the_same_data(tmp_path):
    made = data.dataset(*GOOD.values())
    assert (made.name, made.source, made.class_names) == ("arrays", "arrays", tuple("012"))
    assert (made.num_classes, made.image_shape) == (K, (8, 9, 3))
    np.testing.assert_array_equal(made.train.images, IMAGES)
    np.testing.assert_array_equal(made.test.labels, LABELS[:6])
    assert made.train.labels.dtype == np.int32
    unit = IMAGES / 255
    np.testing.assert_allclose(made.mean, unit.mean((0, 1, 2)))
    np.savez(tmp_path / "mine.npz", **GOOD)
    saved = data.load(str(tmp_path / "mine.npz"))
    others = (
        data.dataset(*(jnp.asarray(x) for x in GOOD.values())),
        data.dataset(*(list(x) for x in GOOD.values())),
        data.dataset(
            list(map(jnp.asarray, IMAGES)), LABELS.tolist(), IMAGES[:6], LABELS[:6]
        ),
    )
    for other in (saved, *others):
        assert other.fingerprint == made.fingerprint
    real = data.on_device(made.train, data.fit("normalise", made.train.images), K)
    np.testing.assert_array_equal(real.images, IMAGES)


def test_names_and_grey_images():
    grey = GOOD | {"train_images": IMAGES[..., 0], "test_images": IMAGES[:6, ..., 0]}
    for names in (["cat", "dog", "emu"], np.array(["cat", "dog", "emu"])):
        made = data.dataset(**grey, class_names=names, name="mine")
        assert (made.name, made.class_names) == ("mine", ("cat", "dog", "emu"))
    assert made.image_shape == (8, 9, 1)


ONE_HOT = np.eye(K)[LABELS]
HOLED = (IMAGES / 255).astype(np.float32)
HOLED[3, 2, 1, 0] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": IMAGES / 255}, r"float64.*round\(255 \* images\)"),
        ({"train_images": IMAGES.astype(np.float32)}, r"float32.*round\(images\)"),
        ({"train_images": HOLED}, "train_images is float32.*they contain NaN; repair"),
        ({"train_images": IMAGES.astype(int) + 44}, r"int64.*they span 44\.\.299"),
        ({"test_images": IMAGES[:6].astype(int) - 1}, r"test_images.*they span -1\.\.254"),
        ({"train_images": IMAGES.astype(int)}, r"is int64, and must be uint8; convert"),
        (
            {"train_images": IMAGES.transpose(0, 3, 1, 2)},
            r"looks like \[n, c, h, w\]: use images.transpose\(0, 2, 3, 1\)",
        ),
        ({"train_images": [IMAGES[0], IMAGES[0, :5]]}, "cannot be one array"),
        ({"train_images": IMAGES[:0], "train_labels": LABELS[:0]}, "train_images is empty"),
        ({"train_images": IMAGES[:, :4]}, "4 x 9 pixels"),
        ({"train_images": np.full(12, "a")}, "must be numeric"),
        ({"train_images": np.ma.masked_less(IMAGES, 9)}, "train_images has masked entries"),
        ({"train_labels": ONE_HOT}, r"train_labels has shape \[12, 3\].*argmax\(axis=1\)"),
        ({"train_labels": ONE_HOT.astype(int)}, r"\[12, 3\].*labels.argmax\(axis=1\)"),
        ({"train_labels": LABELS[:, None]}, r"\[12, 1\].*use labels.ravel\(\)"),
        ({"train_labels": LABELS.astype(float)}, "train_labels is float64"),
        ({"train_labels": LABELS[:11]}, "11 labels for 12 images"),
        ({"train_labels": LABELS - 1}, "train_labels has -1; with"),
        ({"train_labels": np.minimum(LABELS, 1)}, "train_labels has no image of class 2"),
        ({"test_labels": np.minimum(LABELS[:6], 1)}, "test_labels has no image of class 2"),
        ({"class_names": ["cat", "dog"]}, "train_labels has 2; with 2 classes"),
        ({"class_names": list("abcd")}, r"train_labels has no image of class 3 \(d\) of 4"),
        ({"class_names": "abc"}, "class_names must be a list of strings"),
        ({"class_names": [0, 1, 2]}, "class_names must be a list of strings"),
        ({"class_names": 3}, "class_names must be a list of strings"),
        ({"class_names": {"a", "b", "c"}}, "class_names must be a list of strings"),
        ({"class_names": iter("abc")}, "class_names must be a list of strings"),
        ({"class_names": list("aba")}, "class_names has 'a' twice"),
    ],
)
def test_what_is_no_data_set_is_refused(change, message):
    with pytest.raises(InputError, match=message) as caught:
        data.dataset(**GOOD | change, name="my arrays")
    assert "my arrays" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES / 255, LABELS, r"images is float64, and must be uint8"),
        (IMAGES.astype(int) + 44, LABELS, r"they span 44\.\.299"),
        (IMAGES.transpose(0, 3, 1, 2), LABELS, r"looks like \[n, c, h, w\]"),
        (IMAGES[..., 0], LABELS, r"\[12, 8, 9\].*give images\[\.\.\., None\]"),
        (IMAGES[:0], LABELS[:0], r"\[0, 8, 9, 3\]"),
        (IMAGES, LABELS.astype(np.float32), "labels is float32, and must be integers"),
        (IMAGES, ONE_HOT, "argmax"),
        (IMAGES, LABELS[:5], "5 labels for 12 images"),
        (IMAGES, LABELS - 1, "labels has -1; with 3 classes labels are 0..2"),
        (IMAGES, np.where(LABELS, LABELS, 10**9), "labels has 1000000000"),
        (IMAGES, np.minimum(LABELS, 1), r"\[4, 8, 0\]"),
    ],
)
def test_a_split_by_hand_is_checked_on_its_way_to_the_device(images, labels, message):
    with pytest.raises(InputError, match=message):
        data.on_device(data.Split(images, labels), data.Identity(), K)
