"""Temporary memory of one meta-gradient against the length of the unroll.

    python -m benchmarks.memory
    python -m benchmarks.memory --ipc=10 --width=128 --size=32 --channels=3

For `bptt` and `tm` under every rematerialisation policy: the temporary bytes of the
compiled outer step, as reported by XLA; nothing is run. The growth per inner step is
compared with the bytes of one set of parameters (`bptt` also stores their momentum).
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

import jax

from benchmarks import contest, harness, problem
from benchmarks.harness import Column, figure, mib
from distilljax.config import FieldError, option
from distilljax.core import parameters
from distilljax.core.scan import Remat
from distilljax.disk.files import replacing
from distilljax.methods import METHODS, bptt, tm

COLOURS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce")


@dataclasses.dataclass(frozen=True)
class Config(problem.ProblemOptions):
    """Options of the benchmark."""

    augment: str = option("", "Augmentation of student batches of tm.")
    lengths: str = option(
        "5,10,20,40,80", "Unroll lengths, at least two, separated by commas."
    )
    json: str | None = option(None, "File for the records.")
    plot: str | None = option(None, "File for the plot (.png).")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(contest.counts("lengths", self.lengths)) < 2:
            raise FieldError("lengths", self.lengths, "one length shows no growth")


def measure(name: str, length: int, remat: Remat, config: Config) -> dict[str, Any]:
    """Returns the temporary bytes of a compiled outer step."""
    made = problem.make(config)
    settings = {
        "bptt": lambda: bptt.Config(unroll=length, remat=remat),
        "tm": lambda: tm.Config(student_steps=length, remat=remat, augment=config.augment),
    }[name]()
    method = METHODS[name].make(settings, made.model)
    state = method.init(jax.random.key(0), made.start)
    source = made.sources[METHODS[name].SOURCE]
    program = harness.compiled(method.step, jax.random.key(1), state, source)
    return {
        "method": name,
        "remat": remat,
        "unroll": length,
        "temporary_bytes": program.temporary_bytes,
    }


def _rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row for each method and policy, with `bytes` by unroll length."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        kind = {n: record[n] for n in ("method", "remat")}
        row = rows.setdefault((record["method"], record["remat"]), kind | {"bytes": {}})
        row["bytes"][record["unroll"]] = record["temporary_bytes"]
    return list(rows.values())


def _held(length: int) -> Callable[[Mapping[str, Any]], str]:
    """Returns the cell of MiB at an unroll length."""
    return lambda row: mib(row["bytes"][length])


def _growth(row: Mapping[str, Any]) -> str:
    """Returns MiB per step between the two longest unrolls."""
    (before, low), (last, high) = sorted(row["bytes"].items())[-2:]
    return figure((high - low) / harness.MIB / (last - before))


def columns(lengths: Iterable[int]) -> tuple[Column, ...]:
    """Returns the columns of a table with these unroll lengths."""
    return (
        Column("method", lambda r: r["method"], left=True),
        Column("remat", lambda r: r["remat"], left=True),
        *(Column(f"{length} steps", _held(length)) for length in lengths),
        Column("MiB a step", _growth),
    )


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    lengths = sorted({r["unroll"] for r in record["records"]})
    return harness.markdown(columns(lengths), _rows(record["records"]))


def plot(
    path: pathlib.Path, lines: Mapping[tuple[str, str], Sequence[tuple[int, float]]]
) -> None:
    """Plots temporary memory against the unroll length.

    Args:
      path: the PNG to write.
      lines: (method, policy) -> (inner steps, MiB) pairs.
    """
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(method for method, _ in lines))
    figure = Figure(figsize=(7.2, 3.2), dpi=150)
    panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    for axes, method in zip(panels, methods, strict=True):
        policies = [policy for m, policy in lines if m == method]
        for policy, colour in zip(policies, COLOURS, strict=False):
            x, y = zip(*lines[method, policy], strict=True)
            axes.plot(x, y, "o-", color=colour, markersize=3.5, label=f"remat={policy}")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(x, map(str, x))
        axes.minorticks_off()
        axes.set_title(method, loc="left", fontweight="bold")
        axes.set_xlabel("inner steps")
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("temporary memory, MiB")
    panels[0].legend(frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, bbox_inches="tight", facecolor="white")


def run(config: Config) -> None:
    """Measures, prints the table, writes the record and the plot."""
    described = harness.described("memory", config)
    lengths = sorted(contest.counts("lengths", config.lengths))
    num_bytes = 4 * parameters.num_params(problem.make(config).model)
    records = [
        measure(name, length, remat, config)
        for name in ("bptt", "tm")
        for remat in get_args(Remat)
        for length in lengths
    ]
    title = f"temporary MiB; one set of parameters is {mib(num_bytes)} MiB"
    harness.show(title, columns(lengths), _rows(records))
    if config.plot:
        lines = {
            (name, remat): [
                (r["unroll"], r["temporary_bytes"] / 2**20)
                for r in records
                if (r["method"], r["remat"]) == (name, remat)
            ]
            for name in ("bptt", "tm")
            for remat in get_args(Remat)
        }
        plot(pathlib.Path(config.plot), lines)
    described["parameter_bytes"] = num_bytes
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
