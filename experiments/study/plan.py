"""The plan of a study: which sets, and the commands of every experiment, in order."""

import dataclasses
import importlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from distilljax import io, launch
from distilljax.config import FieldError, option
from experiments.lab.claims import set_name
from experiments.lab.experiment import Experiment, load_all
from experiments.lab.kept import digest
from experiments.lab.options import SeedOption, WorkdirOption, parse_choices, parse_paths
from experiments.lab.sets import file_of, is_here, transform_digest
from experiments.lab.steps import Kind, MadeSets, ScaleName, Step, Study
from experiments.lab.workdir import ROOT
from experiments.study.scales import SCALES

REPORT = "report"


@dataclasses.dataclass(frozen=True)
class Config(WorkdirOption, SeedOption):
    """Options of the study."""

    scale: ScaleName = option(
        "laptop",
        "laptop: embedded data, width 32; night: CIFAR-10, width 32; published: the "
        "strongest committed sets of CIFAR-10, width 128; paper: distils its own (GPU).",
    )
    sets: Literal["ready", "distil"] | None = option(
        None,
        "Sets of experiments/artefacts, or distilled first; none: as the scale has it.",
    )
    artefacts: str = option(
        "",
        "Your own sets (.npz) in place of these, with commas; the scale gives the rest.",
    )
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    steps: str = option(
        "",
        "Only the steps of these experiments, with commas; `sets` are those that distil, "
        f"`{REPORT}` is the page; empty: all.",
    )
    minutes: float | None = option(
        None, "Stop after so many, with exit code 75; the same command goes on.", above=0
    )
    jobs: int | None = option(
        None,
        "Steps run at once, each on cores of its own; none: one a core, at most 4, and "
        "one where there is an accelerator.",
        low=1,
    )
    plan: bool = option(False, "Print the commands and what is done of them, run nothing.")
    workdir: str | None = option(
        None,
        "Folder for everything; none: runs/study-SCALE, or study-own of your sets, with "
        "-seedN of a seed that is not 0.",
    )


def plan(config: Config, table: Mapping[str, Experiment] | None = None) -> list[Step]:
    """Returns the commands of the study, in order.

    Args:
      config: the options.
      table: the experiments by name; those of `EXPERIMENTS` if absent.

    Raises:
      FieldError: unknown `--steps`, artefacts that cannot be had.
    """
    table = load_all() if table is None else table
    steps = list(_steps(config, table))
    for step in steps:
        imported = importlib.import_module(f"{step.module}.run")
        presets = getattr(imported, "PRESETS", None)
        launch.parse(imported.Config, step.argv(), presets=presets)
    groups = list(dict.fromkeys(step.group for step in steps))
    chosen = parse_choices(config.steps, "steps", groups, "step", least=0) or groups
    return [step for step in steps if step.group in chosen]


def workdir_of(config: Config) -> pathlib.Path:
    """Returns the folder of the study."""
    if config.workdir:
        return pathlib.Path(config.workdir).expanduser()
    name = f"study-{'own' if config.artefacts else config.scale}"
    return ROOT / (f"{name}-seed{config.seed}" if config.seed else name)


def _steps(config: Config, table: Mapping[str, Experiment]) -> Iterator[Step]:
    scale, root = SCALES[config.scale], workdir_of(config)
    study = Study(
        config.scale,
        root,
        scale.dataset,
        scale.width,
        scale.ipc,
        scale.single_ipc,
        config.data_dir,
        seed=config.seed,
    )
    made = _sets(config, study, table)
    yield from made.steps
    found = {*made.sets.values(), *made.single.values()} if not made.steps else ()
    artefacts = {str(path): io.load(path) for path in found}
    study = study._replace(
        sets=made.sets,
        single=made.single,
        makers={str(s.output.with_name("distilled.npz")): s.name for s in made.steps},
        kinds={path: _kind(artefact) for path, artefact in artefacts.items()},
        images={path: len(held.distilled.images) for path, held in artefacts.items()},
    )
    for experiment in table.values():
        yield from experiment.steps(study)
    page = root / "report.html"
    flags: dict[str, Any] = {"records": root, "out": page}
    yield Step(REPORT, REPORT, f"experiments.{REPORT}", flags, (), (), page, 0.2, last=True)


def _sets(config: Config, study: Study, table: Mapping[str, Experiment]) -> MadeSets:
    """Returns the sets of the study, and the steps that distil them where they do."""
    if config.artefacts:
        own = _own_sets(config)
        return MadeSets((), own, own)
    scale = SCALES[config.scale]
    ready = bool(scale.sets) if config.sets is None else config.sets == "ready"
    if ready and not scale.sets:
        reason = (
            f"the scale {config.scale} has no ready sets; distil them, or name your own, "
            "--artefacts"
        )
        raise FieldError("sets", config.sets, reason)
    if ready:
        return MadeSets((), _ready(config, scale.sets), _ready(config, scale.single))
    if not scale.makes:
        reason = (
            f"the scale {config.scale} looks at sets that experiments.reproduce made; "
            "leave this out, or name your own, --artefacts"
        )
        raise FieldError("sets", config.sets, reason)
    (make,) = (one.make_sets for one in table.values() if one.make_sets)
    return make(study)


def _own_sets(config: Config) -> dict[str, pathlib.Path]:
    named = parse_paths(config.artefacts, "artefacts")
    paths = [pathlib.Path(file_of(path)) for path in named]
    if absent := [path for path in paths if not path.is_file()]:
        raise FieldError("artefacts", config.artefacts, f"there is no file {absent[0]}")
    by_name = {set_name(path.resolve().as_posix()): path for path in paths}
    if len(by_name) < len(paths):
        raise FieldError("artefacts", config.artefacts, "two sets have the same name")
    return by_name


def _ready(config: Config, sets: Mapping[str, str]) -> dict[str, pathlib.Path]:
    """Returns sets of `experiments/artefacts`, relative to the current directory.

    Raises:
      FieldError: there are none, as where the commands were installed from a wheel.
    """
    absent = [name for name in sets.values() if not is_here(name)]
    if absent:
        reason = (
            f"{absent[0]} is in a clone of the repository alone; add --sets=distil, or "
            "name sets of your own, --artefacts"
        )
        raise FieldError("sets", config.sets, reason)
    return {label: pathlib.Path(file_of(name)) for label, name in sets.items()}


def _kind(artefact: io.Artefact) -> Kind:
    name = artefact.config.get("model")
    described = artefact.config.get(str(name))
    width = described.get("width") if isinstance(described, Mapping) else None
    known = name == "convnet" and isinstance(width, int) and width > 0
    return Kind(
        transform_digest(artefact.transform),
        digest([name, described]),
        width if known else None,
    )
