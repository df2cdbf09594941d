"""The ConvNet of `distilljax.models` in PyTorch, with the same weights."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn


def convnet(params: Mapping[str, Any], image_shape: tuple[int, int, int]) -> nn.Module:
    """Returns the ConvNet: 3x3 convolutions, instance norm, ReLU, average pooling, linear.

    Args:
      params: parameters of a `distilljax.models.convnet` with default options except width
        and depth; their dtype is that of the module.
      image_shape: (h, w, c).

    Returns:
      A module of [b, c, h, w] -> [b, k].
    """
    blocks, head = params["backbone"], params["head"]["Dense_0"]
    dtype = _tensor(head["kernel"]).dtype
    depth = sum(name.startswith("Conv_") for name in blocks)
    layers: list[nn.Module] = []
    height, width = image_shape[:2]
    channels = image_shape[2]
    for i in range(depth):
        kernel = np.asarray(blocks[f"Conv_{i}"]["kernel"])
        convolution = nn.Conv2d(channels, kernel.shape[3], 3, padding=1, dtype=dtype)
        channels = kernel.shape[3]
        bias = cast(torch.Tensor, convolution.bias)
        norm = nn.GroupNorm(channels, channels, eps=1e-5, dtype=dtype)
        with torch.no_grad():
            convolution.weight.copy_(torch.tensor(kernel.transpose(3, 2, 0, 1)))
            bias.copy_(_tensor(blocks[f"Conv_{i}"]["bias"]))
            norm.weight.copy_(_tensor(blocks[f"Normalisation_{i}"]["scale"]))
            norm.bias.copy_(_tensor(blocks[f"Normalisation_{i}"]["bias"]))
        layers += [convolution, norm, nn.ReLU(), nn.AvgPool2d(2)]
        height, width = height // 2, width // 2
    weights = np.asarray(head["kernel"])
    linear = nn.Linear(weights.shape[0], weights.shape[1], dtype=dtype)
    # Features are flattened channels last in distilljax, channels first here.
    turned = weights.reshape(height, width, channels, -1).transpose(3, 2, 0, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(turned.reshape(weights.shape[1], -1)))
        linear.bias.copy_(_tensor(head["bias"]))
    return nn.Sequential(*layers, nn.Flatten(), linear)


def _tensor(x: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(x))


def images(x: Any) -> torch.Tensor:
    """Converts images [b, h, w, c] to a tensor [b, c, h, w]."""
    return torch.tensor(np.ascontiguousarray(np.asarray(x).transpose(0, 3, 1, 2)))
