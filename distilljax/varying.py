"""Control flow and derivatives that mean the same inside `jax.shard_map` as alone.

Under `shard_map` with its default `check_vma=True` every value has the mesh axes over
which it varies between devices. A value that begins as a constant, such as a bias of
zeros, varies over none: its gradient is then the sum over all devices, and a loop that
turns it into one that varies is refused. Here values that take part in a computation of
each device are first made to vary like the others, so that a function of one device's
arrays gives what it gives alone. Sums over devices are the caller's, by `jax.lax.psum`.

Outside `shard_map`, and with `check_vma=False`, these are JAX's own functions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from distilljax.types import Array

Axes = frozenset[str]


def axes(*trees: Any) -> Axes:
    """Returns the mesh axes over which any of the arrays varies between devices."""
    if not _manual():
        return frozenset()
    return frozenset().union(*(_varying(x) for x in jax.tree.leaves(trees)))


def vary(tree: Any, over: Axes) -> Any:
    """Makes all arrays vary over the axes, where they do not yet; values are unchanged."""
    if not over:
        return tree

    def one(x: Any) -> Array:
        missing = over - _varying(x)
        return jax.lax.pcast(x, tuple(sorted(missing)), to="varying") if missing else x

    return jax.tree.map(one, tree)


def alike(tree: Any) -> Any:
    """Makes all arrays vary over the axes over which any of them varies."""
    return vary(tree, axes(tree))


def grad(function: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """Returns `jax.grad` of what one device computes, see `value_and_grad`."""

    def gradient(*args: Any) -> Any:
        return value_and_grad(function, argnums)(*args)[1]

    return gradient


def value_and_grad(
    function: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """Returns `jax.value_and_grad` of what one device computes, not of their sum.

    Args:
      function: (*args) -> f32[], or (f32[], aux).
      argnums: arguments to differentiate.
      has_aux: whether the function returns something beside its value.
    """
    chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def both(*args: Any) -> Any:
        over = _of_output(function, *args)
        ours = [vary(x, over) if i in chosen else x for i, x in enumerate(args)]
        return jax.value_and_grad(function, argnums, has_aux=has_aux)(*ours)

    return both


def vjp(function: Callable[[Any], Any], primal: Any, *others: Any) -> tuple[Any, Any]:
    """Returns `jax.vjp(function, primal)` of one device; see `value_and_grad`.

    Args:
      function: primal -> arrays.
      primal: where to differentiate.
      *others: arrays that cotangents may vary with.
    """
    over = _of_output(function, primal) | axes(others)
    found, pull = jax.vjp(lambda p: vary(function(p), over), vary(primal, over))
    return found, lambda cotangent: pull(vary(cotangent, over))


def jvp(function: Callable[[Any], Any], primal: Any, tangent: Any) -> tuple[Any, Any]:
    """Returns `jax.jvp(function, (primal,), (tangent,))`; the tangent may vary alone."""
    over = axes(primal, tangent)
    return jax.jvp(function, (vary(primal, over),), (vary(tangent, over),))


def scan(
    body: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any,
    length: int | None = None,
) -> tuple[Any, Any]:
    """Runs `jax.lax.scan` with a carry that varies like what the body makes of it."""

    def once(carry: Any) -> Any:
        first = jax.tree.map(lambda x: x[0], xs)
        return body(carry, first)[0]

    over = _fixed(once, carry, axes(xs))
    return jax.lax.scan(_keeping(body, over, first=True), vary(carry, over), xs, length)


def fori_loop(low: Any, high: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
    """Runs `jax.lax.fori_loop` with a carry that varies like what the body makes of it."""
    over = _fixed(lambda carry: body(low, carry), carry, axes(low, high))
    return jax.lax.fori_loop(
        low, high, lambda i, x: vary(body(i, x), over), vary(carry, over)
    )


def while_loop(
    unfinished: Callable[[Any], Any], body: Callable[[Any], Any], carry: Any
) -> Any:
    """Runs `jax.lax.while_loop` with a carry that varies like what the body makes of it."""
    over = _fixed(body, carry, frozenset())
    return jax.lax.while_loop(unfinished, _keeping(body, over), vary(carry, over))


def cond(which: Any, yes: Callable[..., Any], no: Callable[..., Any], *args: Any) -> Any:
    """Runs `jax.lax.cond` with branches whose results vary alike."""
    over = axes(which) | _of_output(yes, *args) | _of_output(no, *args)
    return jax.lax.cond(which, _keeping(yes, over), _keeping(no, over), *args)


def switch(which: Any, branches: Sequence[Callable[..., Any]], *args: Any) -> Any:
    """Runs `jax.lax.switch` with branches whose results vary alike."""
    over = axes(which).union(*(_of_output(branch, *args) for branch in branches))
    return jax.lax.switch(which, [_keeping(branch, over) for branch in branches], *args)


def _keeping(
    function: Callable[..., Any], over: Axes, first: bool = False
) -> Callable[..., Any]:
    if not over:
        return function

    def kept(*args: Any) -> Any:
        found = function(*args)
        return (vary(found[0], over), *found[1:]) if first else vary(found, over)

    return kept


def _manual() -> Axes:
    """Returns the mesh axes of the `shard_map` that is being traced."""
    return frozenset(jax.sharding.get_abstract_mesh().manual_axes)


def _varying(x: Any) -> Axes:
    return _kind(x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x))


def _kind(aval: Any) -> Axes:
    kind = getattr(aval, "manual_axis_type", None)
    found = getattr(aval, "vma", None) if kind is None else kind.varying
    return frozenset(found or ())


def _of_output(function: Callable[..., Any], *args: Any) -> Axes:
    """Returns the axes of arguments and results; not traced if the first vary over all."""
    given = axes(args)
    if given == _manual():
        return given
    return given | axes(jax.eval_shape(function, *args))


def _fixed(once: Callable[[Any], Any], carry: Any, given: Axes) -> Axes:
    """Returns the axes over which a carry varies after any number of steps."""
    found = given | axes(carry)
    while found != _manual():
        after = found | axes(jax.eval_shape(once, vary(carry, found)))
        if after == found:
            break
        found = after
    return found
