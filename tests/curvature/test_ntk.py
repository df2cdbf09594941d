"""The empirical NTK against explicit Jacobians in double precision."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from distilljax import devices
from distilljax.curvature import ntk
from distilljax.models import convnet, mlp
from distilljax.types import InputError

K = 3
FORMS = ["full", "trace", "classes"]
CONVNET = convnet.Config(width=8, depth=1, conv="library")  # compiles fastest


def shallow(params, x):
    """A network that compiles faster than any of the models."""
    return jnp.tanh(x @ params["first"]) @ params["second"]


def shallow_params(key, d=4, width=5, k=K):
    first, second = jax.random.split(key)
    return {
        "first": jax.random.normal(first, (d, width)) / d**0.5,
        "second": jax.random.normal(second, (width, k)) / width**0.5,
    }


def network(name):
    """(init, apply, shape of an image)."""
    if name == "shallow":
        return shallow_params, shallow, (4,)
    shape = (8, 8, 1)
    make = {
        "mlp": lambda: mlp.make(mlp.Config(width=7, depth=1), shape, K),
        "convnet": lambda: convnet.make(CONVNET, shape, K),
    }
    model = make[name]()
    return model.init, model.apply, shape


class Problem:
    """A network, 12 images, and their dense Jacobians and kernel."""

    def __init__(self, name):
        init, self.apply, shape = network(name)

        @jax.jit
        def begin():
            params = init(jax.random.key(0))
            params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
            return params, jax.random.normal(jax.random.key(1), (12, *shape))

        # Apart from the Jacobians: a compiler may compute float32 weights once for each
        # use, to a last bit of their own.
        self.params, self.x = begin()

        @jax.jit
        def dense(params, images):
            flat, unravel = ravel_pytree(params)
            return jax.jacrev(lambda p: self.apply(unravel(p), images))(flat)

        jacobian = dense(self.params, self.x)
        self.jacobian = np.asarray(jacobian)  # [n, k, p]
        self.full = np.einsum("iap,jbp->ijab", self.jacobian, self.jacobian)


@functools.cache
def the(name):
    """The problem of a network, made once; to be called in double precision."""
    problem = Problem(name)
    if name != "shallow":
        assert 400 < problem.jacobian.shape[2] < 600
    return problem


def in_form(full, form):
    rule = {"full": "ijab->ijab", "trace": "ijaa->ij", "classes": "ijaa->aij"}
    return np.einsum(rule[form], full)


def is_symmetric(kernel, form):
    turned = kernel.transpose(1, 0, 3, 2) if form == "full" else kernel.swapaxes(-1, -2)
    return bool((kernel == turned).all())


# Blocks that do not divide 7: three of them, four, one of all images.
@pytest.mark.parametrize(
    ("name", "form", "block"),
    [("convnet", "full", 3), ("mlp", "trace", 2), ("mlp", "classes", None)],
)
def test_kernel_of_one_set(float64, name, form, block):
    problem = the(name)
    found = jax.jit(
        lambda p, x: ntk.empirical_ntk(problem.apply, p, x, form=form, block=block)
    )(problem.params, problem.x[:7])
    np.testing.assert_allclose(found, in_form(problem.full[:7, :7], form), atol=1e-10)
    assert is_symmetric(found, form)


@pytest.mark.parametrize(
    ("name", "form", "block"),
    [("convnet", "trace", None), ("convnet", "classes", 3), ("mlp", "full", 1)],
)
def test_kernel_between_two_sets(float64, name, form, block):
    problem = the(name)
    found = jax.jit(
        lambda p, x, y: ntk.empirical_ntk(problem.apply, p, x, y, form=form, block=block)
    )(problem.params, problem.x[:7], problem.x[7:])
    np.testing.assert_allclose(found, in_form(problem.full[:7, 7:], form), atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_rows_that_devices_share_are_put_together(float64, form):
    """A mesh of one device; those of several are in tests/devices."""
    problem = the("shallow")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), (devices.AXIS,))
    ours, others = problem.x[:7], problem.x[7:]
    own = ntk.empirical_ntk(problem.apply, problem.params, ours, form=form, mesh=mesh)
    np.testing.assert_allclose(own, in_form(problem.full[:7, :7], form), atol=1e-10)
    assert is_symmetric(own, form)
    found = ntk.empirical_ntk(
        problem.apply, problem.params, ours, others, form=form, mesh=mesh
    )
    np.testing.assert_allclose(found, in_form(problem.full[:7, 7:], form), atol=1e-10)


def test_memory_is_that_of_a_block():
    params = jax.eval_shape(lambda: shallow_params(jax.random.key(0), 64, 64, 1))

    def temporary(num):
        x = jax.ShapeDtypeStruct((num, 64), jnp.float32)
        jitted = jax.jit(lambda p, x: ntk.empirical_ntk(shallow, p, x, block=4))
        return jitted.lower(params, x).compile().memory_analysis().temp_size_in_bytes

    kernels = 4 * (256**2 - 64**2)
    jacobians = 4 * (256 - 64) * (64 * 64 + 64)
    assert 6 * kernels < jacobians
    assert temporary(256) - temporary(64) < 2 * kernels


def test_half_precision_parameters_are_summed_in_single():
    params = jnp.full((1000, 1), 1.0, jnp.bfloat16)
    x = jnp.full((2, 1000), 1.0, jnp.bfloat16)
    found = ntk.empirical_ntk(lambda p, x: x @ p, params, x, form="trace")
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, np.full((2, 2), 1000.0))


def test_derivative_with_respect_to_images(float64):
    """What a method that learns images through the kernel needs: here K = x x^T."""
    x, w = jax.random.normal(jax.random.key(1), (5, 4)), jnp.ones((4, 1))

    def total(x):
        kernel = ntk.empirical_ntk(lambda w, x: x @ w, w, x, block=2)
        return jnp.square(kernel).sum()

    np.testing.assert_allclose(jax.jit(jax.grad(total))(x), 4 * x @ x.T @ x, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "block"), [("convnet", 2), ("mlp", None), ("shallow", 50)]
)
def test_products_with_the_kernel(float64, name, block):
    problem = the(name)
    v = jax.random.normal(jax.random.key(2), (5, K))
    matvec = ntk.ntk_vp(
        problem.apply, problem.params, problem.x[:7], problem.x[7:], block=block
    )
    expected = np.einsum("ijab,jb->ia", problem.full[:7, 7:], v)
    np.testing.assert_allclose(jax.jit(matvec)(v), expected, atol=1e-10)


def test_products_with_the_kernel_of_one_set(float64):
    problem = the("shallow")
    v = jax.random.normal(jax.random.key(2), (12, K))
    matvec = ntk.ntk_vp(problem.apply, problem.params, problem.x)
    expected = np.einsum("ijab,jb->ia", problem.full, v)
    np.testing.assert_allclose(jax.jit(matvec)(v), expected, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "kind", "forms"),
    [("mlp", "rademacher", ["full"]), ("shallow", "gaussian", FORMS)],
)
def test_sketch_and_its_error(float64, name, kind, forms):
    num_directions, num_seeds = 20, 400
    problem, images = the(name), slice(0, 5)

    @jax.jit
    @jax.vmap
    def estimate(key):
        phi = ntk.sketch(
            problem.apply, problem.params, problem.x[images], key, num_directions, kind=kind
        )
        return [ntk.sketched_ntk(phi[:3], phi[3:], form=form) for form in forms]

    keys = jax.random.split(jax.random.key(0), num_seeds)
    every = jax.tree.map(np.asarray, estimate(keys))
    full = problem.full[:3, 3:5]
    for form, found in zip(forms, every, strict=True):
        spread = found.value.std(axis=0, ddof=1)
        gap = abs(found.value.mean(axis=0) - in_form(full, form))
        assert (gap < 4 * spread / num_seeds**0.5).all()
        reported = np.sqrt(np.square(found.standard_error).mean(axis=0))
        np.testing.assert_allclose(reported, spread, rtol=0.2)
        assert (found.num_probes == num_directions).all()
    # The variance that the docstring of `sketch` gives.
    own = np.square(problem.jacobian[images])
    sizes = own.sum(axis=-1)
    variance = np.einsum("ia,jb->ijab", sizes[:3], sizes[3:]) + full**2
    if kind == "rademacher":
        variance -= 2 * np.einsum("iap,jbp->ijab", own[:3], own[3:])
    reported = np.sqrt(np.square(every[0].standard_error).mean(axis=0))
    np.testing.assert_allclose(reported, np.sqrt(variance / num_directions), rtol=0.1)


def test_directions_are_the_same_however_they_are_grouped(float64):
    problem, key = the("shallow"), jax.random.key(1)

    @jax.jit
    def both(params, x):
        few = ntk.sketch(shallow, params, x[:5], key, 3, together=3, block=2)
        return few, ntk.sketch(shallow, params, x, key, 5)

    few, more = both(problem.params, problem.x)
    np.testing.assert_allclose(few * 3**0.5, more[:5, :, :3] * 5**0.5, atol=1e-12)


def test_sketch_is_exact_where_one_parameter_is_all():
    """Rademacher directions square to one."""

    @jax.jit
    def estimate(x):
        phi = ntk.sketch(
            lambda p, x: jnp.concatenate([x * p, -x * p], 1),
            jnp.float32(2.0),
            x,
            jax.random.key(0),
            4,
        )
        return ntk.sketched_ntk(phi, form="trace")

    found = estimate(jnp.arange(1.0, 4.0)[:, None])
    np.testing.assert_allclose(found.value, 2 * np.outer([1, 2, 3], [1, 2, 3]), rtol=1e-6)
    np.testing.assert_allclose(found.standard_error, 0, atol=1e-5)
    assert found.of == "empirical NTK, trace over outputs"


def test_sketched_kernel_of_one_set_is_symmetric():
    phi = jax.random.normal(jax.random.key(0), (4, K, 6))
    forms = ["full", "trace"]
    every = jax.jit(lambda phi: [ntk.sketched_ntk(phi, form=form) for form in forms])(phi)
    full = np.einsum("iar,jbr->ijab", phi, phi)
    for form, found in zip(forms, every, strict=True):
        assert is_symmetric(found.value, form)
        np.testing.assert_allclose(found.value, in_form(full, form), atol=1e-5)


def test_one_direction_has_no_known_error():
    found = jax.jit(lambda phi: ntk.sketched_ntk(phi, form="trace"))(jnp.ones((2, K, 1)))
    assert np.isnan(found.standard_error).all()


def test_linearised_network(float64):
    problem = the("mlp")
    flat, unravel = ravel_pytree(problem.params)
    change = 0.3 * jax.random.normal(jax.random.key(4), flat.shape)
    away = unravel(flat + change)
    apply_lin = ntk.linearised(problem.apply, problem.params)

    @jax.jit
    def compute(x):
        start = problem.apply(problem.params, x)
        return start, problem.apply(away, x), apply_lin(away, x)

    start, there, found = compute(problem.x)
    expected = start + np.einsum("iap,p->ia", problem.jacobian, change)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert abs(there - found).max() > 1e-3


def test_linearised_network_keeps_its_kernel(float64):
    problem = the("shallow")
    away = jax.tree.map(lambda leaf: leaf + 1, problem.params)
    apply_lin = ntk.linearised(shallow, problem.params)
    found = jax.jit(lambda p, x: ntk.empirical_ntk(apply_lin, p, x))(away, problem.x)
    np.testing.assert_allclose(found, problem.full, atol=1e-10)


def linear(params, x):
    return x @ params["w"]


GOOD = {"w": jnp.ones((4, K))}
X = jnp.ones((2, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ntk.empirical_ntk(linear, GOOD, X, form="mean"), "form='mean'"),
        (lambda: ntk.empirical_ntk(linear, GOOD, X, block=0), "block=0"),
        (
            lambda: ntk.empirical_ntk(linear, GOOD, X, jnp.ones((2, 5))),
            r"\[2, 4\] and \[2, 5\]",
        ),
        (lambda: ntk.empirical_ntk(linear, GOOD, X[:0]), r"images \[0, 4\]"),
        (
            lambda: ntk.empirical_ntk(linear, {"w": jnp.ones((4, K), jnp.int32)}, X),
            r"\['w'\] is int32",
        ),
        (lambda: ntk.empirical_ntk(linear, {}, X), "no arrays"),
        (
            lambda: ntk.empirical_ntk(lambda p, x: linear(p, x).sum(1), GOOD, X),
            r"returned \[2\]",
        ),
        (
            lambda: ntk.empirical_ntk(lambda p, x: linear(p, x)[:1], GOOD, X),
            r"returned \[1, 3\]",
        ),
        (
            lambda: ntk.empirical_ntk(lambda p, x: (linear(p, x),), GOOD, X),
            "returned tuple",
        ),
        (
            lambda: ntk.empirical_ntk(lambda p, x: linear(p, x) > 0, GOOD, X),
            "returned bool",
        ),
        (lambda: ntk.ntk_vp(linear, GOOD, X, block=0), "block=0"),
        (lambda: ntk.ntk_vp(linear, GOOD, X)(jnp.ones((3, K))), r"\[3, 3\] .* \[2, 3\]"),
        (lambda: ntk.sketch(linear, GOOD, X, jax.random.key(0), 0), "num_directions=0"),
        (lambda: ntk.sketch(linear, GOOD, X, jax.random.key(0), 2, kind="sign"), "'sign'"),
        (
            lambda: ntk.sketched_ntk(jnp.ones((2, K, 4)), jnp.ones((2, K, 5))),
            r"\[2, 3, 5\]",
        ),
        (
            lambda: ntk.sketched_ntk(jnp.ones((2, K, 5)), jnp.ones((2, K, 4))),
            r"\[2, 3, 4\]",
        ),
        (lambda: ntk.sketched_ntk(jnp.ones((2, K, 4)), form="diagonal"), "form='diagonal'"),
        (lambda: ntk.linearised(linear, {"w": jnp.ones(4, jnp.int32)}), "int32"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(("form", "block"), [("trace", 10), ("full", 3), ("classes", 10)])
def test_blocks_fit_the_budget(monkeypatch, form, block):
    """Two blocks of gradients, 48 bytes an image each; `full` holds K times as many."""
    seen = []
    whole = ntk._kernel
    monkeypatch.setattr(ntk, "_BUDGET", 2 * 48 * 10 + 5)
    monkeypatch.setattr(ntk, "_kernel", lambda *a: seen.append(a[-1]) or whole(*a))
    ntk.empirical_ntk(linear, {"w": jnp.ones((4, K))}, X, form=form)
    assert set(seen) == {block}


def test_numbers_lists_and_trees_are_taken():
    x = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [0.5, -1.0, 2.0]])
    weights = jnp.arange(6.0).reshape(3, 2)
    found = ntk.empirical_ntk(lambda p, x: p["s"] * x, {"s": 2.0}, x)
    np.testing.assert_allclose(found, jnp.einsum("ia,jb->ijab", x, x), rtol=1e-6)
    expected = ntk.empirical_ntk(lambda p, x: x @ p, weights, x, x[:2], block=2)
    assert expected.shape == (3, 2, 2, 2)
    rows = x.tolist()
    again = ntk.empirical_ntk(lambda p, x: x @ p, weights, rows, rows[:2], block=2)
    np.testing.assert_array_equal(again, expected)

    def of_tree(params, inputs):
        return jnp.concatenate([inputs["a"], inputs["b"]], axis=1) @ params

    def tree(x):
        return {"a": x[:, :1], "b": x[:, 1:]}

    v = jnp.array([[1.0, 2.0], [3.0, -1.0]])
    for calls in (
        lambda f, inputs: ntk.empirical_ntk(f, weights, *inputs, block=2),
        lambda f, inputs: ntk.ntk_vp(f, weights, *inputs, block=2)(v),
        lambda f, inputs: ntk.sketch(f, weights, inputs[0], jax.random.key(0), 3, block=2),
    ):
        np.testing.assert_allclose(
            calls(of_tree, (tree(x), tree(x[:2]))),
            calls(lambda p, x: x @ p, (x, x[:2])),
            rtol=1e-6,
        )
    with pytest.raises(InputError, match="its rows differ"):
        ntk.empirical_ntk(lambda p, x: x @ p, weights, [[1.0], [1.0, 2.0]])


def test_outputs_that_depend_on_the_batch_have_no_kernel():
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(nn.BatchNorm(use_running_average=False)(nn.Dense(4)(x)))

    net, x = Normalised(), jax.random.normal(jax.random.key(0), (6, 3))
    state = net.init(jax.random.key(1), x)

    def apply(params, x):
        variables = {"params": params, "batch_stats": state["batch_stats"]}
        return net.apply(variables, x, mutable=["batch_stats"])[0]

    with pytest.raises(InputError, match="depend on the other images of the batch"):
        ntk.empirical_ntk(apply, state["params"], x)


def test_contractions_of_half_precision_would_lose_small_eigenvalues():
    """What `precision=HIGHEST` is for: one pass of a TPU rounds to bfloat16."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=600)
    jacobians = (common + 0.01 * rng.normal(size=(20, 600))).astype(np.float32)
    exact = np.linalg.eigvalsh(
        jacobians.astype(np.float64) @ jacobians.T.astype(np.float64)
    )

    def worst(x):
        found = np.linalg.eigvalsh(np.asarray(x @ x.T, np.float64))
        return abs(found / exact - 1).max()

    assert worst(jnp.asarray(jacobians)) < 0.02
    assert worst(jnp.asarray(jacobians, jnp.bfloat16).astype(jnp.float32)) > 0.02
