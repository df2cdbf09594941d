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
# Without these, the option has no effect and is refused.
BESIDE = {
    "widen_steps": {"first_max_start": 5},
    "first_stage": {"window": 9, "adapt": 2},
    "middle_stage": {"window": 9, "adapt": 2},
}


# What the papers say, at 1 image per class of CIFAR-10 where it differs.
PUBLISHED = {
    gm: {  # DC, arXiv 2006.05929
        "real_batch": 256,
        "outer_loop": 1,
        "inner_loop": 1,
        "image_lr": 0.1,
        "image_momentum": 0.5,
        "network_lr": 0.01,
        "network_batch": 256,
    },
    dm: {  # arXiv 2110.04181
        "real_batch": 256,
        "augment": "color_crop_cutout_flip_scale_rotate",
        "image_lr": 1.0,
        "image_momentum": 0.5,
    },
    kernel: {  # FRePo, arXiv 2206.00719; of the last two RCIG, arXiv 2302.06755
        "pool": 10,
        "max_age": 100,
        "network_lr": 3e-4,
        "real_batch": 1024,
        "ridge": 1e-6,
        "flips": True,
        "outer": "lamb",
        "image_lr": 3e-3,
        "label_lr": 3e-3,
        "weight_decay": 5e-4,
        "solver_iters": 20,
    },
}


def each(table):
    cases = [(module, name) for module, names in table.items() for name in names]
    names = [f"{module.__name__.rpartition('.')[2]}.{name}" for module, name in cases]
    return pytest.mark.parametrize(("module", "name"), cases, ids=names)


def check(module, name, taken, refused, why):
    config = module.Config(**{name: taken}, **BESIDE.get(name, {}))
    assert getattr(config, name) == taken
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


@pytest.mark.parametrize("module", PUBLISHED)
def test_defaults_are_those_of_the_paper(module):
    found = {name: getattr(module.Config(), name) for name in PUBLISHED[module]}
    assert found == PUBLISHED[module]
