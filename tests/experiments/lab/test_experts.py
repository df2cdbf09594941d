"""The identity of experts: what those who use them must agree on."""

import pytest

from distilljax import launch
from distilljax.io import trajectories
from distilljax.types import InputError
from experiments.distill.options import Config as Distill
from experiments.lab.data import prepare
from experiments.lab.experts import identify_experts, later_settings
from experiments.train_experts.run import Config as Train

MLP = ["--model=mlp", "--mlp.width=16", "--mlp.depth=1", "--held_out=5"]


def identity(kind, dataset, *more):
    config = launch.parse(kind, [f"--dataset={dataset}", *MLP, *more])
    return identify_experts(config, prepare(config))


def test_trainers_and_users_agree(dataset, experts):
    wanted = identity(Distill, dataset)
    assert wanted == identity(Train, dataset)
    assert wanted["model"]["name"] == "mlp"
    assert wanted["model"]["config"]["width"] == 16
    trajectories.open(experts).check(wanted)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--held_out=6"], "held_out is 5 there and 6 is wanted"),
        (["--split_seed=2"], "split_seed is 0 there and 2"),
        (["--mlp.width=8"], "model.config.width is 16"),
        (["--preprocess=none"], "preprocessing is normalise"),
    ],
)
def test_what_differs_is_named(dataset, experts, more, message):
    with pytest.raises(InputError, match=message):
        trajectories.open(experts).check(identity(Distill, dataset, *more))


def test_older_experts_are_those_of_the_defaults(dataset, tmp_path):
    """Their record was written before networks had these options."""
    config = launch.parse(Distill, [f"--dataset={dataset}", "--held_out=5"])
    wanted = identify_experts(config, prepare(config))
    rest = {"num_experts": 1, "num_epochs": 1, "num_params": 1, "recipe": {}, "seed": 0}
    held = wanted["model"]["config"].copy()
    for name in ("activations", "first_padding"):
        del held[name]
    described = wanted | {"model": {"name": "convnet", "config": held}}
    store = trajectories.create(tmp_path, trajectories.Description(**described, **rest))
    store.check(wanted, later_settings(config))
    other = config.replace({"convnet": {"first_padding": 3}})
    with pytest.raises(InputError, match=r"config.first_padding is 1 there and 3"):
        store.check(identify_experts(other, prepare(other)), later_settings(other))
