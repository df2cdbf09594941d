"""AlexNet for small images, as used to evaluate dataset distillation (DC, DSA, MTT)."""

import dataclasses

import flax.linen as nn

from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.models.conv import Formulation
from distilljax.models.functional import relu
from distilljax.models.layers import Classifier, Conv, Init, as_model, pool
from distilljax.types import Array, Model


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Five convolutions with ReLU, three of them followed by pooling; one linear layer.

    The convolutions are 5x5, 5x5, 3x3, 3x3, 3x3; 2x2 max pooling follows the first,
    the second and the last. There is no normalisation. The first convolution pads grey
    images by four pixels instead of two, so that 28x28 becomes 32x32. Width 128 on 32x32x3
    images with 10 classes is the published network: 3,072 features, 1,872,202 parameters.
    """

    width: int = option(
        128,
        "Channels of the first convolution; the others have 1.5 or 2 times as many.",
        low=1,
    )
    init: Init = option(
        "torch",
        "Weights at the start: PyTorch's, He's or flax's (lecun) default, normal ones with "
        "normal biases (gaussian), or those of the neural tangent parametrisation (ntk).",
    )
    conv: Formulation = option("auto", "Implementation of convolutions.", rare=True)


class AlexNet(nn.Module):
    """The convolutions, flattened: f32[b, h, w, c] -> f32[b, d]."""

    config: Config

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Maps f32[b, h, w, c] to f32[b, h' w' (3 width // 2)]."""
        narrow, middle, wide = (self.config.width * share // 2 for share in (2, 3, 4))
        layers = (
            (narrow, 5, 4 if images.shape[-1] == 1 else 2, True),
            (middle, 5, 2, True),
            (wide, 3, 1, False),
            (middle, 3, 1, False),
            (middle, 3, 1, True),
        )
        x = images
        for features, size, padding, pooled in layers:
            x = Conv(
                features,
                size,
                padding=padding,
                scheme=self.config.init,
                formulation=self.config.conv,
            )(x)
            x = pool(relu(x), "max" if pooled else "none")
        return x.reshape(x.shape[0], -1)


def make(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> Model:
    """Returns the network as pure functions for images of `image_shape` (h, w, c).

    Raises:
      InputError: when called, if images cannot be halved three times.
    """
    return as_model(Classifier(AlexNet(config), num_classes, config.init), image_shape)
