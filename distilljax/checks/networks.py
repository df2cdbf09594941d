"""Checks of networks against the contract of `distilljax.types.Model`."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import platforms
from distilljax.checks.arrays import concrete_tree
from distilljax.types import Array, DistilledSet, InputError, Key, Model, Params

# Errors of flax and JAX that a network with state ends in.
_STATE_ERRORS = {
    "InvalidRngError",
    "ModifyScopeVariableError",
    "ScopeCollectionNotFound",
    "TraceContextError",
    "UnexpectedTracerError",
}
# Largest difference, as a share of the largest output, between an image's outputs alone and
# in a batch. Rounding stays far below it, statistics of the batch far above.
_BATCH_TOLERANCE = 0.05


def network(
    model: Model,
    key: Key,
    distilled: DistilledSet,
    function: Literal["apply", "features"] = "apply",
) -> None:
    """Refuses a network that breaks the contract of `Model` on a distilled set.

    Shapes are always checked. Outside of tracing, two random images go through a network
    of random weights, together and one by one.

    Args:
      model: the network.
      key: for its weights.
      distilled: the set that a method starts from.
      function: which of the model's functions the images go through.

    Raises:
      InputError: parameters that are not floating point, a network for images of another
        shape, outputs that are not [b, k] for labels [n, k], outputs for an image that
        depend on the other images, a network that changes state or draws random numbers,
        `features` that are missing.
    """
    with _stateless(), platforms.target(platforms.current()):
        _check_network(model, key, distilled, function)


def _check_network(model: Model, key: Key, distilled: DistilledSet, function: str) -> None:
    shape, k = distilled.images.shape[1:], distilled.label_logits.shape[1]
    # Each is traced once. Of partial functions, as a network need not be hashable.
    init, apply = jax.jit(partial(model.init)), jax.jit(partial(model.apply))
    params = jax.eval_shape(init, key)
    floating(params)
    images = jax.ShapeDtypeStruct((2, *shape), distilled.images.dtype)
    with _taking(images.shape):
        found = jax.eval_shape(apply, params, images)
    num_outputs = outputs(found, 2)
    if num_outputs != k:
        raise InputError(
            f"the network has {num_outputs} outputs, the labels {k} classes; make the "
            "network for the classes of the set"
        )
    if any(isinstance(x, jax.core.Tracer) for x in (key, distilled.images)):
        return
    used = apply if function == "apply" else model.features
    if not callable(used):
        raise InputError(
            f"model.{function} is {used!r:.40}, and this method matches features; give a "
            "function (params, images) -> f32[b, d]"
        )

    def gap(key: Key) -> Array:
        pair = jax.random.normal(jax.random.key(0), images.shape, images.dtype)
        return _gap(used, init(key), pair)

    _compare(_quickly(gap, key))


@contextlib.contextmanager
def _stateless() -> Iterator[None]:
    """Says in one line that a network changes state or draws random numbers."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ not in _STATE_ERRORS:
            raise
        first = str(error).strip().splitlines()[0].partition(" (https://")[0].rstrip(".")
        raise InputError(
            f"the network changes state, or draws random numbers, in apply ({first}); a "
            "Model is a pure function of parameters and images: use instance, group or "
            "layer normalisation and no dropout, or fix what was learned before "
            "(use_running_average=True, deterministic=True)"
        ) from error


@contextlib.contextmanager
def _taking(shape: tuple[int, ...]) -> Iterator[None]:
    """Says in one line that a network fails on images of this shape."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        name = type(error).__name__
        fails = isinstance(error, TypeError | ValueError) or name == "ScopeParamShapeError"
        if not fails or name in _STATE_ERRORS:
            raise
        first = str(error).strip().splitlines()[0].partition(" (https://")[0].rstrip(".")
        raise InputError(
            f"the network fails on images {list(shape)} ({first:.200}); make it for images "
            "of this height, width and number of channels"
        ) from error


def floating(params: Params) -> None:
    """Refuses parameters without derivatives.

    Raises:
      InputError: no arrays, or a leaf that is not floating point.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise InputError("params has no arrays: there is nothing to differentiate by")
    for path, leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise InputError(
                f"the parameter {jax.tree_util.keystr(path)} is {jnp.result_type(leaf)}; "
                "derivatives need floating point: convert it, or leave it out of params"
            )


def outputs(found: Any, num: int) -> int:
    """Returns the number of outputs k of a network, from the shape of what it returned.

    Args:
      found: what `apply` returned for `num` images, or its shape.
      num: number of images.

    Raises:
      InputError: it is not f32[num, k].
    """
    shape = getattr(found, "shape", None)
    if shape is None:
        raise InputError(
            f"apply returned {type(found).__name__} for {num} images; expected [{num}, k], "
            "a row of outputs for each: networks that return or update state are not "
            "supported"
        )
    if len(shape) != 2 or shape[0] != num:
        raise InputError(
            f"apply returned {list(shape)} for {num} images; expected [{num}, k], a row of "
            "outputs for each"
        )
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise InputError(f"apply returned {found.dtype}; expected floating point outputs")
    return shape[1]


