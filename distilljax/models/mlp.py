"""A multilayer perceptron on flattened images."""

import dataclasses

import flax.linen as nn

from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.models.functional import relu
from distilljax.models.layers import Classifier, Dense, Init, as_model
from distilljax.types import Array, Model


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Hidden layers of equal width with ReLU, then one linear layer."""

    width: int = option(128, "Units per hidden layer.", low=1)
    depth: int = option(2, "Number of hidden layers.", low=1, high=1000)
    init: Init = option(
        "torch",
        "Weights at the start: PyTorch's, He's or flax's (lecun) default, normal ones with "
        "normal biases (gaussian), or those of the neural tangent parametrisation (ntk).",
    )


class MLP(nn.Module):
    """The hidden layers: f32[b, h, w, c] -> f32[b, width]."""

    config: Config

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Maps f32[b, h, w, c] to f32[b, width]."""
        x = images.reshape(images.shape[0], -1)
        for _ in range(self.config.depth):
            x = relu(Dense(self.config.width, self.config.init)(x))
        return x


def make(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> Model:
    """Returns the network as pure functions for images of `image_shape` (h, w, c)."""
    return as_model(Classifier(MLP(config), num_classes, config.init), image_shape)
