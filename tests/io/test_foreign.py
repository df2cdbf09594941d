"""Foreign sets: what a file holds comes back bit for bit; the rest is asked and checked."""

import dataclasses
import importlib.util
import io as memory
import json
import math
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from distilljax import data, io
from distilljax.config import FieldError
from distilljax.core import distilled as sets
from distilljax.disk import archives
from distilljax.io import foreign
from distilljax.io.foreign import checks, folders, layouts
from distilljax.training.evaluation import PROTOCOLS
from distilljax.types import InputError
from tests.data.deep import deep_png

from . import foreign_sets as given
from .foreign_sets import CLASSES, IPC, NUM, SHAPE, first

LABELS = np.repeat(np.arange(CLASSES), IPC)
ANSWERS = {"preprocess": "normalise", "protocol": "dc"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return given.load_small(tmp_path_factory.mktemp("data") / "small.npz")


@pytest.fixture(scope="module")
def images(loaded):
    return given.images_of(loaded, "normalise")


def rows(seed=0):
    """f32[n, k] real numbers, the largest in the column of the class."""
    noise = np.random.default_rng(seed).normal(size=(NUM, CLASSES)).astype(np.float32)
    return noise + 4 * np.eye(CLASSES, dtype=np.float32)[LABELS]


def write_rat(path, images):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["data"] = first(images).reshape(len(images), -1)


def checkpoint(images, labels, **more):
    part = {"x_proto": images, "y_proto": labels, "log_temp": np.float32(0)}
    other = {"x_proto": 0 * images, "y_proto": labels}
    state = {
        "ema_average": part,
        "params": other,
        "step": np.int32(7),
        "opt_state": {"0": {}},
    }
    return serialization.msgpack_serialize(state | more)


def test_dc(tmp_path, loaded, images):
    path = tmp_path / "res_DC.pt"
    given.write_dc(path, (first(images) * 2, LABELS), (first(images), LABELS))
    found = foreign.read(path, loaded, **ANSWERS)
    np.testing.assert_array_equal(found.distilled.images, images)
    np.testing.assert_array_equal(sets.hard_labels(found.distilled), LABELS)
    assert np.asarray(jax.nn.softmax(found.distilled.label_logits)).max(1).min() == 1
    assert found.targets is None
    assert math.exp(found.distilled.log_lr) == pytest.approx(0.01)
    assert (found.class_names, found.protocol) == (("ant", "bee", "cat"), PROTOCOLS["dc"])
    assert found.dataset["fingerprint"] == loaded.fingerprint
    assert type(found.transform) is data.Normalise
    assert found.config["ipc"] == IPC
    assert found.config["convnet"]["width"] == 128
    assert found.notes["imported"]["snapshots"] == 2
    earlier = foreign.read(path, loaded, snapshot=0, **ANSWERS)
    np.testing.assert_array_equal(earlier.distilled.images, 2 * images)
    with pytest.raises(FieldError, match="snapshot=2: the file has 2"):
        foreign.read(path, loaded, snapshot=2, **ANSWERS)


def test_images_are_sorted_by_class(tmp_path, loaded, images):
    path = tmp_path / "set.pt"
    order = np.array([4, 0, 2, 1, 5, 3])
    given.write_dc(path, (first(images[order]), LABELS[order]))
    found = foreign.read(path, loaded, **ANSWERS)
    np.testing.assert_array_equal(sets.hard_labels(found.distilled), LABELS)
    back = np.argsort(LABELS[order], kind="stable")
    np.testing.assert_array_equal(found.distilled.images, images[order][back])


@pytest.mark.parametrize("kind", ["logits", "probabilities", "targets"])
def test_rows_of_labels_are_sorted_by_the_largest(loaded, images, kind):
    """As the file has them where the largest are not as many of each class."""
    labels = rows()
    if kind == "probabilities":
        labels = np.array(jax.nn.softmax(labels))
    order = np.array([4, 0, 2, 1, 5, 3])
    found = foreign.from_tensors(
        first(images[order]), labels[order], loaded, kind=kind, **ANSWERS
    )
    back = order[np.argsort(LABELS[order], kind="stable")]
    np.testing.assert_array_equal(found.distilled.images, images[back])
    np.testing.assert_array_equal(sets.hard_labels(found.distilled), LABELS)
    assert found.notes["imported"]["order"] == "by class"
    if kind == "targets":
        np.testing.assert_array_equal(found.targets, labels[back])
    labels[5] = labels[0]
    found = foreign.from_tensors(
        first(images[order]), labels[order], loaded, kind=kind, unchecked=True, **ANSWERS
    )
    np.testing.assert_array_equal(found.distilled.images, images[order])
    np.testing.assert_array_equal(
        sets.hard_labels(found.distilled), labels[order].argmax(1)
    )
    assert found.notes["imported"]["order"] == "as given"


@pytest.mark.parametrize("least", [0.0, 1e-45, 1e-40])
def test_probabilities_of_zero_are_finite_logits(tmp_path, loaded, images, least):
    """Also those that XLA flushes to zero; the softmax gives the probabilities back."""
    labels = np.full((NUM, CLASSES), least, np.float32)
    labels[np.arange(NUM), LABELS] = 1
    found = foreign.from_tensors(
        first(images), labels, loaded, kind="probabilities", **ANSWERS
    )
    assert np.asarray(found.distilled.label_logits).min() >= -sets.HARD
    io.save(tmp_path / "set.npz", found)
    back = io.load(tmp_path / "set.npz")
    np.testing.assert_allclose(
        jax.nn.softmax(back.distilled.label_logits), labels, atol=1e-38
    )


def mtt(folder, images, labels, rate=None):
    folder.mkdir()
    storage = {"f4": "FloatStorage", "i8": "LongStorage"}
    held = {"images_best": first(images), "labels_best": labels}
    if rate is not None:
        held["lr_best"] = np.asarray(rate, np.float32)
    for name, array in held.items():
        steps = given.contiguous(array.shape)
        kind = storage[array.dtype.str[1:]]
        stream = given.tensor(kind, "0", array.size, 0, array.shape, steps)
        given.write_pt(folder / f"{name}.pt", stream, {"0": array})
    return folder


def test_mtt_with_learned_labels_and_rate(tmp_path, loaded, images):
    folder = mtt(tmp_path / "logs", images, rows(), 0.0625)
    for path in (folder, folder / "images_best.pt"):
        found = foreign.read(path, loaded, preprocess="normalise", protocol="mtt")
        np.testing.assert_array_equal(found.distilled.images, images)
        np.testing.assert_array_equal(found.distilled.label_logits, rows())
        assert math.exp(found.distilled.log_lr) == pytest.approx(0.0625)
    with pytest.raises(FieldError, match=r"learning_rate=0\.5: the file holds 0.0625"):
        foreign.read(
            folder, loaded, preprocess="normalise", protocol="mtt", learning_rate=0.5
        )


def test_mtt_without_a_rate(tmp_path, loaded, images):
    folder = mtt(tmp_path / "logs", images, LABELS)
    answers = {"preprocess": "normalise", "protocol": "mtt"}
    with pytest.raises(
        FieldError, match="learning_rate=None: protocol mtt takes the set's"
    ):
        foreign.read(folder, loaded, **answers)
    found = foreign.read(folder, loaded, learning_rate=0.5, **answers)
    assert math.exp(found.distilled.log_lr) == pytest.approx(0.5)
    for rate in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(FieldError, match="learning_rate"):
            foreign.read(folder, loaded, learning_rate=rate, **answers)
    (tmp_path / "negative").mkdir()
    folder = mtt(tmp_path / "negative" / "logs", images, LABELS, -0.01)
    with pytest.raises(FieldError, match="must be a positive number"):
        foreign.read(folder, loaded, **answers)


def test_rat(tmp_path, loaded, images):
    path = tmp_path / "IPC_2.h5"
    write_rat(path, images)
    with pytest.raises(
        FieldError,
        match=r"holds none; say in_order if its 6 images are 2 of each of the 3 classes",
    ):
        foreign.read(path, loaded, **ANSWERS)
    found = foreign.read(path, loaded, labels="in_order", **ANSWERS)
    np.testing.assert_array_equal(found.distilled.images, images)
    np.testing.assert_array_equal(sets.hard_labels(found.distilled), LABELS)


def test_rfad(tmp_path, loaded, images):
    path = tmp_path / "best.npz"
    targets = rows()
    np.savez(path, images=first(images), labels=targets, valid_loss=1.5, k=2.0, jit=0.005)
    found = foreign.read(path, loaded, preprocess="normalise", protocol="rfad")
    np.testing.assert_array_equal(found.distilled.images, images)
    np.testing.assert_array_equal(found.targets, targets)
    np.testing.assert_array_equal(sets.hard_labels(found.distilled), targets.argmax(1))
    assert found.notes["imported"]["valid_loss"] == 1.5
    assert found.config["convnet"]["norm"] == "none"
    assert found.config["convnet"]["width"] == 1024
    probabilities = np.asarray(jax.nn.softmax(targets))
    np.savez(path, images=first(images), labels=probabilities)
    with pytest.raises(FieldError, match="labels='targets': every row is a distribution"):
        foreign.read(path, loaded, **ANSWERS)
    found = foreign.read(path, loaded, labels="probabilities", **ANSWERS)
    assert found.targets is None
    ours = jax.nn.softmax(found.distilled.label_logits)
    np.testing.assert_allclose(ours, probabilities, atol=1e-6)


def test_rcig(tmp_path, loaded, images):
    path = tmp_path / "checkpoint_15000"
    path.write_bytes(checkpoint(images, rows()))
    found = foreign.read(path, loaded, preprocess="normalise", protocol="rcig")
    np.testing.assert_array_equal(found.distilled.images, images)
    np.testing.assert_array_equal(found.targets, rows())
    assert found.notes["imported"]["part"] == "ema_average"
    assert found.config["convnet"]["growth"] == 2
    params = {"x_proto": images, "y_proto": rows(1)}
    path.write_bytes(checkpoint(images, rows(), ema_average=None, params=params))
    found = foreign.read(path, loaded, preprocess="normalise", protocol="frepo")
    np.testing.assert_array_equal(found.targets, rows(1))
    path.write_bytes(serialization.msgpack_serialize({"params": {"a": images}}))
    with pytest.raises(InputError, match="no ema_average or params with x_proto"):
        foreign.read(path, loaded, **ANSWERS)


def pictures(loaded):
    return data.subset(loaded.train, IPC, 1)


def test_png(tmp_path, loaded):
    image = pytest.importorskip("PIL.Image")
    split, folder = pictures(loaded), tmp_path / "png"
    for number, (label, pixels) in enumerate(zip(split.labels, split.images, strict=True)):
        target = folder / loaded.class_names[label] / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels).save(target)
    found = foreign.read(folder, loaded, **ANSWERS)
    expected = data.fit("normalise", loaded.train.images)(split.images)
    np.testing.assert_array_equal(found.distilled.images, expected)
    np.testing.assert_array_equal(sets.hard_labels(found.distilled), split.labels)
    (folder / "ant").rename(folder / "wasp")
    with pytest.raises(FieldError, match=r"names a class 'wasp', .* are ant, bee, cat"):
        foreign.read(folder, loaded, **ANSWERS)
    for number, name in enumerate(("wasp", "bee", "cat")):
        (folder / name).rename(folder / str(number))
    found = foreign.read(folder, loaded, **ANSWERS)
    np.testing.assert_array_equal(found.distilled.images, expected)
    image.fromarray(split.images[0][:4]).save(folder / "0" / "small.png")
    with pytest.raises(InputError, match=r"0/small\.png is 4 x 10 RGB"):
        foreign.read(folder, loaded, **ANSWERS)
    (folder / "0" / "small.png").write_bytes((folder / "0" / "0.png").read_bytes()[:60])
    with pytest.raises(InputError, match="no readable PNG"):
        foreign.read(folder, loaded, **ANSWERS)
    (folder / "0" / "small.png").write_bytes(deep_png(2, *split.images.shape[1:3]))
    with pytest.raises(InputError, match=r"0/small\.png has more than 8 bits a channel"):
        foreign.read(folder, loaded, **ANSWERS)


