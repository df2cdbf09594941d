"""Hessian and Gauss-Newton matrix of a mean loss, by products and by quadratic forms.

    matvec = hvp(loss_fn, params, batch)
    estimate = trace(loss_fn, params, batch, key, num_probes=100)

`loss_fn(params, batch)` is the mean over the batch; the parameters are any pytree of
float arrays, the batch any pytree of arrays whose leading axis counts examples. Data that
do not fit in one pass are walked `chunk` examples at a time inside the compiled program;
`read` turns a chunk into what the loss takes, such as bytes into normalised images. Data
whose leading axis is sharded over devices stay where they are: every device works on its
share of each chunk, and the results are added.

Parameters of half precision are used in float32; products are then float32 too.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from distilljax import checks, devices, varying
from distilljax.curvature import estimators
from distilljax.curvature.estimators import Kind, MatVec, Vector
from distilljax.types import Array, Estimate, InputError, Key, Params

LossFn = Callable[[Params, Any], Array]
Read = Callable[[Any], Any]


def _identity(batch: Any) -> Any:
    return batch


def num_examples(data: Any) -> int:
    """The common leading axis of all arrays.

    >>> hessian.num_examples((np.zeros((5, 3)), np.zeros(5)))
    5

    Raises:
      InputError: there is none.
    """
    shapes = [jnp.shape(x) for x in jax.tree.leaves(data)]
    if not shapes or not all(shapes) or len({shape[0] for shape in shapes}) > 1:
        raise InputError(
            "a data set is arrays whose leading axes agree, one entry an example; these "
            f"have the shapes {', '.join(map(str, shapes)) or 'of nothing'}"
        )
    if shapes[0][0] == 0:
        raise InputError("the data set is empty: there is nothing to take the mean of")
    return shapes[0][0]


def check(loss_fn: LossFn, params: Params, data: Any, read: Read = _identity) -> None:
    """Refuses what has no Hessian.

    >>> hessian.check(lambda w, x: jnp.mean((x @ w) ** 2), jnp.ones(2), jnp.eye(2))

    Raises:
      InputError: a loss that is no real number, parameters that are not floating point,
        or data whose leading axes differ.
    """
    num_examples(data)
    checks.floating(params)
    checks.call(loss_fn, "the loss", "params", "batch")
    found = jax.eval_shape(lambda p, d: loss_fn(p, read(d)), params, data)
    shape = getattr(found, "shape", None)
    if shape != () or not jnp.issubdtype(found.dtype, jnp.floating):
        shown = found if shape is None else shape or found.dtype
        raise InputError(
            f"the loss returned {shown} instead of one number; return the mean over the "
            "batch, f32[]"
        )


def check_mean(
    loss_fn: LossFn,
    params: Params,
    data: Any,
    chunk: int | None,
    read: Read = _identity,
) -> None:
    """Refuses a sum over examples where chunks are averaged; two examples tell.

    >>> hessian.check_mean(
    ...     lambda w, x: jnp.mean((x @ w) ** 2), jnp.ones(2), jnp.eye(2), chunk=1)

    Raises:
      InputError: a loss that doubles when its example is given twice; nothing is checked
        without chunks, or where arrays are traced.
    """
    chunk = _whole(chunk)
    if chunk is None or chunk >= num_examples(data):
        return
    if not checks.concrete_tree((params, data)):
        return

    @jax.jit
    def losses(params: Params, data: Any) -> Array:
        one, two = (
            jax.tree.map(lambda x, n=n: jnp.repeat(jnp.asarray(x)[:1], n, 0), data)
            for n in (1, 2)
        )
        return jnp.stack([loss_fn(params, read(one)), loss_fn(params, read(two))])

    found = losses(params, data)
    if isinstance(found, jax.core.Tracer):
        return
    once, twice = (float(x) for x in found)
    if once and abs(twice - 2 * once) < 1e-3 * abs(once):
        raise InputError(
            "the loss is a sum over examples, and chunks are averaged: divide it by the "
            "number of examples, or give chunk=None"
        )


def _whole(chunk: int | None) -> int | None:
    if chunk is None:
        return None
    return checks.positive(chunk, "chunk", "give at least one example, or None for all")


def mean_over(
    function: Callable[[Any], Any],
    data: Any,
    *,
    chunk: int | None,
    read: Read = _identity,
    mesh: Mesh | None = None,
) -> Any:
    """The mean of function(batch) over all examples, computed chunk after chunk.

    >>> float(hessian.mean_over(jnp.mean, jnp.arange(5.0), chunk=2))
    2.0

    Args:
      function: batch -> a pytree of floats that is a mean over the batch.
      data: a pytree of arrays with one leading axis n.
      chunk: examples at a time; None for all at once. Where it does not divide n, what
        is left over is one smaller batch, weighted by its size. The sum is kept in float32
        at least.
      read: chunk of the data -> batch.
      mesh: devices that share the examples, `chunk` at a time on each; None for one. What
        they do not divide is one smaller batch that all of them compute.

    Raises:
      InputError: leading axes that differ, or an empty chunk.
    """
    num = num_examples(data)
    chunk = _whole(chunk)
    if mesh is not None and num >= devices.size(mesh):
        return _mean_over_devices(function, data, mesh, chunk, read)
    if chunk is None or chunk >= num:
        return function(read(data))
    num_chunks = num // chunk
    whole = num_chunks * chunk
    # Chunk i is every num_chunks-th example, so that a sharded axis stays sharded.
    strided = jax.tree.map(
        lambda x: x[:whole].reshape(chunk, num_chunks, *x.shape[1:]), data
    )

    def one(i: Array) -> Any:
        part = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, 1, False), strided)
        return function(read(part))

    def add(total: Any, i: Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, one(i)), None

    shapes = jax.eval_shape(one, jnp.asarray(0))
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), shapes
    )
    total, _ = varying.scan(add, zeros, jnp.arange(num_chunks))
    total = jax.tree.map(lambda x: x * (chunk / num), total)
    if whole < num:
        rest = function(read(jax.tree.map(lambda x: x[whole:], data)))
        total = jax.tree.map(lambda x, y: x + y * ((num - whole) / num), total, rest)
    return jax.tree.map(lambda x, shape: x.astype(shape.dtype), total, shapes)


def _mean_over_devices(
    function: Callable[[Any], Any], data: Any, mesh: Mesh, chunk: int | None, read: Read
) -> Any:
    num = num_examples(data)
    whole = num - num % mesh.size

    def share(data: Any) -> Any:
        return mean_over(function, data, chunk=chunk, read=read)

    shares = jax.tree.map(
        lambda x: x[:whole].reshape(mesh.size, whole // mesh.size, *x.shape[1:]), data
    )
    found = devices.spread(share, shares, mesh)
    found = jax.tree.map(lambda x: x.mean(axis=0), found)
    if whole == num:
        return found
    rest = function(read(jax.tree.map(lambda x: x[whole:], data)))
    return jax.tree.map(
        lambda x, y: x * (whole / num) + y * ((num - whole) / num), found, rest
    )


def hvp(
    loss_fn: LossFn,
    params: Params,
    data: Any,
    *,
    chunk: int | None = None,
    read: Read = _identity,
    mesh: Mesh | None = None,
) -> MatVec:
    """Products with the Hessian of the mean loss, forward over reverse (Pearlmutter 1994).

    Args:
      loss_fn: (params, batch) -> f32[], the mean over the batch.
      params: a pytree of float arrays.
      data: a pytree of arrays with one leading axis.
      chunk: see `mean_over`.
      read: see `mean_over`.
      mesh: see `mean_over`.

    Returns:
      v -> H v, both pytrees like `params`.

    >>> product = hessian.hvp(
    ...     lambda w, x: jnp.mean((x @ w) ** 2), jnp.ones(2), jnp.eye(2))
    >>> product(jnp.array([1.0, 0.0])).tolist()
    [1.0, 0.0]

    Raises:
      InputError: see `check` and `mean_over`.
    """
    check(loss_fn, params, data, read)
    check_mean(loss_fn, params, data, chunk, read)
    params = checks.at_least_float32(params)

    def matvec(v: Vector) -> Vector:
        v = _like(v, params)
        at, examples = _at_run_time(v, params, data)

        def product(batch: Any) -> Vector:
            grad = varying.grad(lambda p: loss_fn(p, batch))
            with _forward_over_reverse():
                return varying.jvp(grad, at, v)[1]

        return mean_over(product, examples, chunk=chunk, read=read, mesh=mesh)

    return matvec


def ggn(
    apply: Callable[[Params, Any], Array],
    params: Params,
    data: Any,
    *,
    output_loss: Callable[[Array, Any], Array] | None = None,
    chunk: int | None = None,
    read: Read = _identity,
    mesh: Mesh | None = None,
) -> MatVec:
    """Products with the generalised Gauss-Newton matrix J^T H_out J (Schraudolph 2002).

    J are the derivatives of the outputs, H_out those of second order of the loss with
    respect to the outputs; positive semidefinite where the loss is convex in them, and
    for cross-entropy the Fisher matrix of the model's own distribution.

    >>> from distilljax.types import Batch
    >>> points = Batch(jnp.eye(2), jnp.eye(2))
    >>> product = hessian.ggn(lambda w, x: x @ w, jnp.zeros((2, 2)), points)
    >>> jnp.round(product(jnp.eye(2)), 3).tolist()
    [[0.125, -0.125], [-0.125, 0.125]]

    Args:
      apply: (params, batch.images) -> f32[b, k].
      params: a pytree of float arrays.
      data: `Batch`es, or what `read` makes them of.
      output_loss: (outputs, labels) -> f32[], the mean over the batch; cross-entropy if
        None.
      chunk: see `mean_over`.
      read: see `mean_over`.
      mesh: see `mean_over`.

    Raises:
      InputError: see `check` and `mean_over`.
    """

    def cross_entropy(logits: Array, labels: Any) -> Array:
        checks.label_rows(logits, labels)
        return optax.losses.softmax_cross_entropy(logits, labels).mean()

    of_outputs = output_loss or cross_entropy

    def loss_fn(params: Params, batch: Any) -> Array:
        return of_outputs(apply(params, batch.images), batch.labels)

    check(loss_fn, params, data, read)
    check_mean(loss_fn, params, data, chunk, read)
    params = checks.at_least_float32(params)

    def matvec(v: Vector) -> Vector:
        v = _like(v, params)
        at, examples = _at_run_time(v, params, data)

        def product(batch: Any) -> Vector:
            with _forward_over_reverse():
                outputs, pull = varying.vjp(lambda p: apply(p, batch.images), at, v)
                _, moved = varying.jvp(lambda p: apply(p, batch.images), at, v)
                grad = varying.grad(lambda z: of_outputs(z, batch.labels))
                return pull(varying.jvp(grad, outputs, moved)[1])[0]

        return mean_over(product, examples, chunk=chunk, read=read, mesh=mesh)

    return matvec


def _at_run_time(v: Vector, *fixed: Any) -> Any:
    """Keeps XLA from computing with fixed arrays while it compiles a function of v.

    Of a jitted function whose parameters and data are constants the forward pass would be
    folded at compile time, which takes minutes for a ConvNet.
    """
    if checks.concrete_tree(v) or not checks.concrete_tree(fixed):
        return fixed
    return jax.lax.optimization_barrier(fixed)


def along(loss_fn: LossFn, params: Params, batch: Any, v: Vector) -> Array:
    """v^T H v, f32[]: the second derivative of the loss along v, forward over forward.

    No reverse pass, so nothing is stored on the way, and about 5/9 of the
    multiplications of a Hessian-vector product of a convolutional network.

    Args:
      loss_fn: (params, batch) -> f32[].
      params: a pytree of float arrays.
      batch: what `loss_fn` takes, in one pass.
      v: a pytree like `params`.

    >>> float(hessian.along(
    ...     lambda w, x: jnp.mean((x @ w) ** 2), jnp.ones(2), jnp.eye(2),
    ...     jnp.array([2.0, 0.0])))
    4.0
    """
    params, batch = _at_run_time(v, params, batch)
    return _along(loss_fn, params, batch, v)


def _along(loss_fn: LossFn, params: Params, batch: Any, v: Vector) -> Array:
    def slope(params: Params) -> Array:
        return varying.jvp(lambda p: loss_fn(p, batch), params, v)[1]

    with checks.derivatives(
        "the second derivative of the loss, forward over forward,",
        "use jax.custom_jvp in place of custom_vjp, or estimators.hutchinson_trace of "
        "hessian.hvp, which is forward over reverse",
    ):
        return varying.jvp(slope, params, v)[1]


def _forward_over_reverse() -> contextlib.AbstractContextManager:
    return checks.derivatives(
        "the second derivative, forward over reverse,",
        "use lax.scan in place of while_loop, and jax.custom_jvp in place of custom_vjp, "
        "or a forward rule of it that does not call the function itself",
    )


def _like(v: Vector, params: Params) -> Vector:
    return jax.tree.map(lambda x, p: jnp.asarray(x, p.dtype), v, params)


def trace(
    loss_fn: LossFn,
    params: Params,
    data: Any,
    key: Key,
    *,
    num_probes: int,
    kind: Kind = "rademacher",
    chunk: int | None = None,
    read: Read = _identity,
    together: int = 1,
    mesh: Mesh | None = None,
) -> Estimate:
    """The trace of the Hessian of the mean loss over all of `data` (Hutchinson).

    >>> found = hessian.trace(
    ...     lambda w, x: jnp.mean((x @ w) ** 2), jnp.ones(2), jnp.eye(2), jax.random.key(0),
    ...     num_probes=3)
    >>> float(found.value), float(found.standard_error)
    (2.0, 0.0)

    Args:
      loss_fn: (params, batch) -> f32[], the mean over the batch.
      params: a pytree of float arrays.
      data: a pytree of arrays with one leading axis.
      key: PRNG key; the probes of a smaller number are a prefix of those of a larger one.
      num_probes: how many.
      kind: of probes.
      chunk: examples in one pass; every probe is drawn once, for all chunks.
      read: see `mean_over`.
      together: probes computed side by side.
      mesh: devices that share the examples, see `mean_over`.

    Raises:
      InputError: fewer than one probe, see also `check` and `mean_over`; outside jit, a
        trace that is not finite.
    """
    estimators.check_probes(num_probes, kind)
    checks.one_key(key)
    together = checks.positive(together, "together")
    check(loss_fn, params, data, read)
    check_mean(loss_fn, params, data, chunk, read)
    params, data = _at_run_time(key, checks.at_least_float32(params), data)

    def forms(data: Any) -> Array:
        def form(i: Array) -> Array:
            v = estimators.probe(jax.random.fold_in(key, i), params, kind)
            return mean_over(
                lambda batch: _along(loss_fn, params, batch, v),
                data,
                chunk=chunk,
                read=read,
            )

        return jax.lax.map(
            form, jnp.arange(num_probes), batch_size=together if together > 1 else None
        )

    values = mean_over(forms, data, chunk=None, mesh=mesh)
    return estimators.summarise(values, "trace of the Hessian of the mean loss")


def batch_trace(
    loss_fn: LossFn,
    params: Params,
    data: Any,
    key: Key,
    *,
    batch: int,
    num_probes: int | None = None,
    relative_error: float | None = None,
    max_probes: int = 10_000,
    kind: Kind = "rademacher",
    chunk: int | None = None,
    read: Read = _identity,
    together: int = 1,
    mesh: Mesh | None = None,
) -> Estimate:
    """The trace over all of `data` where each probe meets a random batch of its own.

    Unbiased for the trace over the whole data, and the standard error holds both the
    choice of probes and that of images, because each pair is drawn anew. The spread of
    one Hutchinson probe is mostly that of the probe, so a few hundred images a probe buy
    the same standard error as all of them, at a cost that does not grow with the data.

    >>> found = hessian.batch_trace(
    ...     lambda w, x: jnp.mean((x @ w) ** 2), jnp.ones(2), jnp.eye(2), jax.random.key(0),
    ...     batch=1, num_probes=3)
    >>> float(found.value)
    2.0

    Args:
      loss_fn: (params, batch) -> f32[], the mean over the batch.
      params: a pytree of float arrays.
      data: a pytree of arrays with one leading axis n.
      key: PRNG key of probes and batches; one key along a training run makes curves smooth.
      batch: images a probe, drawn without replacement.
      num_probes: how many; or
      relative_error: the standard error to reach, see `estimators.sampled_mean_to`.
      max_probes: the most that may be used for that.
      kind: of probes.
      chunk: images of a batch in one pass; None for all at once.
      read: see `mean_over`.
      together: probes computed side by side, where their number is given.
      mesh: devices that share the probes, where their number is given; None for one.

    Raises:
      InputError: a batch larger than the data, both or neither of num_probes and
        relative_error, see also `check`; outside jit, a trace that is not finite.
    """
    if (num_probes is None) == (relative_error is None):
        raise InputError("give either num_probes or relative_error")
    estimators.check_probes(1 if num_probes is None else num_probes, kind)
    checks.one_key(key)
    check(loss_fn, params, data, read)
    check_mean(loss_fn, params, data, chunk, read)
    params, data = _at_run_time(key, checks.at_least_float32(params), data)
    num, batch = num_examples(data), checks.integer(batch, "batch")
    if not 1 <= batch <= num:
        raise InputError(f"batch={batch}: must lie in 1..{num}, the number of images")

    def sample(key: Key) -> Array:
        probe_key, batch_key = jax.random.split(key)
        if batch == num:
            drawn = data
        else:
            _, chosen = jax.lax.top_k(jax.random.bits(batch_key, (num,)), batch)
            drawn = jax.tree.map(lambda x: x[chosen], data)
        v = estimators.probe(probe_key, params, kind)
        return mean_over(
            lambda batch: _along(loss_fn, params, batch, v), drawn, chunk=chunk, read=read
        )

    of = "trace of the Hessian of the mean loss"
    if num_probes is not None:
        return estimators.sampled_mean(
            sample, key, num_probes=num_probes, together=together, of=of, mesh=mesh
        )
    assert relative_error is not None
    return estimators.sampled_mean_to(
        sample, key, relative_error=relative_error, max_probes=max_probes, of=of
    )
