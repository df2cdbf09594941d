"""Layers shared by the architectures."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from distilljax.models import functional
from distilljax.models.conv import Formulation, conv2d
from distilljax.types import Array, InputError, Key, Model, Params

Norm = Literal["instance", "group", "layer", "none"]
Pooling = Literal["avg", "max", "none"]
Init = Literal["torch", "he", "lecun", "gaussian", "ntk"]
Activations = Literal["float32", "bfloat16"]

GROUPS = 4  # number of groups of norm=group
BIAS_STD = 0.1  # of init=gaussian and init=ntk

Initializer = Callable[..., Array]

_uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def kernel_init(init: Init) -> Initializer:
    """Returns the distribution of a kernel [..., fan_in, fan_out] at the start.

    `torch`: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default; `he`: truncated normal
    of variance 2/fan_in; `lecun`: truncated normal of variance 1/fan_in, flax's default;
    `gaussian`: normal of variance 2/fan_in (Loo et al. 2022, RFAD); `ntk`: standard normal,
    see `ntk_gains`.
    """
    kernels: dict[str, Initializer] = {
        "torch": _uniform_fan_in,
        "he": nn.initializers.he_normal(),
        "lecun": nn.initializers.lecun_normal(),
        "gaussian": nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
        "ntk": nn.initializers.normal(1.0),
    }
    return kernels[init]


def bias_init(init: Init, fan_in: int) -> Initializer:
    """Returns the distribution of a bias at the start; fan_in is that of the kernel.

    `torch`: U(-1/sqrt(fan_in), 1/sqrt(fan_in)); `he` and `lecun`: zeros; `gaussian`: normal
    of deviation 0.1; `ntk`: standard normal.
    """
    if init in ("he", "lecun"):
        return nn.initializers.zeros_init()
    if init in ("gaussian", "ntk"):
        return nn.initializers.normal(BIAS_STD if init == "gaussian" else 1.0)
    bound = fan_in**-0.5

    def init_bias(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init_bias


def ntk_gains(fan_in: int) -> tuple[float, float]:
    """Returns the factors of kernel and bias in a layer with init `ntk`.

    In the neural tangent parametrisation (Jacot et al. 2018, arXiv 1806.07572) a layer is
    sqrt(2/fan_in) W x + 0.1 b with W and b standard normal: at the start the function of
    `gaussian`, with gradients whose size does not depend on the width.
    """
    return (2 / fan_in) ** 0.5, BIAS_STD


class Conv(nn.Module):
    """Convolution with bias; weights `kernel` [kh, kw, c, d] and `bias` [d].

    Instance normalisation subtracts the mean of each channel, so a bias before it
    (`then="instance"`) has no effect. It remains a parameter, as in published networks, but
    is not added, which saves time: its gradient is exactly zero, not rounding error.

    With `activations="bfloat16"` images and weights are rounded to it; the weights that are
    learned, and their gradients, stay float32.
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    padding: int = 1
    scheme: Init = "torch"
    formulation: Formulation = "auto"
    then: Norm = "none"
    activations: Activations = "float32"

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Maps f32[b, h, w, c] to f32[b, h', w', features]; see `activations`."""
        size, channels = self.kernel_size, images.shape[-1]
        fan_in = size * size * channels
        kernel = self.param(
            "kernel",
            kernel_init(self.scheme),
            (size, size, channels, self.features),
            jnp.float32,
        )
        bias = self.param(
            "bias", bias_init(self.scheme, fan_in), (self.features,), jnp.float32
        )
        if self.scheme == "ntk":
            gain, bias_gain = ntk_gains(fan_in)
            kernel, bias = gain * kernel, bias_gain * bias
        if self.activations == "bfloat16":
            images, kernel, bias = (x.astype(jnp.bfloat16) for x in (images, kernel, bias))
        out = conv2d(
            images,
            kernel,
            strides=(self.strides, self.strides),
            padding=self.padding,
            formulation=self.formulation,
        )
        return out if self.then == "instance" else out + bias


class Dense(nn.Module):
    """Affine map; weights `kernel` [d, features] and `bias` [features]."""

    features: int
    scheme: Init = "torch"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps f32[b, d] to f32[b, features]."""
        if self.scheme == "ntk":
            return _NtkDense(self.features, name="Dense_0")(x)
        return nn.Dense(
            self.features,
            kernel_init=kernel_init(self.scheme),
            bias_init=bias_init(self.scheme, x.shape[-1]),
        )(x)


