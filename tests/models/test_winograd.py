"""Winograd's convolution against the library's, of every order, and where it is taken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.models import conv, conv2d, winograd
from distilljax.types import InputError
from tests.cases import some

CONVOLUTIONS = {
    "library": functools.partial(conv2d, formulation="library"),
    2: functools.partial(winograd.conv3x3, side=2),
    4: functools.partial(winograd.conv3x3, side=4),
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
@pytest.mark.parametrize("shape", some([(6, 8), (8, 12), (7, 5), (1, 2)], (6, 8), (7, 5)))
@pytest.mark.parametrize("side", [2, 4])
def test_every_order_is_that_of_the_library(side, shape, dtype, tolerance, float64):
    """In either precision against float64, for each of three images and kernels."""
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(3, 2, *shape, 5)), rng.normal(size=(3, 3, 3, 5, 4))

    def all_of(formulation, dtype):
        given = images.astype(dtype), kernel.astype(dtype)
        each = jax.vmap(functools.partial(derivatives, formulation))
        return jax.jit(each)(*given)

    expected = all_of("library", jnp.float64)
    found = all_of(side, dtype)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
    for order, ours, theirs in zip(ORDERS, found, expected, strict=True):
        assert relative(ours, theirs) < tolerance, order


@pytest.mark.parametrize("side", [2, 4])
def test_forward_mode_of_second_order_is_that_of_the_library(side, float64):
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, 4, 6, 3)), rng.normal(size=(3, 3, 3, 2))
    direction = rng.normal(size=kernel.shape)

    def curvature(formulation):
        def loss(kernel):
            return jnp.sin(CONVOLUTIONS[formulation](images, kernel)).sum()

        def slope(kernel):
            return jax.jvp(loss, (kernel,), (direction,))[1]

        return jax.jvp(slope, (kernel,), (direction,))[1]

    np.testing.assert_allclose(curvature(side), curvature("library"), rtol=1e-12)


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


@pytest.mark.parametrize(
    ("height", "width", "channels", "products"),
    [
        (4, 4, conv.WIDE, 16),
        (6, 8, conv.WIDE, 16),
        (4, 5, conv.WIDE, None),
        (8, 7, conv.WIDE, None),
        (4, 4, conv.WIDE - 1, None),
        (8, 8, conv.WIDE, 36),
        (14, 13, conv.WIDE, 36),
        (8, 8, conv.WIDE - 1, None),
    ],
)
def test_wide_layers_are_computed_by_winograd(height, width, channels, products):
    """It has one product for each place of the tile of the input."""
    images = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, channels, conv.WIDE), jnp.float32)
    text = jax.jit(conv2d).lower(images, kernel).as_text()
    taken = {n for n in (16, 36) if f"tensor<{n}x{channels}x{conv.WIDE}xf32>" in text}
    assert taken == ({products} if products else set())


def test_large_tiles_round_little_more_than_a_direct_convolution(float64):
    """Errors of 64 channels, relative to float64."""
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, 16, 16, 64)), rng.normal(size=(3, 3, 64, 64))
    exact = CONVOLUTIONS["library"](images, kernel)

    def error(which):
        given = (x.astype(np.float32) for x in (images, kernel))
        found = CONVOLUTIONS[which](*given)
        return float(jnp.linalg.norm((found - exact).ravel() / jnp.linalg.norm(exact)))

    assert error(2) < 2 * error("library") + 1e-7
    assert error(4) < 5 * error("library") + 1e-7


def test_tiles_of_another_side_are_refused():
    with pytest.raises(InputError, match="side=3: tiles have 2 or 4 outputs a side"):
        winograd.conv3x3(jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 2, 2)), side=3)
