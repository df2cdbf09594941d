"""Temporary memory of one meta-gradient against the length of the unroll.

    python -m benchmarks.memory
    python -m benchmarks.memory --ipc=10 --width=128 --size=32 --channels=3

For `bptt` and `tm` under every rematerialisation policy: the temporary bytes of the
compiled outer step, which XLA states; nothing is run. The growth per inner step is
compared with the bytes of one set of parameters (`bptt` keeps their momentum too).
"""

import dataclasses
import pathlib
from typing import Any, get_args

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import problem
from distilljax.config import option
from distilljax.core import expert
from distilljax.core.scan import Remat
from distilljax.io.files import write_json
from distilljax.methods import METHODS, bptt, tm
from experiments import figures, launch, runs

LENGTHS = (5, 10, 20, 40, 80)


@dataclasses.dataclass(frozen=True)
class Config(problem.ProblemOptions):
    """Options of the benchmark."""

    augment: str = option("", "Augmentation in the students of `tm`.")
    json: str | None = option(None, "File to write the records to.")
    plot: str | None = option(None, "Picture to write (.png).")


def measure(name: str, length: int, remat: Remat, config: Config) -> dict[str, Any]:
    """Temporary bytes of one outer step, of the compiled program."""
    made = problem.make(config)
    settings = {
        "bptt": lambda: bptt.Config(unroll=length, remat=remat),
        "tm": lambda: tm.Config(student_steps=length, remat=remat, augment=config.augment),
    }[name]()
    method = METHODS[name].make(settings, made.model)
    state = method.init(jax.random.key(0), made.start)
    source = made.sources[METHODS[name].SOURCE]
    compiled = jax.jit(method.step).lower(jax.random.key(1), state, source).compile()
    return {
        "method": name,
        "remat": remat,
        "unroll": length,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


def run(config: Config) -> None:
    """Measures, prints the table, writes what is asked for."""
    parameters = 4 * expert.num_params(problem.make(config).model)
    table = Table(
        title=f"temporary MiB; one set of parameters is {parameters / 2**20:.2f} MiB",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    columns = ("method", "remat", *map(str, LENGTHS), "MiB a step")
    for column in columns:
        table.add_column(column, justify="left" if column in columns[:2] else "right")
    records = []
    for name in ("bptt", "tm"):
        for remat in get_args(Remat):
            row = [measure(name, length, remat, config) for length in LENGTHS]
            mib = [record["temporary_bytes"] / 2**20 for record in row]
            growth = (mib[-1] - mib[-2]) / (LENGTHS[-1] - LENGTHS[-2])
            table.add_row(name, remat, *(f"{x:.1f}" for x in mib), f"{growth:.3f}")
            records += row
    Console().print(table)
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
        figures.memory_curves(pathlib.Path(config.plot), lines)
    if config.json:
        described = {
            "config": problem.sizes(config),
            "environment": runs.environment(),
            "parameter_bytes": parameters,
        }
        write_json(config.json, described | {"records": records})


if __name__ == "__main__":
    launch.main(Config, run)