def one_by_one(apply: Callable[[Params, Any], Array], params: Params, images: Any) -> None:
    """Refuses a network whose outputs for an image depend on the other images.

    Args:
      apply: (params, images) -> f32[b, k].
      params: its parameters; nothing is checked where they are traced.
      images: a pytree of arrays with a leading axis; the first two are used.

    Raises:
      InputError: outputs for the two images together differ from those for each alone.
    """
    if concrete_tree((params, images)):
        with jax.ensure_compile_time_eval():  # constants of a function that is traced
            pair = jax.tree.map(lambda x: jnp.asarray(x)[:2], images)
            if all(x.shape[0] == 2 for x in jax.tree.leaves(pair)):
                _compare(_quickly(lambda p, x: _gap(apply, p, x), params, pair))


def output_axis(model: Model, key: Key, distilled: DistilledSet) -> None:
    """Refuses weights whose outputs are not on their last axis, as seen on the classifier.

    The classifier's weight has k outputs. Where another axis has that length too, the
    gradient of one logit tells which it is: it is zero at all other outputs.

    Raises:
      InputError: the classifier has its outputs on another axis.
    """
    k = distilled.label_logits.shape[1]
    params = jax.eval_shape(model.init, key)
    weights = {
        jax.tree_util.keystr(path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.ndim > 1 and k in leaf.shape
    }
    elsewhere = [name for name, shape in weights.items() if k in shape[:-1]]
    if not elsewhere:
        return
    if any(shape[-1] == k for shape in weights.values()):
        if k < 2 or isinstance(key, jax.core.Tracer):
            return
        axes = _selected_axes(model, key, distilled, k)
        if not axes or any(last for _, last in axes):
            return
        elsewhere = [name for name, _ in axes]
    name = elsewhere[-1]
    raise InputError(
        f"the weight {name} of shape {list(weights[name])} does not have the {k} outputs "
        "on its last axis; distance=rows compares output channels: keep weights as "
        "[..., in, out], as flax does, or take distance=cosine"
    )


def _quickly(function: Callable[..., Any], *args: Any) -> Any:
    """Returns function(*args); on a CPU barely optimised, for it runs once.

    Within `jax.disable_jit` it is not compiled.
    """
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return function(*args)
    options = _quick_options() if jax.default_backend() == "cpu" else {}
    with platforms.target(platforms.current()):
        lowered = jax.jit(function).lower(*args)
    return lowered.compile(compiler_options=options)(*args)


@functools.cache
def _quick_options() -> dict[str, str | bool]:
    """Returns the options of a quick compilation that this version of XLA knows."""
    wanted: dict[str, str | bool] = {
        "xla_backend_optimization_level": "0",
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
    }
    least = jax.jit(lambda: 0).lower()

    def knows(options: dict[str, str | bool]) -> bool:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            least.compile(compiler_options=options)
            return True
        return False

    if knows(wanted):
        return wanted
    return {name: value for name, value in wanted.items() if knows({name: value})}


def _unlike(pair: Any) -> Any:
    """Returns two images of different statistics; integers, such as tokens, as they are."""

    def one(x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return x.at[1].set(3 * x[1] + 1)

    return jax.tree.map(one, pair)


def _gap(apply: Callable[[Params, Any], Array], params: Params, pair: Any) -> Array:
    """Returns the largest difference, and the largest output, f32[2]."""
    pair = _unlike(pair)
    together = apply(params, pair)

    def alone(image: Any) -> Array:
        return apply(params, jax.tree.map(lambda x: x[None], image))[0]

    apart = jax.lax.map(alone, pair)
    return jnp.stack([jnp.abs(together - apart).max(), jnp.abs(apart).max()])


def _compare(gap: Array) -> None:
    difference, size = np.asarray(gap, np.float64)
    if difference > _BATCH_TOLERANCE * size:
        raise InputError(
            "the network's outputs for an image depend on the other images of the batch, "
            "as with BatchNorm in training mode or Dropout; use a network that treats "
            "images one by one: instance, group or layer normalisation, no dropout"
        )


def _selected_axes(
    model: Model, key: Key, distilled: DistilledSet, k: int
) -> list[tuple[str, bool]]:
    """Returns the weights with an axis of outputs, and whether it is the last."""
    shape, dtype = distilled.images.shape[1:], distilled.images.dtype

    def gradient(key: Key) -> Params:
        image = jax.random.normal(jax.random.key(0), (1, *shape), dtype)
        return jax.grad(lambda p: model.apply(p, image)[0, 0])(model.init(key))

    found = _quickly(gradient, key)
    axes = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        held = np.asarray(leaf, np.float64)
        for axis in range(held.ndim if held.ndim > 1 else 0):
            if held.shape[axis] != k:
                continue
            sums = np.abs(np.moveaxis(held, axis, 0)).reshape(k, -1).sum(axis=1)
            if sums[0] > 0 and not sums[1:].any():
                name = jax.tree_util.keystr(path)
                axes.append((name, axis == held.ndim - 1))
    return axes
