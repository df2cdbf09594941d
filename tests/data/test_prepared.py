"""Reading what TFDS has prepared: a small made-up set, written here without TensorFlow."""

import io
import json
import os
import shutil
import subprocess
import sys
import urllib.error

import numpy as np
import pytest
from PIL import Image

from distilljax.data import load, prepared
from distilljax.types import InputError

NUM_TRAIN, NUM_TEST = 40, 12


def pixels(split, index):
    rng = np.random.default_rng([len(split), index])
    return rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()


def prepare(
    folder, name, *, ids=True, splits=("train", "test"), features=None, example=None
):
    """Prepares a set of this name in `folder`, of which TFDS knows no code."""
    import tensorflow_datasets as tfds

    usual = {
        "image": tfds.features.Image(shape=(8, 10, 3)),
        "label": tfds.features.ClassLabel(names=["ant", "bee", "cow", "dog"]),
        **({"id": tfds.features.Text()} if ids else {}),
    }

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.3")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features or usual),
                supervised_keys=None if features else ("image", "label"),
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            for index in range(NUM_TRAIN if split == "train" else NUM_TEST):
                record = {"image": png(pixels(split, index)), "label": index % 4}
                if ids:
                    # Not padded: order by text would differ from order by number.
                    record["id"] = f"{split}_{index}"
                yield index, example(record) if example else record

    Builder.name = name
    builder = Builder(data_dir=folder, file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False, num_shards=2),
        download_dir=folder / "downloads",
    )
    return folder / name / "1.2.3"


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    prepare(folder, "tiny")
    prepare(folder, "anonymous", ids=False)
    return folder


@pytest.fixture
def data_dir(prepared_once, tmp_path):
    return shutil.copytree(prepared_once, tmp_path / "tfds")


def check_contents(data):
    for split, num in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        images, labels = getattr(data, split)
        expected = np.stack([pixels(split, index) for index in range(num)])
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels, np.arange(num) % 4)


def test_contents_in_source_order(data_dir):
    data = load("tiny", str(data_dir))
    check_contents(data)
    assert data.class_names == ("ant", "bee", "cow", "dog")
    assert (data.name, data.source) == ("tiny", "tfds tiny/1.2.3")


def test_without_ids_every_image_keeps_its_label(data_dir):
    images, labels = load("anonymous", str(data_dir)).train
    expected = {pixels("train", i).tobytes(): i % 4 for i in range(NUM_TRAIN)}
    found = {
        image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)
    }
    assert found == expected


def test_version_may_be_named(data_dir):
    check_contents(load("tiny:1.2.3", str(data_dir)))


def test_batches_change_nothing(data_dir, monkeypatch):
    monkeypatch.setattr(prepared, "_BATCH", 7)
    check_contents(load("tiny", str(data_dir)))


def test_import_is_light_and_terminal_stays_clean(data_dir):
    """In another process, where TFDS has not yet said what it says once."""
    code = (
        "import sys, distilljax.data as d; assert 'tensorflow_datasets' not in sys.modules;"
        f"d.load('tiny', {str(data_dir)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout + done.stderr == ""


def cache_of(data_dir):
    return data_dir / "tiny" / "1.2.3" / prepared.CACHE_NAME


def no_reading(*_):
    raise AssertionError("records were read, though a cache exists")


def test_cache_is_used(data_dir, monkeypatch):
    first = load("tiny", str(data_dir))
    assert cache_of(data_dir).exists()
    assert not list(data_dir.rglob("*.partial"))
    monkeypatch.setattr(prepared, "_read_split", no_reading)
    again = load("tiny", str(data_dir))
    assert again.fingerprint == first.fingerprint
    check_contents(again)


def truncate(path):
    path.write_bytes(path.read_bytes()[:2000])


def flip_a_pixel(path):
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)


def drop_an_image(path):
    with np.load(path) as held:
        arrays = dict(held)
    arrays["train_images"] = arrays["train_images"][1:]
    np.savez(path, **arrays)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip_a_pixel, drop_an_image, empty])
def test_corrupt_cache_is_rebuilt(data_dir, damage, monkeypatch):
    load("tiny", str(data_dir))
    damage(cache_of(data_dir))
    check_contents(load("tiny", str(data_dir)))
    monkeypatch.setattr(prepared, "_read_split", no_reading)
    check_contents(load("tiny", str(data_dir)))


