"""Cost of the trace of a Hessian to a given standard error.

    python -m benchmarks.curvature
    python -m benchmarks.curvature --dataset=cifar10 --width=128 --images=100 --torch

A ConvNet of depth 3 is trained on real images; on it are measured
- seconds per probe of three ways to compute v^T H v, and with --torch of PyHessian, on the
  same images and weights: CPU seconds, interleaved, medians;
- the standard deviation of a probe on all images and on random batches, and from both the
  cost of a standard error of 3 % of the trace, on 100, 10,000 and 50,000 images;
- Hutch++, and XTrace if matfree is installed, against Hutchinson at equal numbers of
  products;
- the resulting cost of the study's curvature figure: 301 points, the training set and four
  sets of 100 images.
"""

import contextlib
import dataclasses
import functools
import math
import statistics
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from benchmarks import harness
from benchmarks.harness import Column, Remote, Sample, figure
from distilljax import data
from distilljax.config import option
from distilljax.core import inner, losses, sampling
from distilljax.curvature import estimators, hessian
from distilljax.models import convnet
from distilljax.training.evaluation import EvaluationProtocol, optimizer
from distilljax.types import Array, Batch, Estimate, InputError, Key, Params

SETS, POINTS = 4, 301  # sets and points of the study's figure
TARGET = 0.03


@dataclasses.dataclass(frozen=True)
class Config(harness.Options):
    """Options of the benchmark."""

    dataset: str = option("embedded", "Data set of real images.")
    data_dir: str | None = option(
        None, "Folder of prepared TFDS sets; none: the TFDS default."
    )
    width: int = option(32, "Width of the ConvNet of depth 3.", low=1)
    iterations: int = option(100, "Training steps before the measurement.", low=0)
    images: int = option(100, "Number of images for timing probes.", low=10)
    chunk: int = option(50, "Images computed at a time.", low=1)
    probes: int = option(10, "Number of probes in each timing.", low=2)
    repeats: int = option(3, "Timed rounds, after one warm-up round.", low=1)
    spread_images: int = option(
        1000, "Number of images for the standard deviation.", low=10
    )
    spread_probes: int = option(40, "Number of probes for the standard deviation.", low=4)
    batch: int = option(50, "Batch size of random batches.", low=1)
    products: int = option(
        30, "Number of products of the variance-reduced estimators.", low=6
    )
    torch: bool = option(False, "Also time PyHessian; needs the extra `torch`.")


class Problem:
    """A trained network and its images."""

    def __init__(self, config: Config):
        loaded = data.load(config.dataset, config.data_dir)
        transform = data.fit("normalise", loaded.train.images)
        k = loaded.num_classes
        real = data.on_device(loaded.train, transform, k)
        model = convnet.make(convnet.Config(width=config.width), loaded.image_shape, k)
        rule = optimizer(EvaluationProtocol(), config.iterations, 0.01)
        self.loss_fn = losses.cross_entropy(model.apply)

        @jax.jit
        def train(key: Key) -> Params:
            init_key, order_key = jax.random.split(key)
            order = sampling.epochs(
                order_key, real.labels.shape[0], 256, max(1, config.iterations)
            )
            return jax.lax.fori_loop(
                0,
                config.iterations,
                lambda i, s: inner.step(
                    self.loss_fn, rule, s, sampling.take(real, order[i])
                )[0],
                inner.init(model.init(init_key), rule),
            ).params

        self.params = train(jax.random.key(0))
        self.real, self.k = real, k
        self.name = loaded.name

    def batch(self, num: int) -> Batch:
        """Returns the first `num` images."""
        if num > self.real.labels.shape[0]:
            raise InputError(
                f"{self.name} has {self.real.labels.shape[0]} images, not {num}"
            )
        return sampling.take(self.real, jnp.arange(num))


def _forms(config: Config, problem: Problem) -> dict[str, Callable[..., Array]]:
    """Returns implementations of v^T H v, (params, batch, key) -> f32[probes]."""
    loss_fn = problem.loss_fn

    def many(one: Callable[[Params, Batch, Params], Array]) -> Callable[..., Array]:
        def compute(params: Params, batch: Batch, key: Key) -> Array:
            def of_chunk(part: Batch) -> Array:
                return jax.lax.map(
                    lambda i: one(
                        params, part, estimators.probe(jax.random.fold_in(key, i), params)
                    ),
                    jnp.arange(config.probes),
                )

            return hessian.mean_over(of_chunk, batch, chunk=config.chunk)

        return compute

    def forward_reverse(params: Params, batch: Batch, v: Params) -> Array:
        return estimators.dot(v, hessian.hvp(loss_fn, params, batch)(v))

    def reverse_reverse(params: Params, batch: Batch, v: Params) -> Array:
        def slope(params: Params) -> Array:
            return estimators.dot(jax.grad(loss_fn)(params, batch), v)

        return estimators.dot(v, jax.grad(slope)(params))

    return {
        "forward over forward (used)": many(
            lambda params, batch, v: hessian.along(loss_fn, params, batch, v)
        ),
        "forward over reverse": many(forward_reverse),
        "reverse over reverse": many(reverse_reverse),
    }


