"""The programs at the paper's size: functions and the shapes of their arguments.

ConvNet-D3 of width 128 on CIFAR-10 (50,000 real and 10,000 test images of 32x32x3) and ten
distilled images a class, unless the options say otherwise. Settings are those of the
presets of `experiments.distill` for ten images a class; `tests/benchmarks` compares them.
Only shapes are made, so that a program is described without its data.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from distilljax import data
from distilljax.analysis import leave_one_out
from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.core import losses, parameters
from distilljax.core.augment import DSA
from distilljax.core.parameters import Trajectories
from distilljax.curvature import hessian, ntk
from distilljax.methods import METHODS, bptt, dm, gm, kernel, tm
from distilljax.models import convnet
from distilljax.training import evaluation
from distilljax.training.protocols import NETWORKS, EvaluationProtocol
from distilljax.types import Array, Batch, DistilledSet, Key, Model, Params, RealSet

K = 10
SHAPE = (32, 32, 3)
FEATURES = 32 * 32 * 3


@dataclasses.dataclass(frozen=True)
class Sizes(Base):
    """Sizes of the programs; the defaults are those of the paper."""

    ipc: int = option(10, "Distilled images per class, of ten classes.", low=1)
    width: int = option(128, "Width of the ConvNet of depth 3.", low=1)
    real: int = option(50_000, "Real training images.", low=10)
    test: int = option(10_000, "Test images.", low=1)
    unroll: int | None = option(
        None, "Inner steps of bptt and tm; none: the preset's.", low=1
    )
    real_batch: int | None = option(
        None, "Real images of a method; none: the preset's.", low=1
    )
    steps: int = option(300, "Training steps of train, evaluate and loo.", low=1)
    seeds: int = option(5, "Networks of evaluate.", low=1)
    networks: int = option(
        101, "Networks of loo: one for each left-out image, and one.", low=1
    )
    together: int = option(
        1, "Networks of evaluate and loo, probes of trace, vmapped.", low=1
    )
    images: int = option(100, "Images of trace and ntk.", low=1)
    probes: int = option(100, "Probes of trace.", low=2)


class Described(NamedTuple):
    """A program that is not compiled yet.

    Attributes:
      function: function of arrays.
      args: their shapes.
      unknown_trips: passes through a loop whose number is drawn when the program runs.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    unknown_trips: float | None = None


class Preset(NamedTuple):
    """What a preset settles of the program.

    Attributes:
      method: name of the method.
      settings: its options.
      transform: preprocessing of the real images.
      network: options of the ConvNet beside width and depth.
      unknown_trips: see `Described`.
    """

    method: str
    settings: Any
    transform: Any
    network: Mapping[str, Any]
    unknown_trips: float | None = None


def f32(*shape: int) -> Any:
    """Returns the shape of a float32 array."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def i32(*shape: int) -> Any:
    """Returns the shape of an int32 array."""
    return jax.ShapeDtypeStruct(shape, jnp.int32)


_NORMALISED = data.Normalise(f32(3), f32(3))
_WHITEN = (f32(FEATURES, FEATURES), f32(FEATURES, FEATURES))

# Program -> what a preset of `experiments.distill` settles.
PRESETS = {
    "bptt": Preset(
        "bptt",
        bptt.Config(
            unroll=150,
            inner_lr=0.01,
            real_batch=640,
            outer="sgd",
        ),
        _NORMALISED,
        {},
    ),
    "rat": Preset(
        "bptt",
        bptt.Config(
            unroll=200,
            window=60,
            random_window=True,
            inner="adam",
            inner_lr=0.001,
            real_batch=5000,
            augment="flip_rotate",
            inner_augment="flip_rotate",
            image_lr=0.001,
            clip_running=True,
        ),
        data.NormedZCA(*_WHITEN, f32(), f32()),
        {},
        unknown_trips=70,  # the mean of 0..140 steps before the window
    ),
    "gm": Preset("gm", gm.Config(outer_loop=10, inner_loop=50), _NORMALISED, {}),
    "gm_dsa": Preset(
        "gm",
        gm.Config(outer_loop=10, inner_loop=50, augment=DSA, network_momentum=0.0),
        _NORMALISED,
        {},
    ),
    "dm": Preset("dm", dm.Config(), _NORMALISED, {}),
    "tm": Preset(
        "tm",
        tm.Config(
            student_steps=30,
            max_start=19,
            inner_lr=0.001,
            lr_lr=1e-5 / 0.001**2,
        ),
        data.ZCA(f32(FEATURES), *_WHITEN),
        {},
    ),
    "kernel": Preset(
        "kernel",
        kernel.Config(image_lr=3e-4, label_lr=3e-4, cosine_steps=500_000),
        data.ScaledZCA(f32(3), f32(3), f32(FEATURES), *_WHITEN),
        NETWORKS["frepo"],
    ),
}


def network(sizes: Sizes, settings: Mapping[str, Any] | None = None) -> Model:
    """Returns the ConvNet, with further options."""
    config = convnet.Config(width=sizes.width).replace(
        {"width": sizes.width, **(settings or {})}
    )
    return convnet.make(config, SHAPE, K)


def shapes(tree: Any) -> Any:
    """Returns the shapes of a pytree of arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def key(*shape: int) -> Any:
    """Returns the shape of an array of keys."""
    one = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(shape, one.dtype)


