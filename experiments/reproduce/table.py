"""The table of `experiments.reproduce`: ours beside the published numbers."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypedDict

import experiments
from distilljax import io
from distilljax.io import records
from distilljax.types import InputError
from experiments.lab.records import read_of_run
from experiments.lab.terminal import new_table, show_table
from experiments.reproduce.rows import Row

EXPERIMENTS = pathlib.Path(experiments.__file__).parent


class Committed(NamedTuple):
    """A row that was distilled before.

    Attributes:
      folder: in `experiments`.
      commit: of the distillation.
      cpu_hours: of all starts.
      reason: how it differs from the row, or why it falls short.
      earlier: outer steps of the set that it began from (`--init_from`).
    """

    folder: str
    commit: str
    cpu_hours: float
    reason: str = ""
    earlier: int = 0


# The folders of rows that were distilled before.
COMMITTED = {
    "mnist_dc_ipc1": Committed("artefacts/mnist_dc_ipc1_width128", "2300ba5", 1.4),
    "fashion_mnist_dc_ipc1": Committed(
        "artefacts/fashion_mnist_dc_ipc1_width128", "2300ba5", 1.4
    ),
    "mnist_dsa_ipc1": Committed("artefacts/mnist_dsa_ipc1_width128", "f6050a2", 1.7),
    "fashion_mnist_dsa_ipc1": Committed(
        "artefacts/fashion_mnist_dsa_ipc1_width128", "f6050a2", 1.7
    ),
    "cifar10_dc_ipc1": Committed("artefacts/cifar10_dc_ipc1_width128", "526ed50", 1.7),
    "cifar10_dsa_ipc1": Committed("artefacts/cifar10_dsa_ipc1_width128", "526ed50", 1.8),
    # It began from the set that another run had after 750 steps.
    "cifar10_dm_ipc10": Committed(
        "artefacts/cifar10_dm_ipc10_width128_2750steps", "e9c1b71", 1.6, earlier=750
    ),
    # The matrices of ZCA are 17 MB, so these are no artefacts that commands take by name.
    "cifar10_mtt_ipc1": Committed(
        "results/reproduction/cifar10_mtt_ipc1", "c5e95b7", 2.0, "8 experts"
    ),
    "cifar10_frepo_ipc1": Committed(
        "results/reproduction/cifar10_frepo_ipc1",
        "2e393b4",
        1.1,
        "few steps, half its batch",
    ),
}

Outcome = Literal["within", "below", "not finished"]


class Entry(TypedDict):
    """A row of `rows.json`."""

    name: str
    dataset: str
    ipc: int
    preset: str
    method: str
    protocol: str
    published: float
    published_std: float | None
    source: str
    mean: float | None  # test accuracy; None until the row is finished
    std: float | None  # over networks
    networks: int
    outer_seeds: int
    random: float | None  # as many random real images
    held_out: float | None  # the best score so far
    steps: int
    cpu_hours: float | None  # of all starts
    verdict: Outcome
    reason: str
    command: str
    commit: str | None
    folder: str


def verdict(row: Row, mean: float, std: float | None, early: bool = False) -> Outcome:
    """Returns whether a mean reaches the published one.

    Within: it is not below by more than two standard deviations, those of both numbers
    over the networks of an evaluation together. Before the last outer step a large spread
    is no reason to stop, so there the published standard deviation alone counts, once.
    """
    spread = row.published_std or 0.0
    if early:
        return "within" if mean >= row.published - spread else "not finished"
    spread = math.hypot(spread, std or 0.0)
    return "within" if mean >= row.published - 2 * spread else "below"


def committed_of(row: Row, root: pathlib.Path) -> Committed | None:
    """Returns the row as it was distilled before; None where it runs in the queue."""
    here = (root / row.name / "config.json").exists()
    return None if here else COMMITTED.get(row.name)


def place(row: Row, root: pathlib.Path) -> pathlib.Path:
    """Returns the folder of a row: where it runs, or where it was committed."""
    committed = committed_of(row, root)
    return EXPERIMENTS / committed.folder if committed else root / row.name


def is_finished(row: Row, root: pathlib.Path) -> bool:
    """Whether a row has taken all of its outer steps."""
    summary, committed = _read(place(row, root) / "summary.json"), committed_of(row, root)
    earlier = committed.earlier if committed else 0
    return earlier + summary.get("steps", 0) >= row.steps


def _read(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        return read_of_run(path)
    except (OSError, ValueError):
        return {}


def entry(
    row: Row, root: pathlib.Path, commit: str | None, cpu_hours: float | None = None
) -> Entry:
    """Returns what there is of a row.

    Args:
      row: the row.
      root: folder of the queue.
      commit: of this clone.
      cpu_hours: of all starts; None where the queue has not measured them.
    """
    folder = place(row, root)
    summary, config = _read(folder / "summary.json"), _read(folder / "config.json")
    shown = folder.as_posix()
    committed = committed_of(row, root)
    if committed:
        commit, cpu_hours = committed.commit, committed.cpu_hours
        shown = f"experiments/{committed.folder}"
    found: Entry = {
        "name": row.name,
        "dataset": row.dataset,
        "ipc": row.ipc,
        "preset": row.preset,
        "method": row.method,
        "protocol": row.protocol,
        "published": row.published,
        "published_std": row.published_std,
        "source": row.source,
        "mean": None,
        "std": None,
        "networks": 0,
        "outer_seeds": 0,
        "random": None,
        "held_out": None,
        "steps": 0,
        "cpu_hours": cpu_hours,
        "verdict": "not finished",
        "reason": "not begun",
        "command": str(config.get("command", "")),
        "commit": commit if config else None,
        "folder": shown,
    }
    if summary:
        accuracy = summary["accuracy"]
        ours = accuracy["distilled"]
        found["mean"], found["std"] = ours["mean"], ours["std"]
        found["networks"], found["outer_seeds"] = ours["seeds"], 1
        found["random"] = accuracy["random"]["mean"] if "random" in accuracy else None
        found["held_out"] = summary["held_out_accuracy"]
        found["steps"] = summary["steps"] + (committed.earlier if committed else 0)
        found["protocol"] = summary["protocol"]["name"]
        found["reason"] = ""
        early = found["steps"] < row.steps
        judged = verdict(row, ours["mean"], ours["std"], early)
        if found["protocol"] == row.protocol:
            found["verdict"] = judged
            found["reason"] = row.note
            if committed and committed.reason and judged == "below":
                found["reason"] = committed.reason
        if early:
            done = f"{found['steps']:,} of {row.steps:,} outer steps"
            differs = [committed.reason] if committed and committed.reason else []
            found["reason"] = ", ".join([done, *differs])
        return found
    return _unfinished(found, folder)


def _unfinished(found: Entry, folder: pathlib.Path) -> Entry:
    """Adds how far a row has come."""
    try:
        steps = [record["step"] for record in records.read(folder / "metrics.jsonl")]
    except InputError:
        steps = []
    if not steps:
        return found
    found["steps"] = max(steps)
    found["reason"] = f"{found['steps']:,} outer steps"
    try:
        found["held_out"] = io.load(folder / "so_far.npz").notes["held_out_accuracy"]
    except (InputError, KeyError):
        return found
    found["reason"] += "; the best set so far is so_far.npz"
    return found


def show(entries: list[Entry]) -> None:
    """Prints the table."""
    columns = ("row", "published, %", "ours, %", "networks", "held out, %", "steps")
    table = new_table(
        "Published and ours: test accuracy, mean ± standard deviation over networks",
        (*columns, "CPU hours", "verdict"),
        caption="Within: not below by more than two standard deviations of both together; "
        "before the last outer step, by more than the published one.",
        left=("verdict",),
    )
    for one in entries:
        table.add_row(
            one["name"],
            _percent(one["published"], one["published_std"]),
            _percent(one["mean"], one["std"]),
            str(one["networks"] or "-"),
            _percent(one["held_out"], None),
            str(one["steps"] or "-"),
            "-" if one["cpu_hours"] is None else f"{one['cpu_hours']:.1f}",
            f"{one['verdict']} ({one['reason']})" if one["reason"] else one["verdict"],
        )
    show_table(table, 150)


def _percent(mean: float | None, std: float | None) -> str:
    if mean is None:
        return "-"
    return f"{100 * mean:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


def plain(entries: list[Entry]) -> list[Entry]:
    """Returns the entries as a file of JSON holds them."""
    return json.loads(json.dumps(entries))
