"""Implementations of a convolution, forward and backward, inside and outside a scan.

    python -m benchmarks.convolutions
    python -m benchmarks.convolutions --width=128 --size=32 --channels=3 --images=100

On a ConvNet with each `distilljax.models.conv.Formulation`: its logits (forward), the
gradient of the loss by the weights (gradient), and the gradient by the images of that
gradient's squared norm (second), as matching methods need it. Each batch is a
call of a program (outside), or one step of a `lax.scan` over the batches (inside). All
formulations must return the same numbers. FLOPs are those of im2col for all formulations:
the library's derivatives have many more, most of them with padded zeros. The ceiling is a
large matrix product, timed in the same rounds.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, get_args

import jax
import jax.numpy as jnp

from benchmarks import contest, harness
from benchmarks.contest import Contestant
from benchmarks.harness import Column, figure
from distilljax.config import option
from distilljax.core import losses
from distilljax.models.conv import Formulation
from distilljax.types import Array, Batch, Model, Params

FORMULATIONS = tuple(name for name in get_args(Formulation) if name != "auto")
REFERENCE = "library"
COUNTED = "im2col"
PLACES = ("outside", "inside")
KINDS = ("forward", "gradient", "second")


@dataclasses.dataclass(frozen=True)
class Config(contest.Options):
    """Options of the benchmark."""

    steps: int = option(2, "Number of batches in one run.", low=1)
    formulations: str = option(",".join(FORMULATIONS), "Formulations, separated by commas.")
    repeats: int = option(3, "Timed rounds, after one warm-up round.", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        contest.names("formulations", self.formulations, FORMULATIONS)


Computes = Callable[[Params, Batch], Any]


def kinds(model: Model) -> dict[str, Computes]:
    """Returns the computations on one batch by kind."""
    loss_fn = losses.cross_entropy(model.apply)

    def squared_norm(images: Array, params: Params, labels: Array) -> Array:
        grads = jax.grad(loss_fn)(params, Batch(images, labels))
        squares = (jnp.square(leaf).sum() for leaf in jax.tree.leaves(grads))
        return sum(squares, start=jnp.zeros(()))

    def second(params: Params, batch: Batch) -> Array:
        return jax.grad(squared_norm)(batch.images, params, batch.labels)

    return {
        "forward": lambda params, batch: model.apply(params, batch.images),
        "gradient": jax.grad(loss_fn),
        "second": second,
    }


def contestant(
    compute: Computes, params: Params, batches: Batch, **about: Any
) -> Contestant:
    """Returns the contestant that computes all batches in `place`, one of `PLACES`."""
    num, place = batches.labels.shape[0], about["place"]
    against = f"{REFERENCE}, outside, {about['kind']}"

    def inside(params: Params, batches: Batch) -> Any:
        return jax.lax.map(lambda batch: compute(params, batch), batches)

    if place == "inside":
        return contest.program(inside, params, batches, per=num, against=against, **about)
    parts = [jax.tree.map(lambda x, i=i: x[i], batches) for i in range(num)]
    program = harness.compiled(compute, params, parts[0])

    def work() -> Any:
        return [program.call(params, part) for part in parts]

    return Contestant(work, about | program.record(), num, against)


def stacked(found: Any) -> Any:
    """Returns the results of a contestant stacked as in the scan."""
    if not isinstance(found, list):
        return found
    return jax.tree.map(lambda *parts: jnp.stack(parts), *found)


def prepare(config: Config) -> dict[str, Contestant]:
    """Returns all formulations, places and kinds, checked against the first of a kind."""
    chosen = contest.names("formulations", config.formulations, FORMULATIONS)
    # The library is the reference of checks and ratios.
    order = [REFERENCE, *(name for name in chosen if name != REFERENCE)]
    given = contest.given(config, config.images * config.steps)
    split = lambda x: x.reshape(config.steps, config.images, *x.shape[1:])  # noqa: E731
    batches = jax.tree.map(split, given.batch)
    one = jax.tree.map(lambda x: x[0], batches)
    made = {name: kinds(contest.network(config, conv=name)) for name in order}
    counted = kinds(contest.network(config, conv=COUNTED))
    found = {}
    for kind in KINDS:
        num_flops = harness.flops(counted[kind], given.params, one)
        ways = {
            f"{name}, {place}, {kind}": contestant(
                made[name][kind],
                given.params,
                batches,
                formulation=name,
                place=place,
                kind=kind,
                flops=num_flops,
            )
            for name in order
            for place in PLACES
        }
        results = {name: stacked(way.work()) for name, way in ways.items()}
        differences = contest.same(results, config.tolerance)
        for name, way in ways.items():
            about = way.about | {"difference": differences[name]}
            found[name] = way._replace(about=about)
    return found


def rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row for each formulation and place, with its records by kind."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        place = (record["formulation"], record["place"])
        row = found.setdefault(place, {"formulation": place[0], "place": place[1]})
        row[record["kind"]] = record
    return list(found.values())


def _time(kind: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: contest.cell(row[kind])


def _speed(kind: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: contest.speed(row[kind])


def _share(kind: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: f"{row[kind]['share_of_ceiling']:.0%}"


COLUMNS = (
    Column("formulation", lambda r: r["formulation"], left=True),
    Column("scan", lambda r: r["place"], left=True),
    *(Column(f"{k} s", _time(k)) for k in KINDS),
    *(Column(f"{k}, times as fast", _speed(k)) for k in KINDS),
    *(Column(f"{k}, of ceiling", _share(k)) for k in KINDS),
    Column("compile s", lambda r: figure(sum(r[k]["compile_seconds"] for k in KINDS))),
)


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return harness.markdown(COLUMNS, rows(record["records"]))


def run(config: Config) -> None:
    """Checks, measures, prints the table and writes the record."""
    harness.pin(config.threads)
    described = harness.described("convolutions", config)
    contestants = prepare(config)
    product, product_flops = harness.product()
    contestants["product"] = Contestant(product, {"flops": product_flops})
    found = contest.timed(contestants, config.repeats)
    for record in found.values():
        record["flops_per_second"] = record["flops"] / record["wall_seconds"]["median"]
    ceiling = found.pop("product")
    for record in found.values():
        share = record["flops_per_second"] / ceiling["flops_per_second"]
        record["share_of_ceiling"] = share
    records = list(found.values())
    title = f"times as fast as {REFERENCE} outside; {harness.caption(described)}"
    harness.show(title, COLUMNS, rows(records))
    print(f"ceiling: {figure(ceiling['flops_per_second'] / 1e9)} GFLOP/s")
    harness.write(config.json, described | {"records": records, "ceiling": ceiling})


if __name__ == "__main__":
    harness.main(Config, run)