def in_pyhessian(given: dict[str, Any]) -> Any:
    """Returns the work of PyHessian; called in the process with PyTorch."""
    from benchmarks.torch_baseline import pyhessian_trace

    return {"trace": lambda: pyhessian_trace.trace(**given)}


def time_probes(config: Config, problem: Problem) -> list[dict[str, Any]]:
    """Measures CPU and wall seconds per probe of each implementation, interleaved."""
    batch = problem.batch(config.images)
    args = (problem.params, batch, jax.random.key(1))
    records: dict[str, dict[str, Any]] = {}
    contestants: dict[str, Callable[[], Sample]] = {}
    for name, form in _forms(config, problem).items():
        program = harness.compiled(form, *args)
        records[name] = {
            "way": name,
            "compile_seconds": program.compile_seconds,
            "bytes": program.temporary_bytes,
        }
        contestants[name] = functools.partial(
            harness.clock, functools.partial(program.call, *args)
        )
    with contextlib.ExitStack() as stack:
        theirs = None
        if config.torch:
            given = {
                "params": jax.tree.map(np.asarray, problem.params),
                "x": np.asarray(batch.images),
                "y": np.asarray(batch.labels.argmax(-1)),
                "num_probes": config.probes,
            }
            theirs = stack.enter_context(Remote(in_pyhessian, given))
            contestants["PyHessian"] = functools.partial(theirs.clock, "trace")
        samples = harness.interleave(contestants, config.repeats)
        if theirs:
            records["PyHessian"] = {
                "way": "PyHessian",
                "mean": statistics.mean(theirs.call("trace")),
                "bytes": theirs.growth("trace"),
            }
    for name, record in records.items():
        for clock in Sample._fields:
            values = [getattr(sample, clock) / config.probes for sample in samples[name]]
            record[clock] = values
            record[f"{clock}_seconds_per_probe"] = statistics.median(values)
    return list(records.values())


def spreads(config: Config, problem: Problem) -> dict[str, Any]:
    """Estimates the trace on `spread_images` images and the deviation of one probe."""
    batch = problem.batch(config.spread_images)
    found = {}
    for name, size in (("all", None), ("batch", config.batch)):

        def estimate(key: Key, size: int | None = size) -> Estimate:
            given = (problem.loss_fn, problem.params, batch, key)
            if size is None:
                return hessian.trace(
                    *given, num_probes=config.spread_probes, chunk=config.chunk
                )
            return hessian.batch_trace(
                *given, batch=size, num_probes=4 * config.spread_probes
            )

        one = jax.jit(estimate)(jax.random.key(2))
        num = int(one.num_probes)
        found[name] = {
            "trace": float(one.value),
            "standard_error": float(one.standard_error),
            "of_one_probe": float(one.standard_error) * num**0.5,
            "probes": num,
        }
    return found


