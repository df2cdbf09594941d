"""Work sharded over virtual devices of one processor, with equal results on any number.

    python -m benchmarks.devices
    python -m benchmarks.devices --devices=1,2,4,8 --networks=16 --images=400

JAX sees the processor as several devices (each number in its own process, one working at a
time). Sharded over the devices are
- evaluation: networks, each trained and tested on one device, in sequence on each device;
- trace: images, for the trace of the Hessian with common probes
  (`distilljax.curvature.hessian.trace` on arrays with a `NamedSharding`).
The number of cores is fixed: a program on one device uses all of them within large
operations, several devices use them concurrently.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import contest, harness
from benchmarks.contest import Contestant
from benchmarks.harness import Column, Remote
from distilljax.config import FieldError, option
from distilljax.core import losses
from distilljax.curvature import hessian
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Array, Batch, Key, Params

FLAG = "--xla_force_host_platform_device_count="
WORKS = ("evaluation", "trace")


@dataclasses.dataclass(frozen=True)
class Config(contest.Options):
    """Options of the benchmark."""

    devices: str = option(
        "1,2,4", "Numbers of devices, separated by commas, starting with 1."
    )
    networks: int = option(8, "Number of networks in the evaluation.", low=1)
    steps: int = option(20, "Training steps of each network.", low=1)
    train_images: int = option(10, "Number of training images.", low=1)
    images: int = option(80, "Number of images of the test and of the trace.", low=1)
    chunk: int = option(20, "Images computed at a time on a device.", low=1)
    probes: int = option(4, "Number of probes of the trace.", low=2)
    repeats: int = option(3, "Timed rounds, after one warm-up round.", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.counts[0] != 1:
            raise FieldError("devices", self.devices, "must begin with 1, the reference")
        for name, value in (("networks", self.networks), ("images", self.images)):
            if any(value % count for count in self.counts):
                reason = f"must be divisible by each number of devices={self.devices}"
                raise FieldError(name, value, reason)

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of devices."""
        return contest.counts("devices", self.devices)


def make(values: dict[str, Any], num: int) -> dict[str, Callable[[], Any]]:
    """Returns the works on `num` devices; called in the process with these devices.

    Raises:
      InputError: the process has another number of devices.
    """
    config = Config.from_dict(values)
    contest.expect_devices(num)
    mesh = Mesh(np.array(jax.devices()), ("device",))
    over, everywhere = NamedSharding(mesh, P("device")), NamedSharding(mesh, P())
    model, params, images = contest.given(config)
    train = jax.tree.map(lambda x: x[: config.train_images], images)
    protocol = EvaluationProtocol(steps=config.steps)

    def evaluated(keys: Key, train: Batch, images: Array) -> Array:
        def one(key: Key) -> Array:
            return model.apply(evaluation.train(key, model, train, protocol), images)

        return jax.lax.map(one, keys)

    def traced(params: Params, batch: Batch) -> Array:
        return hessian.trace(
            losses.cross_entropy(model.apply),
            params,
            batch,
            jax.random.key(3),
            num_probes=config.probes,
            chunk=num * config.chunk,
        ).value

    keys = jax.random.split(jax.random.key(2), config.networks)
    # check_vma would take weights initialised to constants (normalisation scales) as
    # replicated and sum their gradients over devices.
    sharded = jax.shard_map(
        evaluated,
        mesh=mesh,
        in_specs=(P("device"), P(), P()),
        out_specs=P("device"),
        check_vma=False,
    )
    held = {
        "evaluation": contest.program(
            sharded,
            jax.device_put(keys, over),
            *jax.device_put((train, images.images), everywhere),
        ),
        "trace": contest.program(
            traced, jax.device_put(params, everywhere), jax.device_put(images, over)
        ),
    }

    def about() -> dict[str, Any]:
        return {name: one.about for name, one in held.items()}

    def numbers() -> dict[str, Any]:
        return {name: np.asarray(one.work()) for name, one in held.items()}

    return {name: one.work for name, one in held.items()} | {
        "about": about,
        "numbers": numbers,
    }


@contextlib.contextmanager
def presented(num: int) -> Iterator[None]:
    """Makes processes started within see the processor as `num` devices."""
    kept = [word for word in os.environ.get("XLA_FLAGS", "").split() if FLAG not in word]
    flags = " ".join([*kept, f"{FLAG}{num}"])
    with mock.patch.dict(os.environ, XLA_FLAGS=flags, JAX_PLATFORMS="cpu"):
        yield


def measure(config: Config) -> list[dict[str, Any]]:
    """Returns a record for each work and number of devices."""
    with contextlib.ExitStack() as stack:
        remotes = {}
        for num in config.counts:
            with presented(num):
                remotes[num] = stack.enter_context(Remote(make, config.to_dict(), num))
        found = {f"{n} devices": remote.call("numbers") for n, remote in remotes.items()}
        for work in WORKS:
            numbers = {f"{work}, {n}": value[work] for n, value in found.items()}
            contest.same(numbers, config.tolerance)
        contestants, clocks = {}, {}
        for work in WORKS:
            for num, remote in remotes.items():
                name = f"{work}, {num}"
                record = {"work": work, "devices": num} | remote.call("about")[work]
                clocks[name] = lambda remote=remote, work=work: remote.clock(work)
                contestants[name] = Contestant(clocks[name], record, 1, f"{work}, 1")
        samples = harness.interleave(clocks, config.repeats)
    return list(contest.records(contestants, samples).values())


COLUMNS = (
    Column("work", lambda r: r["work"], left=True),
    Column("devices", lambda r: r["devices"]),
    *contest.times("run"),
    contest.faster("1 device"),
    contest.COMPILE,
)


def cores(record: dict[str, Any]) -> str:
    """Returns a sentence on the expected speed-up."""
    num = record["environment"]["threads"]
    return (
        f"All devices share {num} core{'s' * (num != 1)}, so no more than x{num} over one "
        "core is possible; one device uses several cores within large operations."
    )


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return f"{harness.markdown(COLUMNS, record['records'])}\n\n{cores(record)}"


def run(config: Config) -> None:
    """Checks, measures, prints the table and writes the record."""
    harness.pin(config.threads)
    described = harness.described("devices", config)
    described["environment"]["device"] = "cpu"  # even if there are accelerators
    records = measure(config)
    harness.show(harness.caption(described), COLUMNS, records)
    print(cores(described))
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
