"""Numerical precision of a network: time against accuracy.

    python -m benchmarks.precision
    python -m benchmarks.precision --train_steps=300 --seeds=10 --width=128

Precisions are
- default: float32, with matrix products and convolutions in the backend's default
precision;
- highest: float32 throughout; tf32: float32 with products in tf32. A CPU computes float32
  products in float32 in any case, so it has neither;
- bfloat16: weights and images are cast before the network and logits after it; parameters,
  updates and the loss stay float32. All layers return bfloat16; the accumulation type is up
  to the backend, and the record has the sum of 4,096 ones (256 if accumulated in bfloat16);
- activations: the ConvNet with `activations=bfloat16`, an option of the library: images and
  weights of its convolutions are rounded, means and variances are float32.

Measured are a training step of SGD with momentum and a meta-gradient through `unroll` such
steps (time and difference from float64), and the test accuracy of new networks trained on
an artefact and tested in that precision. Full float32 must agree with float64.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import contest, harness
from benchmarks.contest import Contestant, Given
from benchmarks.harness import Column, figure
from distilljax import data, io
from distilljax.analysis.statistics import Spread, spread
from distilljax.config import option
from distilljax.core import distilled, inner, losses
from distilljax.models import MODELS, convnet
from distilljax.training import evaluation
from distilljax.types import Array, Batch, Key, Model, Params, RealSet

ARTEFACT = harness.ROOT / "experiments" / "artefacts" / "embedded_tm_ipc10"
ONES = 4096


@dataclasses.dataclass(frozen=True)
class Config(contest.Options):
    """Options of the benchmark."""

    images: int = option(100, "Batch size.", low=1)
    steps: int = option(5, "Training steps per dispatch.", low=1)
    unroll: int = option(5, "Inner steps of the meta-gradient.", low=1)
    train_steps: int = option(
        100, "Training steps of tested networks; the artefact specifies 300.", low=1
    )
    seeds: int = option(3, "Number of tested networks; 0: none.", low=0)
    repeats: int = option(3, "Timed rounds, after one warm-up round.", low=1)


class Precision(NamedTuple):
    """Numerical precision of a network."""

    products: str | None  # jax.default_matmul_precision; None for the backend default
    layers: Any  # dtype of weights and images within the network
    exact: bool  # whether it is full float32
    activations: convnet.Activations = "float32"  # option of the network


def precisions() -> dict[str, Precision | None]:
    """Returns precisions by name; None if the backend does not have it."""
    on_cpu = jax.default_backend() == "cpu"
    tensor_cores = jax.default_backend() == "gpu" and (
        float(getattr(jax.devices()[0], "compute_capability", 0)) >= 8
    )
    return {
        "default": Precision(None, jnp.float32, on_cpu),
        "highest": None if on_cpu else Precision("highest", jnp.float32, True),
        "tf32": Precision("tensorfloat32", jnp.float32, False) if tensor_cores else None,
        "bfloat16": Precision(None, jnp.bfloat16, False),
        "activations": Precision(None, jnp.float32, False, "bfloat16"),
    }


def casting(model: Model, precision: Precision) -> Model:
    """Returns the model with layers in the dtype of the precision; float32 in and out."""
    if precision.layers == jnp.float32:
        return model

    def cast(of: Callable[..., Array]) -> Callable[..., Array]:
        def computed(params: Params, images: Array) -> Array:
            low = jax.tree.map(lambda x: x.astype(precision.layers), (params, images))
            return of(*low).astype(jnp.float32)

        return computed

    return Model(model.init, cast(model.features), cast(model.apply))


def within(precision: Precision, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function traced with the precision of matrix products."""

    def traced(*args: Any) -> Any:
        with jax.default_matmul_precision(precision.products):
            return function(*args)

    return traced


def added_up() -> dict[str, float]:
    """Returns the sum of 4,096 bfloat16 ones by a matrix product and by a plain sum."""
    ones = jnp.ones((1, ONES), jnp.bfloat16)
    zero = jnp.zeros((), jnp.bfloat16)
    plain = jax.jit(lambda x: jax.lax.reduce(x, zero, jax.lax.add, (0, 1)))
    product = jax.jit(lambda x: x @ x.T)
    return {"product": float(product(ones)[0, 0]), "sum": float(plain(ones))}


Work = Callable[[Params, Batch, Batch], Any]


