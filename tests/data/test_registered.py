"""Transforms of one's own: fitted by name, saved with the artefact, refused if unfit."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data, io
from distilljax.core import distilled
from distilljax.data import registered
from distilljax.training.evaluation import PROTOCOLS
from distilljax.types import InputError
from tests.conftest import striped_images


class UnitRange(NamedTuple):
    largest: jax.Array

    def __call__(self, images):
        return jnp.asarray(images, jnp.float32) / self.largest

    def inverse(self, images):
        return images * self.largest / 255

    @classmethod
    def fit(cls, images):
        return cls(jnp.float32(images.max()))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Shifted:
    by: jax.Array

    def __call__(self, images):
        return jnp.asarray(images, jnp.float32) / 255 - self.by

    def inverse(self, images):
        return images + self.by

    @classmethod
    def fit(cls, images):
        return cls(jnp.asarray(images.mean((0, 1, 2)) / 255, jnp.float32))


@pytest.fixture(autouse=True)
def _registered():
    before = dict(registered._REGISTERED)
    data.register("unit_range")(UnitRange)
    data.register("shifted")(Shifted)
    yield
    registered._REGISTERED.clear()
    registered._REGISTERED.update(before)


def artefact(transform):
    images = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    made = distilled.create(images, jnp.arange(3), 3, learning_rate=0.1)
    about = {"name": "stripes", "source": "arrays", "fingerprint": "0"}
    study = PROTOCOLS["study"]
    return io.Artefact(made, transform, tuple("abc"), about, "dm", {}, study, "1", {})


@pytest.mark.parametrize("name", ["unit_range", "shifted"])
def test_fitted_by_name_and_saved_with_the_artefact(tmp_path, name):
    split = striped_images(5)
    transform = data.fit(name, split.images)
    real = data.on_device(split, transform, 3)
    seen = jax.jit(lambda real: real.transform(real.images))(real)
    np.testing.assert_allclose(transform.inverse(seen), split.images / 255, atol=1e-6)
    io.save(tmp_path / "set.npz", artefact(transform))
    loaded = io.load(tmp_path / "set.npz").transform
    assert type(loaded) is type(transform)
    jax.tree.map(np.testing.assert_array_equal, loaded, transform)


def test_a_process_that_does_not_know_the_name_says_so(tmp_path):
    io.save(tmp_path / "set.npz", artefact(UnitRange(jnp.float32(255))))
    del registered._REGISTERED["unit_range"]
    with pytest.raises(InputError, match=r"'unit_range'; choose.*distilljax.data.register"):
        io.load(tmp_path / "set.npz")
    with pytest.raises(InputError, match=r"UnitRange cannot be stored; .*data.register$"):
        io.save(tmp_path / "set.npz", artefact(UnitRange(jnp.float32(255))))
    with pytest.raises(InputError, match="there is no preprocessing 'unit_range'"):
        data.fit("unit_range", striped_images(5).images)


def test_another_class_under_the_name_is_refused(tmp_path):
    io.save(tmp_path / "set.npz", artefact(UnitRange(jnp.float32(255))))
    data.register("unit_range")(Shifted)
    with pytest.raises(InputError, match=r"transform has no transform.largest"):
        io.load(tmp_path / "set.npz")


class Plain:
    def __call__(self, images):
        return images

    inverse = fit = __call__


@pytest.mark.parametrize("wrong", [Plain, lambda x: x, UnitRange(jnp.ones(()))])
def test_what_is_no_class_of_arrays_is_not_registered(wrong):
    with pytest.raises(InputError, match="register a NamedTuple, or a dataclass that is"):
        data.register("plain")(wrong)


@pytest.mark.parametrize("name", ["zca", "published", "two words", ""])
def test_names_that_are_taken_or_no_words(name):
    with pytest.raises(InputError, match="a name is one word, and none of none, normalise"):
        data.register(name)(UnitRange)


@pytest.mark.parametrize("wrong", [lambda x: x / 255.0, Plain(), 3.0])
def test_a_transform_that_compiled_programs_cannot_take(wrong):
    with pytest.raises(InputError, match="make it a pytree of arrays with __call__"):
        data.on_device(striped_images(5), wrong, 3)