def arrow(folder, images, labels, names):
    """What `datasets.Dataset.save_to_disk` writes: an Arrow stream and a description."""
    pa = pytest.importorskip("pyarrow")
    folder.mkdir()
    table = pa.table({"image": images, "label": labels})
    file = str(folder / "data-00000-of-00001.arrow")
    with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel"}}
    if names:
        features["label"]["names"] = names
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


def png_bytes(pixels):
    image = pytest.importorskip("PIL.Image")
    file = memory.BytesIO()
    image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": "/etc/passwd"}


def test_hugging_face_pictures(tmp_path, loaded):
    split = pictures(loaded)
    encoded = [png_bytes(pixels) for pixels in split.images]
    names = ["cat", "ant", "bee"]
    labels = [names.index(loaded.class_names[j]) for j in split.labels]
    folder = arrow(tmp_path / "a", encoded, labels, names)
    found = foreign.read(folder, loaded, **ANSWERS)
    expected = data.fit("normalise", loaded.train.images)(split.images)
    np.testing.assert_array_equal(found.distilled.images, expected)
    np.testing.assert_array_equal(sets.hard_labels(found.distilled), split.labels)
    encoded[3] = {"bytes": None, "path": "/etc/passwd"}
    folder = arrow(tmp_path / "b", encoded, labels, names)
    with pytest.raises(InputError, match="image 3 is stored as a path"):
        foreign.read(folder, loaded, **ANSWERS)