class _NtkDense(nn.Module):
    """`Dense` in the neural tangent parametrisation, with weights of the same names."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """f32[b, d] -> f32[b, features]."""
        fan_in = x.shape[-1]
        kernel = self.param("kernel", kernel_init("ntk"), (fan_in, self.features))
        bias = self.param("bias", bias_init("ntk", fan_in), (self.features,))
        gain, bias_gain = ntk_gains(fan_in)
        return gain * (x @ kernel) + bias_gain * bias


class Normalisation(nn.Module):
    """Instance, group (four groups) or layer norm, without running statistics.

    Instance norm is group norm with one group per channel, eps 1e-5, with a learned
    scale (initially 1) and bias (initially 0) per channel.
    """

    kind: Norm

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps f32[b, h, w, c] to f32[b, h, w, c]."""
        if self.kind == "none":
            return x
        channels = x.shape[-1]
        shape, axes = x.shape, {"instance": (1, 2), "group": (1, 2, 4), "layer": (1, 2, 3)}
        if self.kind == "group":
            if channels % GROUPS:
                raise InputError(
                    f"norm=group has {GROUPS} groups; {channels} channels do not divide"
                )
            x = x.reshape(*shape[:3], GROUPS, channels // GROUPS)
        scale = self.param("scale", nn.initializers.ones_init(), (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
        by_channel = x.shape[3:]
        return functional.normalise(
            x, axes[self.kind], scale.reshape(by_channel), bias.reshape(by_channel)
        ).reshape(shape)


def pool(x: Array, kind: Pooling) -> Array:
    """Pools 2x2 with stride 2; an odd last row or column is dropped.

    Args:
      x: f32[b, h, w, c], h and w at least 2 unless `kind` is `none`.
      kind: `avg`, `max` or `none`.

    Raises:
      InputError: a side below 2.
    """
    if kind == "none":
        return x
    b, h, w, c = x.shape
    if h < 2 or w < 2:
        raise InputError(f"cannot halve a {h}x{w} feature map; use a smaller depth")
    with jax.named_scope("pool"):
        x = x[:, : h // 2 * 2, : w // 2 * 2]
        if kind == "avg":
            return functional.average_pool(functional.widened(x)).astype(x.dtype)
        return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


class Classifier(nn.Module):
    """A feature extractor and a linear layer on top."""

    backbone: nn.Module  # f32[b, h, w, c] -> f32[b, d]
    num_classes: int
    scheme: Init = "torch"

    def setup(self) -> None:
        """Makes the linear layer."""
        self.head = Dense(self.num_classes, self.scheme)

    def features(self, images: Array) -> Array:
        """Maps f32[b, h, w, c] to f32[b, d], the input of the linear layer."""
        return self.backbone(images)

    def __call__(self, images: Array) -> Array:
        """Maps f32[b, h, w, c] to f32[b, k], logits."""
        return self.head(self.backbone(images))


def as_model(classifier: Classifier, image_shape: tuple[int, int, int]) -> Model:
    """Wraps a flax classifier as a `Model` for images of one shape (h, w, c)."""
    example = jnp.zeros((1, *image_shape), jnp.float32)

    apply_flax: Callable[..., Any] = classifier.apply

    def init(key: Key) -> Params:
        return classifier.init(key, example)["params"]

    def features(params: Params, images: Array) -> Array:
        return apply_flax({"params": params}, images, method="features")

    def apply(params: Params, images: Array) -> Array:
        return apply_flax({"params": params}, images)

    return Model(init, features, apply)
