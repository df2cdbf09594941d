"""distilljax and plain PyTorch on the same work: equal results, then time and memory.

    python -m benchmarks.side_by_side
    python -m benchmarks.side_by_side --work=bptt,gm --width=128 --threads=1

Both sides have the same weights and images. Their results must agree, or the program ends;
this is checked on few steps, since rounding errors grow with each step (a ReLU that
switches changes all that follows), and the difference at full length is recorded. Then both
run in interleaved rounds, each in its own process on the same cores while the other sleeps.
PyTorch is `benchmarks.torch_baseline`: loops in Python, double backward by `create_graph`,
networks one after another.

- Seconds are medians with quartiles; the ratio is that of medians of the same run.
- Memory is the growth of each process, see `harness.growth`, measured after all timings.
- FLOP/s count matrix products and convolutions of the algorithm (`harness.flops`), the same
  number for both sides, without recomputation for rematerialisation; the ceiling is the
  faster of both sides' large matrix products, timed in the same rounds.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from benchmarks import cases, contest, harness
from benchmarks.cases import CASES, Case
from benchmarks.harness import Column, Remote, figure, mib
from distilljax.config import option
from distilljax.types import InputError

NAME = "side_by_side"


@dataclasses.dataclass(frozen=True)
class Config(cases.Sizes, harness.Options):
    """Options of the benchmark."""

    work: str = option(",".join(CASES), "Cases, separated by commas.")
    check_steps: int = option(3, "Inner or training steps of the check.", low=1)
    tolerance: float = option(
        1e-3, "Maximum relative difference of results in the check.", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.names  # validates

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cases."""
        return contest.names("work", self.work, CASES)


def in_torch(given: Mapping[str, Any], device: str) -> Any:
    """Returns the works of PyTorch; called in the process with PyTorch."""
    from benchmarks.torch_baseline import works

    return works.make(given, device)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    """Returns relative differences of the results of both sides by name."""
    return {name: cases.difference(ours[name], theirs[name]) for name in ours}


def check(name: str, found: Mapping[str, float], tolerance: float) -> None:
    """Checks that the results of both sides agree.

    Args:
      name: name of the work.
      found: result of `differences`.
      tolerance: maximum difference.

    Raises:
      InputError: a difference is larger, or NaN.
    """
    for number, value in found.items():
        if not value <= tolerance:
            raise InputError(
                f"{name}: {number} differs by {value:.2g} of what PyTorch finds, more than "
                f"tolerance={tolerance:g}; nothing was timed. Rounding grows with "
                "check_steps: lower it to tell it from a fault"
            )


def shortened(config: Config) -> Config:
    """Returns the sizes of the check."""
    most = config.check_steps
    return config.replace(
        {"unroll": min(config.unroll, most), "steps": min(config.steps, most)}
    )


def measure(
    name: str, case: Case, short: Case, config: Config, remote: Remote
) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Checks the short case and times the other; returns a record and the timed work."""
    first = jax.jit(short.function)(*short.args)
    checked = differences(short.result(first), remote.call(f"{name}.check"))
    check(name, checked, config.tolerance)
    program = harness.compiled(case.function, *case.args)

    def ours() -> Any:
        return program.call(*case.args)

    at_length = differences(case.result(ours()), remote.call(name))
    num_flops = harness.flops(case.counted, *case.args)
    product, product_flops = harness.product()
    copy, copied = harness.copy()
    samples = harness.interleave(
        {
            "ours": lambda: harness.clock(ours),
            "torch": lambda: remote.clock(name),
            "our product": lambda: harness.clock(product),
            "torch's product": lambda: remote.clock("product"),
            "copy": lambda: harness.clock(copy),
        },
        config.repeats,
    )

    def rate(amount: float, who: str) -> float:
        return amount / float(np.median([sample.wall for sample in samples[who]]))

    ceilings = {who: rate(product_flops, who) for who in ("our product", "torch's product")}
    highest = max(ceilings.values())

    def side(who: str) -> dict[str, Any]:
        achieved = rate(num_flops, who)
        return harness.summary(samples[who], per=case.units) | {
            "grown_bytes": None,
            "flops_per_second": achieved,
            "share_of_ceiling": achieved / highest,
        }

    record = {
        "work": name,
        "unit": case.unit,
        "flops_per_unit": num_flops / case.units,
        "differences": checked,
        "differences_at_length": at_length,
        "ours": side("ours") | program.record(),
        "torch": side("torch"),
        "ratio": harness.ratio(samples["torch"], samples["ours"]),
        "ceiling": {
            "flops_per_second": ceilings,
            "copied_bytes_per_second": rate(copied, "copy"),
        },
    }
    return record, ours


def _seconds(side: str) -> Any:
    def cell(record: Mapping[str, Any]) -> str:
        found = record[side]["wall_seconds"]
        return f"{figure(found['median'])} ({harness.quartiles(found)})"

    return cell


COLUMNS = (
    Column("work", lambda r: r["work"], left=True),
    Column("s of one", lambda r: r["unit"], left=True),
    Column("here", _seconds("ours")),
    Column("PyTorch", _seconds("torch")),
    Column("ratio", lambda r: figure(r["ratio"]["wall"]["of_medians"])),
    Column("of CPU s", lambda r: figure(r["ratio"]["cpu"]["of_medians"])),
    Column("MiB here", lambda r: mib(r["ours"]["grown_bytes"])),
    Column("PyTorch", lambda r: mib(r["torch"]["grown_bytes"])),
    Column("of ceiling, here", lambda r: f"{r['ours']['share_of_ceiling']:.0%}"),
    Column("PyTorch", lambda r: f"{r['torch']['share_of_ceiling']:.0%}"),
    Column("compile s", lambda r: figure(r["ours"]["compile_seconds"])),
    Column("differ by", lambda r: f"{max(r['differences'].values()):.0e}"),
)


def table(record: Mapping[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return harness.markdown(COLUMNS, record["records"])


def run(config: Config) -> None:
    """Checks, measures, prints the table and writes the record."""
    versions = harness.need("torch")
    os.environ.setdefault(
        "XLA_PYTHON_CLIENT_PREALLOCATE", "false"
    )  # leaves memory for both
    harness.pin(config.threads)
    described = harness.described(NAME, config)
    described["environment"] |= versions
    if jax.default_backend() != "cpu":  # full float32 on both sides
        jax.config.update("jax_default_matmul_precision", "highest")
    made = cases.make(config.names, config)
    short = cases.make(config.names, shortened(config))
    given = {name: case.given for name, case in made.items()}
    given |= {f"{name}.check": case.given for name, case in short.items()}
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    records: list[dict[str, Any]] = []
    timed = {}
    with Remote(in_torch, given, device) as remote:
        described["environment"]["torch_threads"] = remote.call("about")["threads"]
        for name, case in made.items():
            record, timed[name] = measure(name, case, short[name], config, remote)
            records.append(record)
            harness.show(None, COLUMNS, records[-1:])
        if jax.default_backend() == "cpu":
            for record in records:
                name = record["work"]
                record["ours"]["grown_bytes"] = harness.growth(timed[name])
                record["torch"]["grown_bytes"] = remote.growth(name)
    harness.show(harness.caption(described), COLUMNS, records)
    for record in records[-1:]:
        speeds = record["ceiling"]["flops_per_second"].items()
        print(
            "ceilings: "
            + ", ".join(f"{who} {figure(speed / 1e9)} GFLOP/s" for who, speed in speeds)
            + f", copy {figure(record['ceiling']['copied_bytes_per_second'] / 1e9)} GB/s"
        )
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
