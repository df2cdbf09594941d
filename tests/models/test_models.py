"""Networks against numpy loops, formulas and, where there is one, PyTorch."""

import functools
import itertools
from typing import get_args

import flax.linen
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax.models import MODELS, conv2d, convnet, mlp
from distilljax.models.conv import Formulation
from distilljax.models.layers import Conv, Dense, Normalisation, pool
from distilljax.types import InputError


def convolve(images, kernel, strides, padding):
    """The definition, one output value at a time."""
    b, h, w, c = images.shape
    kh, kw, _, d = kernel.shape
    padded = np.zeros((b, h + 2 * padding, w + 2 * padding, c))
    padded[:, padding : padding + h, padding : padding + w] = images
    out_h = (h + 2 * padding - kh) // strides[0] + 1
    out_w = (w + 2 * padding - kw) // strides[1] + 1
    out = np.zeros((b, out_h, out_w, d))
    for i, j in itertools.product(range(out_h), range(out_w)):
        top, left = i * strides[0], j * strides[1]
        for di, dj, k in itertools.product(range(kh), range(kw), range(c)):
            value = padded[:, top + di, left + dj, k]
            out[:, i, j] += value[:, None] * kernel[di, dj, k]
    return out


CONVOLUTIONS = [
    ((5, 7), (3, 3), (1, 1), 1),
    ((5, 7), (3, 3), (2, 2), 1),
    ((6, 9), (3, 3), (2, 2), 0),
    ((6, 9), (3, 3), (1, 2), 1),
    ((7, 7), (1, 1), (1, 1), 0),
    ((7, 6), (1, 1), (2, 2), 0),
    ((7, 7), (1, 1), (2, 2), 1),
    ((8, 7), (5, 5), (1, 1), 1),
    ((8, 9), (5, 5), (2, 2), 0),
    ((5, 5), (5, 5), (2, 2), 0),
    ((6, 7), (3, 5), (1, 1), 1),
    ((5, 6), (3, 3), (1, 1), 3),
]


@pytest.mark.parametrize(("side", "size", "strides", "padding"), CONVOLUTIONS)
def test_both_convolutions_are_the_definition(side, size, strides, padding, float64):
    """So are their gradients, since the map is linear in the images and the kernel."""
    rng = np.random.default_rng(0)
    images, other = rng.normal(size=(2, 2, *side, 3))
    kernel, other_kernel = rng.normal(size=(2, *size, 3, 4))
    expected = convolve(images, kernel, strides, padding)
    weights = rng.normal(size=expected.shape)

    @jax.jit
    def compute(images, kernel):
        def outputs(formulation):
            def conv(images, kernel):
                return conv2d(
                    images,
                    kernel,
                    strides=strides,
                    padding=padding,
                    formulation=formulation,
                )

            out, pull = jax.vjp(conv, images, kernel)
            return out, *pull(jnp.asarray(weights))

        return [outputs(formulation) for formulation in get_args(Formulation)]

    for out, grad_images, grad_kernel in compute(images, kernel):
        np.testing.assert_allclose(out, expected, atol=1e-12)
        np.testing.assert_allclose(
            np.vdot(grad_images, other),
            np.vdot(weights, convolve(other, kernel, strides, padding)),
            atol=1e-10,
        )
        np.testing.assert_allclose(
            np.vdot(grad_kernel, other_kernel),
            np.vdot(weights, convolve(images, other_kernel, strides, padding)),
            atol=1e-10,
        )


