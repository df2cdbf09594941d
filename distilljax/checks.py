"""Checks of arguments against the contracts of `distilljax.types`.

Shapes and dtypes are checked while a function is traced. Values are checked where they are
known: outside of jit, vmap and grad, or where an argument is a constant.
"""

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distilljax.types import Array, DistilledSet, InputError, Key, Model, Params

# Largest difference, as a share of the largest output, between an image's outputs alone and
# in a batch. Rounding stays far below it, statistics of the batch far above.
_BATCH_TOLERANCE = 0.05

_NO_DERIVATIVE = (
    "forward-mode",
    "Reverse-mode",
    "Differentiation rule",
    "differentiation rule",
    "Linearization rule",
    "Transpose rule",
    "do not support JVP",
)


def concrete(values: Any) -> np.ndarray | None:
    """Returns the values of an array or a list of numbers; None if any are traced."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values)):
        return None
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"an array was expected, and its rows differ ({error})") from error


def integer(value: Any, what: str) -> int:
    """Returns a whole number, such as an `int` or a numpy scalar, as an `int`.

    Raises:
      InputError: it is no whole number.
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{what}={value!r}: give a whole number") from error


def indices(values: Any, num: int, what: str, *, low: int = 0) -> Array:
    """Returns positions in `num` entries as an array; lists and numpy scalars are taken.

    Args:
      values: integers; checked where they are not traced.
      num: number of entries.
      what: name of the argument, for the message.
      low: the lowest value that has a meaning.

    Returns:
      i32[...], at least one axis unless traced.

    Raises:
      InputError: no integers, or outside of low..num-1.
    """
    held = concrete(values)
    dtype = jnp.result_type(values) if held is None else held.dtype
    if held is not None and not held.size:
        return jnp.zeros(held.shape, jnp.int32)
    if not jnp.issubdtype(dtype, jnp.integer):
        advice = "give positions as integers"
        if dtype == np.bool_:
            advice += ": numpy.flatnonzero(mask) of a mask"
        raise InputError(f"{what} is {dtype}; {advice}")
    if held is None:
        return jnp.asarray(values)
    wrong = held[(held < low) | (held >= num)]
    if wrong.size:
        raise InputError(
            f"{what} has {wrong.flat[0]}: there are {num} entries; give positions in "
            f"{low}..{num - 1}"
        )
    return jnp.atleast_1d(jnp.asarray(values, jnp.int32))


def label_rows(logits: Any, labels: Any) -> None:
    """Refuses labels that are not one row of probabilities for each row of logits.

    Raises:
      InputError: shapes other than [b, k] and [b, k].
    """
    found = jnp.shape(labels)
    outputs(logits, found[0] if found else 1)
    if found != logits.shape:
        raise InputError(
            f"labels {list(found)} beside logits {list(logits.shape)}: expected [b, k] and "
            "[b, k]; turn class numbers into rows with jax.nn.one_hot(labels, k)"
        )


def class_ordered(labels: Any, num_classes: int, what: str = "labels") -> None:
    """Refuses class numbers that are not ordered by class, as many of each.

    Args:
      labels: i[n]; a traced array is not checked.
      num_classes: k.
      what: name of the argument, for the message.

    Raises:
      InputError: labels that are no integers, outside of 0..k-1, not as many of each class,
        or in another order.
    """
    held = concrete(labels)
    if held is None:
        return
    if held.dtype.kind not in "iu":
        raise InputError(
            f"{what} are {held.dtype}; give class numbers 0..{num_classes - 1}"
        )
    wrong = held[(held < 0) | (held >= num_classes)]
    if wrong.size:
        raise InputError(
            f"{what} has {wrong[0]}; with {num_classes} classes give 0..{num_classes - 1}"
        )
    counts = np.bincount(held, minlength=num_classes)
    if len(set(counts.tolist())) > 1:
        few, many = counts.argmin(), counts.argmax()
        raise InputError(
            f"{what}: {counts[few]} of class {few} and {counts[many]} of class {many}; a "
            f"distilled set has as many images of each of its {num_classes} classes: take "
            f"{max(1, counts.min())} of each"
        )
    if (np.diff(held) < 0).any():
        raise InputError(
            f"{what} are not in the order of classes (0, 0, ..., 1, 1, ...); sort images "
            "and labels with order = numpy.argsort(labels, kind='stable')"
        )


