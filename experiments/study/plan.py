"""TODO."""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import pathlib
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from distilljax import launch
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from experiments.lab.options import parse_names
from experiments.lab.workdir import PLACES, ROOT
from experiments.study.scales import METHODS, SCALES, Flags, Scale

STEPS = (
    "sets",
    "recognition",
    "mixing",
    "agreement",
    "dynamics",
    "influence",
    "attributes",
    "report",
)


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the study."""

    scale: Literal["laptop", "night", "paper"] = option(
        "laptop", "How large everything is, see the head of the module."
    )
    sets: Literal["ready", "distil"] | None = option(
        None,
        "Sets of experiments/artefacts, or distilled first; none: as the scale has it.",
    )
    artefacts: str = option(
        "",
        "Sets of your own (.npz) in place of these, with commas; the scale gives the rest.",
    )
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    steps: str = option("", f"Only these, with commas: {', '.join(STEPS)}; empty: all.")
    minutes: float | None = option(
        None, "Stop after so many, with exit code 75; the same command goes on.", above=0
    )
    jobs: int | None = option(
        None,
        "Steps at work at once, each on cores of its own; none: one a core, at most 4, "
        "and one where there is an accelerator.",
        low=1,
    )
    plan: bool = option(False, "Print the commands and what is done of them, run nothing.")
    workdir: str | None = option(
        None,
        "Where everything goes; none: runs/study-SCALE, or study-own of your own sets.",
    )


class Step(NamedTuple):
    """A command of the study."""

    name: str  # also of its directory
    group: str  # of `STEPS`
    module: str
    flags: Flags
    inputs: tuple[pathlib.Path, ...]  # files of which a change means to run it again
    needs: tuple[str, ...]  # steps that come before
    output: pathlib.Path  # there is one once it is finished
    minutes: float

    def argv(self) -> list[str]:
        """What follows `python -m module`."""
        return [f"--{name}={_spelt(value)}" for name, value in self.flags.items()]

    def command(self) -> str:
        """As one would type it."""
        return shlex.join(["python", "-m", self.module, *self.argv()])

    def identity(self) -> str:
        """SHA-256 of the command and of its inputs, but for where they lie."""
        said = {k: v for k, v in self.flags.items() if k not in (*PLACES, *_INPUTS)}
        found = hashlib.sha256(json.dumps([self.module, said], sort_keys=True).encode())
        for path in self.inputs:
            found.update(hashlib.sha256(path.read_bytes()).digest())
        return found.hexdigest()


_INPUTS = ("artefacts", "artefact", "influence", "train_on", "records", "out")


def _spelt(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _near(path: pathlib.Path) -> pathlib.Path:
    """Relative to the current directory where that needs no `..`."""
    with contextlib.suppress(ValueError):
        return path.resolve().relative_to(pathlib.Path.cwd())
    return path


def plan(config: Config) -> list[Step]:
    """The commands of the study, in order.

    Raises:
      FieldError: `--steps` that there are not, artefacts that cannot be had.
    """
    scale, root = SCALES[config.scale], workdir_of(config)
    chosen = parse_names(config.steps, "steps") or list(STEPS)
    if unknown := [name for name in chosen if name not in STEPS]:
        reason = f"there is no step {unknown[0]!r}; known are {', '.join(STEPS)}"
        raise FieldError("steps", config.steps, reason)
    steps = list(_steps(config, scale, root))
    for step in steps:
        config_class, presets = _parsed_by(step.module)
        launch.parse(config_class, step.argv(), presets=presets)
    return [step for step in steps if step.group in chosen]


def _parsed_by(module: str) -> tuple[Any, Any]:
    imported = importlib.import_module(module)
    return imported.Config, getattr(imported, "PRESETS", None)


def workdir_of(config: Config) -> pathlib.Path:
    if config.workdir:
        return pathlib.Path(config.workdir).expanduser()
    return ROOT / f"study-{'own' if config.artefacts else config.scale}"


def _sets(
    config: Config, scale: Scale, root: pathlib.Path
) -> tuple[list[Step], dict[str, pathlib.Path], dict[str, pathlib.Path]]:
    """Steps that make sets; the sets to look at, and those to leave images out of."""
    data = {"data_dir": config.data_dir} if config.data_dir else {}
    if config.artefacts:
        own = parse_names(config.artefacts, "artefacts")
        found = {path: pathlib.Path(path) for path in own}
        if absent := [path for path, file in found.items() if not file.is_file()]:
            raise FieldError("artefacts", config.artefacts, f"there is no file {absent[0]}")
        labels = {
            file.parent.name if file.stem == "distilled" else file.stem: file
            for file in found.values()
        }
        if len(labels) < len(found):
            raise FieldError("artefacts", config.artefacts, "two sets have the same name")
        return [], labels, labels
    ready = scale.ready if config.sets is None else config.sets == "ready"
    if ready and not scale.ready:
        reason = (
            f"there are no ready sets of the scale {config.scale}; distil them, or name "
            "your own, --artefacts"
        )
        raise FieldError("sets", config.sets, reason)
    if ready:
        folder = _near(pathlib.Path(__file__).parent / "artefacts")

        def of(ipc: int) -> dict[str, pathlib.Path]:
            return {
                method: folder / f"{scale.dataset}_{method}_ipc{ipc}" / "distilled.npz"
                for method in METHODS
            }

        return [], of(scale.ipc), of(scale.influence_ipc)
    experts, steps = root / "experts", list[Step]()
    network: dict[str, Any] = {"dataset": scale.dataset, "preprocess": _preprocess(scale)}
    network |= {"convnet.width": scale.width} if scale.width != 32 else {}
    flags = {**network, **scale.experts, **data, "workdir": experts}
    steps.append(_step("experts", "sets", "train_experts", flags, scale))
    made: dict[int, dict[str, pathlib.Path]] = {}
    for ipc in dict.fromkeys((scale.ipc, scale.influence_ipc)):
        made[ipc] = {}
        for method in METHODS:
            name = f"{method}_ipc{ipc}"
            flags = {"method": method, **network, "ipc": ipc, **scale.distil[method, ipc]}
            flags |= {"experts_dir": experts} if method == "tm" else {}
            flags |= {**data, "workdir": root / "sets" / name}
            needs = ("experts",) if method == "tm" else ()
            inputs = (experts / "experts.json",) if method == "tm" else ()
            steps.append(
                _step(name, "sets", "distill", flags, scale, inputs=inputs, needs=needs)
            )
            made[ipc][method] = root / "sets" / name / "distilled.npz"
    return steps, made[scale.ipc], made[scale.influence_ipc]


def _preprocess(scale: Scale) -> str:
    """The paper's own constants at its scale, else fitted."""
    return "published" if scale.width == 128 else "normalise"