@pytest.mark.parametrize(("strides", "padding"), [((1, 1), 1), ((2, 2), 0), ((1, 1), 3)])
def test_second_derivatives_agree_with_finite_differences(strides, padding, float64):
    """As in a meta-gradient: the gradient in the images of a step in the kernel."""
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, 6, 5, 2)), rng.normal(size=(3, 3, 2, 3))
    direction, eps = rng.normal(size=images.shape), 1e-5

    @jax.jit
    def compute(images, kernel):
        def both(formulation):
            def loss(kernel, images):
                out = conv2d(
                    images,
                    kernel,
                    strides=strides,
                    padding=padding,
                    formulation=formulation,
                )
                return jnp.sin(out).sum()

            def after(images):
                return loss(kernel - 0.1 * jax.grad(loss)(kernel, images), images)

            ahead, behind = (after(images + s * eps * direction) for s in (1, -1))
            return jax.grad(after)(images), (ahead - behind) / (2 * eps)

        return [both(name) for name in get_args(Formulation) if name != "auto"]

    (library, numeric), *others = compute(images, kernel)
    np.testing.assert_allclose(np.vdot(library, direction), numeric, rtol=1e-7)
    for other, _ in others:
        np.testing.assert_allclose(other, library, atol=1e-11)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_the_published_convnet_has_320010_parameters_and_2048_features():
    model = convnet.make(convnet.Config(), (32, 32, 3), 10)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert count(params) == 320_010
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    assert jax.eval_shape(model.features, params, images).shape == (2, 2048)
    assert jax.eval_shape(model.apply, params, images).shape == (2, 10)


def test_the_published_convnet_of_grey_images_has_317706_parameters():
    """It pads 28x28 to 32x32; the default does not."""
    images = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
    for padding, features, num in ((3, 2048, 317_706), (1, 1152, 308_746)):
        model = convnet.make(convnet.Config(first_padding=padding), (28, 28, 1), 10)
        params = jax.eval_shape(model.init, jax.random.key(0))
        assert count(params) == num
        assert jax.eval_shape(model.features, params, images).shape == (2, features)
    assert convnet.Config.from_dict({"width": 128}) == convnet.Config()


@pytest.mark.parametrize("channels", [1, 8])
def test_the_first_padding_in_every_formulation(channels, float64):
    """Value and second derivative are the library's on images with more zeros."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 6, 5, channels))
    around = ((0, 0), (2, 2), (2, 2), (0, 0))

    def network(**settings):
        config = convnet.Config(width=4, depth=1, **settings)
        return convnet.make(config, images.shape[1:], 4)

    params = randomised(network(first_padding=3))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)

    def derivatives(apply):
        def loss(params, images):
            return jnp.sin(apply(params, images)).sum()

        def after(images):
            grads = jax.grad(loss)(params, images)
            return loss(jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), images)

        return apply(params, images), jax.grad(after)(images)

    @jax.jit
    def compute():
        plain = network(conv="library").apply
        made = [network(conv=c, first_padding=3).apply for c in get_args(Formulation)]
        wider = derivatives(lambda params, x: plain(params, jnp.pad(x, around)))
        return wider, [derivatives(apply) for apply in made]

    expected, found = compute()
    assert np.abs(expected[-1]).max() > 1e-3
    for one in found:
        for ours, theirs in zip(one, expected, strict=True):
            assert ours.dtype == jnp.float64
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("settings", "shape", "features"),
    [
        ({"depth": 4}, (64, 64, 3), 2048),
        ({"depth": 1, "width": 8}, (28, 28, 1), 8 * 14 * 14),
        ({"depth": 3, "width": 8}, (28, 28, 1), 8 * 3 * 3),
        ({"depth": 2, "width": 8, "pooling": "none"}, (9, 8, 1), 8 * 9 * 8),
        ({"depth": 3, "width": 8, "pooling": "max"}, (8, 9, 1), 8),
    ],
)
def test_number_of_features(settings, shape, features):
    model = convnet.make(convnet.Config(**settings), shape, 5)
    params = jax.eval_shape(model.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((3, *shape), jnp.float32)
    assert jax.eval_shape(model.features, params, images).shape == (3, features)
    assert params["head"]["Dense_0"]["kernel"].shape == (features, 5)


@pytest.fixture(scope="module")
def wide_layers():
    """scheme -> [(fan in, kernel, bias)] of a convolution and a linear layer."""
    layers = [
        (9 * 20, Conv(1000, scheme="torch"), Conv(1000, scheme="he"), (1, 4, 4, 20)),
        (50, Dense(3000, "torch"), Dense(3000, "he"), (1, 50)),
    ]
    made = {"torch": [], "he": []}
    for fan_in, torch, he, shape in layers:
        for scheme, layer in (("torch", torch), ("he", he)):
            params = jax.jit(layer.init)(jax.random.key(0), jnp.ones(shape))["params"]
            params = params.get("Dense_0", params)
            made[scheme].append((fan_in, params["kernel"], params["bias"]))
    return made


def test_torch_init_is_uniform_within_one_over_root_fan_in(wide_layers):
    for fan_in, *leaves in wide_layers["torch"]:
        bound = 1 / np.sqrt(fan_in)
        for leaf in leaves:
            values = np.asarray(leaf).ravel()
            assert np.abs(values).max() <= bound * (1 + 1e-6)
            assert values.max() > 0.99 * bound
            assert values.min() < -0.99 * bound
            np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=0.04)
            assert abs(values.mean()) < 5 * bound / np.sqrt(3 * values.size)


def test_he_init_is_normal_with_variance_two_over_fan_in(wide_layers):
    for fan_in, kernel, bias in wide_layers["he"]:
        values = np.asarray(kernel).ravel()
        np.testing.assert_allclose(values.std(), np.sqrt(2 / fan_in), rtol=0.02)
        # Not uniform: the kurtosis of a (truncated) normal is well above 1.8.
        assert (values**4).mean() / values.var() ** 2 > 2.2
        assert not np.asarray(bias).any()


def assert_fresh(params):
    """Norms are 1 and 0; all else varies, kernels within PyTorch's bounds."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    assert len(leaves) >= 6
    for path, leaf in leaves:
        name, leaf = jax.tree_util.keystr(path), np.asarray(leaf)
        if "scale" in name:
            assert (leaf == 1).all()
        elif "Normalisation" in name:
            assert (leaf == 0).all()
        else:
            assert len(np.unique(leaf)) > leaf.size / 2
            if "kernel" in name:
                bound = np.prod(leaf.shape[:-1]) ** -0.5
                assert 0.9 * bound < np.abs(leaf).max() <= bound * (1 + 1e-6)


