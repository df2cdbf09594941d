"""Benchmark cases that both distilljax and PyTorch compute: `CASES`, by name.

A case runs a part of `distilljax`, an outer step of a method, a training or a trace,
without randomness: weights and probes are given, and there are as many real images as a
batch has, so that any sample is the same batch. Another implementation given the same
arrays must return the same numbers.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from benchmarks import problem
from distilljax import data
from distilljax.analysis import leave_one_out, pools
from distilljax.config import option
from distilljax.core import inner, losses, parameters, sampling
from distilljax.core.outer import Method, Source
from distilljax.core.parameters import Trajectories
from distilljax.core.scan import Remat, scan
from distilljax.curvature import estimators, hessian
from distilljax.methods import METHODS
from distilljax.models import convnet
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import (
    Array,
    Batch,
    DistilledSet,
    Estimate,
    Key,
    Model,
    Params,
    RealSet,
)

K = problem.NUM_CLASSES
OUTER_RATE = 1e4  # so large that the update determines the gradient, see `_outer`


@dataclasses.dataclass(frozen=True)
class Sizes(problem.ProblemOptions):
    """Sizes of the cases."""

    ipc: int = option(10, "Distilled images per class, of ten classes.", low=1)
    width: int = option(32, "Width of the ConvNet.", low=1)
    depth: int = option(3, "Depth of the ConvNet.", low=1)
    size: int = option(32, "Height and width of the images.", low=8)
    channels: int = option(3, "Number of image channels.", low=1, high=3)
    unroll: int = option(10, "Inner steps of bptt and tm.", low=1)
    remat: Remat = option("step", "Rematerialisation policy of bptt and tm.")
    real_batch: int = option(
        256,
        "Real images: per class (gm, dm, pool), in all (bptt), per step (pool).",
        low=10,
    )
    steps: int = option(
        300, "Training steps of train and loo, approximately of pool.", low=1
    )
    test_images: int = option(1000, "Number of test images.", low=10)
    networks: int = option(
        2, "Networks of loo, each without a different image, and of pool.", low=1
    )
    together: int = option(1, "Networks of loo vmapped at a time in distilljax.", low=1)
    probes: int = option(3, "Probes of the trace of the Hessian.", low=2)


class Case(NamedTuple):
    """A benchmark case."""

    function: Callable[..., Any]  # computation in distilljax
    args: tuple[Any, ...]  # arguments of `function`
    counted: Callable[..., Any]  # function of `args` for counting FLOPs, see `_counted`
    result: Callable[[Any], dict[str, Any]]  # result of `function` -> arrays by name
    given: dict[str, Any]  # plain arrays for PyTorch
    unit: str  # name of the unit of work, of which there are `units`
    units: int = 1


class _Common(NamedTuple):
    """Model and data shared by all cases of one size."""

    model: Model  # its init returns the given weights
    plain: Model  # the same, with products without padded zeros
    params: Params
    images: np.ndarray  # [n, h, w, c]
    labels: np.ndarray  # i[n]
    dtype: DTypeLike

    @property
    def given(self) -> dict[str, Any]:
        return {"params": self.params, "images": self.images, "labels": self.labels}


def _common(sizes: Sizes, dtype: DTypeLike) -> _Common:
    shape = (sizes.size, sizes.size, sizes.channels)
    config = convnet.Config(width=sizes.width, depth=sizes.depth)
    model = convnet.make(config, shape, K)
    plain = convnet.make(config.replace({"conv": "im2col"}), shape, K)
    params = jax.tree.map(
        lambda x: np.asarray(x, dtype), jax.jit(model.init)(jax.random.key(0))
    )
    rng = np.random.default_rng(0)
    given = lambda key: jax.tree.map(jnp.asarray, params)  # noqa: E731
    return _Common(
        model._replace(init=given),
        plain._replace(init=given),
        params,
        rng.standard_normal((K * sizes.ipc, *shape)).astype(dtype),
        np.repeat(np.arange(K), sizes.ipc),
        dtype,
    )


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function without recomputation in chunks of a batch."""

    def counted(*args: Any) -> Any:
        with mock.patch.object(inner, "cache_chunk", return_value=None):
            return function(*args)

    return counted