def real_set(num: int, transform: Any = _NORMALISED) -> RealSet:
    """Returns the shapes of `num` real images, as many of each class."""
    pixels: Any = jax.ShapeDtypeStruct((num, *SHAPE), jnp.uint8)
    return RealSet(pixels, i32(num), i32(K, -(-num // K)), i32(K), transform)


def distilled_set(sizes: Sizes) -> DistilledSet:
    """Returns the shapes of a distilled set."""
    num = K * sizes.ipc
    return DistilledSet(f32(num, *SHAPE), f32(num, K), f32())


def batch(num: int) -> Batch:
    """Returns the shapes of images with distributions of classes."""
    return Batch(f32(num, *SHAPE), f32(num, K))


def _outer_step(name: str, sizes: Sizes, mesh: Mesh | None) -> Described:
    preset = PRESETS[name]
    module, settings = METHODS[preset.method], preset.settings
    steps = "student_steps" if preset.method == "tm" else "unroll"
    asked = {steps: sizes.unroll, "real_batch": sizes.real_batch}
    changed = {n: v for n, v in asked.items() if v is not None and hasattr(settings, n)}
    if steps in changed and getattr(settings, "window", None):
        changed["window"] = max(1, 3 * changed[steps] // 10)
    settings = settings.replace(changed)
    model = network(sizes, preset.network)
    made = module.make(settings, model, mesh=mesh)
    source: Any = real_set(sizes.real, preset.transform)
    if module.SOURCE == "experts":
        epochs = settings.last_epoch - settings.min_start + 1
        num = parameters.num_params(model)
        source = Trajectories(f32(1, epochs, num), i32())
    state = jax.eval_shape(made.init, key(), distilled_set(sizes))
    trips = preset.unknown_trips
    if trips is not None:
        trips = (settings.unroll - settings.window) / 2
    return Described(made.step, (key(), state, source), trips)


def _protocol(sizes: Sizes) -> EvaluationProtocol:
    return EvaluationProtocol(steps=sizes.steps)


def _train(sizes: Sizes, mesh: Mesh | None) -> Described:
    model = network(sizes)

    def train(key: Key, batch: Batch) -> Params:
        return evaluation.train(key, model, batch, _protocol(sizes))

    return Described(train, (key(), batch(K * sizes.ipc)))


def _evaluate(sizes: Sizes, mesh: Mesh | None) -> Described:
    model = network(sizes)

    def evaluate(keys: Key, batch: Batch, test: RealSet) -> Array:
        return evaluation.fresh_accuracy(
            keys, model, batch, test, _protocol(sizes), together=sizes.together, mesh=mesh
        )

    args = (key(sizes.seeds), batch(K * sizes.ipc), real_set(sizes.test))
    return Described(evaluate, args)


def _loo(sizes: Sizes, mesh: Mesh | None) -> Described:
    model = network(sizes)

    def retrain(keys: Key, left_out: Array, batch: Batch, test: RealSet) -> Any:
        return leave_one_out.retrain(
            keys,
            left_out,
            model,
            batch,
            test,
            _protocol(sizes),
            together=sizes.together,
            mesh=mesh,
        )

    num = sizes.networks
    args = (key(num), i32(num), batch(K * sizes.ipc), real_set(sizes.test))
    return Described(retrain, args)


def _trace(sizes: Sizes, mesh: Mesh | None) -> Described:
    model = network(sizes)

    def trace(params: Params, batch: Batch, key: Key) -> Any:
        loss_fn = losses.cross_entropy(model.apply)
        return hessian.trace(
            loss_fn,
            params,
            batch,
            key,
            num_probes=sizes.probes,
            together=sizes.together,
            mesh=mesh,
        )

    params = jax.eval_shape(model.init, key())
    return Described(trace, (params, batch(sizes.images), key()))


def _ntk(sizes: Sizes, mesh: Mesh | None) -> Described:
    model = network(sizes)

    def kernel_of(params: Params, images: Array) -> Array:
        return ntk.empirical_ntk(model.apply, params, images, mesh=mesh)

    params = jax.eval_shape(model.init, key())
    return Described(kernel_of, (params, f32(sizes.images, *SHAPE)))


PROGRAMS: dict[str, Callable[[Sizes, Mesh | None], Described]] = {
    **{name: functools.partial(_outer_step, name) for name in PRESETS},
    "train": _train,
    "evaluate": _evaluate,
    "loo": _loo,
    "trace": _trace,
    "ntk": _ntk,
}
