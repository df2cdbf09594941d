"""The limits of the options of methods: the ends are taken, what lies beyond is refused."""

import pytest

from distilljax.config import FieldError
from distilljax.methods import bptt, dm, gm, tm

FIELDS = [
    (config, name)
    for config in (bptt.Config, dm.Config, gm.Config, tm.Config)
    for name in vars(config())
    if "momentum" in name
]


@pytest.mark.parametrize(("config", "name"), FIELDS)
def test_a_momentum_lies_in_0_to_1(config, name):
    for end in (0.0, 1.0):
        assert getattr(config(**{name: end}), name) == end
    for beyond in (-0.01, 1.01):
        with pytest.raises(FieldError, match=name):
            config(**{name: beyond})


@pytest.mark.parametrize(
    ("config", "name"),
    [(tm.Config, "widen_steps"), (tm.Config, "expert_epochs"), (gm.Config, "outer_loop")],
)
def test_a_number_of_steps_is_at_least_one(config, name):
    assert getattr(config(**{name: 1}), name) == 1
    with pytest.raises(FieldError, match=name):
        config(**{name: 0})
