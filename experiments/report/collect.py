"""TODO."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from distilljax.config import FieldError
from distilljax.types import InputError
from experiments.lab.claims import Record

READ = (
    "distill",
    "recognition",
    "mixing",
    "agreement",
    "dynamics",
    "influence",
    "attributes",
    "coresets",
    "cross_architecture",
)


class Run(NamedTuple):
    """A run that has no part in the verdicts."""

    folder: str
    experiment: str
    command: str


class Collection(NamedTuple):
    """What a page is made of."""

    records: list[Record]  # all of one data set, in order of `READ` and folder
    dataset: Mapping[str, Any]
    unfinished: list[Run]
    others: list[Run]  # experiments that the page does not read
    missing: list[str]  # sentences


def _folders(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Folders with a config.json, through links, each once, in order."""
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


def _json(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); run that experiment again, or move the "
            "folder away"
        ) from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object; move the folder away")
    return found


def _read(folder: pathlib.Path) -> Record | Run | None:
    """What lies in a folder; None where its config.json is none of ours."""
    config = _json(folder / "config.json")
    module = config.get("experiment")
    if not isinstance(module, str) or not module.startswith("experiments."):
        return None
    if not isinstance(config.get("config"), dict) or not isinstance(
        config.get("command"), str
    ):
        raise InputError(f"{folder}/config.json is damaged; move the folder away")
    name, shown = module.removeprefix("experiments."), folder.as_posix()
    if not (folder / "summary.json").exists():
        return Run(shown, name, config["command"])
    summary = _json(folder / "summary.json")
    command = summary.get("command", config["command"])
    return Record(name, shown, config["config"], str(command), summary)


def collect(root: pathlib.Path, dataset: str | None = None) -> Collection:
    """Everything under `root` that is about one data set, and the runs that made the sets.

    Args:
      root: where to look.
      dataset: the data's name or source, or the beginning of its fingerprint.

    Raises:
      InputError: no records; damaged ones; records of other data; two different records
        about the same.
    """
    if not root.is_dir():
        raise FieldError("records", str(root), "there is no such folder")
    found = [one for folder in _folders(root) if (one := _read(folder)) is not None]
    finished = [one for one in found if isinstance(one, Record) and one.experiment in READ]
    unfinished = [r for r in found if isinstance(r, Run) and r.experiment in READ]
    others = [
        Run(one.folder, one.experiment, one.command)
        for one in found
        if one.experiment not in READ
    ]
    if not finished:
        raise InputError(
            f"{root} holds no finished run of {', '.join(READ)}; run one of these, or name "
            "the folder that --workdir named"
        )
    records = _of_one_dataset(finished, dataset)
    fingerprint = records[0].get("dataset", "fingerprint")
    records, missing = _with_makers(records, fingerprint)
    records = _without_twins(records)
    records.sort(key=lambda record: (READ.index(record.experiment), record.folder))
    return Collection(records, records[0].get("dataset"), unfinished, others, missing)


def _of_one_dataset(records: Sequence[Record], dataset: str | None) -> list[Record]:
    by_data: dict[str, list[Record]] = {}
    for record in records:
        by_data.setdefault(str(record.get("dataset", "fingerprint")), []).append(record)

    def named(of: Sequence[Record]) -> str:
        folders = ", ".join(record.folder for record in of[:3])
        more = f" and {len(of) - 3} more" if len(of) > 3 else ""
        return f"{of[0].get('dataset', 'name')} ({folders}{more})"

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
        if wanted in {str(of[0].get("dataset", k)).lower() for k in ("name", "source")}
        or (len(wanted) > 6 and fingerprint.startswith(wanted))
    ]
    if len(chosen) != 1:
        what = "several data sets of that name are" if chosen else "no such data are"
        reason = f"{what} among the records: {listed}"
        raise FieldError("dataset", dataset, reason)
    return chosen[0]


def _with_makers(
    records: Sequence[Record], fingerprint: str
) -> tuple[list[Record], list[str]]:
    """The records and those of the runs that made their sets; what was not found."""
    found, missing = list(records), []
    known = {os.path.realpath(record.folder) for record in records}
    for path in sorted({path for record in records for path in paths_of(record)}):
        folder = pathlib.Path(path).parent
        if os.path.realpath(folder) in known:
            continue
        known.add(os.path.realpath(folder))
        made = _read(folder) if (folder / "config.json").exists() else None
        if not isinstance(made, Record) or made.experiment != "distill":
            missing.append(
                f"There is no record of how {path} was made, so its accuracy and its "
                "picture are left out."
            )
        elif made.get("dataset", "fingerprint") != fingerprint:
            missing.append(
                f"{path} was made of other data ({made.get('dataset', 'name')}), so its "
                "accuracy is left out."
            )
        else:
            found.append(made)
    return found, missing


def _subjects(record: Record) -> set[tuple[Any, ...]]:
    """What a record is about; two records of an experiment may not share any."""
    kind, paths = record.experiment, [os.path.normpath(p) for p in paths_of(record)]
    if kind in ("distill", "coresets"):
        return {(kind, json.dumps(record.config, sort_keys=True))}
    if kind == "dynamics":
        curves = record.get("curves")
        trained_on = record.get("trained_on")
        return {
            (kind, path, trained_on, curve)
            for path in paths or ["real images alone"]
            for curve in curves
        }
    if kind == "recognition":
        return {(kind, path, name) for path in paths for name in record.get("networks")}
    if kind == "cross_architecture":
        rows = record.get("accuracy").values()
        return {(kind, path, name) for path in paths for row in rows for name in row}
    return {(kind, path) for path in paths}


def _without_twins(records: Sequence[Record]) -> list[Record]:
    """Copies of a record dropped.

    Raises:
      InputError: two different records of the same.
    """
    kept: list[Record] = []
    holder: dict[tuple[Any, ...], Record] = {}
    for record in records:
        subjects = _subjects(record)
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


def paths_of(record: Record) -> list[str]:
    """The distilled sets that a run looks at, as it names their files."""
    if record.experiment in ("influence", "attributes"):
        found = record.get("artefact")
        path = found.get("path") if isinstance(found, Mapping) else found
        if not isinstance(path, str):
            raise InputError(
                f"{record.folder}/summary.json: artefact names no file; run the experiment "
                "again"
            )
        return [path]
    if record.experiment in ("distill", "coresets"):
        return []
    rows = record.get("sets" if record.experiment == "dynamics" else "rows")
    return [str(row["path"]) for row in rows.values() if row.get("path")]
