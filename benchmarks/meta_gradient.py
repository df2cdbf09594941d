"""Differentiation through an unroll: policies, chunks and modes.

    python -m benchmarks.meta_gradient
    python -m benchmarks.meta_gradient --width=128 --images=100 --unroll=10

Times the gradient, with respect to the images and the log learning rate, of the loss on
other images after an unroll of SGD with momentum:
- reverse over reverse, as in `distilljax.core.inner`, with every policy of
  `distilljax.core.scan`, for whole batches or chunks of `--pieces` images;
- forward over reverse (Kemaev et al. 2025, arXiv 2505.00793): the reverse pass of a step is
  one forward derivative of its gradient, by the symmetry of the Hessian, so that only the
  parameters are stored and no activations.
All must return the same numbers.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import optax
from jax.ad_checkpoint import checkpoint_name

from benchmarks import contest, harness
from benchmarks.contest import Contestant
from benchmarks.harness import Column, mib
from distilljax.config import FieldError, option
from distilljax.core import inner, losses
from distilljax.core.scan import GRADIENT, Remat, scan
from distilljax.types import Array, Batch, LossFn, Params

AGAINST = "reverse over reverse, step"


@dataclasses.dataclass(frozen=True)
class Config(contest.Options):
    """Options of the benchmark."""

    images: int = option(100, "Number of distilled images.", low=2)
    size: int = option(32, "Height and width of the images.", low=8)
    channels: int = option(3, "Number of image channels.", low=1, high=3)
    unroll: int = option(5, "Number of inner steps.", low=1)
    pieces: int = option(20, "Images computed at a time; a divisor of images.", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images % self.pieces:
            raise FieldError("pieces", self.pieces, f"does not divide images={self.images}")


Gradient = Callable[[Params, Batch], tuple[Array, Params]]  # loss and gradient


def forward_over_reverse(loss_fn: LossFn, chunk: int | None) -> Gradient:
    """Returns `inner.value_and_grad` with a forward-mode derivative as its VJP."""

    @jax.custom_vjp
    def gradient(params: Params, batch: Batch) -> tuple[Array, Params]:
        return inner.value_and_grad(loss_fn, params, batch, chunk)

    def keep(params: Params, batch: Batch) -> Any:
        return gradient(params, batch), (params, batch)

    def back(held: Any, cotangents: Any) -> Any:
        params, batch = held
        of_loss, direction = cotangents
        num = batch.labels.shape[0]
        size = chunk or num

        def piece(total: Params, part: Batch) -> tuple[Params, Batch]:
            both = lambda p: jax.grad(loss_fn, argnums=(0, 1))(p, part)  # noqa: E731
            first, second = jax.jvp(both, (params,), (direction,))
            by_params, by_batch = jax.tree.map(
                lambda g, h: (of_loss * g + h) * (size / num), first, second
            )
            return jax.tree.map(jnp.add, total, by_params), by_batch

        parts = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), batch)
        total, by_batch = jax.lax.scan(piece, jax.tree.map(jnp.zeros_like, params), parts)
        return total, jax.tree.map(lambda x, b: x.reshape(b.shape), by_batch, batch)

    gradient.defvjp(keep, back)
    return gradient


def meta_gradient(
    given: contest.Given, config: Config, gradient: Gradient, remat: Remat
) -> Callable[..., Any]:
    """Returns (images, log learning rate) -> outer loss and its gradient."""
    loss_fn = losses.cross_entropy(given.model.apply)
    test = contest.random_batch(config, config.images, seed=2)

    def after(images: Array, log_lr: Array) -> Array:
        rule = optax.sgd(jnp.exp(log_lr), momentum=0.9)
        batch = given.batch._replace(images=images)

        def step(state: inner.InnerState, _: Any) -> tuple[inner.InnerState, None]:
            _, grads = gradient(state.params, batch)
            grads = checkpoint_name(grads, GRADIENT)
            updates, opt_state = rule.update(grads, state.opt_state, state.params)
            return inner.InnerState(
                optax.apply_updates(state.params, updates), opt_state
            ), None

        state = inner.init(given.params, rule)
        state, _ = scan(step, state, jnp.arange(config.unroll), remat=remat)
        return loss_fn(state.params, test)

    return jax.value_and_grad(after, argnums=(0, 1))


def prepare(config: Config) -> dict[str, Contestant]:
    """Returns all contestants, checked against the first."""
    given = contest.given(config)
    loss_fn = losses.cross_entropy(given.model.apply)

    def reverse(chunk: int | None) -> Gradient:
        return lambda params, batch: inner.value_and_grad(loss_fn, params, batch, chunk)

    ways: dict[str, tuple[Gradient, Remat]] = {
        f"reverse over reverse, {remat}": (reverse(None), remat)
        for remat in get_args(Remat)
    }
    pieces = f"pieces of {config.pieces}"
    ways |= {
        f"{AGAINST}, {pieces}": (reverse(config.pieces), "step"),
        "forward over reverse": (forward_over_reverse(loss_fn, None), "none"),
        f"forward over reverse, {pieces}": (
            forward_over_reverse(loss_fn, config.pieces),
            "none",
        ),
    }
    args = (given.batch.images, jnp.log(jnp.asarray(0.01)))
    found = {
        name: contest.program(
            meta_gradient(given, config, *way), *args, against=AGAINST, way=name
        )
        for name, way in ways.items()
    }
    results = {name: way.work() for name, way in found.items()}
    differences = contest.same(results, config.tolerance)
    return {
        name: way._replace(about=way.about | {"difference": differences[name]})
        for name, way in found.items()
    }


COLUMNS = (
    Column("derivative", lambda r: r["way"], left=True),
    *contest.times("meta-gradient"),
    contest.faster(AGAINST),
    Column("temporary MiB", lambda r: mib(r["temporary_bytes"])),
    contest.COMPILE,
    contest.DIFFERS,
)


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return harness.markdown(COLUMNS, record["records"])


def run(config: Config) -> None:
    """Checks, measures, prints the table and writes the record."""
    harness.pin(config.threads)
    described = harness.described("meta_gradient", config)
    records = list(contest.timed(prepare(config), config.repeats).values())
    harness.show(harness.caption(described), COLUMNS, records)
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
