"""ResNet, AlexNet and VGG: published sizes, and PyTorch's layers with our weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.models import MODELS, alexnet, resnet, vgg
from distilljax.types import InputError
from tests.models.test_models import count, randomised

GREY, COLOUR = (28, 28, 1), (32, 32, 3)


def shapes_of(module, config, shape, num_classes=10):
    """(number of parameters, shape of the features of two images)."""
    model = module.make(config, shape, num_classes)
    params = jax.eval_shape(model.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    assert jax.eval_shape(model.apply, params, images).shape == (2, num_classes)
    return count(params), jax.eval_shape(model.features, params, images).shape


def resnet_size(blocks, width, channels, classes):
    """Convolutions have no bias, norms a scale and a bias."""
    total, before = 9 * channels * width + 2 * width, width
    for stage, num_blocks in enumerate(blocks):
        after = width * 2**stage
        for _ in range(num_blocks):
            total += 9 * before * after + 9 * after**2 + 4 * after
            if before != after:
                total += before * after + 2 * after
            before = after
    return total + before * classes + classes


def plain_size(layers, channels, head, classes, norm):
    """`layers`: (kernel size, channels) of each convolution, which has a bias."""
    total = 0
    for size, after in layers:
        total += size**2 * channels * after + after + (2 * after if norm else 0)
        channels = after
    return total + head * classes + classes


ALEXNET = [(5, 128), (5, 192), (3, 256), (3, 192), (3, 192)]
VGG = [(3, width) for width in (64, 128, 256, 256, 512, 512, 512, 512)]


@pytest.mark.parametrize(
    ("depth", "blocks", "published"),
    [
        (18, (2, 2, 2, 2), 11_173_962),
        pytest.param(34, (3, 4, 6, 3), 21_282_122, marks=pytest.mark.slow),
    ],
)
def test_the_published_resnets(depth, blocks, published):
    config = resnet.Config(depth=depth)
    assert resnet_size(blocks, 64, 3, 10) == published
    assert shapes_of(resnet, config, COLOUR) == (published, (2, 512))
    expected = resnet_size(blocks, 64, 1, 7)
    assert shapes_of(resnet, config, GREY, 7) == (expected, (2, 512))


def test_the_published_alexnet():
    colour, grey = (plain_size(ALEXNET, c, 192 * 16, 10, norm=False) for c in (3, 1))
    assert colour == 1_872_202
    assert shapes_of(alexnet, alexnet.Config(), COLOUR) == (colour, (2, 192 * 16))
    assert shapes_of(alexnet, alexnet.Config(), GREY) == (grey, (2, 192 * 16))


def test_the_published_vgg11():
    colour, grey = (plain_size(VGG, c, 512, 10, norm=True) for c in (3, 1))
    assert colour == 9_231_114
    assert shapes_of(vgg, vgg.Config(), COLOUR) == (colour, (2, 512))
    assert shapes_of(vgg, vgg.Config(), GREY) == (grey, (2, 512))


@pytest.mark.parametrize("name", ["resnet", "alexnet", "vgg"])
def test_width_scales_every_layer(name):
    module = MODELS[name]
    full, (_, features) = shapes_of(module, module.Config(), COLOUR)
    width = module.Config().width
    narrow = module.Config(width=width // 8)
    size, (_, narrow_features) = shapes_of(module, narrow, COLOUR)
    assert narrow_features * 8 == features
    assert full / 64 < size < full / 50  # kernels shrink 64 times, what is beside them 8


@pytest.mark.parametrize(
    ("module", "settings", "shape", "message"),
    [
        (resnet, {}, (8, 8, 3), "a 8x8 image is one pixel .* choose another norm"),
        (vgg, {}, (28, 28, 3), "28x28 images cannot be halved five times.*least 32x32"),
        (vgg, {"norm": "none"}, (30, 27, 1), "30x27 images .* at least 28x28"),
        (alexnet, {}, (6, 6, 3), "cannot halve a 1x1 feature map"),
    ],
)
def test_images_too_small_are_refused(module, settings, shape, message):
    model = module.make(module.Config(width=4, **settings), shape, 3)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(model.init, jax.random.key(0))


@pytest.mark.parametrize(
    ("module", "settings", "shape"),
    [(resnet, {"norm": "group"}, (8, 8, 3)), (resnet, {}, (9, 8, 3)), (vgg, {}, GREY)],
)
def test_the_smallest_images_are_accepted(module, settings, shape):
    shapes_of(module, module.Config(width=4, **settings), shape)


class Torch:
    """PyTorch's functions on NCHW tensors, with the weights of one of our trees."""

    def __init__(self, torch):
        self.torch = torch
        self.functional = torch.nn.functional

    def tensor(self, array):
        return self.torch.tensor(np.array(array))

    def conv(self, x, params, stride=1, padding=1):
        weight = self.tensor(params["kernel"]).permute(3, 2, 0, 1)
        bias = self.tensor(params["bias"]) if "bias" in params else None
        return self.functional.conv2d(x, weight, bias, stride, padding)

    def norm(self, x, params):
        scale, bias = self.tensor(params["scale"]), self.tensor(params["bias"])
        return self.functional.group_norm(x, x.shape[1], scale, bias, eps=1e-5)

    def max_pool(self, x):
        return self.functional.max_pool2d(x, 2)

    def resnet(self, x, held, blocks):
        def normed(x, params, stride=1, padding=1):
            x = self.conv(x, params, stride, padding)
            return self.norm(x, params["Normalisation_0"])

        x = normed(x, held["NormedConv_0"]).relu()
        numbers = [number for num_blocks in blocks for number in range(num_blocks)]
        for i, number in enumerate(numbers):
            block = held[f"Block_{i}"]
            stride = 2 if i > 0 and number == 0 else 1
            inner = normed(x, block["NormedConv_0"], stride).relu()
            inner = normed(inner, block["NormedConv_1"])
            if stride == 2:
                x = normed(x, block["NormedConv_2"], stride, padding=0)
            x = (x + inner).relu()
        assert set(held) == {"NormedConv_0", *(f"Block_{i}" for i in range(len(numbers)))}
        return self.functional.avg_pool2d(x, 4)

    def alexnet(self, x, held):
        x = self.conv(x, held["Conv_0"], padding=4 if x.shape[1] == 1 else 2)
        x = self.max_pool(x.relu())
        x = self.max_pool(self.conv(x, held["Conv_1"], padding=2).relu())
        x = self.conv(x, held["Conv_2"]).relu()
        x = self.conv(x, held["Conv_3"]).relu()
        return self.max_pool(self.conv(x, held["Conv_4"]).relu())

    def vgg(self, x, held):
        padding = 3 if x.shape[1] == 1 else 1
        for i in range(8):
            x = self.conv(x, held[f"Conv_{i}"], padding=padding if i == 0 else 1)
            x = self.norm(x, held[f"Normalisation_{i}"]).relu()
            if i in (0, 1, 3, 5, 7):
                x = self.max_pool(x)
        return x


