"""The command of `benchmarks.ahead`: compiles, prints a table and writes records."""

import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import contest, harness
from benchmarks.ahead import targets
from benchmarks.ahead.compile import Refused, limited
from benchmarks.ahead.programs import PROGRAMS, Sizes
from benchmarks.harness import Column, figure
from distilljax.config import FieldError, option
from distilljax.types import InputError


@dataclasses.dataclass(frozen=True)
class Config(Sizes):
    """Options of the command."""

    target: str = option("h100", "Devices, with commas: h100, h200, v5e, v6e.")
    program: str = option(
        "all", f"Programs, with commas: {', '.join(PROGRAMS)}; or all of them."
    )
    devices: str = option("1", "Numbers of devices, with commas.")
    series: str = option(
        "now", "Name of these records, to compare with others in the same file."
    )
    cpu_seconds: int = option(
        1800, "Most CPU seconds that a program is compiled for.", low=1
    )
    exported: str | None = option(
        None,
        "Folder of programs that jax.export has written, as PROGRAM.PLATFORM, in place of "
        "this version's; of one device.",
    )
    resume: bool = option(False, "Leave out what the file holds already of this series.")
    json: str | None = option(
        None, "File for the records; others that it holds already are kept."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.targets, self.programs
        if max(self.counts) > targets.MOST:
            raise FieldError("devices", self.devices, f"at most {targets.MOST}")
        if self.exported is not None and self.counts != (1,):
            raise FieldError("devices", self.devices, "exported programs are of one device")
        if self.resume and self.json is None:
            raise FieldError("resume", True, "needs the file of --json")

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets."""
        return contest.names("target", self.target, targets.TARGETS)

    @property
    def programs(self) -> tuple[str, ...]:
        """Names of the programs."""
        if self.program == "all":
            return tuple(PROGRAMS)
        return contest.names("program", self.program, PROGRAMS)

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of devices."""
        return contest.counts("devices", self.devices)


# Series that stand in one row of a table, the oldest first; others have rows of their own.
TOGETHER = ("526ed50", "before", "now")


def estimate(one: Mapping[str, Any]) -> float:
    """Returns the estimated seconds: by XLA's cycles where it states them."""
    return one["seconds"] if one["estimated_seconds"] is None else one["estimated_seconds"]


def gathered(one: Mapping[str, Any]) -> float:
    """Returns the bytes of all collectives."""
    return sum(kind["bytes"] for kind in one["collectives"].values())


def _figures(scale: float, of: Any) -> Any:
    """Returns a cell with the figure of the oldest series and of the newest."""

    def cell(row: Sequence[Mapping[str, Any]]) -> str:
        ends = row[0], row[-1]
        found = ["-" if "refused" in one else figure(of(one) / scale) for one in ends]
        return " → ".join(dict.fromkeys(found))

    return cell


def _named(one: Mapping[str, Any]) -> str:
    """Returns the program, with the series if it is an earlier one and has no successor."""
    old = "" if one["series"] == "now" else f" ({one['series']})"
    return f"{one['program']}{old}"


def _effort(one: Mapping[str, Any]) -> str:
    """Returns the time of the compiler, or why it has not compiled."""
    return one.get("refused") or figure(one["compile_cpu_seconds"])


def _newest(row: Any) -> Mapping[str, Any]:
    """Returns the last record of a row."""
    return row[-1]


COLUMNS = (
    Column("program", lambda r: _named(_newest(r)), left=True),
    Column("target", lambda r: targets.TARGETS[_newest(r)["target"]].name, left=True),
    Column("devices", lambda r: _newest(r)["devices"]),
    Column("temporary MiB", _figures(harness.MIB, lambda r: r["bytes"]["temporaries"])),
    Column("TFLOP", _figures(1e12, lambda r: r["flops"])),
    Column("GB moved", _figures(1e9, lambda r: r["bytes_moved"])),
    Column("kernels", _figures(1, lambda r: r["kernels"])),
    Column("estimated ms", _figures(1e-3, estimate)),
    Column("MB in collectives", _figures(1e6, gathered)),
    Column("compile CPU s", lambda r: _effort(_newest(r))),
)


def rows(records: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Returns the records of a program, target and number of devices, series in order."""
    found: dict[Any, list[Mapping[str, Any]]] = {}
    order = {name: place for place, name in enumerate(PROGRAMS)}
    kinds = {name: place for place, name in enumerate(targets.TARGETS)}
    for one in records:
        alone = "" if one["series"] in TOGETHER else one["series"]
        at = order[one["program"]], kinds[one["target"]], one["devices"], alone
        found.setdefault(at, []).append(one)
    return [sorted(found[at], key=_age) for at in sorted(found)]


def _age(one: Mapping[str, Any]) -> int:
    return TOGETHER.index(one["series"]) if one["series"] in TOGETHER else 0


def table(record: dict[str, Any]) -> str:
    """Returns the table of a record in Markdown, and what it lacks."""
    lacking = [
        f"{targets.TARGETS[target].name}, {num} device{'s' * (num > 1)}: {', '.join(names)}"
        for (target, num), names in _lacking(record["records"]).items()
    ]
    text = harness.markdown(COLUMNS, rows(record["records"]))
    return f"{text}\n\nNot compiled yet: {'; '.join(lacking)}." if lacking else text


def _lacking(records: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], list[str]]:
    """Returns programs of today that are not among the records, by target and number."""
    held = {_identity(one) for one in records}
    found: dict[tuple[str, int], list[str]] = {}
    for target, num in itertools.product(targets.TARGETS, (1, targets.MOST)):
        for name in PROGRAMS:
            alone = name == "train" and num > 1  # has nothing to share
            if not alone and (name, target, num, "now") not in held:
                found.setdefault((target, num), []).append(name)
    return found


def _identity(one: Mapping[str, Any]) -> tuple[Any, ...]:
    return one["program"], one["target"], one["devices"], one["series"]


def _held(path: str | None) -> list[dict[str, Any]]:
    if path is None or not pathlib.Path(path).exists():
        return []
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["records"]
    except (ValueError, KeyError) as error:
        raise InputError(f"json={path}: holds no records; give another file") from error


def run(config: Config) -> None:
    """Compiles every program, writes its record at once, and prints the table.

    Raises:
      InputError: a compiler is not installed, or the file holds no records.
    """
    for target in config.targets:
        if reason := targets.missing(target):
            raise InputError(f"target={target}: {reason}")
    about = harness.described("ahead", config.replace({"resume": False}))
    held = {_identity(one): one for one in _held(config.json)}
    made = []
    for target, program, num in itertools.product(
        config.targets, config.programs, config.counts
    ):
        if config.resume and (program, target, num, config.series) in held:
            continue
        began = time.perf_counter()
        one = _compiled(config, target, program, num)
        made.append(one)
        held[_identity(one)] = one
        harness.write(config.json, about | {"records": list(held.values())})
        spent = time.perf_counter() - began
        print(f"{target} {program} x{num}: {spent:.0f} s", flush=True)
    harness.show("compiled, not run", COLUMNS, rows(made))


def _compiled(config: Config, target: str, program: str, num: int) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(Sizes)]
    sizes = Sizes(**{name: getattr(config, name) for name in names})
    folder = pathlib.Path(config.exported) if config.exported else None
    try:
        found = limited(config.cpu_seconds, target, program, num, sizes, folder)
    except Refused as refused:
        why = {"target": target, "program": program, "devices": num}
        found = {**why, "refused": str(refused)}
    alone = config.replace(
        {"target": target, "program": program, "devices": str(num), "resume": False}
    )
    about = harness.described("ahead", alone)
    return {
        "series": config.series,
        **found,
        **{name: about[name] for name in ("date", "commit", "command")},
    }
