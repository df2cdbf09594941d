"""The empirical neural tangent kernel K(x, x') = J(x) J(x')^T of a network.

J(x) is the Jacobian of the k outputs with respect to all p parameters (Jacot, Gabriel &
Hongler 2018, arXiv 1806.07572). `apply(params, x) -> f32[n, k]` is any function of any
pytree of float parameters whose outputs for an image depend on that image alone. Four
representations, with their cost for n images in passes of one image through the network:

    empirical_ntk   exact; n^2 k / (2 block) reverse passes, and products of Jacobians
    ntk_vp          exact; n reverse and n forward passes for each product with a vector
    sketch          random; n m forward passes for m directions, without Jacobians
    linearised      the network with this kernel; twice the cost of the network

All are pure functions that work under jit, vmap and differentiation.
"""

import contextlib
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from distilljax import checks, devices, varying
from distilljax.curvature.estimators import Kind, check_probes, probe
from distilljax.types import Array, Estimate, InputError, Key, Params

Apply = Callable[[Params, Array], Array]
Form = Literal["full", "trace", "classes"]

_BUDGET = 2**28  # bytes of Jacobians if no block is given
_PRECISE = jax.lax.Precision.HIGHEST
_OF = {
    "full": "empirical NTK",
    "trace": "empirical NTK, trace over outputs",
    "classes": "empirical NTK of each output",
}


