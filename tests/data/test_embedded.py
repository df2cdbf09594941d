"""Facts about the data set that comes with the package."""

import hashlib
import importlib.resources
import re

import numpy as np
import pytest

from distilljax.data import load, sets
from distilljax.data.embedded import make
from distilljax.types import InputError

FOLDER = importlib.resources.files("distilljax.data.embedded")


@pytest.fixture(scope="module")
def data():
    return load()


def test_facts(data):
    assert (data.name, data.source) == ("embedded Fashion-MNIST", "embedded")
    assert data.image_shape == (28, 28, 1)
    assert data.class_names == make.CLASS_NAMES
    assert np.bincount(data.train.labels).tolist() == [800] * 10
    assert np.bincount(data.test.labels).tolist() == [200] * 10


def test_statistics_are_near_those_of_the_whole_set(data):
    np.testing.assert_allclose((*data.mean, *data.std), (0.2860, 0.3530), atol=5e-3)


def test_all_images_differ(data):
    images = np.concatenate([data.train.images, data.test.images])
    assert len({image.tobytes() for image in images}) == 10_000


def test_images_of_a_class_resemble_those_of_the_other_split(data):
    """Labels belong to the images: the nearest class mean is right far above chance."""
    train, test = (
        s.images.reshape(len(s.images), -1) / 255 for s in (data.train, data.test)
    )
    means = np.stack([train[data.train.labels == label].mean(0) for label in range(10)])
    distances = ((test[:, None] - means) ** 2).sum(-1)
    assert (distances.argmin(1) == data.test.labels).mean() > 0.6


def test_size_and_licence():
    assert sum(len(path.read_bytes()) for path in FOLDER.iterdir() if path.is_file()) < 5e6
    licence = (FOLDER / "LICENSE").read_text()
    assert "Copyright (c) 2017 Zalando SE, https://tech.zalando.com" in licence
    assert "Permission is hereby granted, free of charge" in licence


def test_readme_quotes_the_digests(data):
    readme = (FOLDER / "README.md").read_text()
    file = (FOLDER / "fashion_mnist_subset.npz").read_bytes()
    quoted = set(re.findall(r"\b[0-9a-f]{64}\b", readme))
    assert {
        hashlib.sha256(file).hexdigest(),
        data.fingerprint,
        *make.SOURCE_DIGESTS.values(),
    } <= quoted


def test_damage_is_noticed(monkeypatch):
    monkeypatch.setattr(sets, "_EMBEDDED_FINGERPRINT", "0" * 64)
    with pytest.raises(InputError, match="damaged; reinstall"):
        load()


def test_choice_does_not_depend_on_order(data):
    order = np.random.default_rng(0).permutation(len(data.train.labels))
    shuffled = sets.Split(data.train.images[order], data.train.labels[order])
    chosen = [make.choose(split, 3, data.test) for split in (data.train, shuffled)]
    np.testing.assert_array_equal(chosen[0].images, chosen[1].images)
    assert chosen[0].labels.tolist() == [label for label in range(10) for _ in range(3)]
    assert make.source_digest(data.train) == make.source_digest(shuffled)


def test_images_of_the_other_split_are_not_chosen(data):
    first = make.choose(data.train, 1, data.test)
    assert (
        not (make.choose(data.train, 1, first).images == first.images).all((1, 2, 3)).any()
    )