def test_hugging_face_arrays(tmp_path, loaded, images):
    for name, held in (("last", images), ("first", first(images))):
        folder = arrow(tmp_path / name, held.tolist(), LABELS.tolist(), None)
        found = foreign.read(folder, loaded, **ANSWERS)
        np.testing.assert_array_equal(found.distilled.images, images)
    folder = arrow(tmp_path / "soft", images.tolist(), rows().tolist(), None)
    with pytest.raises(FieldError, match="say logits, probabilities or targets"):
        foreign.read(folder, loaded, **ANSWERS)
    found = foreign.read(folder, loaded, labels="logits", **ANSWERS)
    np.testing.assert_array_equal(found.distilled.label_logits, rows())


@pytest.mark.parametrize(
    "info",
    [None, b"{", b"\xff", b"{}", b'{"features": []}', b'{"features": {"label": [1]}}'],
    ids=["absent", "cut", "bytes", "empty", "list", "deeper"],
)
def test_without_names_of_classes_labels_are_numbers(tmp_path, loaded, images, info):
    folder = arrow(tmp_path / "a", images.tolist(), LABELS.tolist(), list("xyz"))
    with pytest.raises(FieldError, match="names a class 'x'"):
        foreign.read(folder, loaded, **ANSWERS)
    (folder / "dataset_info.json").unlink()
    if info is not None:
        (folder / "dataset_info.json").write_bytes(info)
    found = foreign.read(folder, loaded, layout="hf", **ANSWERS)
    np.testing.assert_array_equal(sets.hard_labels(found.distilled), LABELS)