def empirical_ntk(
    apply: Apply,
    params: Params,
    x1: Array,
    x2: Array | None = None,
    *,
    form: Form = "full",
    block: int | None = None,
    mesh: Mesh | None = None,
) -> Array:
    """Returns the kernel between all images of two sets, by contraction of Jacobians.

    Memory holds the Jacobians of one block of images of each set: 2 block p s bytes for p
    parameters of s bytes, times k for the form `full`; the other forms process one output
    at a time. Activations of a block and twice the kernel add to this. The Jacobian of an
    image of x1 is computed once (for each output), that of an image of x2 once for each
    block of x1, n1 + n2 ceil(n1 / block) in all, about half of it without x2; larger blocks
    are faster. The contraction takes 2 n1 n2 k p operations, half of it without x2, times k
    for `full`. Reverse-mode differentiation stores the Jacobians of all blocks.

    >>> x = jnp.array([[1.0, 2.0], [0.0, 1.0]])
    >>> ntk.empirical_ntk(lambda w, x: x @ w, jnp.zeros((2, 1)), x)[:, :, 0, 0].tolist()
    [[5.0, 2.0], [2.0, 1.0]]

    Args:
      apply: (params, f32[n, ...]) -> f32[n, k].
      params: a pytree of float arrays.
      x1: f32[n1, ...], a list that makes such an array, or a pytree of such arrays.
      x2: f32[n2, ...]; None for x1 itself, and then the matrix is symmetric to the bit.
      form: `full` has K[i, j, a, b] = J_a(x1_i) . J_b(x2_j) for outputs a and b; `trace`
        sums K[i, j, a, a] over a (divided by k it is the mean kernel of an output);
        `classes` gives the k kernels K[i, j, a, a], one per output.
      block: maximum number of images of a set whose Jacobians are in memory at a time; None
        for as many as fit 256 MiB, but at least one.
      mesh: devices that share the images of x1; None for one. Each then computes its rows
        of the kernel, without x2 the half below the diagonal too.

    Returns:
      f32[n1, n2, k, k], f32[n1, n2] or f32[k, n1, n2].

    Raises:
      InputError: parameters that are not floating point, outputs that are not [n, k],
        sets whose images differ in shape or that are empty, an unknown form, a block
        below one; outside of tracing, outputs for an image that depend on the others.
    """
    _check_form(form)
    _check_block(block)
    params, x1, x2 = _arrays(params, x1, x2)
    num_outputs = _check(apply, params, *([x1] if x2 is None else [x1, x2]))
    if block is None:
        held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
        held *= num_outputs if form == "full" else 1
        block = max(1, _BUDGET // (2 * max(1, held)))

    if mesh is not None:
        return _shared(apply, params, x1, x2, form, block, mesh)

    def kernel(outputs: Array) -> Array:
        return _kernel(apply, params, x1, x2, outputs, block)

    outputs = jnp.arange(num_outputs)
    if form == "full":
        return kernel(outputs)
    if form == "classes":
        return jax.lax.map(lambda a: kernel(a[None])[..., 0, 0], outputs)

    def add(total: Array, a: Array) -> tuple[Array, None]:
        return total + kernel(a[None])[..., 0, 0], None

    shape = (_num(x1), _num(x1 if x2 is None else x2))
    return varying.scan(add, jnp.zeros(shape, _kernel_dtype(params)), outputs)[0]


def _shared(
    apply: Apply,
    params: Params,
    x1: Any,
    x2: Any | None,
    form: Form,
    block: int,
    mesh: Mesh,
) -> Array:
    """Returns the kernel of which each device has computed some rows."""
    num, size = _num(x1), -(-_num(x1) // devices.size(mesh))
    places = jnp.minimum(jnp.arange(size * mesh.size), num - 1).reshape(mesh.size, size)
    columns = x1 if x2 is None else x2

    def rows(ours: Any) -> Array:
        return empirical_ntk(apply, params, ours, columns, form=form, block=block)

    axis = 1 if form == "classes" else 0
    each = jax.tree.map(lambda x: x[places], x1)  # of arrays that may lie on the mesh
    found = jnp.moveaxis(devices.spread(rows, each, mesh), 0, axis)
    shape = (*found.shape[:axis], -1, *found.shape[axis + 2 :])
    kernel = jax.lax.slice_in_dim(found.reshape(shape), 0, num, axis=axis)
    if x2 is not None:
        return kernel
    turned = (1, 0, 3, 2) if form == "full" else (*range(axis), axis + 1, axis)
    return (kernel + kernel.transpose(turned)) / 2


def ntk_vp(
    apply: Apply,
    params: Params,
    x1: Array,
    x2: Array | None = None,
    *,
    block: int | None = None,
) -> Callable[[Array], Array]:
    """Returns the matrix-free product with the kernel as a matrix [n1 k, n2 k].

    u_i = J(x1_i) sum_j J(x2_j)^T v_j: one reverse pass over x2, one forward pass over x1.

    >>> x = jnp.array([[1.0, 2.0], [0.0, 1.0]])
    >>> product = ntk.ntk_vp(lambda w, x: x @ w, jnp.zeros((2, 1)), x)
    >>> product(jnp.array([[1.0], [0.0]])).tolist()
    [[5.0], [2.0]]

    Args:
      apply: (params, f32[n, ...]) -> f32[n, k].
      params: a pytree of float arrays.
      x1: f32[n1, ...].
      x2: f32[n2, ...]; None for x1.
      block: maximum number of images in one pass, which sets the memory; None for all.

    Returns:
      v f32[n2, k] -> u f32[n1, k].

    Raises:
      InputError: see `empirical_ntk`; when called, a vector of the wrong shape.
    """
    params, x1, x2 = _arrays(params, x1, x1 if x2 is None else x2)
    _check_block(block)
    expected = (_num(x2), _check(apply, params, x1, x2))

    def matvec(v: Array) -> Array:
        if v.shape != expected:
            raise InputError(
                f"a vector {list(v.shape)} for a kernel whose second set has outputs "
                f"{list(expected)}; give one of that shape"
            )
        return _push(apply, params, x1, _pull(apply, params, x2, v, block), block)

    return matvec


def sketch(
    apply: Apply,
    params: Params,
    x: Array,
    key: Key,
    num_directions: int,
    *,
    kind: Kind = "rademacher",
    together: int = 1,
    block: int | None = None,
) -> Array:
    """Returns random features whose inner products are unbiased estimates of the kernel.

    Phi[i, a, r] = J_a(x_i) . u_r / sqrt(m) for m random directions u_r with E u u^T = I, so
    that E sum_r Phi[i, a, r] Phi[j, b, r] = K[i, j, a, b]. With Gaussian directions the
    variance is (K[i, i, a, a] K[j, j, b, b] + K[i, j, a, b]^2) / m; with Rademacher
    directions it is smaller by 2 / m sum_q J_qa(x_i)^2 J_qb(x_j)^2 over parameters q. Each
    direction is one forward-mode pass over the images without stored activations: memory is
    that of `together` passes and of n k m floats. `sketched_ntk` gives the kernel.

    >>> x = jnp.array([[1.0, 2.0], [0.0, 1.0]])
    >>> ntk.sketch(lambda w, x: x @ w, jnp.zeros((2, 1)), x, jax.random.key(0), 50).shape
    (2, 1, 50)

    Args:
      apply: (params, f32[n, ...]) -> f32[n, k].
      params: a pytree of float arrays.
      x: f32[n, ...].
      key: PRNG key of the directions. The same key gives the same directions for every set,
        as needed for the kernel between two sets; the directions of a smaller number are a
        prefix of those of a larger one, up to the factor 1 / sqrt(m).
      num_directions: number of directions, m.
      kind: distribution of the directions.
      together: directions vmapped at a time (`batch_size` of `jax.lax.map`).
      block: maximum number of images in one pass; None for all.

    Returns:
      f32[n, k, m].

    Raises:
      InputError: see `empirical_ntk`; fewer than one direction in all or at a time; an
        unknown kind.
    """
    num_directions = checks.integer(num_directions, "num_directions")
    together = checks.integer(together, "together")
    if num_directions < 1 or together < 1:
        raise InputError(
            f"num_directions={num_directions}, together={together}: give at least one each"
        )
    check_probes(num_directions, kind)
    checks.one_key(key)
    _check_block(block)
    params, x = _arrays(params, x)
    _check(apply, params, x)

    def one(r: Array) -> Array:
        direction = probe(jax.random.fold_in(key, r), params, kind)
        return _push(apply, params, x, direction, block)

    together = min(together, num_directions)
    features = jax.lax.map(
        one, jnp.arange(num_directions), batch_size=together if together > 1 else None
    )
    return jnp.moveaxis(features, 0, -1) / num_directions**0.5


def sketched_ntk(
    phi1: Array, phi2: Array | None = None, *, form: Form = "full"
) -> Estimate:
    """Estimates the kernel from the features of `sketch`: the mean over directions.

    Entries share their directions, so their errors are dependent.

    >>> x = jnp.array([[1.0, 2.0], [0.0, 1.0]])
    >>> phi = ntk.sketch(lambda w, x: x @ w, jnp.zeros((2, 1)), x, jax.random.key(0), 50)
    >>> ntk.sketched_ntk(phi).value.shape
    (2, 2, 1, 1)

    Args:
      phi1: f32[n1, k, m].
      phi2: f32[n2, k, m], from the same key; None for phi1, with an exactly symmetric
        result.
      form: see `empirical_ntk`.

    Returns:
      An estimate of the shape of the form; the error is from the variance over directions.

    Raises:
      InputError: incompatible features, or an unknown form.
    """
    _check_form(form)
    other = phi1 if phi2 is None else phi2
    if phi1.ndim != 3 or phi1.shape[1:] != other.shape[1:]:
        raise InputError(
            f"features {list(phi1.shape)} and {list(other.shape)}: expected [n1, k, m] and "
            "[n2, k, m], from `sketch` with the same key and number of directions"
        )
    num = phi1.shape[2]
    rule = {"full": "iar,jbr->ijab", "trace": "iar,jar->ij", "classes": "iar,jar->aij"}

    def products(a: Array, b: Array) -> Array:
        return jnp.einsum(rule[form], a, b, precision=_PRECISE)

    value = products(phi1, other)
    if phi2 is None:
        turned = (1, 0, 3, 2) if form == "full" else (*range(value.ndim - 2), -1, -2)
        value = (value + value.transpose(turned)) / 2

    def add(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        one = num * products(pair[0][..., None], pair[1][..., None])
        return total + jnp.square(one - value), None

    directions = jnp.moveaxis(phi1, -1, 0), jnp.moveaxis(other, -1, 0)
    squares = varying.scan(add, jnp.zeros_like(value), directions)[0]
    error = jnp.sqrt(squares / (num - 1) / num) if num > 1 else value * jnp.nan
    return Estimate(value, error, jnp.asarray(num, jnp.int32), _OF[form])


def linearised(apply: Apply, params0: Params) -> Apply:
    """Returns the first-order Taylor expansion of a network in its parameters.

    f_lin(params, x) = f(params0, x) + J(params0, x) (params - params0), by one forward-mode
    pass (Lee et al. 2019, arXiv 1902.06720, section 2.2). It has the signature of `apply`,
    so it can be trained like the network, from any parameters; at all parameters its kernel
    is that of the network at params0.

    >>> line = ntk.linearised(lambda w, x: w**2 * x, jnp.array(1.0))
    >>> float(line(jnp.array(2.0), jnp.array(1.0)))
    3.0

    Args:
      apply: (params, f32[n, ...]) -> f32[n, k].
      params0: linearisation point, a pytree of float arrays; a constant in programs
        compiled with the result.

    Raises:
      InputError: parameters that are not floating point.
    """
    checks.floating(params0)
    params0 = jax.tree.map(jnp.asarray, params0)

    def apply_lin(params: Params, x: Array) -> Array:
        change = jax.tree.map(jnp.subtract, params, params0)
        with _forward():
            outputs, moved = varying.jvp(lambda p: apply(p, x), params0, change)
        return outputs + moved

    return apply_lin


def _arrays(params: Params, *sets: Any) -> tuple[Any, ...]:
    """Returns parameters and sets with arrays as leaves; a list becomes one array.

    Raises:
      InputError: a list of rows that differ.
    """

    def one(x: Any) -> Any:
        if isinstance(x, list):
            checks.concrete(x)
            x = jnp.asarray(x)
        return jax.tree.map(jnp.asarray, x)

    return jax.tree.map(jnp.asarray, params), *(one(x) for x in sets)


def _num(x: Any) -> int:
    return jax.tree.leaves(x)[0].shape[0]


def _check(apply: Apply, params: Params, *sets: Any) -> int:
    """Validates network, parameters and sets; returns the number of outputs."""
    checks.floating(params)
    first = sets[0]
    shapes = [[x.shape for x in jax.tree.leaves(one)] for one in sets]
    nums = [{shape[:1] for shape in one} for one in shapes]
    images = [[shape[1:] for shape in one] for one in shapes]
    if any(len(n) != 1 or n & {(), (0,)} for n in nums) or any(
        one != images[0] for one in images
    ):
        shown = " and ".join(", ".join(str(list(shape)) for shape in one) for one in shapes)
        raise InputError(
            f"images {shown}: expected [n, ...], at least one image, and the same shape "
            "of image in both sets"
        )
    found = jax.eval_shape(apply, params, first)
    num_outputs = checks.outputs(found, _num(first))
    checks.one_by_one(apply, params, first)
    return num_outputs


def _check_form(form: str) -> None:
    if form not in get_args(Form):
        raise InputError(f"form={form!r}: expected one of {', '.join(get_args(Form))}")


def _check_block(block: int | None) -> None:
    if block is not None:
        checks.positive(block, "block", "give at least one image, or None")


def _blocks(tree: Any, block: int | None, mode: str = "edge") -> Any:
    """Returns blocks of equal size, the last one padded: leaves [m, b, ...]."""
    num = _num(tree)
    num_blocks = -(-num // min(block or num, num))
    size = -(-num // num_blocks)

    def one(x: Array) -> Array:
        pad = ((0, num_blocks * size - num), *((0, 0),) * (x.ndim - 1))
        return jnp.pad(x, pad, mode=mode).reshape(num_blocks, size, *x.shape[1:])

    return jax.tree.map(one, tree)


def _kernel_dtype(params: Params) -> Any:
    return jnp.result_type(jnp.float32, *jax.tree.leaves(params))


def _jacobian(apply: Apply, params: Params, images: Array, outputs: Array) -> Params:
    """Returns the Jacobian of r of the outputs; leaves f32[b, r, ...]."""

    def one(image: Array) -> Params:
        alone = jax.tree.map(lambda x: x[None], image)
        found, pull = varying.vjp(lambda p: apply(p, alone)[0], params)
        seeds = jax.nn.one_hot(outputs, found.size, dtype=found.dtype)
        return jax.vmap(lambda seed: pull(seed)[0])(seeds)

    return jax.vmap(one)(images)


def _contract(ours: Params, theirs: Params, dtype: Any) -> Array:
    """Returns inner products of Jacobians, summed over leaves, f32[b1, b2, r, r].

    Products of matrices [b r, p]: written with four axes they become convolutions on a TPU,
    which take ten times as long.
    """
    (num1, r), (num2, _) = (jax.tree.leaves(side)[0].shape[:2] for side in (ours, theirs))
    total = jnp.zeros((num1 * r, num2 * r), dtype)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        total = total + jnp.matmul(
            a.reshape(num1 * r, -1),
            b.reshape(num2 * r, -1).T,
            precision=_PRECISE,
            preferred_element_type=dtype,
        )
    return total.reshape(num1, r, num2, r).transpose(0, 2, 1, 3)


def _kernel(
    apply: Apply,
    params: Params,
    x1: Array,
    x2: Array | None,
    outputs: Array,
    block: int,
) -> Array:
    """Returns the kernel of r of the outputs, f32[n1, n2, r, r]."""
    dtype, r = _kernel_dtype(params), outputs.size
    rows = _blocks(x1, block)
    columns = rows if x2 is None else _blocks(x2, block)
    num_rows, height = jax.tree.leaves(rows)[0].shape[:2]
    num_columns, width = jax.tree.leaves(columns)[0].shape[:2]

    def jacobian(images: Array) -> Params:
        return _jacobian(apply, params, images, outputs)

    def put(kernel: Array, tile: Array, i: Array, j: Array) -> Array:
        corner = (i * height, j * width, 0, 0)
        return jax.lax.dynamic_update_slice(kernel, tile, corner)

    def between(kernel: Array, i: Array) -> tuple[Array, None]:
        ours = jacobian(_at(rows, i))

        def fill(kernel: Array, j: Array) -> tuple[Array, None]:
            tile = _contract(ours, jacobian(_at(columns, j)), dtype)
            return put(kernel, tile, i, j), None

        return varying.scan(fill, kernel, jnp.arange(num_columns))

    def within(kernel: Array, i: Array) -> tuple[Array, None]:
        """Fills tiles of row i: with itself and cyclically with the next half of the rows.

        Every pair of blocks is computed once, and the work per row is equal; for an even
        number of rows the first row of an opposite pair computes it.
        """
        ours = jacobian(_at(rows, i))
        tile = _contract(ours, ours, dtype)
        kernel = put(kernel, (tile + tile.transpose(1, 0, 3, 2)) / 2, i, i)

        def fill(kernel: Array, offset: Array) -> tuple[Array, None]:
            def meet(kernel: Array) -> Array:
                j = (i + offset) % num_rows
                tile = _contract(ours, jacobian(_at(rows, j)), dtype)
                return put(put(kernel, tile, i, j), tile.transpose(1, 0, 3, 2), j, i)

            first = (2 * offset < num_rows) | (i < offset)
            return varying.cond(first, meet, lambda kernel: kernel, kernel), None

        if num_rows == 1:
            return kernel, None
        return varying.scan(fill, kernel, jnp.arange(1, num_rows // 2 + 1))

    kernel = jnp.zeros((num_rows * height, num_columns * width, r, r), dtype)
    step = within if x2 is None else between
    kernel, _ = varying.scan(step, kernel, jnp.arange(num_rows))
    return kernel[: _num(x1), : _num(x1 if x2 is None else x2)]


def _at(tree: Any, i: Array) -> Any:
    return jax.tree.map(lambda x: x[i], tree)


def _forward() -> contextlib.AbstractContextManager:
    return checks.derivatives(
        "the derivative of the outputs, forward,",
        "use jax.custom_jvp in place of custom_vjp, or empirical_ntk, which is reverse",
    )


def _push(
    apply: Apply, params: Params, x: Array, direction: Params, block: int | None
) -> Array:
    """Returns J(x_i) . direction for all images, f32[n, k]."""

    def one(images: Array) -> Array:
        with _forward():
            return varying.jvp(lambda p: apply(p, images), params, direction)[1]

    if block is None or block >= _num(x):
        return one(x)
    moved = jax.lax.map(one, _blocks(x, block))
    return moved.reshape(-1, moved.shape[-1])[: _num(x)]


def _pull(apply: Apply, params: Params, x: Array, v: Array, block: int | None) -> Params:
    """Returns sum_i J(x_i)^T v_i, of the structure of the parameters."""

    def one(images: Array, weights: Array) -> Params:
        outputs, pull = varying.vjp(lambda p: apply(p, images), params, weights)
        return pull(weights.astype(outputs.dtype))[0]

    def add(total: Params, part: tuple[Array, Array]) -> tuple[Params, None]:
        return jax.tree.map(jnp.add, total, one(*part)), None

    if block is None or block >= _num(x):
        return one(x, v)
    parts = _blocks(x, block), _blocks(v, block, "constant")
    return varying.scan(add, jax.tree.map(jnp.zeros_like, params), parts)[0]
