"""VGG-11 for small images (Simonyan & Zisserman 2015), as used by DC, DSA and MTT."""

import dataclasses

import flax.linen as nn

from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.models.conv import Formulation
from distilljax.models.functional import relu
from distilljax.models.layers import (
    Classifier,
    Conv,
    Init,
    Norm,
    Normalisation,
    as_model,
    pool,
)
from distilljax.types import Array, InputError, Model

STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))  # channels of each convolution / width


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Eight 3x3 convolutions with norm and ReLU, five 2x2 max poolings, one linear layer.

    The first convolution pads grey images by three pixels instead of one, so that 28x28
    becomes 32x32: five halvings fit, and the last norm has 2x2 pixels.
    Width 64 on 32x32x3 images with 10 classes is the published network: 512 features,
    9,231,114 parameters.
    """

    width: int = option(
        64, "Channels of the first convolution; the last have 8 times as many.", low=1
    )
    norm: Norm = option("instance", "Normalisation after each convolution.")
    init: Init = option(
        "torch",
        "Weights at the start: PyTorch's, He's or flax's (lecun) default, normal ones with "
        "normal biases (gaussian), or those of the neural tangent parametrisation (ntk).",
    )
    conv: Formulation = option("auto", "Implementation of convolutions.", rare=True)


class VGG(nn.Module):
    """The convolutions, flattened: f32[b, h, w, c] -> f32[b, d]."""

    config: Config

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Maps f32[b, h, w, c] to f32[b, h' w' 8 width]."""
        config, x = self.config, images
        padding = 3 if images.shape[-1] == 1 else 1
        height, width = images.shape[1:3]
        smallest = 2 ** len(STAGES) - 2 * (padding - 1)
        if min(height, width) < smallest:
            raise InputError(
                f"{height}x{width} images cannot be halved five times, which vgg does; "
                f"use images of at least {smallest}x{smallest}"
            )
        for stage in STAGES:
            for multiple in stage:
                x = Conv(
                    config.width * multiple,
                    padding=padding,
                    scheme=config.init,
                    formulation=config.conv,
                    then=config.norm,
                )(x)
                x = relu(Normalisation(config.norm)(x))
                padding = 1
            x = pool(x, "max")
        return x.reshape(x.shape[0], -1)


def make(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> Model:
    """Returns the network as pure functions for images of `image_shape` (h, w, c).

    Raises:
      InputError: when called, if images are too small to be halved five times.
    """
    return as_model(Classifier(VGG(config), num_classes, config.init), image_shape)
