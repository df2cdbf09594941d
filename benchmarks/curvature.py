"""What the trace of a Hessian costs, to a standard error that is asked for.

    python -m benchmarks.curvature
    python -m benchmarks.curvature --dataset=cifar10 --width=128 --images=100 --torch

A ConvNet of depth 3 is trained on real images for a while; on it are measured
- seconds a probe of three ways to v^T H v, and with --torch PyHessian's, on the same
  images and weights: CPU seconds, interleaved, medians;
- the spread of a probe on all images and on random batches, and what follows from both:
  the cost of a standard error of 3 % of the trace, on 100 and on 10,000 images;
- Hutch++, and XTrace where matfree is installed, against Hutchinson at as many products;
- from these, the cost of the study's curvature figure: 301 points, the training set and
  four sets of 100 images.
"""

import dataclasses
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from rich import box
from rich.console import Console
from rich.table import Table

from distilljax import data
from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.core import inner, losses, sampling
from distilljax.core.evaluate import Protocol, optimizer
from distilljax.curvature import estimators, hessian
from distilljax.io.files import write_json
from distilljax.models import convnet
from distilljax.types import Array, Batch, InputError, Key
from experiments import launch, runs

SETS, POINTS = 4, 301  # of the study's figure
TARGET = 0.03


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the benchmark."""

    dataset: str = option("embedded", "Real images.")
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    width: int = option(32, "Channels of the ConvNet of depth 3.", low=1)
    iterations: int = option(100, "Steps of training before the measurement.", low=0)
    images: int = option(100, "Images on which probes are timed.", low=10)
    chunk: int = option(50, "Images in one pass.", low=1)
    probes: int = option(10, "Probes in each timing.", low=2)
    repeats: int = option(3, "Timings, after one that is not counted.", low=1)
    spread_images: int = option(1000, "Images on which the spread is measured.", low=10)
    spread_probes: int = option(40, "Probes for the spread.", low=4)
    batch: int = option(50, "Images of a random batch.", low=1)
    products: int = option(30, "Products for the variance-reduced estimators.", low=6)
    torch: bool = option(False, "Time PyHessian too; needs the extra `torch`.")
    json: str | None = option(None, "File to write the records to.")


class Problem:
    """A trained network and its images."""

    def __init__(self, config: Config):
        loaded = data.load(config.dataset, config.data_dir)
        transform = data.fit("normalise", loaded.train.images)
        k = loaded.num_classes
        real = data.on_device(loaded.train, transform, k)
        model = convnet.make(convnet.Config(width=config.width), loaded.image_shape, k)
        rule = optimizer(Protocol(), config.iterations, 0.01)
        self.loss_fn = losses.cross_entropy(model.apply)

        @jax.jit
        def train(key: Key) -> Any:
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
        """The first `num` images."""
        if num > self.real.labels.shape[0]:
            raise InputError(
                f"{self.name} has {self.real.labels.shape[0]} images, not {num}"
            )
        return sampling.take(self.real, jnp.arange(num))


def _forms(config: Config, problem: Problem) -> dict[str, Callable[..., Array]]:
    """Ways to v^T H v of several probes, (params, batch, key) -> f32[probes]."""
    loss_fn = problem.loss_fn

    def many(one: Callable[[Any, Any, Any], Array]) -> Callable[..., Array]:
        def compute(params: Any, batch: Batch, key: Key) -> Array:
            def of_chunk(part: Batch) -> Array:
                return jax.lax.map(
                    lambda i: one(
                        params, part, estimators.probe(jax.random.fold_in(key, i), params)
                    ),
                    jnp.arange(config.probes),
                )

            return hessian.mean_over(of_chunk, batch, chunk=config.chunk)

        return compute

    def forward_reverse(params: Any, batch: Batch, v: Any) -> Array:
        return estimators.dot(v, hessian.hvp(loss_fn, params, batch)(v))

    def reverse_reverse(params: Any, batch: Batch, v: Any) -> Array:
        def slope(params: Any) -> Array:
            return estimators.dot(jax.grad(loss_fn)(params, batch), v)

        return estimators.dot(v, jax.grad(slope)(params))

    return {
        "forward over forward (used)": many(
            lambda params, batch, v: hessian.along(loss_fn, params, batch, v)
        ),
        "forward over reverse": many(forward_reverse),
        "reverse over reverse": many(reverse_reverse),
    }


def _pyhessian(problem: Problem, config: Config) -> Callable[[], dict[str, Any]]:
    """A function that runs PyHessian in a process of its own."""
    batch = problem.batch(config.images)
    flat = {
        "/".join(part.key for part in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(problem.params)
    }

    def run() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            given, result = (
                pathlib.Path(folder, "given.npz"),
                pathlib.Path(folder, "r.json"),
            )
            np.savez(
                given,
                images=np.asarray(batch.images),
                labels=np.asarray(batch.labels.argmax(-1)),
                num_probes=config.probes,
                **flat,
            )
            module = "benchmarks.torch_baseline.pyhessian_trace"
            done = subprocess.run(
                [sys.executable, "-m", module, str(given), str(result)],
                capture_output=True,
                text=True,
                env=os.environ,
            )
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1:]
                raise InputError(
                    f"PyHessian could not run ({' '.join(last)}); install the extra `torch`"
                )
            return json.loads(result.read_text())

    return run


def time_probes(config: Config, problem: Problem) -> list[dict[str, Any]]:
    """CPU and wall seconds a probe of each way, interleaved."""
    batch = problem.batch(config.images)
    key = jax.random.key(1)
    compiled = {}
    records: dict[str, dict[str, Any]] = {}
    for name, form in _forms(config, problem).items():
        began = time.perf_counter()
        compiled[name] = jax.jit(form).lower(problem.params, batch, key).compile()
        records[name] = {
            "way": name,
            "compile_seconds": time.perf_counter() - began,
            "bytes": compiled[name].memory_analysis().temp_size_in_bytes,
            "cpu": [],
            "wall": [],
        }
    theirs = _pyhessian(problem, config) if config.torch else None
    if theirs:
        records["PyHessian"] = {"way": "PyHessian", "bytes": 0, "cpu": [], "wall": []}
    for repeat in range(config.repeats + 1):
        for name, program in compiled.items():
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(problem.params, batch, key))
            if repeat:
                records[name]["cpu"].append((time.process_time() - cpu) / config.probes)
                records[name]["wall"].append((time.perf_counter() - wall) / config.probes)
        if theirs and repeat:
            found = theirs()
            record = records["PyHessian"]
            record["cpu"].append(found["cpu_seconds"] / config.probes)
            record["wall"].append(found["wall_seconds"] / config.probes)
            record["bytes"] = found["bytes"]
            record["torch"] = found["torch"]
            record["mean"] = statistics.mean(found["values"])
    for record in records.values():
        for clock in ("cpu", "wall"):
            record[f"{clock}_seconds_per_probe"] = statistics.median(record[clock])
    return list(records.values())


def spreads(config: Config, problem: Problem) -> dict[str, Any]:
    """The trace on `spread_images` images, and the standard deviation of one probe."""
    batch = problem.batch(config.spread_images)
    found = {}
    for name, size in (("all", None), ("batch", config.batch)):

        def estimate(key: Key, size: int | None = size) -> Any:
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
    """Spread of estimators over keys, at as many products, on `images` images."""
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
        # Two products a sample.
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
    """Seconds for a standard error of 3 %, from seconds an image and probe."""
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


def run(config: Config) -> None:
    """Measures, prints the tables, writes what is asked for."""
    problem = Problem(config)
    timed = time_probes(config, problem)
    ours = timed[0]["cpu_seconds_per_probe"]
    title = (
        f"One probe on {config.images} images of {problem.name}, width {config.width}, "
        f"after {config.iterations} iterations"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("way", "CPU s", "wall s", "of ours", "MiB", "compile s"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for record in timed:
        table.add_row(
            record["way"],
            f"{record['cpu_seconds_per_probe']:.3g}",
            f"{record['wall_seconds_per_probe']:.3g}",
            f"{record['cpu_seconds_per_probe'] / ours:.2f}",
            f"{record['bytes'] / 2**20:.0f}",
            f"{record.get('compile_seconds', 0):.1f}",
        )
    Console().print(table)
    spread = spreads(config, problem)
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
    rows = costs(config, ours, spread, trace)
    table = Table(
        title="To a standard error of 3 %", title_justify="left", box=box.SIMPLE_HEAD
    )
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{value:.4g}" for value in row.values()))
    Console().print(table)
    cheapest = {
        n: min(r["cpu_seconds"] for r in rows if r["images"] == n) for n in (100, 50_000)
    }
    figure = POINTS * (cheapest[50_000] + SETS * cheapest[100])
    print(
        f"The study's figure ({POINTS} points, {SETS} sets): {figure / 3600:.2f} CPU hours"
    )
    variance = reduced(config, problem)
    table = Table(
        title=f"{variance[0]['products']} products on {config.images} images",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in ("estimator", "mean", "std over 8 keys"):
        table.add_column(column, justify="left" if column == "estimator" else "right")
    for record in variance:
        table.add_row(record["estimator"], f"{record['mean']:.1f}", f"{record['std']:.1f}")
    Console().print(table)
    if config.json:
        settings = config.to_dict()
        for place in ("json", "data_dir"):
            settings.pop(place)
        write_json(
            config.json,
            {
                "config": settings,
                "environment": runs.environment(),
                "one_probe": timed,
                "spread": spread,
                "to_3_percent": rows,
                "figure_cpu_seconds": figure,
                "estimators": variance,
            },
        )


if __name__ == "__main__":
    launch.main(Config, run)
