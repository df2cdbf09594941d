"""Files of the user's own: what is accepted, and what is said about what is not."""

import numpy as np
import pytest

from distilljax.data import Dataset, load
from distilljax.types import InputError

NUM_CLASSES = 3


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (12, 8, 9, 3), dtype=np.uint8),
        "train_labels": np.arange(12) % NUM_CLASSES,
        "test_images": rng.integers(0, 256, (6, 8, 9, 3), dtype=np.uint8),
        "test_labels": np.arange(6) % NUM_CLASSES,
    }


@pytest.fixture
def load_saved(tmp_path):
    def load_saved(arrays) -> Dataset:
        path = tmp_path / "mine.npz"
        np.savez(path, **arrays)
        return load(str(path))

    return load_saved


def test_contents(arrays, load_saved):
    data = load_saved(arrays)
    np.testing.assert_array_equal(data.train.images, arrays["train_images"])
    np.testing.assert_array_equal(data.test.labels, arrays["test_labels"])
    assert data.train.labels.dtype == data.test.labels.dtype == np.int32
    assert data.class_names == ("0", "1", "2")
    assert (data.name, data.source) == ("mine", "npz")
    assert (data.num_classes, data.image_shape) == (3, (8, 9, 3))


def test_statistics_are_those_of_the_train_split(arrays, load_saved):
    arrays["train_images"][..., 1] //= 4
    data = load_saved(arrays)
    unit = arrays["train_images"].astype(np.float64) / 255
    np.testing.assert_allclose(data.mean, unit.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(data.std, unit.std((0, 1, 2)), rtol=1e-12)


def test_fingerprint_follows_contents_not_path(arrays, load_saved, tmp_path):
    first = load_saved(arrays)
    np.savez_compressed(tmp_path / "other.npz", **arrays, class_names=["a", "b", "c"])
    assert load(str(tmp_path / "other.npz")).fingerprint == first.fingerprint
    arrays["test_images"][0, 0, 0, 0] ^= 1
    assert load_saved(arrays).fingerprint != first.fingerprint


def test_fingerprint_covers_labels_and_shape(arrays, load_saved):
    first = load_saved(arrays).fingerprint
    relabelled = {**arrays, "test_labels": arrays["test_labels"][::-1]}
    reshaped = {
        key: value.reshape(-1, 9, 8, 3) if value.ndim == 4 else value
        for key, value in arrays.items()
    }
    assert (
        len({first, load_saved(relabelled).fingerprint, load_saved(reshaped).fingerprint})
        == 3
    )


def test_greyscale_gains_a_channel(arrays, load_saved):
    for key in ("train_images", "test_images"):
        arrays[key] = arrays[key][..., 0]
    data = load_saved(arrays)
    assert data.image_shape == (8, 9, 1)
    np.testing.assert_array_equal(data.test.images[..., 0], arrays["test_images"])


def test_class_names(arrays, load_saved):
    arrays["class_names"] = np.array(["cat", "dog", "ox"])
    assert load_saved(arrays).class_names == ("cat", "dog", "ox")


def images(shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


def with_nan():
    values = images((12, 8, 9, 3), np.float32)
    values[3, 2, 1, 0] = np.nan
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": images((12, 8, 9, 3), np.float32)}, r"float32.*255 \* images"),
        ({"test_images": images((6, 8, 9, 3), np.int64)}, "test_images is int64.*uint8"),
        ({"train_images": with_nan()}, "NaN"),
        ({"train_images": images((12, 216))}, r"\[12, 216\].*\[n, h, w, c\]"),
        ({"train_images": images((12, 8, 9, 2))}, "2 channels.*1 or 3"),
        ({"train_images": images((12, 3, 8, 9))}, r"transpose\(0, 2, 3, 1\)"),
        ({"train_images": images((12, 4, 9, 3))}, "4 x 9.*8 x 8"),
        ({"test_images": images((0, 8, 9, 3))}, "test_images is empty"),
        ({"test_images": images((6, 9, 9, 3))}, r"\[8, 9, 3\].*\[9, 9, 3\]"),
        ({"train_labels": np.arange(11) % 3}, "11 labels for 12 images"),
        ({"train_labels": np.zeros(12)}, "float64.*integers"),
        ({"train_labels": np.eye(12, 3, dtype=int)}, r"\[12, 3\].*argmax"),
        ({"train_labels": np.zeros((12, 1, 1), int)}, r"\[12, 1, 1\].*ravel"),
        ({"train_labels": np.arange(12) % 3 - 1}, r"has -1.*0\.\."),
        ({"train_labels": np.arange(12) % 2 * 2}, "no image of class 1 of 3"),
        ({"train_labels": np.zeros(12, int), "test_labels": np.zeros(6, int)}, "one class"),
        ({"test_labels": np.arange(6)}, "train_labels has no image of class 3, 4, 5"),
        ({"test_labels": np.full(6, 10**9)}, "1000000000 with 12 train images"),
        ({"class_names": np.array(["a", "b"])}, r"has 2; with 2 classes.*0\.\.1"),
        ({"class_names": np.array(list("abcd"))}, r"no image of class 3 \(d\) of 4"),
        ({"class_names": np.arange(3)}, "class_names must be a list of strings"),
        ({"train_labels": np.array(2)}, "train_labels is a single value, 2"),
        ({"test_images": np.uint8(7)}, "test_images is a single value, 7"),
        ({"train_images": np.array([None] * 12)}, "pickled objects"),
        ({"class_names": np.array(["a", "b", "c"], object)}, "pickled objects"),
    ],
)
def test_refusals(arrays, load_saved, change, message):
    with pytest.raises(InputError, match=message):
        load_saved({**arrays, **change})


def test_missing_key(arrays, load_saved):
    del arrays["test_labels"]
    with pytest.raises(InputError, match=r"lacks test_labels \(it holds train_images"):
        load_saved(arrays)


def test_both_splits_are_required(arrays, load_saved):
    with pytest.raises(InputError, match=r"images, labels\); save both splits as"):
        load_saved({"images": arrays["train_images"], "labels": arrays["train_labels"]})


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"absent\.npz: no such file"):
        load(str(tmp_path / "absent.npz"))


def test_folder(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match=r"folder\.npz is a folder; name the file in it"):
        load(str(tmp_path / "folder.npz"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated(arrays, tmp_path, save, share):
    path = tmp_path / "cut.npz"
    save(path, **arrays)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"cut\.npz: .*truncated"):
        load(str(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_inside(arrays, tmp_path, save):
    path = tmp_path / "bad.npz"
    save(path, **arrays)
    content = bytearray(path.read_bytes())
    content[1000:1010] = bytes(value ^ 255 for value in content[1000:1010])
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.npz: .*CRC"):
        load(str(path))


@pytest.mark.parametrize("content", [b"hello, this is text", b"\x80\x04]q\x00."])
def test_not_an_npz(tmp_path, content):
    path = tmp_path / "text.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"text\.npz: .*numpy\.savez"):
        load(str(path))


def test_npy_under_another_name(tmp_path):
    path = tmp_path / "array.npz"
    with open(path, "wb") as file:
        np.save(file, np.arange(4))
    with pytest.raises(InputError, match=r"array\.npz: .*numpy\.savez"):
        load(str(path))