def reduced(config: Config, problem: Problem) -> list[dict[str, Any]]:
    """Measures the deviation of estimators over keys, at equal numbers of products."""
    batch = problem.batch(config.images)
    flat, unravel = ravel_pytree(problem.params)
    product = hessian.hvp(problem.loss_fn, problem.params, batch, chunk=config.chunk)
    num = config.products // 3 * 3

    def flat_product(v: Array, *_: Any) -> Array:
        return ravel_pytree(product(unravel(v)))[0]

    ways: dict[str, Callable[[Key], Array]] = {
        "Hutchinson": lambda key: (
            estimators.hutchinson_trace(product, key, problem.params, num_probes=num).value
        ),
        "Hutch++": lambda key: (
            estimators.deflated_trace(product, key, problem.params, num_products=num).value
        ),
    }
    try:
        from matfree import stochtrace
    except ImportError:
        print("matfree is not installed: XTrace is left out", file=sys.stderr)
    else:
        # Two products per sample.
        estimate = stochtrace.estimator_leave_one_out(
            stochtrace.leave_one_out_xtrace(),
            stochtrace.sampler_normal(flat, num=num // 2),
        )
        ways["XTrace (matfree)"] = lambda key: estimate(flat_product, key)
    records = []
    for name, way in ways.items():
        program = jax.jit(way)
        values = np.array([float(program(jax.random.key(s))) for s in range(8)])
        records.append(
            {
                "estimator": name,
                "products": num,
                "mean": float(values.mean()),
                "std": float(values.std(ddof=1)),
                "keys": len(values),
            }
        )
    return records


def costs(
    config: Config, seconds: float, spread: dict[str, Any], trace: float
) -> list[dict[str, Any]]:
    """Returns seconds for a standard error of 3 %, from seconds per image and probe."""
    each = seconds / config.images
    rows = []
    for num in (100, 10_000, 50_000):
        for way in ("all", "batch"):
            size = min(num, config.batch) if way == "batch" else num
            probes = math.ceil((spread[way]["of_one_probe"] / (TARGET * abs(trace))) ** 2)
            rows.append(
                {
                    "images": num,
                    "a probe sees": size,
                    "probes": probes,
                    "cpu_seconds": each * size * probes,
                }
            )
    return rows


def columns(record: dict[str, Any]) -> tuple[Column, ...]:
    """Returns the columns of the implementations, relative to the first."""
    ours = record["one_probe"][0]["cpu_seconds_per_probe"]
    return (
        Column("way", lambda r: r["way"], left=True),
        Column("CPU s", lambda r: figure(r["cpu_seconds_per_probe"])),
        Column("wall s", lambda r: figure(r["wall_seconds_per_probe"])),
        Column("of ours", lambda r: figure(r["cpu_seconds_per_probe"] / ours)),
        Column("MiB", lambda r: harness.mib(r["bytes"])),
        Column("compile s", lambda r: figure(r.get("compile_seconds"))),
    )


COSTS = (
    Column("images", lambda r: f"{r['images']:,}"),
    Column("a probe sees", lambda r: f"{r['a probe sees']:,}"),
    Column("probes", lambda r: f"{r['probes']:,}"),
    Column("CPU s", lambda r: figure(r["cpu_seconds"])),
)
ESTIMATORS = (
    Column("estimator", lambda r: r["estimator"], left=True),
    Column("mean", lambda r: figure(r["mean"], 4)),
    Column("std over 8 keys", lambda r: figure(r["std"])),
)


def table(record: dict[str, Any]) -> str:
    """Returns the tables of a record in Markdown."""
    return "\n\n".join(
        (
            harness.markdown(columns(record), record["one_probe"]),
            harness.markdown(COSTS, record["to_3_percent"]),
            harness.markdown(ESTIMATORS, record["estimators"]),
        )
    )


def run(config: Config) -> None:
    """Measures, prints the tables and writes the record."""
    versions = harness.need("torch", "pyhessian") if config.torch else {}
    harness.pin(config.threads)
    record = harness.described("curvature", config)
    record["environment"] |= versions
    problem = Problem(config)
    record["one_probe"] = time_probes(config, problem)
    title = (
        f"One probe on {config.images} images of {problem.name}, width {config.width}, "
        f"after {config.iterations} iterations"
    )
    harness.show(title, columns(record), record["one_probe"])
    spread = record["spread"] = spreads(config, problem)
    trace = spread["all"]["trace"]
    for way, row in spread.items():
        seen = (
            f"{config.spread_images} images" if way == "all" else f"{config.batch} of them"
        )
        print(
            f"trace {row['trace']:.1f} ± {row['standard_error']:.1f}; one probe on {seen} "
            f"has a standard deviation of {row['of_one_probe']:.1f}, "
            f"{row['of_one_probe'] / abs(trace):.0%}"
        )
    ours = record["one_probe"][0]["cpu_seconds_per_probe"]
    rows = record["to_3_percent"] = costs(config, ours, spread, trace)
    harness.show("To a standard error of 3 %", COSTS, rows)
    cheapest = {
        n: min(r["cpu_seconds"] for r in rows if r["images"] == n) for n in (100, 50_000)
    }
    seconds = POINTS * (cheapest[50_000] + SETS * cheapest[100])
    record["figure_cpu_seconds"] = seconds
    print(
        f"The study's figure ({POINTS} points, {SETS} sets): {seconds / 3600:.2f} CPU hours"
    )
    estimates = record["estimators"] = reduced(config, problem)
    title = f"{estimates[0]['products']} products on {config.images} images"
    harness.show(title, ESTIMATORS, estimates)
    harness.write(config.json, record)


if __name__ == "__main__":
    harness.main(Config, run)
