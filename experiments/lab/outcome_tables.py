"""Tables, CSV and picture of several finished runs, see `outcomes`."""

import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from distilljax.disk.files import replacing
from experiments.lab import outcomes
from experiments.lab.outcomes import Group, Outcome
from experiments.lab.pictures import accuracy_dots
from experiments.lab.terminal import new_table, show_table

MOST_ROWS = 24  # of a table on the terminal
MOST_GROUPS = 6  # quantities in the picture
_MEANING = (
    "± distillations: standard deviation between sets distilled with other seeds; "
    "± networks: over networks trained on one set. In brackets: how many."
)
_MEANING_OF_SINGLE = (
    "± networks: standard deviation over networks trained on a set; in brackets: how many. "
    "The spread between sets distilled with other seeds is not known."
)


def print_runs(groups: Sequence[Group]) -> None:
    """Prints which folder is which, and the settings that differ."""
    names = outcomes.differing([run for one in groups for run in one.runs])
    columns = ("run", "differs in", "folder")
    table = new_table("Runs", columns, left=columns, wrap=columns)
    for column in table.columns:
        column.overflow = "fold"
    for one in groups:
        for run in one.runs:
            told = [
                f"{name}={outcomes.spell(run.settings[name])}"
                for name in names
                if name in run.settings
            ]
            table.add_row(one.label, " ".join(told) or "nothing", str(run.folder))
    show_table(table)


def print_figures(groups: Sequence[Group], where: str) -> None:
    """Prints the figures, by quantity, one row a group of runs.

    Args:
      groups: of runs.
      where: the file that holds those that are not shown.
    """
    quantities = _common(groups) or list(groups[0].figures)
    if not quantities:
        print("these runs hold no figures that can be compared")
        return
    fitting = max(1, MOST_ROWS // len(groups))
    several = several_of(groups)
    columns = ["", "run", "mean", "± distillations", "± networks"]
    if not several:
        columns.remove("± distillations")
    caption = _MEANING if several else _MEANING_OF_SINGLE
    table = new_table("Results", columns, caption=caption, left=("run",), wrap=("", "run"))
    for quantity in quantities[:fitting]:
        for number, one in enumerate(groups):
            name = outcomes.title(quantity) if number == 0 else ""
            mean, between, within = _cells(quantity, one)
            spreads = (between, within) if several else (within,)
            table.add_row(name, one.label, mean, *spreads)
    show_table(table)
    if len(quantities) > fitting:
        print(f"{len(quantities) - fitting} more quantities are in {where}")


def several_of(groups: Sequence[Group]) -> bool:
    """Whether some runs are joined."""
    return any(len(one.runs) > 1 for one in groups)


def _cells(quantity: str, one: Group) -> tuple[str, str, str]:
    figure = one.figures.get(quantity)
    if figure is None:
        return "-", "-", "-"
    between = f"{outcomes.spelt(quantity, figure.between)} ({len(one.runs)})"
    within = f"{outcomes.spelt(quantity, figure.within)} ({figure.networks})"
    return (
        outcomes.spelt(quantity, figure.mean),
        between if figure.between is not None else f"- ({len(one.runs)})",
        within,
    )


def _common(groups: Sequence[Group]) -> list[str]:
    return [n for n in groups[0].figures if all(n in one.figures for one in groups)]


def write_csv(path: pathlib.Path, groups: Sequence[Group]) -> None:
    """Writes a row for each figure of each run, and of runs that are joined."""
    every = [run for one in groups for run in one.runs]
    names = outcomes.differing(every)
    head = ["run", "folder", "experiment", *names, "quantity", "mean", "distillations",
            "std_distillations", "networks", "std_networks", "values"]  # fmt: skip
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(head)
        for one in groups:
            for run in one.runs:
                about = [one.label, str(run.folder), run.experiment, *_settings(run, names)]
                for name, s in run.figures.items():
                    values = " ".join(map(repr, s["values"]))
                    std = "" if s["std"] is None else s["std"]
                    row = [name, s["mean"], 1, "", s["seeds"], std, values]
                    writer.writerow([*about, *row])
            if len(one.runs) > 1:
                _write_joined(writer, one, names)


def _write_joined(writer: Any, one: Group, names: Sequence[str]) -> None:
    settings = _settings(one.runs[0], names)
    shown = ["" if n == outcomes.SEED else v for n, v in zip(names, settings, strict=True)]
    for name, figure in one.figures.items():
        within = "" if figure.within is None else figure.within
        row = [name, figure.mean, len(one.runs), figure.between, figure.networks, within]
        values = " ".join(map(repr, figure.means))
        writer.writerow([one.label, "", one.runs[0].experiment, *shown, *row, values])


def _settings(run: Outcome, names: Sequence[str]) -> list[str]:
    return [outcomes.spell(run.settings[n]) if n in run.settings else "" for n in names]


def draw(path: pathlib.Path, groups: Sequence[Group]) -> bool:
    """Draws the shares that all runs have; returns whether there are any."""
    shares = [
        name
        for name in _common(groups)
        if outcomes.is_share(name)
        and all(run.figures[name]["seeds"] > 1 for one in groups for run in one.runs)
    ][:MOST_GROUPS]
    if not shares:
        return False
    rows: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    for one in groups:
        several = len(one.runs) > 1
        label = f"{one.label}, {len(one.runs)} distillations" if several else one.label
        rows[label] = {}
        for name in shares:
            joined, networks = one.figures[name], one.runs[0].figures[name]["values"]
            rows[label][_broken(outcomes.title(name))] = {  # type: ignore[index]
                "mean": joined.mean,
                "std": joined.between if several else joined.within,
                "values": joined.means if several else networks,
            }
    dots = "distillations, or networks of one" if several_of(groups) else "networks"
    accuracy_dots(path, rows, f"Mean and standard deviation; small dots: {dots}")
    return True


def _broken(text: str) -> str:
    """Returns a title in lines of few words, for an axis."""
    words, lines = text.replace(".", " ").split(), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > 13:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
