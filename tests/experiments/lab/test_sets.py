"""Distilled sets whose preprocessing is fitted again to their data."""

import jax
import numpy as np
import pytest

from distilljax import data, io
from distilljax.types import InputError
from experiments.lab import sets
from tests.experiments.helpers import write, write_stripes


@pytest.fixture
def without(tmp_path):
    """Returns (a file without matrices, the artefact it is of)."""
    loaded = data.load(str(write_stripes(tmp_path / "stripes.npz")))
    rest, _ = data.hold_out(loaded.train, 5, seed=3)
    config = {"held_out": 5, "split_seed": 3}
    path = tmp_path / "made" / "distilled.npz"
    whole = write(path, tmp_path / "stripes.npz", config=config)
    artefact = io.load(whole)._replace(transform=data.fit("zca", rest.images))
    io.save(path, artefact, matrices=False)
    return path, artefact


def test_matrices_are_fitted_to_the_images_that_were_not_held_out(without, capsys):
    path, expected = without
    ((label, named),) = sets.load_artefacts(str(path)).items()
    assert label == "made"
    jax.tree.map(np.testing.assert_array_equal, named.artefact, expected)
    assert capsys.readouterr().err.count("is fitted to") == 1
    io.save(path, expected)
    jax.tree.map(np.testing.assert_array_equal, sets.load(str(path)), expected)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": {}}, "does not say to which data.*distilljax.load"),
        ({"dataset": {"name": "/absent.npz"}}, "absent.npz"),
        ({"dataset": {"name": "embedded", "fingerprint": "0"}}, "its SHA-256 differs"),
        ({"config": {"held_out": 5, "split_seed": 4}}, "another.*less those .* held out"),
        ({"config": {}}, "another.*less those that were held out"),
        ({"config": {"held_out": "many"}}, "of the images held out.*'many'"),
        ({"config": {"held_out": 5, "split_seed": -1}}, "of the images held out, .*-1"),
    ],
)
def test_data_that_it_was_not_fitted_to_are_refused(without, changes, message):
    path, artefact = without
    io.save(path, artefact._replace(**changes), matrices=False)
    with pytest.raises(InputError, match=message) as caught:
        sets.load(str(path))
    assert "\n" not in str(caught.value)