@pytest.mark.parametrize(
    "held",
    [[[[[0.1]]], [[[0.1, 0.2]]]], ["0.1 and 0.2", "x"], [[[[0.1]]], {"bytes": b""}]],
    ids=["ragged", "words", "mixed"],
)
def test_images_that_are_no_arrays(held):
    with pytest.raises(InputError, match="its images are no arrays of one shape"):
        folders._pictures(held, (1, 1, 1))


@pytest.mark.parametrize("num", [9, 10, 11, 12])
def test_a_strange_class_is_told_the_first_ten_of_the_data_set(num):
    known = tuple("abcdefghijkl"[:num])
    np.testing.assert_array_equal(
        folders.classes_of_names(np.array(["c", "a", "i"]), known), [2, 0, 8]
    )
    with pytest.raises(FieldError) as caught:
        folders.classes_of_names(np.array(["a", "zebra", "yak"]), known)
    shown = ", ".join(known[:10]) + (", ..." if num > 10 else "")
    assert f"names a class 'yak', and the data set's are {shown}" in str(caught.value)
    assert str(caught.value).endswith(shown)


def test_hugging_face_itself(tmp_path, loaded):
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    split = pictures(loaded)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["ant", "bee", "cat"]),
        }
    )
    held = {
        "image": list(map(image.fromarray, split.images)),
        "label": split.labels.tolist(),
    }
    made = datasets.Dataset.from_dict(held, features=features)
    made.save_to_disk(str(tmp_path / "one"))
    found = foreign.read(tmp_path / "one", loaded, **ANSWERS)
    expected = data.fit("normalise", loaded.train.images)(split.images)
    np.testing.assert_array_equal(found.distilled.images, expected)
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "all"))
    with pytest.raises(InputError, match="give the folder of one: train"):
        foreign.read(tmp_path / "all", loaded, **ANSWERS)


