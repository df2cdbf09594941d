"""Outer steps per second of every method, by images per class and unroll length.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --ipcs=1,10,50 --unrolls=5,20,80 --width=128

Uses random images, several outer steps per dispatch, and interleaved rounds of all sizes of
all methods; `bptt` and `tm` are measured at every unroll length, `gm` and `dm` have none.
Each is compared with the same method at the first number of images per class and the first
unroll length.
"""

import dataclasses
from typing import Any

from benchmarks import contest, harness, methods, problem
from benchmarks.contest import Contestant
from benchmarks.harness import Column, figure, mib
from distilljax.config import option
from distilljax.methods import METHODS

UNROLL = {"bptt": "unroll", "tm": "student_steps"}  # option of the unroll length


@dataclasses.dataclass(frozen=True)
class Config(harness.Options):
    """Options of the benchmark."""

    ipcs: str = option("1,10", "Distilled images per class, separated by commas.")
    unrolls: str = option("5,20", "Inner steps of bptt and tm, separated by commas.")
    steps: int = option(2, "Outer steps per dispatch.", low=1)
    width: int = option(16, "Width of the ConvNet of depth 3.", low=1)
    size: int = option(28, "Height and width of the images.", low=8)
    channels: int = option(1, "Number of image channels.", low=1, high=3)
    real_batch: int = option(128, "Real images: per class (gm, dm), in all (bptt).", low=1)
    repeats: int = option(3, "Timed rounds, after one warm-up round.", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        contest.counts("ipcs", self.ipcs)
        contest.counts("unrolls", self.unrolls)


def prepare(config: Config) -> dict[str, Contestant]:
    """Returns the contestants: every method at every size."""
    found: dict[str, Contestant] = {}
    for ipc in contest.counts("ipcs", config.ipcs):
        options = problem.ProblemOptions(
            ipc=ipc, width=config.width, size=config.size, channels=config.channels
        )
        made = problem.make(options)
        for method in METHODS:
            option_name = UNROLL.get(method)
            lengths = contest.counts("unrolls", config.unrolls) if option_name else (None,)
            for length in lengths:
                settings = {option_name: length} if option_name else {}
                if method != "tm":  # tm reads no real images
                    settings["real_batch"] = config.real_batch
                name = f"{method}, ipc {ipc}, unroll {length or '-'}"
                first = next((n for n in found if n.startswith(f"{method},")), name)
                one = methods.prepare(method, made, config.steps, settings, first)
                found[name] = one._replace(about=one.about | {"ipc": ipc, "unroll": length})
    return found


COLUMNS = (
    Column("method", lambda r: r["method"], left=True),
    Column("images per class", lambda r: r["ipc"]),
    Column("unroll", lambda r: r["unroll"] or "-"),
    Column("steps/s", lambda r: figure(1 / r["wall_seconds"]["median"])),
    *contest.times("step"),
    Column(
        "times as long as its first",
        lambda r: figure(1 / r["ratio"]["wall"]["of_medians"]),
    ),
    contest.COMPILE,
    Column("temporary MiB", lambda r: mib(r["temporary_bytes"])),
)


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown."""
    return harness.markdown(COLUMNS, record["records"])


def run(config: Config) -> None:
    """Measures, prints the table and writes the record."""
    harness.pin(config.threads)
    described = harness.described("throughput", config)
    found = contest.timed(prepare(config), config.repeats).values()
    records = sorted(found, key=lambda r: list(METHODS).index(r["method"]))
    harness.show(harness.caption(described), COLUMNS, records)
    harness.write(config.json, described | {"records": records})


if __name__ == "__main__":
    harness.main(Config, run)
