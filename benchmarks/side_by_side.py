"""distilljax and PyTorch, plain and tuned, on the same work: equal results, then times.

    python -m benchmarks.side_by_side
    python -m benchmarks.side_by_side --work=bptt,gm --width=128 --threads=1

All sides have the same weights and images. Their results must agree, or the program ends;
this is checked on few steps, since rounding errors grow with each step (a ReLU that
switches changes all that follows), and the difference at full length is recorded. Then all
run in interleaved rounds, PyTorch in a process of its own, on the same cores, while the
others sleep. PyTorch is `benchmarks.torch_baseline`, twice: plain, as the methods are
usually written (loops in Python, double backward by `create_graph`, networks one after
another), and tuned, as well as we can write it (compiled, in pieces, channels last; see its
`tuned`). The ratio is to the faster of the two.

- Seconds are medians with quartiles; the ratio is that of medians of the same run.
- Memory is the growth of each process, see `harness.growth`, measured after all timings.
- FLOP/s count matrix products and convolutions of the algorithm (`harness.flops`), the same
  number for all sides, without recomputation for rematerialisation; the ceiling is the
  faster of the libraries' large matrix products, timed in the same rounds.
- What `torch.compile` takes in the first call is in no time.
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
from benchmarks.torch_baseline import TUNED
from distilljax.config import option
from distilljax.types import InputError

NAME = "side_by_side"
SIDES = {"ours": "here", "plain": "plain", "tuned": "tuned"}  # side -> in headings
BASELINES = {"plain": "", "tuned": TUNED}  # baseline -> before the names of its works


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
    """Returns relative differences of the results of two sides by name."""
    return {name: cases.difference(ours[name], theirs[name]) for name in ours}


def check(name: str, found: Mapping[str, float], tolerance: float) -> None:
    """Checks that the results of two sides agree.

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
    first = short.result(jax.jit(short.function)(*short.args))
    checked = {}
    for who, before in BASELINES.items():
        checked[who] = differences(first, remote.call(f"{before}{name}.check"))
        check(f"{name}, {who} PyTorch", checked[who], config.tolerance)
    program = harness.compiled(case.function, *case.args)

    def ours() -> Any:
        return program.call(*case.args)

    whole = case.result(ours())
    at_length = {
        who: differences(whole, remote.call(before + name))
        for who, before in BASELINES.items()
    }
    num_flops = harness.flops(case.counted, *case.args)
    product, product_flops = harness.product()
    copy, copied = harness.copy()
    samples = harness.interleave(
        {
            "ours": lambda: harness.clock(ours),
            "plain": lambda: remote.clock(name),
            "tuned": lambda: remote.clock(TUNED + name),
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
        **{who: side(who) for who in BASELINES},
        "ratio": {who: harness.ratio(samples[who], samples["ours"]) for who in BASELINES},
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


def _cpu(side: str) -> Any:
    return lambda record: figure(record[side]["cpu_seconds"]["median"])


def _mib(side: str) -> Any:
    return lambda record: mib(record[side]["grown_bytes"])


def _share(side: str) -> Any:
    return lambda record: f"{record[side]['share_of_ceiling']:.0%}"


def better(record: Mapping[str, Any], clock: str) -> float:
    """Returns the ratio of the faster PyTorch's median time to ours, `wall` or `cpu`."""
    return min(each[clock]["of_medians"] for each in record["ratio"].values())


def _largest(record: Mapping[str, Any]) -> str:
    return f"{max(max(d.values()) for d in record['differences'].values()):.0e}"


def columns(record: Mapping[str, Any]) -> tuple[Column, ...]:
    """Returns the columns for the sides of a record; earlier ones have no tuned PyTorch."""
    sides = {who: name for who, name in SIDES.items() if who in record}
    return (
        Column("work", lambda r: r["work"], left=True),
        Column("s of one", lambda r: r["unit"], left=True),
        *(Column(name, _seconds(who)) for who, name in sides.items()),
        *(Column(f"CPU s {name}", _cpu(who)) for who, name in sides.items()),
        Column("ratio to the better", lambda r: figure(better(r, "wall"))),
        Column("of CPU s", lambda r: figure(better(r, "cpu"))),
        *(Column(f"MiB {name}", _mib(who)) for who, name in sides.items()),
        *(Column(f"of ceiling {name}", _share(who)) for who, name in sides.items()),
        Column("compile s", lambda r: figure(r["ours"]["compile_seconds"])),
        Column("differ by", _largest),
    )


def table(record: Mapping[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return harness.markdown(columns(record["records"][0]), record["records"])


def run(config: Config) -> None:
    """Checks, measures, prints the table and writes the record, after each case as well."""
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
            harness.show(None, columns(record), records[-1:])
            harness.write(config.json, described | {"records": records})
        if jax.default_backend() == "cpu":
            for record in records:
                name = record["work"]
                record["ours"]["grown_bytes"] = harness.growth(timed[name])
                for who, before in BASELINES.items():
                    record[who]["grown_bytes"] = remote.growth(before + name)
    harness.show(harness.caption(described), columns(records[0]), records)
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
