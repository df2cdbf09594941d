"""The limits of the options of methods: the ends are taken, what lies beyond is refused."""

import pytest

from distilljax.config import FieldError
from distilljax.methods import bptt, dm, gm, kernel, tm

AT_LEAST_ONE = {
    bptt: ("unroll", "window", "inner_batch", "real_batch"),
    gm: ("real_batch", "classes_together", "outer_loop", "inner_loop", "network_batch"),
    dm: ("real_batch", "frequencies"),
    tm: ("student_steps", "expert_epochs", "widen_steps", "student_batch", "segments"),
    kernel: ("pool", "network_steps", "solver_iters", "real_batch", "cosine_steps"),
}
AT_LEAST_ZERO = {
    bptt: ("adapt", "first_stage", "middle_stage", "label_lr", "lr_lr", "inner_momentum"),
    gm: ("label_lr", "image_momentum", "network_momentum"),
    dm: ("image_momentum",),
    tm: ("min_start", "max_start", "first_max_start", "label_lr", "lr_lr", "momentum"),
    kernel: ("max_age", "label_lr", "margin"),
}
POSITIVE = {
    bptt: ("inner_lr", "image_lr", "clip"),
    gm: ("image_lr", "network_lr"),
    dm: ("image_lr",),
    tm: ("inner_lr", "lr_low", "lr_high", "image_lr", "clip", "skip_above"),
    kernel: ("network_lr", "ridge", "weight_decay", "image_lr", "label_scale"),
}
MOMENTUM = {
    bptt: ("inner_momentum", "momentum"),
    gm: ("image_momentum", "network_momentum"),
    dm: ("image_momentum",),
    tm: ("momentum", "label_momentum"),
}


def each(table):
    cases = [(module, name) for module, names in table.items() for name in names]
    names = [f"{module.__name__.rpartition('.')[2]}.{name}" for module, name in cases]
    return pytest.mark.parametrize(("module", "name"), cases, ids=names)


def check(module, name, taken, refused, why):
    assert getattr(module.Config(**{name: taken}), name) == taken
    with pytest.raises(FieldError, match=f"^{name}={refused}: must be {why}"):
        module.Config(**{name: refused})


@each(AT_LEAST_ONE)
def test_a_number_is_at_least_one(module, name):
    check(module, name, 1, 0, "at least 1")


@each(AT_LEAST_ZERO)
def test_zero_is_the_least(module, name):
    check(module, name, 0, -1, "at least 0")


@each(POSITIVE)
def test_a_rate_or_a_scale_is_positive(module, name):
    check(module, name, 0.02, 0.0, "greater than 0")


@each(MOMENTUM)
def test_a_momentum_is_at_most_one(module, name):
    check(module, name, 1.0, 1.01, "at most 1")


def test_some_parameters_are_matched():
    check(tm, "skip", 0.99, 1.0, "at most 0.99")
    check(tm, "skip", 0.0, -0.01, "at least 0")
