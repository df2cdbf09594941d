"""Protocols as experiments offer them."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data, io
from distilljax.comparison import real
from distilljax.config import FieldError
from distilljax.training.evaluation import NETWORKS, PROTOCOLS
from experiments.lab import options, protocols
from tests.experiments.helpers import OWN, write

TARGETS = np.array([[0.5, -0.2, -0.3], [-0.3, 0.6, -0.3], [-0.2, -0.2, 0.4]], np.float32)


def test_the_names_of_the_options_are_those_of_the_protocols():
    assert typing.get_args(options.ProtocolName) == tuple(PROTOCOLS)
    assert typing.get_args(options.ProtocolOrOwn) == ("own", *PROTOCOLS)


@pytest.fixture(scope="module")
def learned(dataset, tmp_path_factory):
    path = tmp_path_factory.mktemp("sets") / "learned.npz"
    return io.load(write(path, dataset, targets=TARGETS))


def test_labels_as_the_loss_reads_them(learned):
    batch = protocols.batch_of("a", learned, PROTOCOLS["rcig"])
    np.testing.assert_array_equal(batch.labels, TARGETS)
    hard = protocols.batch_of("a", learned, PROTOCOLS["rcig"], "hard")
    np.testing.assert_allclose(hard.labels, np.eye(3) - 1 / 3, atol=1e-6)
    plain = protocols.batch_of("a", learned, PROTOCOLS["study"], "hard")
    np.testing.assert_allclose(plain.labels, np.eye(3), atol=1e-6)
    with pytest.raises(FieldError, match=r"learned real-valued targets.*--labels=hard, or"):
        protocols.batch_of("a", learned, PROTOCOLS["study"])
    with pytest.raises(FieldError, match=r"give --labels=hard$"):
        protocols.batch_of("a", learned, PROTOCOLS["study"], selects=None)


def test_labels_of_real_images():
    one_hot = jnp.eye(4)[None]
    np.testing.assert_array_equal(real.real_labels(one_hot, PROTOCOLS["dc"]), one_hot)
    less = real.real_labels(one_hot, PROTOCOLS["rfad"])
    np.testing.assert_allclose(less, one_hot - 0.25)


@pytest.mark.parametrize("name", ["own", *PROTOCOLS])
def test_the_network_that_a_protocol_brings(learned, name):
    described = protocols.chosen_network(name, "a", learned).described()
    if name in NETWORKS:
        wanted = {"model": "convnet", **NETWORKS[name]}
        assert described.items() >= wanted.items()
    else:
        assert described.items() >= {"model": "mlp", **OWN["mlp"]}.items()


def test_images_that_a_protocol_looks_at(dataset, learned):
    loaded = data.load(str(dataset))
    given = loaded.train, learned.transform, 3
    assert real.validation_images(PROTOCOLS["rcig"], *given) is None
    found = real.validation_images(PROTOCOLS["rfad"], *given)
    np.testing.assert_array_equal(np.bincount(found.labels), [4, 4, 4])  # a tenth of 40
    rows = {row.tobytes() for row in loaded.train.images}
    assert all(np.asarray(image).tobytes() in rows for image in found.images)
    again = real.validation_images(PROTOCOLS["rfad"], *given)
    assert jax.tree.all(jax.tree.map(np.array_equal, found.images, again.images))
