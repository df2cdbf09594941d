"""Hessian-vector products and blocks of the tangent kernel, by implementation.

    python -m benchmarks.products
    python -m benchmarks.products --width=128 --size=32 --channels=3 --images=100

On a ConvNet with initial weights and random images:
- products with the Hessian of the loss: forward over reverse (`hessian.hvp`), reverse over
  reverse and reverse over forward, one per dispatch, with different vectors;
- the kernel between two sets of images, `ntk.empirical_ntk` in every form, and the full
  form by products with unit vectors (`ntk.ntk_vp`).
All products must be equal, and all kernels must agree where they overlap.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp

from benchmarks import contest, harness
from benchmarks.contest import Contestant, Given
from benchmarks.harness import Column, figure, mib
from distilljax.config import option
from distilljax.core import losses
from distilljax.curvature import estimators, hessian, ntk
from distilljax.types import Array, Batch, Params

USED = "forward over reverse (hvp)"
BY_PRODUCTS = "full, by products"


@dataclasses.dataclass(frozen=True)
class Config(contest.Options):
    """Options of the benchmark."""

    images: int = option(100, "Number of images of the Hessian.", low=1)
    products: int = option(3, "Number of products in each timing.", low=1)
    ntk_images: int = option(
        10, "Number of images on each side of a block of the kernel.", low=1
    )


def hessians(config: Config, given: Given) -> dict[str, Contestant]:
    """Returns the implementations of a Hessian-vector product."""
    loss_fn = losses.cross_entropy(given.model.apply)

    def forward_reverse(params: Params, batch: Batch, v: Params) -> Params:
        return hessian.hvp(loss_fn, params, batch)(v)

    def reverse_reverse(params: Params, batch: Batch, v: Params) -> Params:
        return jax.grad(lambda p: estimators.dot(jax.grad(loss_fn)(p, batch), v))(params)

    def reverse_forward(params: Params, batch: Batch, v: Params) -> Params:
        def slope(params: Params) -> Array:
            return jax.jvp(lambda p: loss_fn(p, batch), (params,), (v,))[1]

        return jax.grad(slope)(params)

    keys = jax.random.split(jax.random.key(3), config.products)
    probe = jax.jit(lambda key: estimators.probe(key, given.params))
    vectors = [probe(key) for key in keys]

    def contestant(form: Callable[..., Params]) -> Contestant:
        program = harness.compiled(form, given.params, given.batch, vectors[0])

        def work() -> list[Params]:
            return [program.call(given.params, given.batch, v) for v in vectors]

        return Contestant(work, program.record(), config.products, USED)

    forms = {
        USED: forward_reverse,
        "reverse over reverse": reverse_reverse,
        "reverse over forward": reverse_forward,
    }
    found = {name: contestant(form) for name, form in forms.items()}
    contest.same({name: one.work() for name, one in found.items()}, config.tolerance)
    return found


def kernels(config: Config, given: Given) -> dict[str, Contestant]:
    """Returns the implementations of a kernel."""
    apply, num = given.model.apply, config.ntk_images
    rng = jax.random.key(4)
    x1, x2 = jax.random.normal(rng, (2, num, *given.batch.images.shape[1:]))
    k = given.batch.labels.shape[1]

    def by_products(params: Params, x1: Array, x2: Array) -> Array:
        units = jnp.eye(num * k).reshape(num, k, num, k)
        product = ntk.ntk_vp(apply, params, x1, x2)
        columns = jax.vmap(jax.vmap(product))(units)  # [j, b, i, a]
        return columns.transpose(2, 0, 3, 1)

    def contestant(form: Any) -> Contestant:
        return contest.program(form, given.params, x1, x2, against="full")

    found = {}
    for form in get_args(ntk.Form):

        def direct(params: Params, x1: Array, x2: Array, form: Any = form) -> Array:
            return ntk.empirical_ntk(apply, params, x1, x2, form=form)

        found[form] = contestant(direct)
    found[BY_PRODUCTS] = contestant(by_products)
    made = {name: one.work() for name, one in found.items()}
    full = {name: made[name] for name in ("full", BY_PRODUCTS)}
    contest.same(full, config.tolerance)
    by_class = jnp.einsum("ijaa->aij", full["full"])
    contest.same({"full": by_class, "classes": made["classes"]}, config.tolerance)
    contest.same({"full": by_class.sum(0), "trace": made["trace"]}, config.tolerance)
    return found


def _columns(what: str, unit: str, against: str) -> tuple[Column, ...]:
    return (
        Column(what, lambda r: r["contestant"], left=True),
        Column(f"{unit}s/s", lambda r: figure(1 / r["wall_seconds"]["median"])),
        *contest.times(unit),
        contest.faster(against),
        Column("temporary MiB", lambda r: mib(r["temporary_bytes"])),
        contest.COMPILE,
    )


HESSIANS = _columns("Hessian-vector product", "product", USED)
KERNELS = _columns("kernel", "block", "full")


def table(record: dict[str, Any]) -> str:
    """Returns the tables of a record in Markdown."""
    return "\n\n".join(
        (
            harness.markdown(HESSIANS, record["hessian"]),
            harness.markdown(KERNELS, record["ntk"]),
        )
    )


def run(config: Config) -> None:
    """Checks, measures, prints the tables and writes the record."""
    harness.pin(config.threads)
    record = harness.described("products", config)
    given = contest.given(config)
    for name, make in (("hessian", hessians), ("ntk", kernels)):
        found = contest.timed(make(config, given), config.repeats)
        record[name] = list(found.values())
    harness.show(harness.caption(record), HESSIANS, record["hessian"])
    num = config.ntk_images
    harness.show(f"Kernels of {num} x {num} images", KERNELS, record["ntk"])
    harness.write(config.json, record)


if __name__ == "__main__":
    harness.main(Config, run)