def works(model: Model, config: Config) -> dict[str, Work]:
    """Returns the timed functions of weights, distilled images and real images."""
    loss_fn = losses.cross_entropy(model.apply)
    rule = optax.sgd(0.01, momentum=0.9)

    def trained(params: Params, batch: Batch, steps: int) -> Params:
        def sample_batch(_: Any) -> Batch:
            return batch

        start = inner.init(params, rule)
        state, _ = inner.unroll(loss_fn, rule, sample_batch, start, jnp.arange(steps))
        return state.params

    def train(params: Params, batch: Batch, real: Batch) -> Params:
        del real
        after = trained(params, batch, config.steps)
        return jax.tree.map(jnp.subtract, after, params)

    def meta_gradient(params: Params, batch: Batch, real: Batch) -> Array:
        def outer_loss(images: Array) -> Array:
            learned = batch._replace(images=images)
            return loss_fn(trained(params, learned, config.unroll), real)

        return jax.grad(outer_loss)(batch.images)

    return {"step": train, "meta_gradient": meta_gradient}


def reference(config: Config, given: Given, args: Any) -> dict[str, Any]:
    """Returns the results of float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), args)
        made = works(given.model, config)
        return {n: jax.device_get(jax.jit(work)(*wide)) for n, work in made.items()}


def prepare(config: Config) -> dict[str, Contestant]:
    """Returns the works in all available precisions with differences from float64."""
    given = contest.given(config)
    real = contest.random_batch(config, config.images, seed=5)
    args = (given.params, given.batch, real)
    expected = reference(config, given, args)
    found = {}
    for name, precision in precisions().items():
        if precision is None:
            continue
        model = contest.network(config, activations=precision.activations)
        for work, function in works(casting(model, precision), config).items():
            one = contest.program(
                within(precision, function),
                *args,
                per=config.steps if work == "step" else 1,
                against=f"default, {work}",
                precision=name,
                work=work,
            )
            both = {"float64": expected[work], f"{work} in {name}": one.work()}
            limit = config.tolerance if precision.exact else float("inf")
            differs = contest.same(both, limit)[f"{work} in {name}"]
            one.about["difference"] = differs
            found[f"{name}, {work}"] = one
    return found


def accuracies(config: Config) -> dict[str, Spread]:
    """Returns test accuracy of new networks in every precision, with common seeds."""
    if not config.seeds:
        return {}
    artefact = io.load(ARTEFACT / "distilled.npz")
    loaded = data.load("embedded")
    kind = artefact.config["model"]
    settings = MODELS[kind].Config.from_dict(artefact.config[kind])
    test = data.on_device(loaded.test, artefact.transform, loaded.num_classes)
    protocol = artefact.protocol.replace({"steps": config.train_steps, "epochs": None})
    batch = distilled.as_batch(artefact.distilled)
    rate = jnp.exp(artefact.distilled.log_lr)
    keys = jax.random.split(jax.random.key(6), config.seeds)
    found = {}
    for name, precision in precisions().items():
        if precision is None:
            continue
        own = settings.replace({"activations": precision.activations})
        model = MODELS[kind].make(own, loaded.image_shape, loaded.num_classes)
        network = casting(model, precision)

        def score(
            keys: Key, batch: Batch, test: RealSet, network: Model = network
        ) -> Array:
            return evaluation.fresh_accuracy(
                keys, network, batch, test, protocol, learning_rate=rate
            )

        values = jax.jit(within(precision, score))(keys, batch, test)
        found[name] = spread(values)
    return found


def _time(work: str) -> Callable[[Any], str]:
    return lambda row: contest.cell(row[work]) if work in row else "-"


def _speed(work: str) -> Callable[[Any], str]:
    return lambda row: contest.speed(row[work]) if work in row else "-"


def _difference(work: str) -> Callable[[Any], str]:
    return lambda row: figure(row[work]["difference"], 2) if work in row else "-"


def _accuracy(row: Any) -> str:
    found = row.get("accuracy")
    if not found:
        return "-"
    spread = "" if found["std"] is None else f" ± {found['std']:.1%}"
    return f"{found['mean']:.1%}{spread} ({found['seeds']})"


COLUMNS = (
    Column("precision", lambda r: r["precision"], left=True),
    Column("s/training step", _time("step")),
    Column("times as fast as default", _speed("step")),
    Column("from float64", _difference("step")),
    Column("s/meta-gradient", _time("meta_gradient")),
    Column("times as fast as default", _speed("meta_gradient")),
    Column("from float64", _difference("meta_gradient")),
    Column("accuracy ± std (seeds)", _accuracy),
)


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return harness.markdown(COLUMNS, record["records"])


def run(config: Config) -> None:
    """Checks, measures, prints the table and writes the record."""
    harness.pin(config.threads)
    described = harness.described("precision", config)
    timed = contest.timed(prepare(config), config.repeats).values()
    accuracy = accuracies(config)
    records = []
    for name in precisions():
        row = {"precision": name} | {r["work"]: r for r in timed if r["precision"] == name}
        records.append(row | ({"accuracy": accuracy[name]} if name in accuracy else {}))
    sums = described["4096_ones_in_bfloat16"] = added_up()
    harness.show(harness.caption(described), COLUMNS, records)
    print(
        f"4,096 ones of bfloat16: {sums['product']:g} in a product, {sums['sum']:g} added"
    )
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