def test_tensors_in_memory(loaded, images):
    found = foreign.from_tensors(first(images), LABELS, loaded, **ANSWERS)
    np.testing.assert_array_equal(found.distilled.images, images)
    np.testing.assert_array_equal(sets.hard_labels(found.distilled), LABELS)
    found = foreign.from_tensors(first(images), None, loaded, kind="in_order", **ANSWERS)
    np.testing.assert_array_equal(sets.hard_labels(found.distilled), LABELS)
    found = foreign.from_tensors(first(images), rows(), loaded, kind="targets", **ANSWERS)
    np.testing.assert_array_equal(found.targets, rows())
    torch = pytest.importorskip("torch")
    tensors = torch.nn.Parameter(torch.from_numpy(first(images))), torch.from_numpy(LABELS)
    found = foreign.from_tensors(*tensors, loaded, **ANSWERS)
    np.testing.assert_array_equal(found.distilled.images, images)


@pytest.fixture
def dc(tmp_path, images):
    path = tmp_path / "set.pt"
    given.write_dc(path, (first(images), LABELS))
    return path


@pytest.mark.parametrize("name", ["preprocess", "protocol"])
@pytest.mark.parametrize("answer", [None, "guess"])
def test_what_a_file_does_not_tell_is_asked(dc, loaded, name, answer):
    with pytest.raises(FieldError) as caught:
        foreign.read(dc, loaded, **ANSWERS | {name: answer})
    assert caught.value.path == name
    assert "a file does not tell" in str(caught.value)
    assert "choose one of" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_layout_is_seen_or_asked(tmp_path, dc, loaded):
    strange = dc.rename(tmp_path / "set.bin")
    with pytest.raises(FieldError, match=r"layout=None: .*choose one of dc, mtt"):
        foreign.read(strange, loaded, **ANSWERS)
    with pytest.raises(FieldError, match="layout='zip'"):
        foreign.read(strange, loaded, layout="zip", **ANSWERS)
    assert foreign.read(strange, loaded, layout="dc", **ANSWERS).config["ipc"] == IPC
    folder = mtt(tmp_path / "logs", np.zeros((NUM, *SHAPE), np.float32), LABELS)
    with pytest.raises(InputError, match="list of snapshots under 'data'"):
        foreign.read(folder / "labels_best.pt", loaded, layout="dc", **ANSWERS)


def refused(path, loaded, **answers):
    with pytest.raises(InputError) as caught:
        foreign.read(path, loaded, **ANSWERS | answers)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x, y: (x[:5], y[:5]),
            "5 images, which the 3 classes of small do not divide",
        ),
        (lambda x, y: (x[:, :, :4], y), r"\[4, 10, 3\] .* those of small \[8, 10, 3\]"),
        (lambda x, y: (x[:, :1], y), r"\[8, 10, 1\]"),
        (lambda x, y: (x, y + 1), "labels go from 1 to 3, and small has classes 0..2"),
        (lambda x, y: (x, y - 1), "labels go from -1"),
        (lambda x, y: (x, y // 2), "class 2 0 images and class 0 4"),
        (lambda x, y: (x, y[:5]), r"labels \[5\] for 6 images"),
        (lambda x, y: (x.reshape(6, -1), y), r"expected \[n, c, h, w\]"),
        (lambda x, y: (np.where(x > 1, np.nan, x), y), "NaN"),
        (lambda x, y: (x, (y + 1) % 3), "labels fit the classes of small no better than"),
        (lambda x, y: (x, rows()[:, :2]), r"shape \[6, 2\], expected \[6, 3\]"),
        (lambda x, y: (x, rows() * np.float32(np.nan)), "labels hold NaN"),
    ],
    ids=range(12),
)
def test_files_that_do_not_fit_the_data(tmp_path, loaded, images, change, message):
    path = tmp_path / "set.pt"
    x, y = change(first(images), LABELS)
    given.write_dc(path, (np.ascontiguousarray(x, np.float32), np.ascontiguousarray(y)))
    said = refused(path, loaded, labels="logits" if y.ndim == 2 else None)
    assert said.startswith(str(path))
    assert re.search(message, said)


