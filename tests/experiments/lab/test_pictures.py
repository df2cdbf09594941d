"""What pictures share."""

import pytest

from experiments.lab.pictures import folded


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("tm_ipc10", ["tm_ipc10"]),
        ("cifar10_dm_ipc10_width128", ["cifar10_dm_ipc10_", "width128"]),
        ("random, 10 per class", ["random, 10 per ", "class"]),
        ("alongnamewithoutanybreak_ipc1", ["alongnamewithoutanybreak_", "ipc1"]),
        ("", [""]),
    ],
)
def test_names_are_folded(name, lines):
    assert folded(name).split("\n") == lines