def test_cache_of_other_data_is_not_used(data_dir):
    load("tiny", str(data_dir))
    info = data_dir / "tiny" / "1.2.3" / "dataset_info.json"
    content = json.loads(info.read_text())
    content["description"] = "prepared anew"
    info.write_text(json.dumps(content))
    with np.load(cache_of(data_dir)) as held:
        arrays = dict(held)
    arrays["train_images"][:] = 0
    np.savez(cache_of(data_dir), **arrays)
    check_contents(load("tiny", str(data_dir)))


def test_cache_of_another_layout_is_not_used(data_dir, monkeypatch):
    load("tiny", str(data_dir))
    monkeypatch.setattr(prepared, "_CACHE_FORMAT", -1)
    monkeypatch.setattr(prepared, "_read_split", no_reading)
    with pytest.raises(InputError, match="records were read"):
        load("tiny", str(data_dir))


@pytest.mark.parametrize(
    ("error", "warned"), [(PermissionError(13, "no"), False), (OSError(28, "full"), True)]
)
def test_folder_that_cannot_be_written(data_dir, monkeypatch, caplog, error, warned):
    def refuse(*_):
        raise error

    monkeypatch.setattr(os, "replace", refuse)
    check_contents(load("tiny", str(data_dir)))
    assert not cache_of(data_dir).exists()
    assert not list(data_dir.rglob("*.partial"))
    assert bool(caplog.records) == warned


def test_damaged_records(data_dir):
    (record, *_) = (data_dir / "tiny" / "1.2.3").glob("*train.array_record*")
    record.unlink()
    with pytest.raises(InputError, match=r"prepared files of 'tiny' in .* cannot be read"):
        load("tiny", str(data_dir))


def test_tfrecord(data_dir):
    info = data_dir / "tiny" / "1.2.3" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(InputError, match=r"as tfrecord.*file_format='array_record'"):
        load("tiny", str(data_dir))


def test_no_test_split(tmp_path):
    prepare(tmp_path, "tiny", splits=("train", "validation"))
    with pytest.raises(InputError, match="train, validation, and lacks test"):
        load("tiny", str(tmp_path))


def test_varying_shape(tmp_path):
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(num_classes=4),
    }
    prepare(tmp_path, "tiny", ids=False, features=features)
    with pytest.raises(InputError, match=r"varying shape \(None, None, 3\)"):
        load("tiny", str(tmp_path))


def test_two_labels_and_no_word_which(tmp_path):
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(8, 10, 3)),
        "fine": tfds.features.ClassLabel(num_classes=4),
        "coarse": tfds.features.ClassLabel(num_classes=2),
    }

    def example(record):
        label = record["label"]
        return {"image": record["image"], "fine": label, "coarse": label % 2}

    prepare(tmp_path, "tiny", ids=False, features=features, example=example)
    with pytest.raises(InputError, match=r"coarse.*does not say which"):
        load("tiny", str(tmp_path))


@pytest.mark.parametrize("name", ["imdb_reviews", "celeb_a"])
def test_not_image_classification(name, tmp_path):
    with pytest.raises(InputError, match="not an image classification set"):
        load(name, str(tmp_path))


@pytest.mark.parametrize(
    ("name", "close"),
    [("cifar1O", "cifar10"), ("CIFAR-10", "cifar10"), ("embeded", "embedded")],
)
def test_unknown_name(name, close, tmp_path):
    with pytest.raises(InputError, match=f"no data set '{name}'.*did you mean .*{close}"):
        load(name, str(tmp_path))


@pytest.mark.parametrize("name", ["huggingface:mnist", "data/mine.npy", "", "cifar10/x/y"])
def test_not_a_name(name, tmp_path):
    with pytest.raises(InputError, match="no data set"):
        load(name, str(tmp_path))


@pytest.mark.parametrize("name", ["emnist/nothing", "cifar10:9.9.9"])
def test_no_such_configuration(name, tmp_path):
    with pytest.raises(InputError, match=f"cannot open '{name}'"):
        load(name, str(tmp_path))


