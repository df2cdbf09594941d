"""Networks behind `Model(init, features, apply)`.

Each entry of `MODELS` is a module with `Config` and
`make(config, image_shape, num_classes) -> Model`.
"""

from distilljax.models import convnet, mlp
from distilljax.models.conv import conv2d

MODELS = {"convnet": convnet, "mlp": mlp}

__all__ = ["MODELS", "conv2d", "convnet", "mlp"]