def certain_order(distilled: DistilledSet, method: str) -> None:
    """Refuses a distilled set that a method which matches class by class would misread.

    A label that is a distribution passes, whatever its largest entry.

    Args:
      distilled: label_logits f32[n, k]; values are not checked where they are traced.
      method: name of the method, for the message.

    Raises:
      InputError: n is not a multiple of k, or a certain label is of another class than its
        place.
    """
    num, k = distilled.label_logits.shape
    if num % k:
        raise InputError(
            f"{method}: {num} images of {k} classes; give as many of each class, in order"
        )
    logits = concrete(distilled.label_logits)
    if logits is None:
        return
    logits = logits.astype(np.float64)
    others = np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1) - 1
    classes, places = logits.argmax(axis=1), np.arange(num) // (num // k)
    wrong = np.flatnonzero((others < 1e-6) & (classes != places))
    if wrong.size:
        at = wrong[0]
        raise InputError(
            f"{method}: image {at} is of class {classes[at]}, in the place of class "
            f"{places[at]}; the method takes {num // k} images of each class, in order: "
            "sort images and labels with order = jnp.argsort(labels, stable=True)"
        )


def learnable_labels(distilled: DistilledSet) -> None:
    """Refuses labels to be learned whose logits have no gradient.

    Raises:
      InputError: all labels are certain to the last bit of a float32.
    """
    logits = concrete(distilled.label_logits)
    if logits is None or logits.ndim != 2 or logits.shape[1] < 2:
        return
    top = np.sort(logits.astype(np.float64), axis=1)[:, -2:]
    if (top[:, 1] - top[:, 0] > 88).all():
        raise InputError(
            "labels are to be learned (label_lr > 0) and are certain: their logits have no "
            "gradient; start them with a confidence below 1, such as 0.9"
        )


def same_classes(distilled: DistilledSet, real: Any) -> None:
    """Refuses real data with another number of classes than the distilled set.

    Raises:
      InputError: the numbers differ.
    """
    ours, theirs = distilled.label_logits.shape[1], real.class_sizes.shape[0]
    if ours != theirs:
        raise InputError(
            f"the distilled set has labels of {ours} classes, the real data {theirs}; make "
            "both of the same data set"
        )


def network(model: Model, key: Key, distilled: DistilledSet) -> None:
    """Refuses a network that breaks the contract of `Model` on a distilled set.

    Shapes are always checked. Outside of tracing, two random images go through a network
    of random weights, together and one by one.

    Raises:
      InputError: parameters that are not floating point, outputs that are not [b, k] for
        labels [n, k], outputs for an image that depend on the other images.
    """
    if jnp.ndim(distilled.images) != 4 or jnp.ndim(distilled.label_logits) != 2:
        shapes = [list(jnp.shape(x)) for x in distilled[:2]]
        raise InputError(
            f"a distilled set of images {shapes[0]} and label_logits {shapes[1]}: expected "
            "[n, h, w, c] and [n, k]"
        )
    shape, k = distilled.images.shape[1:], distilled.label_logits.shape[1]
    params = jax.eval_shape(model.init, key)
    floating(params)
    images = jax.ShapeDtypeStruct((2, *shape), distilled.images.dtype)
    num_outputs = outputs(jax.eval_shape(model.apply, params, images), 2)
    if num_outputs != k:
        raise InputError(
            f"the network has {num_outputs} outputs, the labels {k} classes; make the "
            "network for the classes of the set"
        )
    if any(isinstance(x, jax.core.Tracer) for x in (key, distilled.images)):
        return
    functions = [f for f in (model.features, model.apply) if f is not None]
    _one_by_one(functions, model.init, key, images)


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
        pair = jax.tree.map(lambda x: jnp.asarray(x)[:2], images)
        if all(x.shape[0] == 2 for x in jax.tree.leaves(pair)):
            _compare(jax.jit(lambda p, x: _gaps([apply], p, _unlike(x)))(params, pair))


