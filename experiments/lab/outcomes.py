"""Finished runs of any experiment: settings, figures, and what several have in common.

Runs that differ in nothing but the outer seed are distillations of one setting. Their
figures are joined: the mean of their means, its standard deviation between distillations
(with n - 1) and that within them, over networks (pooled: the root of the mean variance).
What lies between distillations holds their share of the noise of networks too.
"""

import itertools
import math
import pathlib
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distilljax import launch
from distilljax.analysis.statistics import Spread, spread
from distilljax.data import own
from distilljax.types import InputError
from experiments.lab.accuracy import TRAINED_ON
from experiments.lab.records import SUMMARY, read_of_run
from experiments.lab.workdir import CONFIG

SEED = "seed"
LONGEST = 40  # label of a run
SELECTORS = ("method", "model", "parametrisation")
# Of the environment, what can change a figure.
_VERSIONS = ("distilljax", "jax", "jaxlib", "device")
# Of the experts; their seed may be another in each distillation.
_OF_EXPERTS = ("num_experts", "num_epochs", "recipe")
_NO_FIGURES = (
    "seconds",
    "environment",
    "peak_memory_bytes",
    "dataset",
    "protocol",
    "format",
)
_PERCENT = ("accuracy", "recognition")


class Outcome(NamedTuple):
    """A finished run."""

    folder: pathlib.Path
    experiment: str
    settings: Mapping[str, Any]  # those that have a meaning in it, by flag
    figures: Mapping[str, Spread]  # by quantity, such as accuracy.distilled


class Joined(NamedTuple):
    """A figure of one or several distillations."""

    mean: float
    between: float | None  # standard deviation between distillations; None for one
    within: float | None  # over networks; None where there is one
    networks: int  # of each distillation, or of the first where they differ
    means: list[float]  # of each distillation


class Group(NamedTuple):
    """Runs that differ in their seed alone."""

    runs: list[Outcome]
    label: str  # what tells it from the others
    figures: Mapping[str, Joined]


def read(folder: pathlib.Path) -> Outcome:
    """Reads a finished run.

    Raises:
      InputError: no folder of a run, a run that is not finished, or a damaged record.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folders of finished runs")
    if not (folder / CONFIG).exists():
        below = sorted(path.parent for path in folder.glob(f"*/{SUMMARY}"))
        hint = f"; finished runs lie below it, such as {below[0]}" if below else ""
        raise InputError(f"{folder} holds no run (it lacks {CONFIG}){hint}")
    config = _object(folder / CONFIG)
    if not (folder / SUMMARY).exists():
        command = f"; {config['command']}" if isinstance(config.get("command"), str) else ""
        raise InputError(
            f"the run in {folder} is not finished (it lacks {SUMMARY}){command} "
            f"--workdir={shlex.quote(str(folder))} goes on with it{_given_besides(config)}"
        )
    summary = _object(folder / SUMMARY)
    settings, experiment = config.get("config"), config.get("experiment")
    if not isinstance(settings, dict) or not isinstance(experiment, str):
        raise InputError(f"{folder / CONFIG} is damaged; run the experiment again")
    figures = {
        ".".join(path): figure
        for name, value in summary.items()
        if name not in _NO_FIGURES
        for path, figure in _spreads(value, (name,))
    }
    meant = {**_meant(settings), **_circumstances(summary)}
    return Outcome(folder, experiment.rpartition(".")[2], meant, figures)


def _given_besides(config: Mapping[str, Any]) -> str:
    """Returns which folders a run needs, that its command does not name; may be empty."""
    from distilljax.methods import METHODS

    settings = config.get("config")
    if not isinstance(settings, dict):
        return ""
    source = getattr(METHODS.get(str(settings.get("method"))), "SOURCE", None)
    needed = ["--experts_dir"] * (source == "experts" or settings.get("labels") == "expert")
    of_files = settings.get("folder") == ""  # those of `published`
    prepared = of_files or _is_prepared(settings.get("dataset", "embedded"))
    needed += ["--folder"] * of_files + ["--data_dir"] * prepared
    return f", with the {' and the '.join(needed)} it had" if needed else ""


def _is_prepared(dataset: str | None) -> bool:
    """Whether data may lie in a --data_dir: a TFDS name, or None, those of a set."""
    if dataset is None:
        return True
    path = own.parse(str(dataset)).path
    return path != "embedded" and not pathlib.Path(path).expanduser().exists()


def _object(path: pathlib.Path) -> dict[str, Any]:
    try:
        return read_of_run(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); run the experiment again"
        ) from None


def _spreads(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Spread]]:
    """Yields the figures of a record: spreads over networks, and numbers at its top."""
    if isinstance(value, dict):
        numbers = value.get("values")
        if isinstance(numbers, list) and numbers and all(map(_is_number, numbers)):
            yield path, spread(numbers)
            return
        for name, one in value.items():
            if isinstance(one, dict):
                yield from _spreads(one, (*path, str(name)))
    elif len(path) == 1 and _is_number(value) and isinstance(value, float):
        yield path, {"mean": value, "std": None, "seeds": 1, "values": [value]}


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def _meant(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings without those of methods and networks that were not chosen."""
    chosen = {settings.get(name) for name in SELECTORS}
    known = _choices()
    found = {}
    for path, value in launch.flatten(settings):
        group = path.partition(".")[0]
        if "." not in path or group not in known or group in chosen:
            found[path] = value
    return found


