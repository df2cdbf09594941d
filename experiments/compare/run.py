"""Compare finished runs: their results, and the settings that differ.

    python -m experiments.compare runs/distill/*
    python -m experiments.compare runs/a runs/b --out=runs/a_and_b

Takes the folders of finished runs of any experiment. Runs that differ in their seed alone
are combined, with the spread between distillations beside that over networks. The folder
`--out` then holds `compare.csv` (every number of every run, with the settings that differ)
and `compare.png` (accuracies). Nothing is computed again.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from distilljax import launch
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from experiments.lab import outcome_tables, outcomes
from experiments.lab.pictures import kept_apart

NAME = "experiments.compare"
CSV, PICTURE = "compare.csv", "compare.png"


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the command."""

    runs: str = option("", "Folders of finished runs; may stand without the flag.")
    out: str = option("runs/compare", f"Folder for {CSV} and {PICTURE}, written anew.")


def run(config: Config) -> list[outcomes.Group]:
    """Compares, prints and writes.

    Returns:
      The groups of runs, as they were compared.

    Raises:
      InputError: fewer than two runs, or one that is not finished.
    """
    folders = _folders(config.runs)
    if len(folders) < 2:
        reason = "name the folders of two or more runs: experiments.compare DIR DIR ..."
        raise FieldError("runs", config.runs, reason)
    seen = set[pathlib.Path]()
    for folder in folders:
        if folder.resolve() in seen:
            raise FieldError("runs", str(folder), "is named twice")
        seen.add(folder.resolve())
    groups = outcomes.group([outcomes.read(folder) for folder in folders])
    out = pathlib.Path(config.out).expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
        outcome_tables.write_csv(out / CSV, groups)
    except OSError as error:
        raise FieldError(
            "out", config.out, f"cannot be written ({error.strerror})"
        ) from None
    outcome_tables.print_runs(groups)
    outcome_tables.print_figures(groups, str(out / CSV))
    print(f"In {out}: {CSV}, every figure with the settings that differ", end="")
    drawn = False
    with kept_apart("the picture"):
        drawn = outcome_tables.draw(out / PICTURE, groups)
    print(f"; {PICTURE}" if drawn else "; no picture, as there is no accuracy in all runs")
    return groups


def with_runs(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with the folders among them behind `--runs`."""
    flags, folders = list[str](), list[str]()
    words = iter(argv)
    for word in words:
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-"):
            folders.append(word)
        elif name == "runs":
            folders.append(value if equals else next(words, ""))
        elif name == "out" and not equals:
            flags.append(f"--out={next(words, '')}")
        else:
            flags.append(word)
    return [*flags, *(["--runs=" + "\n".join(folders)] if folders else [])]


def _folders(text: str) -> list[pathlib.Path]:
    """Returns the folders in a list with line breaks or commas."""
    found = list[pathlib.Path]()
    for line in filter(None, text.split("\n")):
        whole = pathlib.Path(line).expanduser()
        parts = [line] if whole.exists() else line.split(",")
        found += [pathlib.Path(part.strip()).expanduser() for part in parts if part.strip()]
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    words = sys.argv[1:] if argv is None else argv
    launch.main(Config, run, module=NAME, summary=__doc__, argv=with_runs(words))
