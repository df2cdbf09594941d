"""The trace against PyHessian: the same weights, the same real images."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data
from distilljax.core import losses
from distilljax.curvature import hessian
from distilljax.models import convnet
from distilljax.types import Batch

pytest.importorskip("torch", reason="needs the extra `torch`")
pytest.importorskip("pyhessian", reason="needs the extra `torch`")


def real_images(num):
    """CIFAR-10 where it is at hand, else the embedded Fashion-MNIST."""
    folder = os.environ.get("DISTILLJAX_TFDS_DIR")
    loaded = data.load("cifar10", folder) if folder else data.load("embedded", None)
    transform = data.fit("normalise", loaded.train.images)
    images = transform(jnp.asarray(loaded.train.images[:num]))
    return images, jnp.asarray(loaded.train.labels[:num])


def network(shape, width):
    model = convnet.make(convnet.Config(width=width), shape, 10)
    return model, model.init(jax.random.key(0))


def test_the_same_network():
    from benchmarks.torch_baseline import convnet as theirs

    images, _ = real_images(5)
    model, params = network(images.shape[1:], 8)
    expected = model.apply(params, images)
    found = theirs.convnet(params, images.shape[1:])(theirs.images(images))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_traces_agree_within_their_errors():
    from benchmarks.torch_baseline.pyhessian_trace import trace

    images, labels = real_images(2000)
    model, params = network(images.shape[1:], 32)
    batch = Batch(images, jax.nn.one_hot(labels, 10))
    loss_fn = losses.cross_entropy(model.apply)
    grad = jax.jit(jax.grad(loss_fn))
    for _ in range(30):  # a network that has learned something: a trace well above zero
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grad(params, batch))
    ours = jax.jit(
        lambda key: hessian.trace(loss_fn, params, batch, key, num_probes=60, chunk=100)
    )(jax.random.key(1))
    theirs = np.asarray(trace(params, np.asarray(images), np.asarray(labels), 30))
    error = np.hypot(ours.standard_error, theirs.std(ddof=1) / 30**0.5)
    assert abs(ours.value - theirs.mean()) < 3 * error
    assert error < 0.2 * theirs.mean()
