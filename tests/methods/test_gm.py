"""`gm` against loops over classes and over training steps, and its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data
from distilljax.core import distilled as distilled_set
from distilljax.core import sampling
from distilljax.core.augment import augment
from distilljax.core.parametrisations import DIRECT, multi_formation
from distilljax.methods import gm
from distilljax.types import InputError, Model


def smooth_model():
    """64 -> 5 -> 3 with tanh, so that difference quotients are exact."""

    def init(key):
        a, b = jax.random.split(key)
        return {
            "hidden": {"kernel": 0.3 * jax.random.normal(a, (64, 5)), "bias": jnp.zeros(5)},
            "out": {"kernel": jax.random.normal(b, (5, 3)), "bias": jnp.zeros(3)},
        }

    def features(params, images):
        flat = images.reshape(images.shape[0], -1)
        return jnp.tanh(flat @ params["hidden"]["kernel"] + params["hidden"]["bias"])

    def apply(params, images):
        return features(params, images) @ params["out"]["kernel"] + params["out"]["bias"]

    return Model(init, features, apply)


def double(tree):
    return jax.tree.map(
        lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree
    )


def started(problem, config, model=None, parametrisation=DIRECT, confidence=1.0):
    """Method, state at the start, real data; in double precision."""
    method = gm.make(config, model or smooth_model(), parametrisation)
    per_class = parametrisation.images_per_class or 2
    images = jax.random.normal(jax.random.key(7), (3 * per_class, 8, 8, 1))
    labels = jnp.repeat(jnp.arange(3), per_class)
    start = distilled_set.create(
        images, labels, 3, learning_rate=0.05, confidence=confidence
    )
    return method, method.init(jax.random.key(0), double(start)), double(problem.real)


def plain_loss(model, params, images, labels):
    log_probs = jax.nn.log_softmax(model.apply(params, images))
    return -(log_probs * labels).sum(-1).mean()


@functools.cache
def plain_class_distance(strategy):
    """Value and image gradient for one class, one output channel after the other."""
    model = smooth_model()

    def distance(images, drawn, label, key, params):
        ours, theirs = (
            jax.grad(plain_loss, argnums=1)(
                model,
                params,
                augment(key, x, strategy=strategy, siamese=True),
                jnp.tile(label, (x.shape[0], 1)),
            )
            for x in (images, drawn)
        )
        total = 0.0
        for layer in ("hidden", "out"):
            a, b = ours[layer]["kernel"], theirs[layer]["kernel"]
            for d in range(a.shape[1]):
                lengths = jnp.sqrt((a[:, d] ** 2).sum()) * jnp.sqrt((b[:, d] ** 2).sum())
                total = total + 1 - (a[:, d] * b[:, d]).sum() / (lengths + 1e-6)
        return total

    return jax.jit(jax.value_and_grad(distance))


@pytest.mark.parametrize(("strategy", "together"), [("", 1), ("crop_flip", 2)])
def test_one_step_is_the_equation(problem, float64, strategy, together):
    """A loop over classes; over several keys, so that several augmentations are drawn."""
    config = gm.Config(
        real_batch=7, augment=strategy, image_momentum=0.0, classes_together=together
    )
    method, start, real = started(problem, config)
    step, plain = jax.jit(method.step), plain_class_distance(strategy)
    before, params = start.distilled.images, start.aux.state.params
    for seed in range(5 if strategy else 1):
        key = jax.random.key(seed)
        state, info = step(key, start, real)

        batch_key, augment_key, *_ = jax.random.split(key, 4)
        drawn = sampling.class_batch(batch_key, real, config.real_batch)
        class_keys = jax.random.split(augment_key, 3)
        loss, grads = 0.0, []
        for j in range(3):
            images = before[2 * j : 2 * j + 2]
            value, grad = plain(images, drawn[j], jnp.eye(3)[j], class_keys[j], params)
            loss, grads = loss + value, [*grads, grad]
        grad = np.concatenate(grads)

        np.testing.assert_allclose(info.loss, loss, rtol=1e-10)
        np.testing.assert_allclose(info.grad_norm, np.linalg.norm(grad), rtol=1e-10)
        np.testing.assert_allclose(
            state.distilled.images, before - config.image_lr * grad, atol=1e-10
        )


def test_gradient_equals_finite_differences(problem, float64):
    """Of soft labels, and of images that are stored as mosaics."""
    config = gm.Config(
        real_batch=7,
        augment="color",
        image_lr=1.0,
        image_momentum=0.0,
        label_lr=1.0,
    )
    form = multi_formation.make(multi_formation.Config(), (8, 8, 1), 3, 1)
    method, start, real = started(problem, config, parametrisation=form, confidence=0.7)
    step, key = jax.jit(method.step), jax.random.key(3)

    state, _ = step(key, start, real)
    rng = np.random.default_rng(4)
    expected, directions = 0.0, {}
    for field in ("images", "label_logits"):
        before = getattr(start.distilled, field)
        directions[field] = rng.normal(size=before.shape)
        grad = before - getattr(state.distilled, field)
        assert np.any(grad != 0)
        expected += (grad * directions[field]).sum()

    def loss_at(eps):
        moved = {
            field: getattr(start.distilled, field) + eps * direction
            for field, direction in directions.items()
        }
        there = start._replace(distilled=start.distilled._replace(**moved))
        return step(key, there, real)[1].loss

    numeric = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5
    np.testing.assert_allclose(expected, numeric, rtol=1e-6)
    assert abs(numeric) > 1e-3


def test_the_network_ages_and_is_renewed(problem, float64):
    """Two lives of three matches: plain SGD with momentum on the set that a match made.

    Training steps are counted where they run (only they have batches of three): none is
    done for a network that is renewed.
    """
    config = gm.Config(
        real_batch=7, augment="crop_flip", outer_loop=3, inner_loop=2, network_batch=4
    )
    model, counted = smooth_model(), []

    def counting(params, images):
        if images.shape[0] == 3:
            jax.debug.callback(lambda: counted.append(1))
        return model.apply(params, images)

    method, state, real = started(problem, config, model._replace(apply=counting))
    step, totals = jax.jit(method.step), []
    labels = jax.nn.softmax(state.distilled.label_logits)

    @jax.jit
    def plain_step(params, velocity, key, images, labels):
        images = augment(key, images, strategy=config.augment)
        grads = jax.grad(plain_loss, argnums=1)(model, params, images, labels)
        velocity = jax.tree.map(lambda v, g: 0.5 * v + g, velocity, grads)
        return jax.tree.map(lambda p, v: p - 0.01 * v, params, velocity), velocity

    params = state.aux.state.params
    velocity = jax.tree.map(jnp.zeros_like, params)
    for count in range(1, 7):
        key = jax.random.key(count)
        state, _ = step(key, state, real)
        jax.effects_barrier()
        totals.append(len(counted))
        *_, train_key, renew_key = jax.random.split(key, 4)
        if count % 3 == 0:
            params = model.init(renew_key)
            velocity = jax.tree.map(jnp.zeros_like, params)
        else:
            order_key, augment_key = jax.random.split(train_key)
            # Six images in batches of at most four are two of three; two epochs of them.
            order = sampling.epochs(order_key, 6, 3, 4)
            for where, key in zip(order, jax.random.split(augment_key, 4), strict=True):
                images = state.distilled.images[where]
                params, velocity = plain_step(params, velocity, key, images, labels[where])
        assert int(state.aux.age) == count % 3
        for ours, expected in zip(
            jax.tree.leaves(state.aux.state.params), jax.tree.leaves(params), strict=True
        ):
            np.testing.assert_allclose(ours, expected, atol=1e-12)
    assert totals == [4, 8, 8, 12, 16, 16]


def test_real_and_distilled_images_share_one_augmentation(problem):
    """Where the distilled images are the real ones, gradients agree under every draw."""
    chosen = problem.real.class_index[:, :2].reshape(-1)
    split = data.Split(
        np.asarray(problem.real.images[chosen]), np.asarray(problem.real.labels[chosen])
    )
    few = data.on_device(split, problem.real.transform, 3)
    same = problem.distilled._replace(images=few.transform(few.images))
    config = gm.Config(distance="mse", real_batch=2, augment="color_crop_cutout_flip")
    method = gm.make(config, smooth_model())
    start = method.init(jax.random.key(0), same)
    other = method.init(jax.random.key(0), problem.distilled)
    step = jax.jit(method.step)
    for seed in range(8):
        key = jax.random.key(seed)
        apart = step(key, other, few)[1].loss
        assert step(key, start, few)[1].loss < 1e-8 * apart


def test_units_that_are_never_active_leave_the_gradient_finite(problem):
    """The gradient of a dead ReLU is a row of zeros, for real and distilled images."""

    def init(key):
        params = problem.model.init(key)
        biases = [path for path, x in jax.tree.leaves_with_path(params) if x.shape == (12,)]
        assert biases
        return jax.tree.map_with_path(
            lambda path, x: x.at[:4].set(-1e3) if path in biases else x, params
        )

    method = gm.make(gm.Config(real_batch=5), problem.model._replace(init=init))
    start = method.init(jax.random.key(0), problem.distilled)
    state, info = jax.jit(method.step)(jax.random.key(1), start, problem.real)
    assert np.isfinite(info.loss)
    assert info.grad_norm > 0
    assert np.all(np.isfinite(state.distilled.images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner_loop": 2}, "inner_loop=2: a network that is renewed after every match"),
        ({"augment": "flip_blur"}, "no operation 'blur'"),
        ({"distance": "rowz"}, "expected one of rows, cosine, mse"),
        ({"real_batch": 0}, "real_batch=0: must be at least 1"),
    ],
)
def test_settings_without_a_meaning_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        gm.Config(**options)


def turned(model, *names):
    """The network with some weights stored as [out, in]."""

    def turn(params):
        return {
            name: {**layer, "kernel": layer["kernel"].T} if name in names else layer
            for name, layer in params.items()
        }

    return Model(
        lambda key: turn(model.init(key)),
        lambda params, images: model.features(turn(params), images),
        lambda params, images: model.apply(turn(params), images),
    )


def test_weights_in_another_layout_are_refused(problem):
    """Also where the hidden layer's last axis happens to have k entries."""
    init = functools.partial(gm.make, gm.Config(real_batch=5))
    for names in (("out",), ("out", "hidden")):
        method = init(turned(smooth_model(), *names))
        with pytest.raises(InputError, match=r"\['out'\]\['kernel'\] of shape \[3, 5\]"):
            method.init(jax.random.key(0), problem.distilled)
    method = gm.make(gm.Config(distance="cosine"), turned(smooth_model(), "out"))
    method.init(jax.random.key(0), problem.distilled)

    def narrow(key):  # 64 -> 3 -> 3: both axes of the classifier have three entries
        params = smooth_model().init(key)
        hidden = {"kernel": params["hidden"]["kernel"][:, :3], "bias": jnp.zeros(3)}
        return {"hidden": hidden, "out": {**params["out"], "kernel": jnp.eye(3) + 0.1}}

    model = smooth_model()._replace(init=narrow)
    init(model).init(jax.random.key(0), problem.distilled)
    with pytest.raises(InputError, match=r"\['out'\]\['kernel'\] of shape \[3, 3\]"):
        init(turned(model, "out")).init(jax.random.key(0), problem.distilled)


def test_a_network_may_train_for_many_steps_on_small_batches(problem):
    """Pieces of a batch that fit the cache are of the batch, not of the steps."""
    config = gm.Config(real_batch=4, outer_loop=2, inner_loop=50, network_batch=2)
    method = gm.make(config, problem.model)
    state = method.init(jax.random.key(0), problem.distilled)
    after, _ = jax.eval_shape(method.step, jax.random.key(1), state, problem.real)
    assert jax.tree.structure(after) == jax.tree.structure(state)
