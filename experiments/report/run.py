r"""One page on what the experiments found, with a verdict on each claim of the paper.

    python -m experiments.report --records=runs/study-laptop
    python -m experiments.report --records=runs --dataset=cifar10 --out=report.html
    python -m experiments.report --records=runs/study-laptop-seed1 \
        --outer_seeds=runs/study-laptop-seed2,runs/study-laptop-seed3 --out=report.html

Reads every run under `--records` (a `config.json` beside a `summary.json`), and the runs
that made the sets they look at, where those lie as the records say, relative to the
current directory. A page is about one data set; records of others have to be named by
`--dataset`. `experiments.lab.claims` has the rule of the verdicts. With `--outer_seeds`
each number is the mean over several studies, each of which distilled its sets again; tables
and pictures of the experiments are then those of `--records`.

Writes `--out`, one HTML file that needs nothing else: its pictures are inside, there are
no scripts, and it is the same for the same records. Links lead to the records as they lie
beside it. `verdicts.json`, in the same folder, has the verdicts for programs.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from distilljax import launch
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.disk.files import replacing, write_json
from distilljax.types import InputError
from experiments.lab import claims
from experiments.lab.experiment import load_all
from experiments.lab.options import parse_paths
from experiments.lab.paper import TITLE
from experiments.lab.terminal import new_table, show_table
from experiments.report import outer_seeds
from experiments.report.collect import collect, guarded
from experiments.report.document import page
from experiments.report.verdicts import (
    SYMBOLS,
    count_outcomes,
    interval_text,
    judge,
    level_text,
    paper_number,
    reading_name,
)

NAME = "experiments.report"


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the report."""

    records: str = option("", "Folder of runs, searched for config.json at any depth.")
    outer_seeds: str = option(
        "",
        "Folders of further studies, of other seeds (experiments.study --sets=distil "
        "--seed=N), with commas: numbers are means over the studies.",
    )
    dataset: str | None = option(
        None, "Data that the page is about; none: those of the records, if all share them."
    )
    out: str | None = option(None, "The page; none: report.html in --records.")
    title: str = option(f"Revisiting “{TITLE}”", "Title of the page.")


def plain(verdicts: Sequence[claims.Verdict], base: pathlib.Path) -> dict[str, Any]:
    """Returns the verdicts as JSON can hold them."""

    def of(reading: claims.Reading) -> dict[str, Any]:
        found = reading._asdict()
        ends = reading.interval
        found["interval"] = None if ends is None else [ends.low, ends.high]
        found["outcome"] = reading.outcome()
        if reading.folder:
            found["folder"] = pathlib.Path(os.path.relpath(reading.folder, base)).as_posix()
        return found

    def figure(verdict: claims.Verdict) -> str | None:
        for reading in verdict.readings:
            path = pathlib.Path(reading.folder, verdict.claim.figure)
            if reading.folder and path.exists():
                return pathlib.Path(os.path.relpath(path, base)).as_posix()
        return None

    return {
        "counts": {kind: count_outcomes(verdicts)[kind] for kind in claims.OUTCOMES},
        "claims": [
            {
                "id": v.claim.id,
                "section": v.claim.section.key,
                "statement": v.claim.statement,
                "rule": v.claim.rule,
                "paper": v.claim.paper,
                "source": v.claim.source or None,
                "verdict": v.outcome,
                "deciding": None
                if v.deciding is None
                else {
                    **of(v.deciding.reading),
                    "level": 1 - v.deciding.alpha,
                    "interval_at_level": v.deciding.interval(),
                },
                "readings": [of(reading) for reading in v.readings],
                "figure": figure(v),
            }
            for v in verdicts
        ],
    }


COLOURS = {
    claims.SUPPORTED: "green",
    claims.NOT_SUPPORTED: "red",
    claims.UNDECIDED: "yellow",
    claims.NO_RECORD: "bright_black",
}


def show(verdicts: Sequence[claims.Verdict]) -> None:
    """Prints the table of verdicts."""
    columns = ("verdict", "sec.", "claim", "ours (95 %)", "paper")
    table = new_table("Verdicts", columns, left=columns, wrap=columns[3:])
    for verdict in verdicts:
        ours, theirs = "–", None
        if verdict.deciding is not None:
            reading, alpha = verdict.deciding
            interval = " ".join(
                filter(None, (interval_text(reading, alpha), level_text(alpha)))
            )
            ours = claims.spelt(reading.value or 0.0, reading.unit)
            ours += f" ({interval})" if interval_text(reading, alpha) else ""
            ours += f"; {reading_name(reading)}; {reading.n}"
            theirs = paper_number(reading)
        kind = verdict.outcome
        table.add_row(
            Text(f"{SYMBOLS[kind]} {kind}", style=COLOURS[kind]),
            verdict.claim.section.key,
            verdict.claim.id,
            ours,
            theirs or verdict.claim.stated(),
        )
    show_table(table, 150)


def run(config: Config) -> dict[str, Any]:
    """Writes the page and `verdicts.json`; returns the contents of the latter.

    Raises:
      InputError: records that cannot be used; a page that cannot be written.
    """
    if not config.records:
        raise FieldError("records", "", "name a folder of runs")
    root = pathlib.Path(config.records).expanduser()
    table = {name: guarded(experiment) for name, experiment in load_all().items()}
    collection = collect(root, table, config.dataset)
    others = parse_paths(config.outer_seeds, "outer_seeds")
    studies = [collection.records]
    for folder in others:
        if not pathlib.Path(folder).is_dir():
            raise FieldError("outer_seeds", folder, "there is no such folder")
        studies.append(collect(pathlib.Path(folder), table, config.dataset).records)
    seeds = outer_seeds.check([str(root), *others], studies) if others else []
    out = pathlib.Path(config.out).expanduser() if config.out else root / "report.html"
    verdicts = judge(studies, table)
    text = page(collection, table, verdicts, seeds, config.title, out.parent)
    found = {
        "dataset": dict(collection.dataset),
        "outer_seeds": seeds or None,
        **plain(verdicts, out.parent),
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
        write_json(out.with_name("verdicts.json"), found)
    except OSError as error:
        raise InputError(
            f"cannot write to {out.parent} ({error.strerror}); choose another --out"
        ) from None
    show(verdicts)
    print(f"{len(text.encode()) / 1e6:.1f} MB in {out}; verdicts.json lies beside it")
    return json.loads(json.dumps(found))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