def normalised(x, kind):
    """In float64; statistics over space, and over the channels of a group."""
    groups = {"instance": x.shape[-1], "group": 4, "layer": 1}[kind]
    out = np.zeros(x.shape)
    for image, group in itertools.product(range(len(x)), np.split(np.arange(8), groups)):
        values = x[image][..., group].astype(np.float64)
        variance = ((values - values.mean()) ** 2).mean()
        out[image][..., group] = (values - values.mean()) / np.sqrt(variance + 1e-5)
    return out


@pytest.mark.parametrize(("kind", "groups"), [("instance", 8), ("group", 4), ("layer", 1)])
def test_norms_against_numpy(kind, groups):
    rng = np.random.default_rng(0)
    x = (3 + np.arange(1, 9) * rng.normal(size=(2, 5, 4, 8))).astype(np.float32)
    layer = Normalisation(kind)
    init = jax.jit(layer.init_with_output)
    out, variables = init(jax.random.key(0), jnp.asarray(x))
    expected = normalised(x, kind)
    np.testing.assert_allclose(out, expected, atol=1e-4)
    rows = np.asarray(out).reshape(2, 20, groups, 8 // groups)
    np.testing.assert_allclose(rows.mean((1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(rows.var((1, 3)), 1, atol=1e-4)
    assert set(variables) == {"params"}  # no running statistics
    scale, bias = rng.normal(size=(2, 8)).astype(np.float32)
    variables = {"params": {"scale": scale, "bias": bias}}
    out = jax.jit(layer.apply)(variables, jnp.asarray(x))
    np.testing.assert_allclose(out, expected * scale + bias, atol=2e-4)


def test_no_norm_is_nothing():
    x = jnp.arange(24.0).reshape(1, 2, 3, 4)
    out, variables = Normalisation("none").init_with_output(jax.random.key(0), x)
    np.testing.assert_array_equal(out, x)
    assert not variables


def test_groups_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match="4 groups; 6 channels"):
        Normalisation("group").init(jax.random.key(0), jnp.zeros((1, 2, 2, 6)))


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (2, 3), (3, 2)])
def test_pooling_drops_an_odd_row_or_column(shape):
    x = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    for kind, of in (("avg", np.mean), ("max", np.max)):
        out = pool(jnp.asarray(x), kind)
        assert out.shape == (2, shape[0] // 2, shape[1] // 2, 3)
        for i, j in np.ndindex(*out.shape[1:3]):
            block = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            np.testing.assert_allclose(out[:, i, j], of(block, axis=(1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(pool(x, "none"), x)


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (1, 1)])
def test_nothing_left_to_pool_is_refused(shape):
    with pytest.raises(InputError, match=rf"{shape[0]}x{shape[1]} .*smaller depth"):
        pool(jnp.zeros((1, *shape, 3)), "avg")


def test_a_network_too_deep_for_its_images_is_refused():
    model = convnet.make(convnet.Config(width=4, depth=4), (8, 8, 1), 3)
    with pytest.raises(InputError, match="cannot halve a 1x1 feature map"):
        jax.eval_shape(model.init, jax.random.key(0))


def randomised(model, seed=0):
    """Weights of which none is at a special value such as 0 or 1."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(leaf):
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        return jnp.asarray(0.2 + rng.normal(size=leaf.shape) / fan_in**0.5, jnp.float32)

    return jax.tree.map(draw, shapes)


@pytest.mark.parametrize(("norm", "pooling"), [("instance", "avg"), ("none", "max")])
def test_convnet_against_numpy(norm, pooling):
    """Convolution, norm, ReLU, pooling; twice; flattened row by row; linear."""
    config = convnet.Config(width=8, depth=2, norm=norm, pooling=pooling)
    model = convnet.make(config, (9, 8, 2), 3)
    params = randomised(model)
    x = images = np.random.default_rng(1).normal(size=(2, 9, 8, 2))
    held = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for block in range(2):
        conv = held["backbone"][f"Conv_{block}"]
        x = convolve(x, conv["kernel"], (1, 1), 1) + conv["bias"]
        if norm == "instance":
            affine = held["backbone"][f"Normalisation_{block}"]
            x = normalised(x, norm) * affine["scale"] + affine["bias"]
        x = np.maximum(x, 0)
        b, h, w, c = x.shape
        x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
        x = x.mean((2, 4)) if pooling == "avg" else x.max((2, 4))
    features = x.reshape(2, -1)
    head = held["head"]["Dense_0"]
    logits = features @ head["kernel"] + head["bias"]
    images = jnp.asarray(images, jnp.float32)
    ours = jax.jit(lambda p, x: (model.features(p, x), model.apply(p, x)))(params, images)
    np.testing.assert_allclose(ours[0], features, atol=2e-4)
    np.testing.assert_allclose(ours[1], logits, atol=1e-3)


def test_mlp_against_numpy():
    model = mlp.make(mlp.Config(width=5, depth=2), (3, 4, 2), 3)
    params = randomised(model)
    held = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    images = np.random.default_rng(1).normal(size=(4, 3, 4, 2))
    x = images.reshape(4, -1)
    for layer in held["backbone"].values():
        x = np.maximum(x @ layer["Dense_0"]["kernel"] + layer["Dense_0"]["bias"], 0)
    assert len(held["backbone"]) == 2
    head = held["head"]["Dense_0"]
    images = jnp.asarray(images, jnp.float32)
    np.testing.assert_allclose(model.features(params, images), x, atol=1e-5)
    np.testing.assert_allclose(
        model.apply(params, images), x @ head["kernel"] + head["bias"], atol=1e-5
    )


# Every model, small enough for a CPU; a new entry of MODELS is added here.
SMALL = {
    "convnet": {"width": 8, "depth": 2},
    "mlp": {"width": 16},
    "resnet": {"width": 4},
    "alexnet": {"width": 8},
    "vgg": {"width": 4},
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_keeps_the_contract(name):
    """A fresh init, shapes, float32, features + linear head == apply."""
    module, shape = MODELS[name], (32, 36, 3)
    model = module.make(module.Config(**SMALL[name]), shape, 7)

    @jax.jit
    def compute(key, images):
        params = model.init(key)
        features = model.features(params, images)
        return params, features, model.apply(params, images)

    images = jax.random.normal(jax.random.key(1), (3, *shape))
    params, features, logits = compute(jax.random.key(0), images)
    assert_fresh(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(params))
    assert features.shape[0] == 3
    assert features.ndim == 2
    assert logits.shape == (3, 7)
    assert np.isfinite(logits).all()
    head = params["head"]["Dense_0"]
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], logits, atol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 1e-4


def test_convnet_forward_and_gradient_equal_pytorch():
    torch = pytest.importorskip("torch")
    width, depth, classes = 8, 3, 5
    model = convnet.make(convnet.Config(width=width, depth=depth), (16, 16, 3), classes)
    params = randomised(model)
    rng = np.random.default_rng(1)
    images = rng.normal(size=(4, 16, 16, 3)).astype(np.float32)
    labels = np.array([0, 3, 1, 4])

    def loss_fn(params):
        logits = model.apply(params, jnp.asarray(images))
        own = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -own.mean(), logits

    (_, logits), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params)

    blocks = []
    for block in range(depth):
        blocks += [
            torch.nn.Conv2d(width if block else 3, width, 3, padding=1),
            torch.nn.GroupNorm(width, width),
            torch.nn.ReLU(),
            torch.nn.AvgPool2d(2),
        ]
    body, head = torch.nn.Sequential(*blocks), torch.nn.Linear(width * 4, classes)

    def pairs(tree):
        """(PyTorch's parameter, ours in its layout)."""
        for block in range(depth):
            conv = tree["backbone"][f"Conv_{block}"]
            norm = tree["backbone"][f"Normalisation_{block}"]
            yield body[4 * block].weight, np.transpose(conv["kernel"], (3, 2, 0, 1))
            yield body[4 * block].bias, conv["bias"]
            yield body[4 * block + 1].weight, norm["scale"]
            yield body[4 * block + 1].bias, norm["bias"]
        yield head.weight, np.transpose(tree["head"]["Dense_0"]["kernel"])
        yield head.bias, tree["head"]["Dense_0"]["bias"]

    with torch.no_grad():
        for theirs, ours in pairs(params):
            theirs.copy_(torch.tensor(np.array(ours)))
    x = body(torch.tensor(images.transpose(0, 3, 1, 2).copy()))
    theirs = head(x.permute(0, 2, 3, 1).flatten(1))
    torch.nn.functional.cross_entropy(theirs, torch.tensor(labels)).backward()
    np.testing.assert_allclose(logits, theirs.detach().numpy(), rtol=1e-4, atol=1e-4)
    for parameter, ours in pairs(grads):
        np.testing.assert_allclose(ours, parameter.grad.numpy(), rtol=1e-4, atol=1e-4)


def test_channels_grow_from_block_to_block():
    """FRePo's network: 128, 256, 512 channels and 8,192 features."""
    model = convnet.make(convnet.Config(norm="none", growth=2), (32, 32, 3), 10)
    params = jax.eval_shape(model.init, jax.random.key(0))
    kernels = [params["backbone"][f"Conv_{i}"]["kernel"].shape for i in range(3)]
    assert kernels == [(3, 3, 3, 128), (3, 3, 128, 256), (3, 3, 256, 512)]
    assert params["head"]["Dense_0"]["kernel"].shape == (8192, 10)
    assert set(params["backbone"]) == {"Conv_0", "Conv_1", "Conv_2"}


@pytest.mark.parametrize(
    ("scheme", "variance", "bias"),
    [("lecun", 1.0, 0.0), ("gaussian", 2.0, 0.1), ("ntk", None, 1.0)],
)
def test_further_inits(scheme, variance, bias):
    """Variance of kernels times fan-in, and deviation of biases; `ntk` has unit ones."""
    layers = [
        (9 * 20, Conv(1000, scheme=scheme), (1, 4, 4, 20)),
        (50, Dense(3000, scheme), (1, 50)),
    ]
    for fan_in, layer, shape in layers:
        params = jax.jit(layer.init)(jax.random.key(0), jnp.ones(shape))["params"]
        params = params.get("Dense_0", params)
        kernel, biases = np.asarray(params["kernel"]), np.asarray(params["bias"])
        expected = 1.0 if variance is None else variance / fan_in
        np.testing.assert_allclose(kernel.var(), expected, rtol=0.03)
        kurtosis = (kernel**4).mean() / kernel.var() ** 2
        if scheme == "lecun":  # truncated at two deviations
            assert np.abs(kernel).max() < 2.3 * kernel.std()
        else:
            np.testing.assert_allclose(kurtosis, 3, atol=0.1)
        np.testing.assert_allclose(biases.std(), bias, rtol=0.1)


def test_lecun_is_the_default_of_flax():
    """The very draws, for the same keys and names of layers."""
    model = convnet.make(convnet.Config(width=8, depth=1, init="lecun"), (8, 8, 3), 3)
    ours = model.init(jax.random.key(5))["head"]["Dense_0"]["kernel"]

    class Head(flax.linen.Module):
        def setup(self):
            self.head = Wrapped()

        def __call__(self, x):
            return self.head(x)

    class Wrapped(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x):
            return flax.linen.Dense(3)(x)

    theirs = Head().init(jax.random.key(5), jnp.ones((1, 128)))["params"]
    np.testing.assert_array_equal(ours, theirs["head"]["Dense_0"]["kernel"])


def test_the_ntk_parametrisation_by_hand():
    """A layer is sqrt(2 / fan_in) W x + 0.1 b; the same function as `gaussian`'s."""
    shape = (8, 8, 3)
    settings = {"width": 6, "depth": 2, "norm": "none"}
    ntk = convnet.make(convnet.Config(init="ntk", **settings), shape, 4)
    plain = convnet.make(convnet.Config(init="gaussian", **settings), shape, 4)
    params = jax.jit(ntk.init)(jax.random.key(0))
    fans = {"Conv_0": 27, "Conv_1": 54, "Dense_0": 24}

    def scaled(path, leaf):
        names = [entry.key for entry in path]
        fan_in = next(fans[name] for name in names if name in fans)
        return leaf * (0.1 if names[-1] == "bias" else np.sqrt(2 / fan_in))

    same = jax.tree_util.tree_map_with_path(scaled, params)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(5, *shape)), jnp.float32)
    ours, theirs = jax.jit(ntk.apply)(params, images), jax.jit(plain.apply)(same, images)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    ours = jax.jit(jax.grad(lambda p: ntk.apply(p, images).sum()))(params)
    theirs = jax.jit(jax.grad(lambda p: plain.apply(p, images).sum()))(same)
    theirs = jax.tree_util.tree_map_with_path(scaled, theirs)
    for one, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_size_of_ntk_gradients_does_not_grow_with_the_width():
    """Times the width in the usual parametrisation: the kernel is a sum over weights."""
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 3)), jnp.float32)

    def square(init, width):
        config = convnet.Config(width=width, depth=2, norm="none", init=init)
        model = convnet.make(config, (8, 8, 3), 1)
        key = jax.random.key(0)
        gradient = jax.grad(lambda p: model.apply(p, image)[0, 0])(model.init(key))
        return sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient))

    assert 0.4 < square("ntk", 256) / square("ntk", 32) < 2.5
    assert square("gaussian", 256) / square("gaussian", 32) > 4