def _choices() -> set[str]:
    from distilljax.core.parametrisations import PARAMETRISATIONS
    from distilljax.methods import METHODS
    from distilljax.models import MODELS

    return {*PARAMETRISATIONS, *METHODS, *MODELS}


def _circumstances(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is no option and may change a figure all the same."""
    found: dict[str, Any] = {}
    data, environment = summary.get("dataset"), summary.get("environment")
    if isinstance(data, dict):
        found["(data, SHA-256)"] = str(data.get("fingerprint"))[:12]
    if isinstance(environment, dict):
        found |= {f"({name})": environment.get(name) for name in _VERSIONS}
    experts = summary.get("experts")
    if isinstance(experts, dict):
        made = {name: experts.get(name) for name in _OF_EXPERTS}
        found |= {f"(experts, {path})": value for path, value in launch.flatten(made)}
    return found


def differing(runs: Sequence[Outcome]) -> list[str]:
    """Returns the settings with several values, in the order of options.

    A setting that only some runs have, such as one of their method, must differ among
    those.
    """
    values: dict[str, set[str]] = {}
    for run in runs:
        for name, value in run.settings.items():
            values.setdefault(name, set()).add(repr(value))
    return [name for name, held in values.items() if len(held) > 1]


def group(runs: Sequence[Outcome]) -> list[Group]:
    """Joins the runs that differ in nothing but the seed, in the order of the first.

    Two runs of one seed are not two distillations: the second begins another group.
    """
    kinds: dict[str, list[Outcome]] = {}
    seen = Counter[str]()
    for run in runs:
        about = {n: v for n, v in run.settings.items() if n != SEED}
        kind = repr((run.experiment, sorted(about.items())))
        of_seed = f"{kind} {run.settings.get(SEED)!r}"
        kinds.setdefault(f"{kind} {seen[of_seed]}", []).append(run)
        seen[of_seed] += 1
    labels = _labels(list(kinds.values()))
    return [
        Group(members, label, _joined(members))
        for members, label in zip(kinds.values(), labels, strict=True)
    ]


def _labels(kinds: Sequence[Sequence[Outcome]]) -> list[str]:
    """Returns a short name of each kind: what differs, else its folders, else a number."""
    runs = [members[0] for members in kinds]
    shown = [n for n in differing(runs) if n != SEED and not n.startswith("(")]
    told = [
        " ".join(f"{n}={spell(run.settings[n])}" for n in shown if n in run.settings)
        for run in runs
    ]
    folders = [[run.folder.resolve().name for run in members] for members in kinds]
    placed = [n[0] if len(n) == 1 else _pattern(n) for n in folders]
    for names in (told, placed):
        if len({*names}) == len(names) and all(0 < len(n) <= LONGEST for n in names):
            return names
    return [f"run {number}" for number, _ in enumerate(runs, 1)]


def _pattern(names: Sequence[str]) -> str:
    """Returns what names of folders have in common, as a shell would match them."""
    same = itertools.takewhile(lambda of: len({*of}) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in same)
    return f"{shared}*" if shared else f"{names[0]} ... {names[-1]}"


def _joined(runs: Sequence[Outcome]) -> dict[str, Joined]:
    names = [n for n in runs[0].figures if all(n in run.figures for run in runs)]
    return {name: join([run.figures[name] for run in runs]) for name in names}


def join(spreads: Sequence[Spread]) -> Joined:
    """Joins a figure of several distillations, see the module."""
    means = [one["mean"] for one in spreads]
    deviations = [s["std"] for s in spreads if s["std"] is not None]
    return Joined(
        float(np.mean(means)),
        float(np.std(means, ddof=1)) if len(means) > 1 else None,
        float(np.sqrt(np.mean(np.square(deviations)))) if deviations else None,
        spreads[0]["seeds"],
        means,
    )


def spell(value: object) -> str:
    """Returns the value of a setting as it is typed."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def is_share(quantity: str) -> bool:
    """Whether a quantity is a share, to be shown in percent."""
    return any(word in quantity for word in _PERCENT) and not quantity.endswith(".loss")


def spelt(quantity: str, value: float | None) -> str:
    """Returns a figure, in percent if it is a share; `-` for None."""
    if value is None:
        return "-"
    return f"{value:.2%}" if is_share(quantity) else f"{value:.4g}"


def title(quantity: str) -> str:
    """Returns the name of a quantity for a person."""
    first, _, rest = quantity.partition(".")
    return TRAINED_ON.get(rest, quantity) if first == "accuracy" else quantity
