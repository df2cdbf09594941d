"""Layers that the architectures share."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from distilljax.models.conv import Formulation, conv2d
from distilljax.types import Array, InputError, Key, Model, Params

Norm = Literal["instance", "group", "layer", "none"]
Pooling = Literal["avg", "max", "none"]
Init = Literal["torch", "he"]

GROUPS = 4  # of norm=group

Initializer = Callable[..., Array]

_uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def kernel_init(init: Init) -> Initializer:
    """`torch`: U(-1/sqrt(fan_in), 1/sqrt(fan_in)); `he`: normal, variance 2/fan_in."""
    return _uniform_fan_in if init == "torch" else nn.initializers.he_normal()


def bias_init(init: Init, fan_in: int) -> Initializer:
    """`torch`: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), fan_in of the kernel; `he`: zeros."""
    if init == "he":
        return nn.initializers.zeros_init()
    bound = fan_in**-0.5

    def init_bias(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init_bias


class Conv(nn.Module):
    """Convolution with bias; weights `kernel` [kh, kw, c, d] and `bias` [d].

    Instance normalisation takes away what is the same at all pixels of a channel. Before
    it (`then="instance"`) the bias is a weight without effect, as it is in published
    networks, and time is saved by not adding it: its gradient is zero, not rounding.
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    padding: int = 1
    scheme: Init = "torch"
    formulation: Formulation = "auto"
    then: Norm = "none"

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """f32[b, h, w, c] -> f32[b, h', w', features]."""
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
        """f32[b, d] -> f32[b, features]."""
        return nn.Dense(
            self.features,
            kernel_init=kernel_init(self.scheme),
            bias_init=bias_init(self.scheme, x.shape[-1]),
        )(x)


class Normalisation(nn.Module):
    """Instance, group (four groups) or layer norm; none of them keeps statistics.

    Instance norm is group norm with one group per channel, eps 1e-5, with a learned
    scale (1 at first) and bias (0 at first) per channel.
    """

    kind: Norm

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """f32[b, h, w, c] -> f32[b, h, w, c]."""
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
        centred = x - x.mean(axes[self.kind], keepdims=True)
        variance = jnp.square(centred).mean(axes[self.kind], keepdims=True)
        factor = jax.lax.rsqrt(variance + 1e-5) * scale.reshape(x.shape[3:])
        return (centred * factor).reshape(shape) + bias


def pool(x: Array, kind: Pooling) -> Array:
    """2x2 pooling, stride 2; an odd last row or column is dropped.

    Args:
      x: f32[b, h, w, c], h and w at least 2 unless `kind` is `none`.
      kind: `avg`, `max` or `none`.
    """
    if kind == "none":
        return x
    b, h, w, c = x.shape
    if h < 2 or w < 2:
        raise InputError(f"cannot halve a {h}x{w} feature map; use a smaller depth")
    blocks = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    return blocks.mean((2, 4)) if kind == "avg" else blocks.max((2, 4))


class Classifier(nn.Module):
    """A feature extractor and a linear layer on top."""

    backbone: nn.Module  # f32[b, h, w, c] -> f32[b, d]
    num_classes: int
    scheme: Init = "torch"

    def setup(self) -> None:
        """Makes the linear layer."""
        self.head = Dense(self.num_classes, self.scheme)

    def features(self, images: Array) -> Array:
        """f32[b, h, w, c] -> f32[b, d], the input of the linear layer."""
        return self.backbone(images)

    def __call__(self, images: Array) -> Array:
        """f32[b, h, w, c] -> f32[b, k], logits."""
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
