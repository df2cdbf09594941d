"""Networks behind `Model(init, features, apply)`.

Each entry of `MODELS` is a module with `Config` and
`make(config, image_shape, num_classes) -> Model`.
"""

from distilljax.models import alexnet, convnet, mlp, resnet, vgg
from distilljax.models.conv import conv2d

MODELS = {
    "convnet": convnet,
    "mlp": mlp,
    "resnet": resnet,
    "alexnet": alexnet,
    "vgg": vgg,
}

__all__ = ["MODELS", "alexnet", "conv2d", "convnet", "mlp", "resnet", "vgg"]