def _step(
    name: str,
    group: str,
    module: str,
    flags: Flags,
    scale: Scale,
    *,
    inputs: Sequence[pathlib.Path] = (),
    needs: Sequence[str] = (),
) -> Step:
    return Step(
        name,
        group,
        f"experiments.{module}",
        flags,
        tuple(inputs),
        tuple(needs),
        pathlib.Path(flags["workdir"]) / "summary.json",
        scale.minutes.get(name, scale.minutes.get(group, 1.0)),
    )


def _steps(config: Config, scale: Scale, root: pathlib.Path) -> Iterator[Step]:
    making, looked_at, left_out = _sets(config, scale, root)
    yield from making
    made = {str(step.output.with_name("distilled.npz")): step.name for step in making}

    def step(
        name: str, group: str, flags: Flags, sets: Sequence[pathlib.Path], module: str = ""
    ) -> Step:
        more = {"data_dir": config.data_dir} if config.data_dir else {}
        return _step(
            name,
            group,
            module or group,
            {**flags, **more, "workdir": root / name},
            scale,
            inputs=sets,
            needs=[made[str(path)] for path in sets if str(path) in made],
        )

    sets = list(looked_at.values())
    listed: Flags = {"artefacts": ",".join(map(str, sets))}
    for group in ("recognition", "mixing", "agreement"):
        yield step(group, group, {**listed, **scale.flags[group]}, sets)
    network = {"convnet.width": scale.width} if scale.width != 32 else {}
    yield step(
        "dynamics", "dynamics", {**listed, **network, **scale.flags["dynamics"]}, sets
    )
    learned = looked_at.get("tm", sets[0])
    reverse = {"artefacts": learned, "train_on": learned, "sets": "train,test"}
    flags = {**reverse, **network, **scale.flags["dynamics_reverse"]}
    yield step("dynamics_reverse", "dynamics", flags, [learned])
    for label, path in left_out.items():
        flags = {"artefact": path, **scale.flags["influence"]}
        yield step(f"influence_{label}", "influence", flags, [path])
    for label in left_out:
        of = f"influence_{label}"
        yield step(
            f"attributes_{label}",
            "attributes",
            {"influence": root / of, **scale.flags["attributes"]},
            [root / of / "influence.npz"],
        )._replace(needs=(of,))
    page = root / "report.html"
    flags = {"records": root, "out": page}
    yield Step("report", "report", "experiments.report", flags, (), (), page, 0.2)
