"""Kept arrays with any one bit flipped, or cut anywhere: their content, or unusable."""

import warnings

import numpy as np
import pytest

from experiments.lab import kept

HELD = {"classes": np.arange(6, dtype=np.uint8).reshape(2, 3), "kind": np.array("x y")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "whole.npz"
    kept.write_arrays(path, "identity", **HELD)
    return path.read_bytes()


def read(path, content):
    """Whether a file of that content is read; it is read as it was written, if at all."""
    path.write_bytes(content)
    with warnings.catch_warnings():
        # numpy leaves a damaged archive open.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            identity, arrays = kept.read_arrays(path)
        except kept.Unusable:
            return False
    assert identity == "identity"
    assert arrays.keys() == HELD.keys()
    for name, array in HELD.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    return True


def test_no_flipped_bit_changes_what_is_read(whole, tmp_path):
    path, damaged = tmp_path / "one.npz", 0
    for place in range(len(whole)):
        # The lowest bit: in one of the fields it says that a member is encrypted.
        content = bytearray(whole)
        content[place] ^= 1
        damaged += not read(path, bytes(content))
    # The others lie in times and fields of the archive that nothing reads.
    assert damaged > len(whole) / 2


def test_a_file_cut_anywhere_is_unusable(whole, tmp_path):
    assert read(tmp_path / "one.npz", whole)
    for length in range(0, len(whole), 7):
        assert not read(tmp_path / "one.npz", whole[:length])
