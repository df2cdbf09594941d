"""Winograd's convolution against the library's, of every order, and where it is taken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import platforms
from distilljax.models import conv, conv2d, winograd

CONVOLUTIONS = {
    "library": functools.partial(conv2d, formulation="library"),
    "winograd": winograd.conv3x3,
}
ORDERS = ("value", "gradient", "second")


def derivatives(formulation, images, kernel):
    """The value, its gradients, and the gradient in the images of a step in the kernel."""
    conv = CONVOLUTIONS[formulation]

    def loss(kernel, images):
        return jnp.sin(conv(images, kernel)).mean()

    def after(images):
        stepped = kernel - jax.grad(loss)(kernel, images)
        return loss(stepped, images)

    gradient = jax.grad(loss, (0, 1))(kernel, images)
    return conv(images, kernel), gradient, jax.grad(after)(images)


def relative(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(
        float(jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(b.ravel()))
        for a, b in pairs
    )


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.float64, 1e-13)]
)
def test_every_order_is_that_of_the_library(dtype, tolerance, float64):
    """In either precision against float64, for each of three images and kernels."""
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(3, 2, 6, 8, 5)), rng.normal(size=(3, 3, 3, 5, 4))

    def all_of(formulation, dtype):
        given = images.astype(dtype), kernel.astype(dtype)
        each = jax.vmap(functools.partial(derivatives, formulation))
        return jax.jit(each)(*given)

    expected = all_of("library", jnp.float64)
    found = all_of("winograd", dtype)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
    for order, ours, theirs in zip(ORDERS, found, expected, strict=True):
        assert relative(ours, theirs) < tolerance, order


def test_forward_mode_of_second_order_is_that_of_the_library(float64):
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, 4, 4, 3)), rng.normal(size=(3, 3, 3, 2))
    direction = rng.normal(size=kernel.shape)

    def curvature(formulation):
        def loss(kernel):
            return jnp.sin(CONVOLUTIONS[formulation](images, kernel)).sum()

        def slope(kernel):
            return jax.jvp(loss, (kernel,), (direction,))[1]

        return jax.jvp(slope, (kernel,), (direction,))[1]

    np.testing.assert_allclose(curvature("winograd"), curvature("library"), rtol=1e-12)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_get_the_library_whatever_the_host(platform):
    """Decided when the program is lowered: the CPU of this test has another."""
    images, kernel = jnp.zeros((2, 8, 8, 8)), jnp.zeros((3, 3, 8, 4))

    def gradient(images, kernel):
        return jax.grad(lambda k: jnp.sin(conv2d(images, k)).sum())(kernel)

    exported = jax.export.export(jax.jit(gradient), platforms=[platform])(images, kernel)
    text = exported.mlir_module()
    assert text.count("stablehlo.convolution") == 2  # the value and the gradient
    assert "dot_general" not in text
    here = jax.jit(gradient).lower(images, kernel).as_text()
    assert "stablehlo.convolution" not in here
    assert "dot_general" in here


@pytest.mark.parametrize(("threads", "wide"), [(1, conv.WIDE), (2, conv.WIDE_THREADS)])
@pytest.mark.parametrize(
    ("narrower", "side", "taken"), [(0, 4, True), (0, 5, False), (1, 4, False)]
)
def test_wide_layers_of_even_sides_are_computed_by_winograd(
    threads, wide, narrower, side, taken, monkeypatch
):
    """It has one product for each of the 16 places of a tile."""
    monkeypatch.setattr(
        platforms, "cpu_threads", lambda: threads * jax.local_device_count()
    )
    images = jax.ShapeDtypeStruct((1, side, side, wide - narrower), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, wide - narrower, wide), jnp.float32)
    # Of a function of its own, which is not kept as traced for other threads.
    text = jax.jit(lambda *args: conv2d(*args)).lower(images, kernel).as_text()
    assert (f"tensor<16x4x{wide}xf32>" in text) == taken


def test_a_second_derivative_forwards_takes_wider_layers(monkeypatch):
    monkeypatch.setattr(platforms, "threads_per_device", lambda: 1)

    def taken(width):
        images = jax.ShapeDtypeStruct((1, 4, 4, width), jnp.float32)
        kernel = jax.ShapeDtypeStruct((3, 3, width, width), jnp.float32)
        text = jax.jit(lambda *args: conv2d(*args)).lower(images, kernel).as_text()
        return f"tensor<16x4x{width}xf32>" in text

    with platforms.forward_over_forward():
        assert not taken(conv.WIDE)
        assert taken(conv.WIDE_THREADS)
    assert taken(conv.WIDE)
