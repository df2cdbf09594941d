"""Runs all benchmarks at laptop scale; writes records and their tables.

    python -m benchmarks.all
    python -m benchmarks.all --quick
    python -m benchmarks.all --out=benchmarks/records --readme
    python -m benchmarks.all --only=side_by_side,side_by_side_width128

Further sizes of the side by side ("_one_core", "_unroll30", ..) take longer and run only
when named. Each benchmark runs in its own process, one after another; the machine should be
otherwise idle.
"""

import dataclasses
import importlib
import importlib.util
import json
import pathlib
import re
import shlex
import subprocess
import sys

from benchmarks import contest, harness
from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.types import InputError

README = harness.ROOT / "benchmarks" / "README.md"
IN_README = (
    "methods",
    "memory",
    "throughput",
    "meta_gradient",
    "convolutions",
    "networks",
    "dispatch",
    "precision",
    "products",
    "experts",
    "devices",
    "cores",
    "cores_width128",
    "cores_main",
    "start",
    "growth",
    "side_by_side",
    "side_by_side_one_core",
    "side_by_side_unroll30",
    "side_by_side_unroll80",
    "side_by_side_width128",
    "side_by_side_ipc1",
    "ahead",
)
TINY = "--repeats=1 --width=4 --depth=1 --size=8 --images=4"