def concrete_tree(tree: Any) -> bool:
    """Returns whether no leaf is traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _one_by_one(
    functions: list, init: Callable[[Key], Params], key: Key, like: Any
) -> None:
    @jax.jit
    def gaps(key: Key) -> Array:
        images = jax.random.normal(jax.random.key(0), like.shape, like.dtype)
        return _gaps(functions, init(key), _unlike(images))

    _compare(gaps(key))


def _unlike(pair: Any) -> Any:
    """Returns two images of different statistics; integers, such as tokens, as they are."""

    def one(x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return x.at[1].set(3 * x[1] + 1)

    return jax.tree.map(one, pair)


def _gaps(functions: list, params: Params, images: Any) -> Array:
    """Of each function, largest difference and largest output: f32[len(functions), 2]."""
    rows = []
    for function in functions:
        alone = [
            function(params, jax.tree.map(lambda x, i=i: x[i : i + 1], images))
            for i in (0, 1)
        ]
        apart, together = jnp.concatenate(alone), function(params, images)
        rows.append([jnp.abs(together - apart).max(), jnp.abs(apart).max()])
    return jnp.asarray(rows)


def _compare(gaps: Array) -> None:
    if isinstance(gaps, jax.core.Tracer):
        return
    if any(gap > _BATCH_TOLERANCE * size for gap, size in np.asarray(gaps)):
        raise InputError(
            "the network's outputs for an image depend on the other images of the batch, "
            "as with BatchNorm in training mode or Dropout; use a network that treats "
            "images one by one: instance, group or layer normalisation, no dropout"
        )


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
        if axes is None or not axes or any(last for _, last in axes):
            return
        elsewhere = [name for name, _ in axes]
    name = elsewhere[-1]
    raise InputError(
        f"the weight {name} of shape {list(weights[name])} does not have the {k} outputs "
        "on its last axis; distance=rows compares output channels: keep weights as "
        "[..., in, out], as flax does, or take distance=cosine"
    )


def _selected_axes(
    model: Model, key: Key, distilled: DistilledSet, k: int
) -> list[tuple[str, bool]] | None:
    """Weights with an axis of outputs, and whether it is the last; None if traced."""
    shape, dtype = distilled.images.shape[1:], distilled.images.dtype

    @jax.jit
    def gradient(key: Key) -> Params:
        image = jax.random.normal(jax.random.key(0), (1, *shape), dtype)
        return jax.grad(lambda p: model.apply(p, image)[0, 0])(model.init(key))

    found = gradient(key)
    if not concrete_tree(found):
        return None
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


def at_least_float32(tree: Any) -> Any:
    """Returns the arrays of a tree, those of half precision as float32; the rest unchanged.

    Python and numpy numbers become arrays.
    """

    def one(x: Any) -> Array:
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    return jax.tree.map(one, tree)


@contextlib.contextmanager
def derivatives(missing: str, instead: str) -> Iterator[None]:
    """Says in one line which derivative a function lacks.

    Args:
      missing: the derivative that the block takes.
      instead: what to do.

    Raises:
      InputError: JAX has no such derivative of an operation in the block.
    """
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError, NotImplementedError) as error:
        text = str(error)
        if not any(phrase in text for phrase in _NO_DERIVATIVE):
            raise
        first = text.strip().splitlines()[0].rstrip(".")
        raise InputError(f"{missing} is not there ({first}); {instead}") from error
