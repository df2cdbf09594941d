"""The inner loop: differentiable training of a network.

It takes a `loss_fn(params, batch)` and an optax optimizer; parameters and batches may be
any pytrees.

On a CPU memory traffic, not arithmetic, limits speed: the gradient of a batch is faster in
chunks that fit the cache, see `cache_chunk`, and needs proportionally less memory.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import jaxprs_in_params
from jax.flatten_util import ravel_pytree

from distilljax import checks, exported, platforms, varying
from distilljax.core.losses import Mean, SharedMean
from distilljax.core.scan import GRADIENT, Remat, scan
from distilljax.types import Array, InputError, Params

SampleBatch = Callable[[Any], Any]  # inputs of a step -> its batch


@exported.named
class InnerState(NamedTuple):
    """Parameters and optimizer state of a network in training.

    Attributes:
      params: parameters of the network.
      opt_state: state of the inner optimizer.
    """

    params: Params
    opt_state: optax.OptState


def init(params: Params, optimizer: optax.GradientTransformation) -> InnerState:
    """Returns the state before the first step.

    >>> import optax
    >>> state = inner.init(jnp.zeros(2), optax.sgd(0.1))
    >>> state.params.tolist()
    [0.0, 0.0]

    Raises:
      InputError: an optimizer that is no optax transformation, such as a learning rate.
    """
    checks.instance(
        optimizer,
        optax.GradientTransformation,
        "optimizer",
        "an optax transformation, such as optax.sgd(0.1)",
    )
    return InnerState(params, optimizer.init(params))


# The derivative of sqrt(v + eps_root) stays finite where v is zero.
EPS_ROOT = 1e-16

# Examples per gradient that a device of the CPU is fastest with, and the sizes near it that
# are chosen among. A single thread gains from its cache, which few examples fit; but it
# reads all weights, and transforms those of Winograd's convolutions, for every piece.
# Several threads need work to share.
FEW, SOME, MANY = (5, range(4, 9)), (10, range(8, 16)), (20, range(16, 25))
WEIGHTS = 2 * 2**20, 16 * 2**20  # bytes of weights from which a thread is faster with more


def _cached(params: Any) -> tuple[int, range]:
    if platforms.threads_per_device() > 1:
        return MANY
    leaves = jax.tree.leaves(jax.eval_shape(lambda p: p, params))
    weights = sum(x.size * x.dtype.itemsize for x in leaves)
    return FEW if weights < WEIGHTS[0] else SOME if weights < WEIGHTS[1] else MANY


def cache_chunk(num: int, params: Params, share: int = 1) -> int | None:
    """Returns the chunk size that is fastest here for a batch of `num` examples.

    On a CPU about 5 on a device with one thread, 10 or 20 for large networks, and 20 on one
    with several: of the sizes near it the one that leaves the fewest places of the last
    chunk empty. Otherwise, or below two chunks, the whole batch, None.

    >>> inner.cache_chunk(3, jnp.ones(2)) is None
    True

    Args:
      num: number of examples.
      params: weights of the network, arrays or their shapes.
      share: number of devices that have a share of the batch.
    """
    if not platforms.on_cpu():
        return None
    best, sizes = _cached(params)
    own = -(-num // share)
    if own < 2 * best:
        return None
    return min(sizes, key=lambda size: (-own % size, abs(size - best)))


# Bytes of values that one piece of a large batch may have in its forward pass, on an
# accelerator. The reverse pass stores some of them, of a ConvNet about a fifth.
VALUES = 4 * 2**30


def memory_chunk(
    loss_fn: Callable[[Params, Any], Array], params: Params, batch: Any
) -> int | None:
    """Returns the chunk size for the gradient of a batch that may be large.

    On a CPU that of `cache_chunk`. Elsewhere the whole batch, None, if the values that
    `loss_fn` computes of it take at most `VALUES` bytes, else as many examples as do: a
    divisor of the batch if there is one of half of them or more, otherwise pieces of even
    sizes.

    >>> x = jax.ShapeDtypeStruct((10, 3), jnp.float32)
    >>> inner.memory_chunk(lambda w, x: (x @ w).sum(), jnp.ones(3), x) in (None, 5, 10)
    True

    Args:
      loss_fn: (params, batch) -> f32[].
      params: arrays or their shapes.
      batch: a pytree of leaves [b, ...], arrays or their shapes.
    """
    num = jax.tree.leaves(batch)[0].shape[0]
    if platforms.on_cpu():
        return cache_chunk(num, params)

    def values(size: int) -> int:
        examples = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), batch
        )
        return _value_bytes(jax.make_jaxpr(loss_fn)(params, examples).jaxpr)

    each = max(1, values(2) - values(1))
    most = max(1, VALUES // each)
    if num <= most:
        return None
    even = [size for size in range(-(-most // 2), most + 1) if num % size == 0]
    return max(even) if even else -(-num // -(-num // most))


def _value_bytes(jaxpr: Any) -> int:
    """Returns the bytes of all values of a program; of branches those of their results."""
    total = 0
    for eqn in jaxpr.eqns:
        inner = [] if eqn.primitive.name == "cond" else jaxprs_in_params(eqn.params)
        if parts := list(inner):
            total += sum(map(_value_bytes, parts))
        else:
            total += sum(x.aval.size * x.aval.dtype.itemsize for x in eqn.outvars)
    return total


def cache_groups(num: int, size: int, params: Params) -> int:
    """Returns how many of `num` groups of `size` examples to process at once.

    On a CPU the largest divisor of `num` with at most as many examples in all as a piece of
    `cache_chunk` has about; otherwise `num`.

    >>> 4 % inner.cache_groups(4, 1, jnp.ones(2))
    0
    """
    if not platforms.on_cpu():
        return num
    most = max(1, _cached(params)[0] // size)
    return max(n for n in range(1, most + 1) if num % n == 0)


def filled(tree: Any, chunk: int) -> Any:
    """Returns leaves [b, ...] as pieces [m, chunk, ...], the last filled by repetition.

    >>> inner.filled(np.arange(5), chunk=3).tolist()
    [[0, 1, 2], [3, 4, 0]]
    """

    def fill(x: Array) -> Array:
        if empty := -len(x) % chunk:
            x = jnp.concatenate([x, x[np.arange(empty) % len(x)]])
        return x.reshape(-1, chunk, *x.shape[1:])

    return jax.tree.map(fill, tree)


def terms(
    loss_fn: Callable[[Params, Any], Array], batch: Any, chunk: int
) -> tuple[Callable[[Params, Any], Array], Any]:
    """Writes a mean over a batch as a sum over pieces of `chunk` examples.

    Where `chunk` does not divide the batch, the last piece is filled with repeated examples
    of weight zero, and each example has its own loss: that of `losses.Mean`, or of another
    function the value at this example.

    >>> def loss_fn(w, batch):
    ...     return jnp.mean((batch - w) ** 2)
    ...
    >>> term, pieces = inner.terms(loss_fn, np.arange(4.0), chunk=2)
    >>> [float(term(0.0, jax.tree.map(lambda leaf: leaf[i], pieces))) for i in range(2)]
    [0.25, 3.25]

    Args:
      loss_fn: (params, batch) -> f32[], the mean over the leading axis of the batch.
      batch: a pytree; its leaves have a leading axis b.
      chunk: examples of a piece.

    Returns:
      `term`, (params, piece) -> f32[], and the pieces, with a leading axis m: the sum of
      `term` over them is the loss.

    Raises:
      InputError: `chunk` is not in 1..b, or leading axes differ; when called, the loss is
        not one number.
    """
    loss_fn = _one_number(loss_fn)
    lengths = [jnp.shape(x)[:1] for x in jax.tree.leaves(batch)]
    if len(set(lengths)) != 1 or not all(lengths):
        raise InputError(
            f"the batch has leading axes {[list(shape) for shape in lengths]}, to be "
            f"computed {chunk} at a time: give one entry an example, or chunk=None"
        )
    (num,), chunk = lengths[0], checks.integer(chunk, "chunk")
    if not 1 <= chunk <= num:
        raise InputError(f"chunk={chunk}: must lie in 1..{num}, the size of the batch")
    parts = filled(batch, chunk)
    if num % chunk == 0:
        return lambda params, piece: loss_fn(params, piece) * (chunk / num), parts
    weights = (jnp.arange(num + -num % chunk) < num).reshape(-1, chunk) / num

    def alone(params: Params, examples: Any) -> Array:
        def one(example: Any) -> Array:
            return loss_fn(params, jax.tree.map(lambda x: x[None], example))

        return jax.vmap(one)(examples)

    losses_of = loss_fn.each if isinstance(loss_fn, Mean) else alone

    def weighted(params: Params, piece: tuple[Any, Array]) -> Array:
        examples, weight = piece
        each = losses_of(params, examples)
        if each.shape != weight.shape:
            raise InputError(
                f"losses.Mean: each returned f32{list(each.shape)} for {len(weight)} "
                f"examples; expected one loss for each, f32[{len(weight)}]"
            )
        return (each * weight.astype(each.dtype)).sum()

    return weighted, (parts, weights)


def value_and_grad(
    loss_fn: Callable[[Params, Any], Array],
    params: Params,
    batch: Any,
    chunk: int | None = None,
) -> tuple[Array, Params]:
    """Returns the loss and its gradient, computed `chunk` examples at a time.

    The result is independent of `chunk` up to rounding if `loss_fn` is a mean over the
    leading axis of all leaves of `batch`. Differentiating the result recomputes each chunk
    instead of storing its intermediate values. Of a `losses.SharedMean` each device
    computes a share of the batch, and all have the mean.

    >>> def loss_fn(w, batch):
    ...     return jnp.mean((batch - w) ** 2)
    ...
    >>> start, points = jnp.zeros(()), jnp.arange(4.0)
    >>> loss, gradient = inner.value_and_grad(loss_fn, start, points, chunk=2)
    >>> float(loss), float(gradient)
    (3.5, -3.0)

    Args:
      loss_fn: (params, batch) -> f32[].
      params: point at which to evaluate.
      batch: a pytree; its leaves have a leading axis b if `chunk` is given.
      chunk: examples that a device computes at a time; None for all at once. See `terms`.

    Raises:
      InputError: `chunk` is not in 1..b, leading axes that differ where there is one, or
        the loss is not one number.
    """
    if isinstance(loss_fn, SharedMean):
        return _shared_value_and_grad(loss_fn, params, batch, chunk)
    if chunk is None:
        return varying.value_and_grad(_one_number(loss_fn))(params, batch)
    term, parts = terms(loss_fn, batch, chunk)

    def add(total: tuple[Array, Params], piece: Any) -> tuple[Any, None]:
        found = varying.value_and_grad(term)(params, piece)
        return jax.tree.map(jnp.add, total, found), None

    loss = jax.eval_shape(term, params, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, params))
    return scan(add, zeros, parts, remat="step")[0]


def _shared_value_and_grad(
    loss_fn: SharedMean, params: Params, batch: Any, chunk: int | None
) -> tuple[Array, Params]:
    """Computes a share of the batch on each device, the last filled with weight zero.

    Weights and gradients cross devices as one vector: a collective costs more than what it
    moves, and its derivatives are as many.
    """
    flat, unflatten = ravel_pytree(params)
    flat = varying.vary(flat, frozenset({loss_fn.axis}))
    num, share = len(jax.tree.leaves(batch)[0]), jax.lax.axis_size(loss_fn.axis)
    own, this = -(-num // share), jax.lax.axis_index(loss_fn.axis)
    pick = functools.partial(jax.lax.dynamic_index_in_dim, index=this, keepdims=False)
    local, given = Mean(loss_fn.each), jax.tree.map(pick, filled(batch, own))
    if num % share:
        counts = this * own + jnp.arange(own) < num
        given = given, jnp.where(counts, share * own / num, 0.0)
        local = Mean(lambda p, given: _weighted(loss_fn.each(p, given[0]), given[1]))
    found = value_and_grad(local, unflatten(flat), given, chunk)
    both, separate = ravel_pytree(found)
    return cast(tuple[Array, Params], separate(jax.lax.pmean(both, loss_fn.axis)))


def _weighted(each: Array, weight: Array) -> Array:
    return each * weight.astype(each.dtype)


def _one_number(loss_fn: Callable[[Params, Any], Array]) -> Callable[..., Array]:
    if isinstance(loss_fn, Mean):
        return loss_fn

    def checked(params: Params, batch: Any) -> Array:
        loss = loss_fn(params, batch)
        shape = getattr(loss, "shape", () if isinstance(loss, float) else None)
        if shape != ():
            found = type(loss).__name__ if shape is None else f"f32{list(shape)}"
            raise InputError(
                f"loss_fn returned {found}; expected one number, the mean over the batch, "
                "without anything beside it"
            )
        return loss

    return checked


def _update(
    optimizer: optax.GradientTransformation, grads: Params, state: InnerState
) -> tuple[Params, optax.OptState]:
    with checks.plain_updates("an inner step"):
        return optimizer.update(grads, state.opt_state, state.params)


def step(
    loss_fn: Callable[[Params, Any], Array],
    optimizer: optax.GradientTransformation,
    state: InnerState,
    batch: Any,
    *,
    chunk: int | None = None,
) -> tuple[InnerState, Array]:
    """Takes one inner step; returns the new state and the loss before it, f32[].

    See `value_and_grad` for `chunk`.

    >>> import optax
    >>> def loss_fn(w, batch):
    ...     return jnp.mean((batch - w) ** 2)
    ...
    >>> rule = optax.sgd(0.25)
    >>> state = inner.init(jnp.zeros(()), rule)
    >>> state, loss = inner.step(loss_fn, rule, state, jnp.ones(4))
    >>> float(state.params), float(loss)
    (0.5, 1.0)
    """
    loss, grads = value_and_grad(loss_fn, state.params, batch, chunk)
    grads = checkpoint_name(grads, GRADIENT)
    updates, opt_state = _update(optimizer, grads, state)
    return InnerState(optax.apply_updates(state.params, updates), opt_state), loss


def unroll(
    loss_fn: Callable[[Params, Any], Array],
    optimizer: optax.GradientTransformation,
    sample_batch: SampleBatch,
    state: InnerState,
    inputs: Any,
    *,
    remat: Remat = "step",
    chunk: int | None = None,
) -> tuple[InnerState, Array]:
    """Takes T inner steps, differentiable with respect to all inputs.

    Step t computes w_{t+1} = w_t - optimizer(grad loss_fn(w_t, sample_batch(inputs[t]))).

    >>> import optax
    >>> def loss_fn(w, batch):
    ...     return jnp.mean((batch - w) ** 2)
    ...
    >>> def trained(point):
    ...     rule = optax.sgd(0.25)
    ...     state = inner.init(jnp.zeros(()), rule)
    ...     state, _ = inner.unroll(loss_fn, rule, lambda _: point, state, jnp.arange(2))
    ...     return state.params
    ...
    >>> value, slope = jax.value_and_grad(trained)(jnp.ones(4))
    >>> float(value), slope.tolist()
    (0.75, [0.1875, 0.1875, 0.1875, 0.1875])

    Args:
      loss_fn: (params, batch) -> f32[].
      optimizer: an optax transformation; its learning rate may be a traced value. It is
        differentiated too: one that takes square roots needs `eps_root=EPS_ROOT`, as in
        `optax.adam(rate, eps_root=EPS_ROOT)`, or the derivative is NaN where a weight has
        never had a gradient, such as behind a dead ReLU.
      sample_batch: inputs[t] -> batch t. It may close over learned values.
      state: initial state.
      inputs: a pytree of arrays with leading axis T; keys, or indices of minibatches.
      remat: rematerialisation policy, see `distilljax.core.scan`.
      chunk: see `value_and_grad`.

    Returns:
      The state after T steps, and f32[T], the loss before each step.

    Raises:
      InputError: inputs without a common leading axis, a loss that is not one number, an
        optimizer that needs more than gradients, such as a line search.
    """
    _num_steps(inputs)

    def body(state: InnerState, given: Any) -> tuple[InnerState, Array]:
        return step(loss_fn, optimizer, state, sample_batch(given), chunk=chunk)

    return scan(body, state, inputs, remat=remat)


def _num_steps(inputs: Any) -> int:
    shapes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)}
    if len(shapes) != 1 or () in shapes:
        found = f"leading axes {sorted(shapes)}" if shapes else "no arrays"
        raise InputError(
            f"inputs has {found}: give arrays of one leading axis, the number of steps, "
            "such as jnp.arange(num_steps)"
        )
    return shapes.pop()[0]


def _burn_in(
    loss_fn: Callable[[Params, Any], Array],
    optimizer: optax.GradientTransformation,
    sample_batch: SampleBatch,
    state: InnerState,
    inputs: Any,
    num: Array | int,
    chunk: int | None,
) -> InnerState:
    """Takes `num` plain steps, whose result is a constant."""
    constant = jax.lax.stop_gradient

    def body(t: Array, state: InnerState) -> InnerState:
        batch = constant(sample_batch(jax.tree.map(lambda x: x[t], inputs)))
        return constant(step(loss_fn, optimizer, state, batch, chunk=chunk)[0])

    return varying.fori_loop(0, num, body, constant(state))


def truncated_unroll(
    loss_fn: Callable[[Params, Any], Array],
    optimizer: optax.GradientTransformation,
    sample_batch: SampleBatch,
    state: InnerState,
    inputs: Any,
    *,
    start: Array | int,
    window: int,
    remat: Remat = "step",
    chunk: int | None = None,
) -> tuple[InnerState, Array]:
    """Takes `start` plain steps, then `window` differentiable ones.

    Only the window is differentiated, with the state at `start` a constant: truncated
    back-propagation through time. With `start` sampled for every meta-gradient it is
    RaT-BPTT (Feng et al. 2023, arXiv 2310.04295).

    >>> import optax
    >>> def loss_fn(w, batch):
    ...     return jnp.mean((batch - w) ** 2)
    ...
    >>> def trained(point):
    ...     rule = optax.sgd(0.25)
    ...     state = inner.init(jnp.zeros(()), rule)
    ...     state, _ = inner.truncated_unroll(
    ...         loss_fn, rule, lambda _: point, state, jnp.arange(2), start=1, window=1)
    ...     return state.params
    ...
    >>> value, slope = jax.value_and_grad(trained)(jnp.ones(4))
    >>> float(value), slope.tolist()
    (0.75, [0.125, 0.125, 0.125, 0.125])

    Args:
      loss_fn: as in `unroll`.
      optimizer: as in `unroll`.
      sample_batch: as in `unroll`.
      state: the network at step 0.
      inputs: a pytree of arrays with leading axis T >= start + window.
      start: i32[], number of burn-in steps; may be traced, so that one compiled program
        serves every start. A traced start beyond T - window is clamped to it.
      window: number of differentiable steps.
      remat: as in `unroll`.
      chunk: as in `unroll`.

    Returns:
      The state after start + window steps, and f32[window], the loss before each
      step of the window.

    Raises:
      InputError: the window exceeds the unroll.
    """
    num_steps = _num_steps(inputs)
    latest = num_steps - window
    if not 1 <= window <= num_steps:
        raise InputError(f"window={window}: must lie in 1..{num_steps}, the unroll length")
    if (known := checks.concrete(start)) is not None:
        start = checks.integer(known[()], "start")
        if not 0 <= start <= latest:
            raise InputError(
                f"start={start}: must lie in 0..{latest}, unroll length - window"
            )

    constant = jax.lax.stop_gradient
    start = jnp.clip(jnp.asarray(start, jnp.int32), 0, latest)

    state = _burn_in(loss_fn, optimizer, sample_batch, state, inputs, start, chunk)
    rest = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, window), inputs)
    return unroll(
        loss_fn, optimizer, sample_batch, constant(state), rest, remat=remat, chunk=chunk
    )


def sized_unroll(
    loss_fn: Callable[[Params, Any], Array],
    optimizer: optax.GradientTransformation,
    sample_batch: SampleBatch,
    state: InnerState,
    inputs: Any,
    *,
    start: Array | int,
    size: Array | int,
    largest: int,
    remat: Remat = "step",
    chunk: int | None = None,
) -> tuple[InnerState, Array]:
    """Takes `start` plain steps, then `size` differentiable ones; both may be traced.

    `truncated_unroll` with a window whose size is known when the program runs: one compiled
    program serves all sizes up to `largest`, and costs what `largest` costs.

    >>> import optax
    >>> def loss_fn(w, batch):
    ...     return jnp.mean((batch - w) ** 2)
    ...
    >>> def trained(point, size):
    ...     rule = optax.sgd(0.25)
    ...     state = inner.init(jnp.zeros(()), rule)
    ...     state, _ = inner.sized_unroll(
    ...         loss_fn, rule, lambda _: point, state, jnp.arange(2),
    ...         start=2 - size, size=size, largest=2)
    ...     return state.params
    ...
    >>> jax.jit(jax.grad(trained))(jnp.ones(4), 1).tolist()
    [0.125, 0.125, 0.125, 0.125]

    Args:
      loss_fn: as in `unroll`.
      optimizer: as in `unroll`.
      sample_batch: as in `unroll`.
      state: the network at step 0.
      inputs: a pytree of arrays with leading axis T.
      start: i32[], number of plain steps, clamped to 0..T - size.
      size: i32[], number of differentiable steps, clamped to 1..largest.
      largest: maximum of `size`.
      remat: as in `unroll`.
      chunk: as in `unroll`.

    Returns:
      The state after start + size steps, and f32[largest], the losses at `largest`
      successive steps that hold the window, the last state's repeated after its end.

    Raises:
      InputError: `largest` exceeds the unroll.
    """
    num_steps = _num_steps(inputs)
    if not 1 <= largest <= num_steps:
        raise InputError(
            f"largest={largest}: must lie in 1..{num_steps}, the unroll length"
        )
    constant = jax.lax.stop_gradient
    size = jnp.clip(jnp.asarray(size, jnp.int32), 1, largest)
    start = jnp.clip(jnp.asarray(start, jnp.int32), 0, num_steps - size)
    # Of `largest` successive steps the window is `first` to `first + size`.
    burned = jnp.clip(start + size - largest, 0, num_steps - largest)
    first = start - burned

    def body(state: InnerState, given: tuple[Array, Any]) -> tuple[InnerState, Array]:
        t, rest = given
        state = _where(t <= first, constant(state), state)
        new, loss = step(loss_fn, optimizer, state, sample_batch(rest), chunk=chunk)
        return _where(t < first + size, new, state), loss

    state = _burn_in(loss_fn, optimizer, sample_batch, state, inputs, burned, chunk)
    rest = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, burned, largest), inputs)
    return scan(body, state, (jnp.arange(largest, dtype=jnp.int32), rest), remat=remat)


def _where(condition: Array, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)
