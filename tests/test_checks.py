"""Arguments of another kind are one line, in every pure function that takes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.analysis import coresets, datamodels, leave_one_out
from distilljax.core import augment, distilled, sampling
from distilljax.curvature import estimators, hessian, ntk
from distilljax.methods import dm
from distilljax.training import expert
from distilljax.training.evaluation import EvaluationProtocol, fresh_accuracy, train
from distilljax.types import InputError

KEY = jax.random.key(0)
PROTOCOL = EvaluationProtocol(steps=2)
LIKE = jnp.zeros(3)


def loss_fn(w, x):
    return jnp.mean((x @ w) ** 2)


def apply(w, x):
    return x @ w[:, None]


def doubled(v):
    return 2 * v


def a_batch(problem):
    return distilled.as_batch(problem.distilled)


# Name -> (key, problem) -> result.
OF_ONE_KEY = {
    "method.init": lambda key, p: dm.make(dm.Config(), p.model).init(key, p.distilled),
    "method.step": lambda key, p: dm.make(dm.Config(), p.model).step(key, None, p.real),
    "train": lambda key, p: train(key, p.model, a_batch(p), PROTOCOL),
    "expert.init": lambda key, p: expert.init(key, p.model, expert.Recipe()),
    "epoch_key": lambda key, _: expert.epoch_key(key, 0, 0),
    "augment": lambda key, p: augment.augment(key, p.distilled.images),
    "batch": lambda key, p: sampling.batch(key, p.real, 2),
    "class_batch": lambda key, p: sampling.class_batch(key, p.real, 2),
    "epochs": lambda key, _: sampling.epochs(key, 4, 2, 2),
    "random_part": lambda key, _: coresets.random_part(key, 2, 3, 1),
    "random_members": lambda key, _: datamodels.random_members(key, 2, 3, 1),
    "trace": lambda key, _: hessian.trace(loss_fn, LIKE, jnp.eye(3), key, num_probes=2),
    "batch_trace": lambda key, _: hessian.batch_trace(
        loss_fn, LIKE, jnp.eye(3), key, batch=1, num_probes=2
    ),
    "hutchinson": lambda key, _: estimators.hutchinson_trace(
        doubled, key, LIKE, num_probes=2
    ),
    "deflated": lambda key, _: estimators.deflated_trace(doubled, key, LIKE, num_products=6),
    "block_traces": lambda key, _: estimators.block_traces(
        doubled, key, LIKE, num_probes=2
    ),
    "diagonal": lambda key, _: estimators.diagonal(doubled, key, LIKE, num_probes=2),
    "eigenpairs": lambda key, _: estimators.extreme_eigenpairs(
        doubled, key, LIKE, num_iters=2
    ),
    "density": lambda key, _: estimators.spectral_density(
        doubled, key, LIKE, num_probes=2, num_iters=2
    ),
    "sampled_mean_to": lambda key, _: estimators.sampled_mean_to(
        jax.random.normal, key, relative_error=1.0, of="mean"
    ),
    "sketch": lambda key, _: ntk.sketch(apply, LIKE, jnp.eye(3), key, 2),
}
OF_KEYS = {
    "fresh_accuracy": lambda keys, p: fresh_accuracy(
        keys, p.model, a_batch(p), p.real, PROTOCOL
    ),
    "leave_one_out": lambda keys, p: leave_one_out.leave_one_out(
        keys, p.model, a_batch(p), p.real, PROTOCOL
    ).whole.accuracy,
    "retrain": lambda keys, p: leave_one_out.retrain(
        keys, [-1, 0], p.model, a_batch(p), p.real, PROTOCOL
    ).accuracy,
    "pairs": lambda keys, _: leave_one_out.pairs(keys, 2)[1],
}


@pytest.mark.parametrize("name", OF_ONE_KEY)
@pytest.mark.parametrize("key", [0, None, "a", jnp.arange(2)], ids=str)
def test_what_is_no_key_is_refused(name, key, problem):
    with pytest.raises(InputError, match=r"^key=.*give a PRNG key, such as jax\.random\."):
        OF_ONE_KEY[name](key, problem)


@pytest.mark.parametrize("name", OF_ONE_KEY)
def test_several_keys_for_one_are_refused(name, problem):
    with pytest.raises(InputError, match=r"^key holds \[2\] keys; give one"):
        OF_ONE_KEY[name](jax.random.split(KEY), problem)


def test_a_seed_is_no_key_in_compiled_code():
    with pytest.raises(InputError, match=r"^key=.*give a PRNG key"):
        jax.jit(OF_ONE_KEY["trace"], static_argnums=1)(0, None)


def test_keys_of_the_old_kind_give_the_same():
    for key in (jax.random.PRNGKey(0), np.asarray(jax.random.PRNGKey(0))):
        np.testing.assert_array_equal(
            OF_ONE_KEY["trace"](key, None).value, OF_ONE_KEY["trace"](KEY, None).value
        )


@pytest.mark.parametrize("name", OF_KEYS)
@pytest.mark.parametrize("keys", [0, [0, 1], None, KEY, jax.random.PRNGKey(0)], ids=str)
def test_what_are_no_keys_is_refused(name, keys, problem):
    with pytest.raises(InputError, match=r"^keys.*give PRNG keys along one axis, such as"):
        OF_KEYS[name](keys, problem)


@pytest.mark.parametrize("name", OF_KEYS)
def test_several_keys_of_the_old_kind_give_the_same(name, problem):
    old, new = jax.random.PRNGKey(0), jax.random.key(0)
    found = [OF_KEYS[name](jax.random.split(key), problem) for key in (old, new)]
    np.testing.assert_array_equal(*found)
