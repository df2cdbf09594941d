"""ResNets for small images (He et al. 2016), as used in dataset distillation."""

import dataclasses
from typing import Literal

import flax.linen as nn

from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.models.conv import Formulation, conv2d
from distilljax.models.functional import relu
from distilljax.models.layers import (
    Classifier,
    Init,
    Norm,
    Normalisation,
    as_model,
    kernel_init,
)
from distilljax.types import Array, InputError, Model

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # depth -> blocks of each stage


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """A 3x3 stem, four stages of residual blocks, global average pooling, one linear layer.

    Each stage after the first doubles the channels and halves the sides, rounded up.
    Width 64 on 32x32x3 images with 10 classes is the network of the published tables: 512
    features, 11,173,962 parameters at depth 18 and 21,282,122 at depth 34. Convolutions
    have no bias.

    Departures: batch norm, which some tables use, is not available; global average pooling
    equals the published 4x4 pooling for sides of 25 to 32 pixels, whose last feature map is
    4x4, and also works for other sizes.
    """

    depth: Literal[18, 34] = option(
        18, "Number of layers, without the convolutions of shortcuts."
    )
    width: int = option(
        64, "Channels of the first stage; each further stage doubles them.", low=1
    )
    norm: Norm = option("instance", "Normalisation after each convolution.")
    init: Init = option(
        "torch",
        "Weights at the start: PyTorch's, He's or flax's (lecun) default, normal ones with "
        "normal biases (gaussian), or those of the neural tangent parametrisation (ntk).",
    )
    conv: Formulation = option("auto", "Implementation of convolutions.", rare=True)


class NormedConv(nn.Module):
    """Convolution without bias and with same-size padding, then norm."""

    config: Config
    features: int
    kernel_size: int = 3
    strides: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [b, h, w, c] to [b, ceil(h / strides), ceil(w / strides), features], f32."""
        size = self.kernel_size
        shape = (size, size, x.shape[-1], self.features)
        out = conv2d(
            x,
            self.param("kernel", kernel_init(self.config.init), shape),
            strides=(self.strides, self.strides),
            padding=size // 2,
            formulation=self.config.conv,
        )
        return Normalisation(self.config.norm)(out)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: relu(x + f2(relu(f1(x)))).

    Where the shape changes, the shortcut is a 1x1 convolution with norm.
    """

    config: Config
    features: int
    strides: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [b, h, w, c] to [b, ceil(h / strides), ceil(w / strides), features], f32."""
        inner = relu(NormedConv(self.config, self.features, 3, self.strides)(x))
        inner = NormedConv(self.config, self.features)(inner)
        if inner.shape != x.shape:
            x = NormedConv(self.config, self.features, 1, self.strides)(x)
        return relu(x + inner)


class ResNet(nn.Module):
    """The stem and the stages, averaged over space: f32[b, h, w, c] -> f32[b, d]."""

    config: Config

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Maps f32[b, h, w, c] to f32[b, 8 width]."""
        config = self.config
        x = relu(NormedConv(config, config.width)(images))
        for stage, num_blocks in enumerate(BLOCKS[config.depth]):
            for block in range(num_blocks):
                strides = 2 if stage and not block else 1
                x = Block(config, config.width * 2**stage, strides)(x)
        if config.norm == "instance" and x.shape[1:3] == (1, 1):
            height, width = images.shape[1:3]
            raise InputError(
                f"a {height}x{width} image is one pixel in the last stage, of which "
                "instance norm leaves nothing; choose another norm"
            )
        return x.mean((1, 2))


def make(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> Model:
    """Returns the network as pure functions for images of `image_shape` (h, w, c).

    Raises:
      InputError: when called, if the last stage is one pixel under instance norm.
    """
    return as_model(Classifier(ResNet(config), num_classes, config.init), image_shape)