@pytest.mark.parametrize(
    "held", [{"a": 1}, [0.1], "0.1", None, np.zeros(2), np.array(["1"])]
)
def test_a_rate_that_is_no_number(held):
    with pytest.raises(InputError, match=r"lr\.pt holds no single number"):
        layouts._rate(held, "lr.pt")
    assert (
        layouts._rate(np.asarray([0.25]), "lr.pt") == layouts._rate(0.25, "lr.pt") == 0.25
    )


def test_labels_are_refused_where_more_than_one_in_twenty_shuffles_fit_as_well(loaded):
    """Images from noise alone to the means of their classes: where the refusal ends."""
    real = loaded.train.images / np.float32(255)
    labels = np.repeat(np.arange(CLASSES), 6)
    means = np.stack([real[loaded.train.labels == j].mean(0) for j in range(CLASSES)])
    noise = np.random.default_rng(3).normal(size=(len(labels), *SHAPE)).astype(np.float32)

    def judged(share):
        images = share * (means - means.mean(0))[labels] + noise
        try:
            found = checks.check_labels(data.Identity(), images, labels, loaded)
        except InputError as error:
            said = re.search(r"of 1000 shuffles of them (\d+) fit real", str(error))
            return int(said[1]), True
        return found["as_good"], False

    low, high = 0.0, 4.0
    for _ in range(20):
        share = (low + high) / 2
        low, high = (share, high) if judged(share)[1] else (low, share)
    (most, refused_there), (least, refused_here) = judged(low), judged(high)
    assert (refused_there, refused_here) == (True, False)
    assert 50 < most < 55
    assert 45 < least <= 50


def test_labels_of_the_wrong_kind(tmp_path, loaded, images):
    path = tmp_path / "set.pt"
    given.write_dc(path, (first(images), rows()))
    assert "labels=None: the file holds rows of real numbers" in refused(path, loaded)
    said = refused(path, loaded, labels="probabilities")
    assert said.startswith("labels='probabilities': rows do not sum to one")
    given.write_dc(path, (first(images), LABELS))
    for wrong in ("in_order", "targets"):
        assert "the file holds a class for each" in refused(path, loaded, labels=wrong)


KINDS = ["none", "normalise", "zca", "zca_normed", "zca_scaled", "zca_uncentred"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_preprocessing_fits_its_own_set(tmp_path, loaded, kind):
    path = tmp_path / "set.pt"
    given.write_dc(path, (first(given.images_of(loaded, kind)), LABELS))
    found = foreign.read(path, loaded, preprocess=kind, protocol="dc")
    facts = found.notes["imported"]["checks"]
    assert 0.6 < facts["preprocess"]["spread"] < 1.4
    assert facts["labels"]["as_good"] <= 50


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("none", "normalise"),
        ("normalise", "none"),
        ("normalise", "zca_normed"),
        ("zca_normed", "none"),
    ],
)
def test_a_preprocessing_that_does_not_fit(tmp_path, loaded, own, said):
    path = tmp_path / "set.pt"
    given.write_dc(path, (first(given.images_of(loaded, own)), LABELS))
    message = refused(path, loaded, preprocess=said)
    assert message.startswith(f"preprocess='{said}': does not fit")
    if own in ("none", "normalise"):
        assert f"{own} would fit" in message
    found = foreign.read(path, loaded, preprocess=said, protocol="dc", unchecked=True)
    assert found.notes["imported"]["checks"]["preprocess"] == "unchecked"