@pytest.mark.parametrize(
    ("name", "width", "more", "shape"),
    [
        ("resnet", 4, [(2, 2, 2, 2)], GREY),
        ("alexnet", 8, [], GREY),
        ("alexnet", 8, [], COLOUR),
        ("vgg", 4, [], GREY),
        ("vgg", 4, [], COLOUR),
    ],
)
def test_forward_equals_pytorch(name, width, more, shape, float64):
    """In float64: where a norm sees few pixels, float32 is off by 1e-3."""
    theirs = Torch(pytest.importorskip("torch"))
    module = MODELS[name]
    model = module.make(module.Config(width=width), shape, 5)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), randomised(model))
    images = np.random.default_rng(1).normal(size=(3, *shape))
    ours = jax.jit(model.apply)(params, images)
    x = theirs.tensor(images).permute(0, 3, 1, 2)
    x = getattr(theirs, name)(x, params["backbone"], *more)
    head = params["head"]["Dense_0"]
    kernel, bias = theirs.tensor(head["kernel"]), theirs.tensor(head["bias"])
    logits = x.permute(0, 2, 3, 1).flatten(1) @ kernel + bias
    np.testing.assert_allclose(ours, logits.numpy(), rtol=1e-9, atol=1e-9)
    # A last stage of one pixel would be the same for every image.
    assert np.ptp(np.asarray(ours), axis=0).max() > 1e-3
