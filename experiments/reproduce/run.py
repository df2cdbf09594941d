"""Distil the published rows again, and set the numbers beside each other.

    python -m experiments.reproduce --list
    python -m experiments.reproduce --rows=mnist_dc_ipc1,cifar10_dc_ipc1 --data_dir=DIR
    python -m experiments.reproduce --data_dir=DIR --jobs=2 --minutes=300

A queue of whole distillations by the papers' settings (`experiments.distill --preset=...`;
before them, where they are needed, their experts), at low priority (`--nice`), one after
another or `--jobs` at once on cores of their own. Each has a working directory under that
of the queue; the same command resumes an interrupted queue, and a row that is not finished
keeps the best set so far in `so_far.npz`. `rows.json` and a table hold the results: ours
beside the published number, networks, steps, time, and a verdict. Sets are chosen on
held-out training images, never on the test set. A row moves to another machine with its
folder: `--begun` names a copy of the queue's folder, or of parts of it, and rows go on
from there.

Rows in `experiments/artefacts` that were distilled before are shown and not run again.
Width 128 takes hours a row on one CPU core (`--list` has those of finished rows); this is
what one runs on a GPU for all of it.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distilljax import launch
from distilljax.config import option
from distilljax.disk.files import write_json
from distilljax.io import records
from distilljax.types import InputError
from experiments.lab.options import WorkdirOption, parse_choices
from experiments.lab.queue import (
    OUT_OF_TIME,
    Ledger,
    claimed,
    ledger_lines,
    run_queue,
    say,
    show_plan,
)
from experiments.lab.steps import Step
from experiments.lab.workdir import ROOT
from experiments.reproduce.rows import ROWS, Row
from experiments.reproduce.table import Entry, entry, is_finished, plain, show

NAME = "experiments.reproduce"
LEDGER = "queue.jsonl"
BY_NAME = {row.name: row for row in ROWS}


@dataclasses.dataclass(frozen=True)
class Config(WorkdirOption):
    """Options of the command."""

    rows: str = option("", "Only these rows, with commas; empty: all, in order.")
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    jobs: int = option(1, "Rows distilled at once, each on cores of its own.", low=1)
    nice: int = option(15, "Added to the priority of the process, as `nice` does.", low=0)
    minutes: float | None = option(
        None, "Stop after so many, with exit code 75; the same command goes on.", above=0
    )
    begun: str = option(
        "",
        "Folder of a queue interrupted elsewhere; rows that are new here continue from it.",
    )
    list: bool = option(False, "Print the table of all rows; run nothing.")
    plan: bool = option(False, "Print the commands and what is done of them; run nothing.")


def workdir_of(config: Config) -> pathlib.Path:
    """Returns the folder of the queue."""
    return pathlib.Path(config.workdir).expanduser() if config.workdir else ROOT / "rows"


def steps_of(row: Row, root: pathlib.Path, data_dir: str | None) -> Iterator[Step]:
    """Yields the commands of a row: its experts, where it needs them, and the row."""
    places = {"data_dir": data_dir} if data_dir else {}
    minutes = 60 * row.hours
    experts = root / f"{row.name}_experts"
    needs: tuple[str, ...] = ()
    inputs: tuple[pathlib.Path, ...] = ()
    flags: dict[str, Any] = {
        "method": row.method,
        "preset": row.preset,
        "dataset": row.dataset,
    }
    if row.experts is not None:
        preprocess = {"preprocess": "zca", "convnet.width": 128}
        made = {"dataset": row.dataset, **preprocess, **row.experts, **places}
        step = _step(f"{row.name}_experts", "train_experts", made, experts, 0.2 * minutes)
        yield step
        needs, inputs = (step.name,), (experts / "experts.json",)
        flags["experts_dir"] = str(experts)
    flags = {**flags, **row.flags, "whole_epochs": 0, **places}
    step = _step(row.name, "distill", flags, root / row.name, minutes)
    yield step._replace(needs=needs, inputs=inputs)


def _step(
    name: str,
    experiment: str,
    flags: dict[str, Any],
    folder: pathlib.Path,
    minutes: float,
) -> Step:
    return Step(
        name,
        name,
        f"experiments.{experiment}",
        {**flags, "workdir": folder},
        (),
        (),
        folder / "summary.json",
        minutes,
    )


def _commit() -> str | None:
    """Returns the commit of this clone; None outside of one."""
    command = ["git", "-C", str(pathlib.Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def run(config: Config) -> list[Entry]:
    """Works off the queue; returns the table.

    Raises:
      InputError: unknown rows, a folder that cannot be used, rows that failed.
    """
    names = parse_choices(config.rows, "rows", BY_NAME, "row", least=0) or list(BY_NAME)
    rows, root = [BY_NAME[name] for name in names], workdir_of(config)
    steps = [
        step
        for row in rows
        if not is_finished(row, root)
        for step in steps_of(row, root, config.data_dir)
    ]
    begun = pathlib.Path(config.begun).expanduser() if config.begun else root
    taken_up = _new_here(steps, root, begun) if config.begun else []
    if config.list:
        return _table(rows, root, None, begun)
    if config.plan:
        show_plan(steps, Ledger(root / LEDGER))
        for name in taken_up:
            say(f"{name} goes on from its folder in {begun}")
        return []
    os.nice(config.nice)
    with claimed(root, "reproduction"):
        _take_up(taken_up, root, begun)
        try:
            outcome = run_queue(
                steps,
                Ledger(root / LEDGER),
                root / "logs",
                jobs=config.jobs,
                minutes=config.minutes,
            )
        finally:
            entries = _table(rows, root, _commit(), root)
            write_json(root / "rows.json", entries)
    if outcome.broken:
        failed = ", ".join(f"{name} ({why})" for name, why in outcome.broken.items())
        raise InputError(f"rows failed: {failed}; the same command tries these again")
    if not outcome.finished:
        sys.exit(OUT_OF_TIME)
    return entries


def _new_here(steps: Sequence[Step], root: pathlib.Path, begun: pathlib.Path) -> list[str]:
    """Returns the steps that were begun in another queue and not in this one.

    Raises:
      InputError: the folder holds none of the steps.
    """
    names = [step.name for step in steps if (begun / step.name / "config.json").exists()]
    if steps and not names:
        wanted = ", ".join(step.name for step in steps)
        raise InputError(
            f"--begun: {begun} has no folder of {wanted}; name the --workdir of a queue "
            "that began them"
        )
    return [name for name in names if not (root / name).exists()]


def _take_up(names: Sequence[str], root: pathlib.Path, begun: pathlib.Path) -> None:
    """Copies the folders of steps that were begun in another queue, and what they took.

    Raises:
      InputError: a folder cannot be copied.
    """
    took, here = ledger_lines(begun / LEDGER), ledger_lines(root / LEDGER)
    for name in names:
        partial = root / f".{name}-copy"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            shutil.copytree(begun / name, partial)
            partial.rename(root / name)
        except (OSError, shutil.Error) as error:
            raise InputError(f"cannot copy {begun / name} to {root}: {error}") from None
        if name in took and name not in here:
            records.append(root / LEDGER, [took[name]])
        say(f"{name} goes on from its folder in {begun}")


def _table(
    rows: Sequence[Row],
    root: pathlib.Path,
    commit: str | None,
    begun: pathlib.Path,
) -> list[Entry]:
    """Shows and returns what there is of rows, of those new to `root` in `begun`."""
    ledgers = {at: ledger_lines(at / LEDGER) for at in {root, begun}}
    found = []
    for row in rows:
        at = root if (root / row.name).exists() else begun
        found.append(entry(row, at, commit, _hours(row, ledgers[at])))
    entries = plain(found)
    show(entries)
    return entries


def _hours(row: Row, steps: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Returns the CPU hours of a row and its experts; None where they were not counted.

    Args:
      row: the row.
      steps: the last line of each step in the ledger.
    """
    own = [steps[name] for name in (row.name, f"{row.name}_experts") if name in steps]
    if not own or any("cpu_seconds" not in line for line in own):
        return None
    return sum(line["cpu_seconds"] for line in own) / 3600


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; exit code 75 where it ran out of `--minutes`."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
