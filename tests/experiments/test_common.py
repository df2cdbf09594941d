"""What experiments share."""

import pathlib
import re

import jax
import numpy as np

import experiments
from distilljax.training import expert
from experiments.lab.keys import fresh_key


def data(key):
    return tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())


def test_experiments_meet_networks_that_experts_never_were():
    """No key derived as they are derived in one place equals one of the other."""
    seed, num = 3, 40
    root, fresh = jax.random.key(seed), fresh_key(seed)
    experts = {
        data(expert.epoch_key(root, which, epoch))
        for which in range(num)
        for epoch in range(3)
    }
    met = [fresh, *jax.random.split(fresh, num)]
    met += [key for one in jax.random.split(fresh, num) for key in jax.random.split(one)]
    assert not experts & {data(key) for key in met}
    # What goes wrong without: the weights of a network trained by `evaluate.train`.
    first = jax.random.split(jax.random.split(root, num)[0])[0]
    assert data(first) in experts
    assert data(fresh_key(seed)) != data(fresh_key(seed + 1))


def test_only_what_makes_sets_takes_keys_from_the_seed_itself():
    folder = pathlib.Path(experiments.__file__).parent
    taking = {
        path.name
        for path in folder.glob("*.py")
        if re.search(r"random\.key\((config\.)?seed\)", path.read_text())
    }
    assert taking == {"common.py", "distill.py", "train_experts.py"}
