"""Networks behind `Model(init, features, apply)`.

Each entry of `MODELS` is a module with `Config` and
`make(config, image_shape, num_classes) -> Model`.
"""

from typing import Any, Protocol

from distilljax.config import Config
from distilljax.models import alexnet, convnet, mlp, resnet, vgg
from distilljax.models.conv import conv2d
from distilljax.types import Model


class ModelModule(Protocol):
    """The interface of an architecture, an entry of `MODELS`."""

    @property
    def Config(self) -> type[Config]:
        """The settings."""

    def make(
        self, config: Any, image_shape: tuple[int, int, int], num_classes: int
    ) -> Model:
        """Returns the network for images of a shape (h, w, c)."""


MODELS: dict[str, ModelModule] = {
    "convnet": convnet,
    "mlp": mlp,
    "resnet": resnet,
    "alexnet": alexnet,
    "vgg": vgg,
}

__all__ = ["MODELS", "ModelModule", "alexnet", "conv2d", "convnet", "mlp", "resnet", "vgg"]