def test_bfloat16_activations_are_those_alone():
    """Values between layers are rounded; what is learned, and the logits, are float32."""
    shape = (16, 16, 3)
    full, half = (
        convnet.make(convnet.Config(width=8, depth=2, activations=kind), shape, 4)
        for kind in ("float32", "bfloat16")
    )
    params = full.init(jax.random.key(0))
    assert jax.tree.structure(params) == jax.tree.structure(half.init(jax.random.key(0)))
    images = jax.random.normal(jax.random.key(1), (6, *shape))

    def loss(model, params):
        logits = model.apply(params, images)
        return jnp.square(logits - jnp.eye(6, 4)).mean(), logits

    found = {}
    for name, model in (("full", full), ("half", half)):
        both = jax.jit(jax.value_and_grad(functools.partial(loss, model), has_aux=True))
        (_, logits), grads = both(params)
        leaves = [logits, *jax.tree.leaves(grads)]
        assert all(leaf.dtype == jnp.float32 for leaf in leaves)
        found[name] = logits, jax.flatten_util.ravel_pytree(grads)[0]
    for ours, exact in zip(found["half"], found["full"], strict=True):
        error = jnp.linalg.norm(ours - exact) / jnp.linalg.norm(exact)
        assert 1e-4 < error < 0.05  # rounded to eight bits, a few times one after another

    program = str(jax.make_jaxpr(half.apply)(params, images))
    assert "bf16[6,16,16,8]" in program  # the first convolution's result
    assert "bf16[8,8,8]" not in str(jax.make_jaxpr(full.apply)(params, images))
