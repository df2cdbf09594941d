"""Random keys: every purpose has a root of its own."""

import pathlib
import re

import jax
import numpy as np

import experiments
from distilljax.keys import subset_seed
from distilljax.training import expert
from experiments.lab import keys
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


def test_every_purpose_has_numbers_of_its_own():
    """No two roots, nor what is split off or folded into them, are the same key."""
    seed, num = 5, 40
    roots = [
        jax.random.key(seed),
        keys.fresh_key(seed),
        *keys.distillation(seed),
        keys.probes(seed, "ntk"),
        keys.probes(seed, "accuracy"),
    ]
    families = [
        {
            data(root),
            *map(data, jax.random.split(root, num)),
            *(data(jax.random.fold_in(root, i)) for i in range(num)),
        }
        for root in roots
    ]
    for i, family in enumerate(families):
        for other in families[:i]:
            assert not family & other
    drawn = {subset_seed(number, seed) for number in range(20) for seed in range(20)}
    assert len(drawn) == 400
    assert [subset_seed(number) for number in range(3)] == [1000, 1001, 1002]


def test_only_the_policy_and_the_outer_loop_take_keys_from_the_seed_itself():
    folder = pathlib.Path(experiments.__file__).parent
    taking = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        if re.search(r"random\.key\((config\.)?seed\)", path.read_text())
    }
    assert taking == {"lab/keys.py", "distill/run.py", "train_experts/run.py"}