def truncated_files(tmp_path, images):
    given.write_dc(tmp_path / "a.pt", (first(images), LABELS))
    np.savez(tmp_path / "a.npz", images=first(images), labels=rows())
    (tmp_path / "a.msgpack").write_bytes(checkpoint(images, rows()))
    if importlib.util.find_spec("h5py"):
        write_rat(tmp_path / "a.h5", images)
    return sorted(tmp_path.glob("a.*"))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.4, 0.9])
def test_truncated_files_and_absent_ones(tmp_path, loaded, images, share):
    for path in truncated_files(tmp_path, images):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        assert refused(path, loaded, labels="in_order").startswith(str(path))
        path.unlink()
        assert refused(path, loaded, labels="in_order").endswith("no such file")


def test_a_folder_in_place_of_an_arrow_file(tmp_path, loaded, images):
    folder = arrow(tmp_path / "a", images.tolist(), LABELS.tolist(), None)
    (folder / "data-1.arrow").mkdir()
    assert "not readable as Arrow" in refused(folder, loaded)


def test_a_truncated_arrow_file(tmp_path, loaded, images):
    folder = arrow(tmp_path / "a", images.tolist(), LABELS.tolist(), None)
    (file,) = folder.glob("*.arrow")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused(folder, loaded)


def test_files_that_unfold_too_far(tmp_path, loaded, images, monkeypatch):
    paths = truncated_files(tmp_path, images)
    monkeypatch.setattr(archives, "LIMIT", 1000)
    monkeypatch.setattr(archives.npz_arrays, "__defaults__", (1000,))
    for path in paths:
        assert "1000" in refused(path, loaded, labels="in_order")


@pytest.mark.parametrize(
    ("kind", "shape", "said"),
    [
        ("i4", (NUM, 240), f"'data' is int32[{NUM}, 240]"),
        ("u1", (NUM, 240), f"'data' is uint8[{NUM}, 240]"),
        ("?", (NUM, 240), f"'data' is bool[{NUM}, 240]"),
        ("f4", (NUM, 240, 1), f"'data' is float32[{NUM}, 240, 1]"),
        ("f4", (NUM,), f"'data' is float32[{NUM}]"),
        ("f4", (NUM, 239), "its images have 239 values, and those of the data set 8 x 10"),
    ],
)
def test_hdf5_of_another_kind_or_shape(tmp_path, loaded, kind, shape, said):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.ones(shape, kind)
    assert said in refused(tmp_path / "a.h5", loaded, labels="in_order")


def test_hdf5_that_points_elsewhere(tmp_path, loaded, images):
    h5py = pytest.importorskip("h5py")
    write_rat(tmp_path / "real.h5", images)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["data"] = h5py.ExternalLink("real.h5", "data")
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        space = [("real.h5", 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("data", (6, 240), "f4", external=space)
    for name in ("link.h5", "outside.h5"):
        assert "'data'" in refused(tmp_path / name, loaded, labels="in_order")


@pytest.mark.parametrize(
    ("package", "suffix"), [("h5py", "h5"), ("pyarrow", "hf")], ids=["h5py", "pyarrow"]
)
def test_an_absent_package_is_named(tmp_path, loaded, package, suffix, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "a.h5").write_bytes(b"")
    layout = {"h5": "rat", "hf": "hf"}[suffix]
    said = refused(tmp_path / "a.h5", loaded, layout=layout)
    assert f"needs the package {package}; install {package}" in said


def test_torch_is_not_imported(dc, loaded):
    """By a fresh interpreter in which it cannot be."""
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from distilljax.io.foreign import pickles; import pathlib\n"
        f"print(pickles.read(pathlib.Path({str(dc)!r}))['data'][0][0].shape)\n"
    )
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "(6, 3, 8, 10)"


def test_an_imported_artefact_is_one_like_ours(tmp_path, dc, loaded):
    found = foreign.read(dc, loaded, method="dc", **ANSWERS)
    io.save(tmp_path / "set.npz", found)
    back = io.load(tmp_path / "set.npz")
    assert back.method == "dc"
    assert back.config == found.config
    assert dataclasses.asdict(back.protocol) == dataclasses.asdict(PROTOCOLS["dc"])
    assert jnp.array_equal(back.distilled.images, found.distilled.images)