COMMAND = (
    "pip install tensorflow 'tensorflow-datasets>=4.9.10' array-record "
    "importlib-resources && "
    'python -c "import tensorflow_datasets as tfds; '
    "tfds.builder('svhn_cropped', data_dir='{0}', file_format='array_record')"
    '.download_and_prepare()" and then pass --data_dir={0}'
)


def test_not_prepared_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "_has_tensorflow", lambda: False)
    with pytest.raises(InputError, match="TensorFlow, which is not installed") as caught:
        load("svhn_cropped", str(tmp_path))
    assert COMMAND.format(tmp_path) in str(caught.value)


@pytest.fixture
def with_tensorflow(monkeypatch):
    import tensorflow_datasets as tfds

    tried = []

    def download_and_prepare(self, **_):
        tried.append(self.info.file_format.value)
        raise RuntimeError("broken off\nwith more lines")

    monkeypatch.setattr(prepared, "_has_tensorflow", lambda: True)
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare
    )
    return tried


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (urllib.error.URLError("no route"), r"ufldl\.stanford\.edu.*reached \(no route\)"),
        (TimeoutError("timed out"), r"cannot be reached \(timed out\)"),
        (urllib.error.HTTPError("u", 503, "", {}, None), "answers 503"),
    ],
)
def test_no_network(tmp_path, monkeypatch, with_tensorflow, error, message):
    def urlopen(request, timeout):
        assert timeout <= 30
        raise error

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    with pytest.raises(InputError, match=message) as caught:
        load("svhn_cropped", str(tmp_path))
    assert COMMAND.format(tmp_path) in str(caught.value)
    assert with_tensorflow == []


def test_preparing_fails(tmp_path, monkeypatch, with_tensorflow):
    def urlopen(request, timeout):
        raise urllib.error.HTTPError(request.full_url, 405, "no HEAD here", {}, None)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    message = r"preparing it failed \(RuntimeError: broken off\); on a machine"
    with pytest.raises(InputError, match=message):
        load("svhn_cropped", str(tmp_path))
    assert with_tensorflow == ["array_record"]


@pytest.fixture
def real_dir():
    folder = os.environ.get("DISTILLJAX_TFDS_DIR")
    if not folder:
        pytest.skip("DISTILLJAX_TFDS_DIR names no folder with a prepared cifar10")
    return folder


def test_real_cifar10(real_dir):
    data = load("cifar10", real_dir)
    assert np.bincount(data.train.labels).tolist() == [5000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.class_names[:2] == ("airplane", "automobile")
    np.testing.assert_allclose(data.mean, (0.4914, 0.4822, 0.4465), atol=1e-4)
    np.testing.assert_allclose(data.std, (0.2470, 0.2435, 0.2616), atol=1e-4)
    # The original first training image is a frog, its first pixel (59, 62, 63).
    assert data.class_names[data.train.labels[0]] == "frog"
    assert data.train.images[0, 0, 0].tolist() == [59, 62, 63]


def test_real_cifar10_inverse(real_dir):
    from distilljax.data import fit, subset

    split = subset(load("cifar10", real_dir).train, 5, seed=0)
    small = split._replace(images=split.images[:, 8:24, 8:24])
    unit = small.images / 255.0
    for kind in ("normalise", "zca"):
        transform = fit(kind, small.images)
        back = transform.inverse(transform(small.images))
        assert np.abs(back - unit).max() < 1e-4


def test_classes_that_no_split_has_are_left_out(tmp_path):
    """As of emnist/letters, which declares 37 classes and has those of 1 to 26."""
    import tensorflow_datasets as tfds

    names = ["none", "ant", "bee", "cow", "dog", "never"]
    features = {
        "image": tfds.features.Image(shape=(8, 10, 3)),
        "label": tfds.features.ClassLabel(names=names),
    }

    def example(record):
        return {**record, "label": 1 + record["label"]}

    prepare(tmp_path, "letters_like", ids=False, features=features, example=example)
    loaded = load("letters_like", str(tmp_path))
    assert loaded.class_names == ("ant", "bee", "cow", "dog")
    # In the order of the files, which is not that of the indices.
    by_pixels = {pixels("train", i).tobytes(): i % 4 for i in range(NUM_TRAIN)}
    found = [by_pixels[image.tobytes()] for image in loaded.train.images]
    np.testing.assert_array_equal(loaded.train.labels, found)
