"""Arguments of another kind are one line, in every pure function that takes them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data, devices
from distilljax.analysis import coresets, datamodels, leave_one_out
from distilljax.core import augment, distilled, inner, losses, sampling
from distilljax.curvature import estimators, hessian, ntk
from distilljax.methods import METHODS, dm
from distilljax.models import mlp
from distilljax.training import evaluation, expert
from distilljax.training.evaluation import EvaluationProtocol, fresh_accuracy, train
from distilljax.types import Batch, InputError, Model

KEY = jax.random.key(0)
PROTOCOL = EvaluationProtocol(steps=2)
LIKE = jnp.zeros(3)
ANY: Any = None  # is not looked at


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
    "method.step": lambda key, p: dm.make(dm.Config(), p.model).step(key, ANY, p.real),
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
    "deflated": lambda key, _: estimators.deflated_trace(
        doubled, key, LIKE, num_products=6
    ),
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
    "leave_one_out": lambda keys, p: (
        leave_one_out.leave_one_out(
            keys, p.model, a_batch(p), p.real, PROTOCOL
        ).whole.accuracy
    ),
    "retrain": lambda keys, p: (
        leave_one_out.retrain(
            keys, jnp.arange(-1, 1), p.model, a_batch(p), p.real, PROTOCOL
        ).accuracy
    ),
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


@pytest.mark.parametrize("real", [None, "batch", "split"])
def test_what_is_no_real_set_is_refused(real, problem):
    given = {"batch": a_batch(problem), "split": data.Split(np.zeros(1), np.zeros(1))}
    real = given.get(real)
    method = dm.make(dm.Config(real_batch=4), problem.model)
    state = method.init(KEY, problem.distilled)
    calls = [
        lambda: method.step(KEY, state, real),
        lambda: sampling.take(real, [0]),
        lambda: sampling.batch(KEY, real, 2),
        lambda: sampling.class_batch(KEY, real, 2),
        lambda: evaluation.predict(problem.model.apply, None, real),
        lambda: fresh_accuracy(
            jax.random.split(KEY), problem.model, a_batch(problem), real, PROTOCOL
        ),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"^the real data is a .*; give a RealSet"):
            call()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda made: None, "is a NoneType; give a DistilledSet"),
        (lambda made: Batch(*made[:2]), "is a Batch; give a DistilledSet"),
        (lambda made: made._replace(images=np.zeros((3, 8, 8, 1), np.uint8)), "of uint8"),
        (lambda made: made._replace(images=[1.0]), "has images of list"),
        (lambda made: made._replace(log_lr=jnp.zeros(3)), r"and log_lr \[3\]"),
        (lambda made: made._replace(images=made.images[:1]), r"images \[1, 8, 8, 1\]"),
        (lambda made: made._replace(images=made.images[..., 0]), "expected .n, h, w, c"),
    ],
)
def test_what_is_no_distilled_set_is_refused(changed, message, problem):
    method = dm.make(dm.Config(), problem.model)
    with pytest.raises(InputError, match=f"^the distilled set .*{message}"):
        method.init(KEY, changed(problem.distilled))


def test_other_things_in_the_place_of_a_state_are_refused(problem):
    method = dm.make(dm.Config(), problem.model)
    with pytest.raises(InputError, match=r"^state is a DistilledSet; give that of init"):
        method.step(KEY, problem.distilled, problem.real)


@pytest.mark.parametrize("name", METHODS)
def test_settings_and_network_of_a_method(name, problem):
    module, other = METHODS[name], METHODS["dm" if name == "bptt" else "bptt"]
    for make in (module.make, module.outer_loss):
        with pytest.raises(
            InputError, match=rf"^config is a Model; give a .*{name}.Config"
        ):
            make(problem.model, module.Config())
        with pytest.raises(InputError, match=r"^config is a Config; give a .*Config, foll"):
            make(other.Config(), problem.model)
        with pytest.raises(InputError, match=r"^model is a NoneType; give a distilljax.Mo"):
            make(module.Config(), None)


def test_what_is_no_network_or_protocol_is_refused(problem):
    keys, batch = jax.random.split(KEY), a_batch(problem)
    with pytest.raises(InputError, match=r"^model is a Config; give a distilljax\.Model"):
        fresh_accuracy(keys, mlp.Config(), batch, problem.real, PROTOCOL)
    for protocol in ("study", None, {}):
        with pytest.raises(InputError, match=r"^protocol is a .*; give an EvaluationProt"):
            fresh_accuracy(keys, problem.model, batch, problem.real, protocol)
        with pytest.raises(InputError, match=r"^protocol is a .*; give an EvaluationProt"):
            evaluation.as_batch(problem.distilled, protocol)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda batch: None, "^the data is a NoneType; give a Batch"),
        (lambda batch: tuple(batch), "^the data is a tuple; give a Batch"),
        (
            lambda batch: batch._replace(images=[[1.0]]),
            "^the batch has images that are a l",
        ),
        (
            lambda batch: Batch(batch.images.astype(np.uint8), batch.labels),
            "^images are ui",
        ),
        (lambda batch: Batch(batch.images[:0], batch.labels[:0]), "give at least one"),
    ],
)
def test_what_is_no_batch_is_refused(changed, message, problem):
    batch = changed(a_batch(problem))
    with pytest.raises(InputError, match=message):
        train(KEY, problem.model, batch, PROTOCOL)
    with pytest.raises(InputError, match=message):
        leave_one_out.leave_one_out(
            jax.random.split(KEY), problem.model, batch, problem.real, PROTOCOL
        )


def test_a_test_set_of_other_classes_is_refused(problem):
    real = problem.real
    two = real._replace(class_sizes=real.class_sizes[:2], class_index=real.class_index[:2])
    with pytest.raises(InputError, match=r"has 3 outputs, the data .* on 2 classes"):
        fresh_accuracy(
            jax.random.split(KEY), problem.model, a_batch(problem), two, PROTOCOL
        )


def test_a_number_in_the_place_of_a_mesh_is_refused(problem):
    with pytest.raises(InputError, match=r"^mesh=2: give distilljax\.devices\.mesh\(2\)"):
        hessian.trace(loss_fn, LIKE, jnp.eye(3), KEY, num_probes=2, mesh=2)
    with pytest.raises(InputError, match=r"^mesh=2: give"):
        devices.spread(doubled, jnp.arange(4), 2)


# Argument -> value -> result.
COUNTS = {
    "num_probes": lambda n: hessian.trace(loss_fn, LIKE, jnp.eye(3), KEY, num_probes=n),
    "chunk": lambda n: hessian.hvp(loss_fn, LIKE, jnp.eye(3), chunk=n)(LIKE),
    "together": lambda n: hessian.trace(
        loss_fn, LIKE, jnp.eye(3), KEY, num_probes=2, together=n
    ),
    "num_directions": lambda n: ntk.sketch(apply, LIKE, jnp.eye(3), KEY, n),
    "block": lambda n: ntk.empirical_ntk(apply, LIKE, jnp.eye(3), block=n),
    "num_products": lambda n: estimators.deflated_trace(doubled, KEY, LIKE, num_products=n),
    "num_iters": lambda n: estimators.lanczos(doubled, LIKE + 1, num_iters=n),
    "top": lambda n: estimators.extreme_eigenpairs(doubled, KEY, LIKE, top=n, num_iters=3),
    "size": lambda n: sampling.epochs(KEY, 4, n, 2),
}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [2.5, "2", True], ids=str)
def test_what_is_no_whole_number_is_refused(name, value):
    with pytest.raises(InputError, match=f"^{name}={value!r}: give a whole number$"):
        COUNTS[name](value)


@pytest.mark.parametrize("name", COUNTS)
def test_numbers_below_one_are_refused(name):
    for value in (0, -1):
        with pytest.raises(InputError, match=f"{name}={value}"):
            COUNTS[name](value)


@pytest.mark.parametrize("loss", [lambda w, x: jnp.int32(0), lambda w, x: 1j * w.sum()])
def test_a_loss_that_has_no_derivative_is_refused(loss):
    with pytest.raises(InputError, match=r"^the loss returned (int32|complex64) instead"):
        hessian.trace(loss, LIKE, jnp.eye(3), KEY, num_probes=2)


@pytest.mark.parametrize("loss", [None, 3, lambda w: w.sum()])
def test_what_is_no_loss_is_refused(loss):
    with pytest.raises(InputError, match=r"^the loss is (a function of|called with) .para"):
        hessian.hvp(loss, LIKE, jnp.eye(3))


def test_work_of_unequal_lengths_is_refused():
    with pytest.raises(InputError, match=r"^arrays of the lengths \[3, 4\]"):
        devices.spread(lambda given: given[0], (jnp.arange(4), jnp.arange(3)), None)


def test_augmentations_of_other_arguments_are_refused(problem):
    images = problem.distilled.images
    with pytest.raises(InputError, match=r"^an augmentation is called with \(key, im"):
        augment.augment(KEY, images, strategy=lambda images: images)
    for given in (images[..., 0], images[0], None, [[1.0]]):
        with pytest.raises(
            InputError, match=r"^images are .*give an array f32\[b, h, w, c"
        ):
            augment.augment(KEY, given)
    for strategy in (None, b"flip", ["flip"]):
        with pytest.raises(InputError, match=r"^augmentation .*: give operations joined"):
            augment.augment(KEY, images, strategy=strategy)


def test_class_numbers_for_a_tempered_cross_entropy_are_refused():
    with pytest.raises(InputError, match=r"^labels \[3\] beside logits \[3, 3\]"):
        losses.tempered_cross_entropy(jnp.eye(3), jnp.arange(3))


def test_a_rate_in_the_place_of_an_optimizer_is_refused():
    with pytest.raises(InputError, match=r"^optimizer is a float; give an optax"):
        inner.init(LIKE, 0.1)


def test_examples_without_a_target_are_refused_in_chunks():
    def squares(w, batch):
        return jnp.mean((batch[0] @ w)[:, None] - batch[1]) ** 2

    batch = jnp.ones((4, 3)), jnp.ones((3, 1))
    with pytest.raises(InputError, match=r"^the batch has leading axes \[\[4\], \[3\]\]"):
        inner.value_and_grad(squares, LIKE, batch, chunk=2)


def test_a_network_for_other_images_is_refused(problem):
    plain = Model(
        lambda key: jnp.zeros((81, 3)), None, lambda w, x: x.reshape(len(x), -1) @ w
    )
    for model in (plain, mlp.make(mlp.Config(width=4), (9, 9, 1), 3)):
        method = METHODS["bptt"].make(METHODS["bptt"].Config(), model)
        with pytest.raises(
            InputError, match=r"^the network fails on images \[2, 8, 8, 1\]"
        ):
            method.init(KEY, problem.distilled)


def test_traced_options_are_refused():
    def rate(value):
        return dm.Config(image_lr=value).image_lr

    for call in (jax.jit(rate), jax.grad(rate)):
        with pytest.raises(
            InputError, match=r"^image_lr=.*made outside of jit, vmap and g"
        ):
            call(0.1)


def test_images_of_other_channels_are_refused():
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    transform = data.fit("normalise", images)
    for given in (images[..., 0], np.tile(images, 3)):
        with pytest.raises(InputError, match=r"fitted on 1 channels: give \[b, h, w, 1\]"):
            transform(given)


def test_a_name_is_no_parametrisation(problem):
    with pytest.raises(InputError, match=r"^parametrisation is a str; give one that make"):
        dm.make(dm.Config(), problem.model, "memory")
