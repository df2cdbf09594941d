"""Checks of arrays, positions, derivatives and optimizers."""

import contextlib
import operator
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distilljax.types import Array, InputError

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


def concrete_tree(tree: Any) -> bool:
    """Returns whether no leaf is traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def integer(value: Any, what: str) -> int:
    """Returns a whole number, such as an `int` or a numpy scalar, as an `int`.

    Raises:
      InputError: it is no whole number, or traced.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError("a truth value")
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{what}={value!r:.40}: give a whole number") from error


def positive(value: Any, what: str, advice: str = "must be at least 1") -> int:
    """Returns a whole number of at least 1.

    Args:
      value: what was given.
      what: name of the argument, for the message.
      advice: the message about a number below 1.

    Raises:
      InputError: it is none.
    """
    number = integer(value, what)
    if number < 1:
        raise InputError(f"{what}={number}: {advice}")
    return number


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
    if held is None:
        values = jnp.asarray(values)
    dtype = values.dtype if held is None else held.dtype
    if held is not None and not held.size:
        return jnp.zeros(held.shape, jnp.int32)
    if not jnp.issubdtype(dtype, jnp.integer):
        advice = "give positions as integers"
        if dtype == np.bool_:
            advice += ": numpy.flatnonzero(mask) of a mask"
        raise InputError(f"{what} is {dtype}; {advice}")
    if held is None:
        return values
    wrong = held[(held < low) | (held >= num)]
    if wrong.size:
        raise InputError(
            f"{what} has {wrong.flat[0]}: there are {num} entries; give positions in "
            f"{low}..{num - 1}"
        )
    return jnp.atleast_1d(jnp.asarray(values, jnp.int32))


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


@contextlib.contextmanager
def plain_updates(step: str) -> Iterator[None]:
    """Says in one line what an optimizer needs that a step does not have.

    Args:
      step: the step, for the message.

    Raises:
      InputError: the optimizer in the block needs more than gradients and parameters.
    """
    try:
        yield
    except TypeError as error:
        if "required keyword-only" not in str(error):
            raise
        needed = str(error).split(": ")[-1].replace(", and ", " and ")
        raise InputError(
            f"the optimizer needs {needed} beside gradients and parameters, which {step} "
            "does not have; take one without, such as optax.sgd or optax.adam"
        ) from error