# Flags of each benchmark, and further flags for --quick.
RUNS = {
    "methods": (
        "--steps=2",
        "--steps=1 --repeats=1 --width=4 --size=8",
    ),
    "memory": ("--lengths=5,20,80", "--lengths=2,4 --width=4 --size=8"),
    "throughput": (
        "--ipcs=10 --steps=1",
        "--ipcs=1 --unrolls=2,3 --steps=1 --repeats=1 --width=4 --size=8 --real_batch=8",
    ),
    "meta_gradient": (
        "--unroll=3 --repeats=3",
        f"{TINY} --unroll=2 --pieces=2",
    ),
    "convolutions": ("--depth=2 --width=16", TINY),
    "networks": ("--networks=1,8 --steps=10", f"{TINY} --networks=1,2 --steps=2"),
    "dispatch": (
        "--methods=dm",
        "--dispatches=1,2 --methods=dm --repeats=1 --width=4 --size=8",
    ),
    "precision": (
        "--images=50 --width=16 --depth=2 --train_steps=20",
        f"{TINY} --steps=2 --unroll=2 --train_steps=1 --seeds=2",
    ),
    "products": ("--images=50 --width=16", f"{TINY} --products=1 --ntk_images=2"),
    "growth": (
        "",
        "--works=dm --dimensions=ipc --values=2 --repeats=1 --width=4 --size=8",
    ),
    "experts": (
        "--experts=2",
        "--experts=2 --augment= --repeats=1 --width=4 --size=8",
    ),
    "devices": (
        "--depth=2 --width=16",
        f"{TINY} --networks=4 --steps=2 --train_images=4 --probes=2",
    ),
    "curvature": (
        "--probes=5 --spread_images=500 --spread_probes=24 --products=12",
        "--probes=2 --repeats=1 --width=4 --iterations=2 --images=10 --chunk=10 "
        "--spread_images=10 --spread_probes=4 --batch=5 --products=6",
    ),
    "side_by_side": (
        "--unroll=5 --steps=30 --real_batch=64 --repeats=3",
        "--unroll=2 --steps=2 --real_batch=10 --repeats=1 --width=4 --depth=1 --size=8 "
        "--ipc=1 --test_images=10",
    ),
}
_ONE_CORE = (
    "--work=train,trace,tm,gm,dm,bptt --real_batch=100 --test_images=100 --threads=1"
)
# ReLUs of activations near zero round to either side.
_ROUNDED = "--check_steps=1 --tolerance=0.01"
_TINY_CORES = "--repeats=1 --width=4 --size=8 --works=dm --networks=2 --steps=2"
_TINY_SIDE = RUNS["side_by_side"][1]
# Further sizes of the side by side, and what needs the extra `ahead`; run only when named.
LONGER = {
    "side_by_side_one_core": (
        f"{_ONE_CORE} --unroll=2 --steps=10 --repeats=3 {_ROUNDED}",
        f"{_TINY_SIDE} --work=train --threads=1",
    ),
    "side_by_side_unroll30": (
        "--work=bptt,tm --unroll=30 --real_batch=64 --repeats=3",
        f"{_TINY_SIDE} --work=bptt",
    ),
    "side_by_side_unroll80": (
        "--work=bptt,tm --unroll=80 --real_batch=64 --repeats=1",
        f"{_TINY_SIDE} --work=bptt",
    ),
    "side_by_side_width128": (
        f"{_ONE_CORE} --width=128 --unroll=2 --steps=3 --repeats=2 {_ROUNDED}",
        f"{_TINY_SIDE} --work=bptt",
    ),
    "side_by_side_ipc1": (
        f"--work=tm --ipc=1 --width=128 --unroll=50 --threads=1 --repeats=2 {_ROUNDED}",
        f"{_TINY_SIDE} --work=tm",
    ),
    "cores": ("", _TINY_CORES),
    "cores_width128": (
        "--repeats=3 --width=128 --works=bptt,gm,dm,tm,evaluation --steps=10",
        _TINY_CORES,
    ),
    "cores_main": (
        "--works=main --repeats=3",
        "--works=main --repeats=1 --main_options='--steps=1 --score_every=1 "
        "--score_seeds=1 --eval_seeds=2 --whole_epochs=0 --noscores --bptt.unroll=2'",
    ),
    "start": ("", "--works=main --repeats=1 --width=4"),
    "ahead": (
        "--target=h100,h200,v5e,v6e --devices=1,8",
        "--program=train --width=4 --steps=2 --ipc=1",
    ),
}
EVERY = RUNS | LONGER


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the run."""

    out: str = option("runs/benchmarks", "Folder for records and tables.")
    threads: int | None = option(None, "Number of CPU cores to use; none: all.", low=1)
    only: str = option(
        "", "Benchmarks, separated by commas; empty: all but the longer ones."
    )
    quick: bool = option(False, "Use tiny sizes, to check that everything runs.")
    readme: bool = option(False, "Also write the tables to benchmarks/README.md.")

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.names  # validates

    @property
    def names(self) -> list[str]:
        """Names of the benchmarks to run."""
        return list(contest.names("only", self.only, EVERY) if self.only else RUNS)


def benchmark(name: str) -> str:
    """Returns the module in `benchmarks` that writes a record."""
    return re.sub(r"^(side_by_side|cores)_.*", r"\1", name)


def flags(name: str, config: Config, torch: bool) -> list[str]:
    """Returns the flags of one benchmark without that of its record."""
    words = shlex.split(EVERY[name][config.quick])
    if name == "memory":  # only compiles and plots
        words.append(f"--plot={pathlib.Path(config.out) / 'memory.png'}")
    elif name == "ahead":  # only compiles
        pass
    elif config.threads and not any(word.startswith("--threads") for word in words):
        words.append(f"--threads={config.threads}")
    if name in ("curvature", "start") and torch:
        words.append("--torch")
    return words


def section(name: str, path: pathlib.Path) -> str:
    """Returns table and caption of a record."""
    record = json.loads(path.read_text(encoding="utf-8"))
    table = importlib.import_module(f"benchmarks.{benchmark(name)}").table(record)
    return f"{table}\n\n{harness.caption(record)}"


def run(config: Config) -> None:
    """Runs the benchmarks and writes records and tables.

    Raises:
      InputError: a benchmark failed; its own message precedes.
    """
    torch = all(importlib.util.find_spec(name) for name in ("torch", "pyhessian"))
    out = pathlib.Path(config.out)
    for name in config.names:
        if benchmark(name) == "side_by_side" and not torch:
            print(f"{name} is left out: it needs the extra `torch`", file=sys.stderr)
            continue
        path = out / f"{name}.json"
        words = ["-m", f"benchmarks.{benchmark(name)}", *flags(name, config, torch)]
        print(shlex.join(["python", *words]), flush=True)
        done = subprocess.run([sys.executable, *words, f"--json={path}"])
        if done.returncode:
            raise InputError(f"benchmarks.{name} ended with code {done.returncode}")
    paths = {name: out / f"{name}.json" for name in EVERY}
    sections = {n: section(n, path) for n, path in paths.items() if path.exists()}
    text = "\n\n".join(f"## {name}\n\n{content}" for name, content in sections.items())
    (out / "tables.md").write_text(f"# Benchmarks\n\n{text}\n", encoding="utf-8")
    print(f"tables: {out / 'tables.md'}")
    if config.readme:
        held = README.read_text(encoding="utf-8")
        for name in IN_README:
            if name in sections:
                held = harness.fill(held, name, sections[name])
        README.write_text(held, encoding="utf-8")


if __name__ == "__main__":
    harness.main(Config, run)