def _real(common: _Common, num: int, seed: int) -> tuple[RealSet, np.ndarray]:
    """Returns `num` random images with labels 0, .., k - 1, 0, .., raw and preprocessed."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (num, *common.images.shape[1:])).astype(np.uint8)
    split = data.Split(pixels, np.arange(num, dtype=np.int32) % K)
    real = data.on_device(split, data.fit("normalise", pixels), K)
    return real, np.asarray(real.transform(real.images)).astype(common.dtype)


def _outer(
    name: str,
    sizes: Sizes,
    common: _Common,
    source: Source,
    settings: dict[str, Any],
    given: dict[str, Any],
    learning_rate: float = 0.01,
) -> Case:
    """Returns the case of the first outer step of a method.

    The images are learned by SGD with a rate so large that the change of the images divided
    by the rate is the meta-gradient to working precision.
    """

    def make(model: Model, **changed: Any) -> Method:
        config = METHODS[name].Config().replace(settings | changed)
        return METHODS[name].make(config, model)

    method = make(common.model)
    kept = {"remat": "none"} if "remat" in settings else {}
    one_hot = np.eye(K)[common.labels]
    start = DistilledSet(
        jnp.asarray(common.images),
        jnp.asarray(100 * (one_hot - 1), common.dtype),
        jnp.asarray(np.log(learning_rate), common.dtype),
    )
    state = method.init(jax.random.key(1), start)

    def result(found: Any) -> dict[str, Any]:
        after, info = found
        change = common.images - np.asarray(after.distilled.images)
        return {
            "loss": float(info.loss),
            "norm": float(info.grad_norm),
            "gradient": change / OUTER_RATE,
        }

    return Case(
        method.step,
        (jax.random.key(2), state, source),
        _counted(make(common.plain, **kept).step),
        result,
        common.given | given,
        "outer step",
    )


def _bptt(sizes: Sizes, common: _Common) -> Case:
    real, images = _real(common, sizes.real_batch, seed=1)
    settings = {
        "unroll": sizes.unroll,
        "real_batch": sizes.real_batch,
        "outer": "sgd",
        "image_lr": OUTER_RATE,
        "clip": 1e30,
        "remat": sizes.remat,
    }
    given = {
        "real_images": images,
        "real_labels": np.asarray(real.labels),
        "learning_rate": 0.01,
        "momentum": 0.9,
        "num_steps": sizes.unroll,
    }
    return _outer("bptt", sizes, common, real, settings, given)


def _by_class(name: str, sizes: Sizes, common: _Common, **settings: Any) -> Case:
    real, images = _real(common, K * sizes.real_batch, seed=1)
    settings |= {
        "real_batch": sizes.real_batch,
        "image_lr": OUTER_RATE,
        "augment": "",
    }
    given = {"real_by_class": np.stack([images[j::K] for j in range(K)])}
    return _outer(name, sizes, common, real, settings, given)


def _tm(sizes: Sizes, common: _Common) -> Case:
    start = np.asarray(parameters.flatten(common.params))
    away = np.random.default_rng(2).standard_normal(start.shape)
    target = start + (0.01 * away).astype(common.dtype)
    settings = {
        "student_steps": sizes.unroll,
        "expert_epochs": 1,
        "max_start": 0,
        "augment": "",
        "image_lr": OUTER_RATE,
        "remat": sizes.remat,
    }
    restored = parameters.unflatten(common.model)(jnp.asarray(target))
    given = {
        "target": jax.tree.map(np.asarray, restored),
        "log_lr": float(np.log(0.01)),
        "num_steps": sizes.unroll,
    }
    walk = jnp.asarray(np.stack([start, target])[None])
    source = Trajectories(walk, jnp.asarray(0, jnp.int32))
    return _outer("tm", sizes, common, source, settings, given)


def _protocol(sizes: Sizes) -> EvaluationProtocol:
    return EvaluationProtocol(steps=sizes.steps, lr=0.01, momentum=0.9)


def _trained_given(sizes: Sizes, common: _Common, test: tuple[RealSet, Any]) -> dict:
    return common.given | {
        "test_images": test[1],
        "test_labels": np.asarray(test[0].labels),
        "learning_rate": 0.01,
        "momentum": 0.9,
        "num_steps": sizes.steps,
    }


def _batch(common: _Common) -> Batch:
    one_hot = jnp.asarray(np.eye(K)[common.labels], common.dtype)
    return Batch(jnp.asarray(common.images), one_hot)


def _train(sizes: Sizes, common: _Common) -> Case:
    test = _real(common, sizes.test_images, seed=3)

    def of(model: Model) -> Callable[..., Any]:
        def function(key: Key, batch: Batch, test: RealSet) -> Array:
            params = evaluation.train(key, model, batch, _protocol(sizes))
            return evaluation.predict(model.apply, params, test)

        return function

    return Case(
        of(common.model),
        (jax.random.key(2), _batch(common), test[0]),
        _counted(of(common.plain)),
        lambda logits: {"logits": np.asarray(logits)},
        _trained_given(sizes, common, test),
        "network",
    )


def _loo(sizes: Sizes, common: _Common) -> Case:
    test = _real(common, sizes.test_images, seed=3)
    left_out = np.arange(sizes.networks) % len(common.images)

    def of(model: Model) -> Callable[..., Any]:
        def function(keys: Key, left_out: Array, batch: Batch, test: RealSet) -> Array:
            protocol, together = _protocol(sizes), sizes.together
            return leave_one_out.retrain(
                keys, left_out, model, batch, test, protocol, together=together
            ).losses

        return function

    keys = jnp.repeat(jax.random.key(2)[None], sizes.networks)
    return Case(
        of(common.model),
        (keys, jnp.asarray(left_out, jnp.int32), _batch(common), test[0]),
        _counted(of(common.plain)),
        lambda losses: {"losses": np.asarray(losses)},
        _trained_given(sizes, common, test) | {"left_out": left_out.tolist()},
        "network",
        sizes.networks,
    )


def _pool(sizes: Sizes, common: _Common) -> Case:
    batch = sizes.real_batch
    real, images = _real(common, K * batch, seed=1)
    test = _real(common, sizes.test_images, seed=3)
    subsets = pools.subsets(np.asarray(real.labels), sizes.networks, 0.25, 0.75, seed=0)
    epochs = max(1, sizes.steps // (K // 2))  # about k / 2 steps each
    keys = jax.random.split(jax.random.key(2), sizes.networks)
    seen = jax.jit(jax.vmap(pools.order, in_axes=(None, 0, None, None)))

    def steps(number: int) -> list[np.ndarray]:
        """Returns the positions of the images of each step."""
        size = subsets.sizes[number]
        orders = seen(keys[number], jnp.arange(epochs), subsets.positions[number], size)
        cut = -(-size // batch)
        bounds = np.arange(1, cut) * size // cut
        return [part for one in orders for part in np.split(np.asarray(one[:size]), bounds)]

    def function(
        keys: Key, positions: Array, sizes: Array, real: RealSet, test: RealSet
    ) -> Array:
        """Runs `pools.subset_trained` with logits instead of classes."""

        def one(given: tuple[Key, Array, Array]) -> Array:
            key, where, size = given
            params = pools.train_on_subset(
                key,
                common.model,
                real,
                where,
                size,
                epochs=epochs,
                batch=batch,
                optimizer=optax.sgd(0.01, momentum=0.9),
                chunk=inner.cache_chunk(batch, common.params),
            )
            return evaluation.predict(common.model.apply, params, test)

        return jax.lax.map(one, (keys, positions, sizes))

    def counted(
        keys: Key, positions: Array, sizes: Array, real: RealSet, test: RealSet
    ) -> list[Array]:
        """Computes the same number of single-image gradients and predictions."""
        loss_fn = losses.cross_entropy(common.plain.apply)

        def add(params: Params, where: Array) -> tuple[Params, None]:
            grads = jax.grad(loss_fn)(params, sampling.take(real, where[None]))
            return jax.tree.map(jnp.add, params, grads), None

        seen = jnp.zeros(epochs * int(subsets.sizes.sum()), jnp.int32)
        params, _ = scan(add, common.params, seen, remat="none")
        tested = range(len(subsets.sizes))
        return [evaluation.predict(common.plain.apply, params, test) for _ in tested]

    given = _trained_given(sizes, common, test) | {
        "real_images": images,
        "real_labels": np.asarray(real.labels),
        "batches": [steps(number) for number in range(sizes.networks)],
    }
    return Case(
        function,
        (keys, jnp.asarray(subsets.positions), jnp.asarray(subsets.sizes), real, test[0]),
        counted,
        lambda logits: {"logits": np.asarray(logits)},
        given,
        "network",
        sizes.networks,
    )


def _trace(sizes: Sizes, common: _Common) -> Case:
    key, params = jax.random.key(4), jax.tree.map(jnp.asarray, common.params)

    def of(model: Model, chunk: int | None) -> Callable[..., Any]:
        def function(key: Key, params: Params, batch: Batch) -> Estimate:
            loss_fn, num = losses.cross_entropy(model.apply), sizes.probes
            return hessian.trace(loss_fn, params, batch, key, num_probes=num, chunk=chunk)

        return function

    def result(found: Estimate) -> dict[str, Any]:
        error = float(found.standard_error)
        return {"trace": float(found.value), "standard_error": error}

    drawn = [
        estimators.probe(jax.random.fold_in(key, i), params) for i in range(sizes.probes)
    ]
    return Case(
        of(common.model, inner.cache_chunk(len(common.images), common.params)),
        (key, params, _batch(common)),
        of(common.plain, None),
        result,
        common.given | {"probes": jax.tree.map(np.asarray, drawn)},
        "probe",
        sizes.probes,
    )


CASES: dict[str, Callable[[Sizes, _Common], Case]] = {
    "bptt": _bptt,
    "gm": lambda sizes, common: _by_class("gm", sizes, common),
    "dm": lambda sizes, common: _by_class("dm", sizes, common),
    "tm": _tm,
    "train": _train,
    "loo": _loo,
    "pool": _pool,
    "trace": _trace,
}


def make(
    names: Iterable[str], sizes: Sizes, dtype: DTypeLike = np.float32
) -> dict[str, Case]:
    """Returns cases by name.

    Args:
      names: keys of `CASES`.
      sizes: sizes of the cases.
      dtype: dtype of all floats; float64 needs x64.
    """
    common = _common(sizes, dtype)
    return {name: CASES[name](sizes, common) for name in names}


def difference(ours: Any, theirs: Any) -> float:
    """Returns ||ours - theirs|| / ||theirs|| in float64."""
    a, b = (np.asarray(x, np.float64) for x in (ours, theirs))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
