"""Collects the records of a report: finished runs that are about one data set."""

import functools
import os
import pathlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from distilljax.config import FieldError
from distilljax.types import InputError
from experiments.lab.claims import Record
from experiments.lab.experiment import Experiment
from experiments.lab.records import SUMMARY, DatasetRecord, checked, read_of_run

Table = Mapping[str, Experiment]
_UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class Run(NamedTuple):
    """A run without a part in the verdicts."""

    folder: str
    experiment: str
    command: str


class Collection(NamedTuple):
    """The records of a page."""

    records: list[Record[Any]]  # all of one data set, by experiment and folder
    dataset: DatasetRecord
    unfinished: list[Run]
    others: list[Run]  # experiments that the page does not read
    missing: list[str]  # sentences

    def by_experiment(self) -> dict[str, list[Record[Any]]]:
        """Returns the records of each experiment that has any."""
        found: dict[str, list[Record[Any]]] = {}
        for record in self.records:
            found.setdefault(record.experiment, []).append(record)
        return found


def _folders(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields folders with a config.json, through links, each once, in order."""
    seen = set()
    for here, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if "config.json" in files:
            yield pathlib.Path(here)


def guarded(experiment: Experiment) -> Experiment:
    """Returns the experiment with an `InputError` where its records do not fit together.

    Their types were checked when they were read; that a name in one place is there in
    another, or that a number is not 0, shows when they are used.
    """

    def of(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(function)
        def call(given: Record[Any] | Sequence[Record[Any]]) -> Any:
            try:
                found = function(given)
                return list(found) if isinstance(found, Iterator) else found
            except InputError:
                raise
            except _UNFIT as error:
                records = [given] if isinstance(given, Record) else given
                folders = ", ".join(record.folder for record in records)
                raise InputError(
                    f"{folders}: values do not fit together ({error!r}); run "
                    f"experiments.{experiment.name} again, or move the folder away"
                ) from error

        return call

    names = ("title", "sets", "subjects", "networks", "notes", "facts")
    changed: dict[str, Any] = {name: of(getattr(experiment, name)) for name in names}
    return experiment._replace(
        **changed,
        claims=tuple(one._replace(read=of(one.read)) for one in experiment.claims),
        contents=tuple((section, of(make)) for section, make in experiment.contents),
    )


def _json(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        return read_of_run(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); run that experiment again, or move the "
            "folder away"
        ) from None


def _read(folder: pathlib.Path, table: Table) -> Record[Any] | Run | None:
    """Returns the run in a folder; None where its config.json is none of ours."""
    config = _json(folder / "config.json")
    module = config.get("experiment")
    if not isinstance(module, str) or not module.startswith("experiments."):
        return None
    if not isinstance(config.get("config"), dict) or not isinstance(
        config.get("command"), str
    ):
        raise InputError(f"{folder}/config.json is damaged; move the folder away")
    name, shown = module.removeprefix("experiments."), folder.as_posix()
    if name not in table or not (folder / SUMMARY).exists():
        return Run(shown, name, config["command"])
    summary = checked(table[name].summary, _json(folder / SUMMARY), shown, name)
    command = summary.get("command", config["command"])
    return Record(name, shown, config["config"], str(command), summary)


def collect(root: pathlib.Path, table: Table, dataset: str | None = None) -> Collection:
    """Returns the runs under `root` on one data set, and the runs that made their sets.

    Args:
      root: a folder of runs, at any depth.
      table: the experiments that have a part in the report, by name.
      dataset: the data's name or source, or the beginning of its fingerprint.

    Raises:
      InputError: no records; damaged ones; records of other data; two different records
        about the same.
    """
    if not root.is_dir():
        raise FieldError("records", str(root), "there is no such folder")
    found = [one for f in _folders(root) if (one := _read(f, table)) is not None]
    finished = [one for one in found if isinstance(one, Record)]
    left = [one for one in found if isinstance(one, Run)]
    if not finished:
        raise InputError(
            f"{root} holds no finished run of {', '.join(table)}; run one of these, or "
            "name the folder that --workdir named"
        )
    records = _of_one_dataset(finished, dataset)
    records, missing = _with_makers(records, table)
    records = _without_twins(records, table)
    order = list(table)
    records.sort(key=lambda record: (order.index(record.experiment), record.folder))
    return Collection(
        records,
        records[0].summary["dataset"],
        [run for run in left if run.experiment in table],
        [run for run in left if run.experiment not in table],
        missing,
    )


def _of_one_dataset(
    records: Sequence[Record[Any]], dataset: str | None
) -> list[Record[Any]]:
    by_data: dict[str, list[Record[Any]]] = {}
    for record in records:
        by_data.setdefault(record.summary["dataset"]["fingerprint"], []).append(record)

    def named(of: Sequence[Record[Any]]) -> str:
        folders = ", ".join(record.folder for record in of[:3])
        more = f" and {len(of) - 3} more" if len(of) > 3 else ""
        return f"{of[0].summary['dataset']['name']} ({folders}{more})"

    listed = "; ".join(map(named, by_data.values()))
    if dataset is None:
        if len(by_data) > 1:
            raise InputError(
                f"a page is about one data set, and here are records of {listed}; choose "
                "with --dataset"
            )
        return list(records)
    wanted = dataset.lower()
    chosen = [
        of
        for fingerprint, of in by_data.items()
        if wanted in {of[0].summary["dataset"][k].lower() for k in ("name", "source")}
        or (len(wanted) > 6 and fingerprint.startswith(wanted))
    ]
    if len(chosen) != 1:
        what = "several data sets of that name are" if chosen else "no such data are"
        reason = f"{what} among the records: {listed}"
        raise FieldError("dataset", dataset, reason)
    return chosen[0]


def _with_makers(
    records: Sequence[Record[Any]], table: Table
) -> tuple[list[Record[Any]], list[str]]:
    """Returns the records with those of the runs that made their sets, and what lacks."""
    fingerprint = records[0].summary["dataset"]["fingerprint"]
    found, missing = list(records), []
    known = {os.path.realpath(record.folder) for record in records}
    paths = {path for r in records for path in table[r.experiment].sets(r)}
    for path in sorted(paths):
        folder = pathlib.Path(path).parent
        if os.path.realpath(folder) in known:
            continue
        known.add(os.path.realpath(folder))
        made = _read(folder, table) if (folder / "config.json").exists() else None
        if not isinstance(made, Record) or table[made.experiment].make_sets is None:
            missing.append(
                f"There is no record of how {path} was made, so its accuracy and its "
                "picture are left out."
            )
        elif made.summary["dataset"]["fingerprint"] != fingerprint:
            missing.append(
                f"{path} was made of other data ({made.summary['dataset']['name']}), so "
                "its accuracy is left out."
            )
        else:
            found.append(made)
    return found, missing


def _without_twins(records: Sequence[Record[Any]], table: Table) -> list[Record[Any]]:
    """Returns the records without copies of one another.

    Raises:
      InputError: two different records of the same.
    """
    kept: list[Record[Any]] = []
    holder: dict[tuple[str, Hashable], Record[Any]] = {}
    for record in records:
        about = table[record.experiment].subjects(record)
        subjects = [(record.experiment, subject) for subject in about]
        shared = next((holder[subject] for subject in subjects if subject in holder), None)
        if shared is None:
            kept.append(record)
            holder |= dict.fromkeys(subjects, record)
        elif (shared.config, shared.summary) != (record.config, record.summary):
            raise InputError(
                f"{shared.folder} and {record.folder} are both experiments."
                f"{record.experiment} on the same set and data, and differ; move one away"
            )
    return kept
