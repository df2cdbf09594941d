"""The whole study: every experiment in order, and one report of what they found.

    python -m experiments.study
    python -m experiments.study --scale=night --data_dir=DIR
    python -m experiments.study --scale=paper --data_dir=DIR --minutes=9
    python -m experiments.study --artefacts=a/distilled.npz,b/distilled.npz
    python -m experiments.study --plan

Yang et al. 2024: do networks trained on real images recognise distilled ones, and do real
images help beside them (`recognition`, `mixing`, sec. 3); do they behave like a network
that was stopped early (`agreement`, 4.1), when are they recognised along training, how
sharp is the loss on them (`dynamics`, 4.2 and 4.3), and on what do single images act
(`influence`, `attributes`, 5). The last step is `report`, a page with a verdict on each
claim of the paper.

| --scale | data | networks | time on two CPU cores |
|---|---|---|---|
| laptop | embedded Fashion-MNIST | ConvNets of width 16 and 32 | 35 minutes |
| night | CIFAR-10 | the same | hours |
| paper | CIFAR-10 | the paper's, width 128 | made for a GPU |

`night` has not been timed whole, and `paper` has not been run. What `laptop` found is in
`experiments/results/study_embedded`.

`laptop` and `night` look at the sets in `experiments/artefacts`, `paper` distils its own
first, by `--preset=cifar10_ipc10`.

The first two are narrower and shorter than the paper, and every page made from them says
so. They look at the influence of single images on sets of one image a class; the paper
does at ten.

Each step is an experiment's command of its own, shown before it runs, with a working
directory under that of the study. A step that is finished, and whose inputs are as they
were, is not run again; one that was cut goes on where it was. `--minutes` ends the
command in time, with exit code 75, for machines that are lent in pieces: the same command
goes on. `--steps` runs only some. A step that fails stops those that need it and no
others; the command then ends with an error.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib
import json
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.io import records
from distilljax.io.files import replacing, write_json
from distilljax.types import InputError
from experiments import common, launch, runs
from experiments.progress import duration
from experiments.scales import METHODS, SCALES, Flags, Scale

OUT_OF_TIME = 75  # exit code; EX_TEMPFAIL of sysexits.h
SECONDS_TO_END = 60.0  # that a step gets to write what it has

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
        said = {k: v for k, v in self.flags.items() if k not in (*runs.PLACES, *_INPUTS)}
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
    scale, root = SCALES[config.scale], _workdir(config)
    chosen = common.names(config.steps, "steps") or list(STEPS)
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


def _workdir(config: Config) -> pathlib.Path:
    if config.workdir:
        return pathlib.Path(config.workdir).expanduser()
    return runs.ROOT / f"study-{'own' if config.artefacts else config.scale}"


def _sets(
    config: Config, scale: Scale, root: pathlib.Path
) -> tuple[list[Step], dict[str, pathlib.Path], dict[str, pathlib.Path]]:
    """Steps that make sets; the sets to look at, and those to leave images out of."""
    data = {"data_dir": config.data_dir} if config.data_dir else {}
    if config.artefacts:
        own = common.names(config.artefacts, "artefacts")
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


class _Ledger:
    """What is finished: a line of `study.jsonl` for each step."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self.lines = {line["step"]: line for line in records.read(path)}
        if path.exists():
            with replacing(path) as temporary:
                records.append(temporary, self.lines.values())

    def holds(self, step: Step) -> bool:
        """Whether the step is finished and its inputs are as they were."""
        line = self.lines.get(step.name, {"finished": False})
        there = all(path.exists() for path in (step.output, *step.inputs))
        return bool(line["finished"] and there and line["identity"] == step.identity())

    def add(self, step: Step, seconds: float, *, finished: bool) -> None:
        """The step was at work for so long, and is finished or was cut."""
        before = self.lines.get(step.name)
        identity = step.identity()
        if before and before["identity"] == identity and not before["finished"]:
            seconds += before["seconds"]
        line = {
            "step": step.name,
            "finished": finished,
            "identity": identity,
            "command": step.command(),
            "seconds": seconds,
        }
        self.lines[step.name] = line
        records.append(self._path, [line])


class _OutOfTime(Exception):
    pass


def run(config: Config) -> dict[str, Any]:
    """Runs what is missing; returns what became of every step.

    Returns:
      `finished`, whether all steps are; `steps`, name -> "done before", "done", "cut",
      "to do"; `seconds` of this command; `report`, where the page is.

    Raises:
      InputError: options that do not fit; steps that failed.
    """
    steps, root = plan(config), _workdir(config)
    if config.plan:
        return _planned(steps, root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".study-lock").open("w")
    except OSError as error:
        raise InputError(
            f"cannot write to workdir {root} ({error.strerror}); choose another --workdir"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"another study runs in {root}; wait for it, or choose another --workdir"
            ) from None
        return _run(config, steps, root)


def _planned(steps: Sequence[Step], root: pathlib.Path) -> dict[str, Any]:
    ledger = _Ledger(root / "study.jsonl")
    state = {s.name: "done before" if ledger.holds(s) else "to do" for s in steps}
    for step in steps:
        print(f"# {step.name}: {state[step.name]}\n{step.command()}")
    finished = set(state.values()) == {"done before"}
    return {"finished": finished, "steps": state, "seconds": 0.0, "report": None}


def _run(config: Config, steps: Sequence[Step], root: pathlib.Path) -> dict[str, Any]:
    began = time.monotonic()
    deadline = None if config.minutes is None else began + 60 * config.minutes
    ledger = _Ledger(root / "study.jsonl")
    state = dict.fromkeys((step.name for step in steps), "to do")
    weight = {step.name: step.minutes for step in steps}
    passed = spent = 0.0  # weight and seconds of what was run by this command
    broken: dict[str, str] = {}
    for number, step in enumerate(steps, 1):
        head = f"step {number} of {len(steps)}: {step.name}"
        if blocking := [name for name in step.needs if name in broken]:
            broken[step.name] = f"needs {blocking[0]}"
            _say(f"{head} is left out, for it needs {blocking[0]}")
            continue
        if step.group != "report" and ledger.holds(step):
            state[step.name] = "done before"
            _say(f"{head} was finished before")
            continue
        seconds_each = spent / passed if passed else 60.0
        left = sum(weight[s.name] for s in steps[number - 1 :] if state[s.name] == "to do")
        _say(f"{head}; about {duration(left * seconds_each)} left in all")
        _say(f"$ {step.command()}")
        before = time.monotonic()
        try:
            code = _execute(step, deadline)
        except KeyboardInterrupt:
            ledger.add(step, time.monotonic() - before, finished=False)
            raise
        except _OutOfTime:
            state[step.name] = "cut"
            ledger.add(step, time.monotonic() - before, finished=False)
            _say(f"{config.minutes:g} minutes are over; the same command goes on from here")
            break
        took = time.monotonic() - before
        passed, spent = passed + weight[step.name], spent + took
        if code:
            broken[step.name] = f"exit code {code}"
            _say(f"step {step.name} failed with exit code {code}; the reason is above")
            ledger.add(step, took, finished=False)
            continue
        state[step.name] = "done"
        ledger.add(step, took, finished=True)
        _say(f"step {step.name} took {duration(took)}")
    summary = {
        "finished": all(s.startswith("done") for s in state.values()),
        "steps": state,
        "seconds": time.monotonic() - began,
        "report": str(root / "report.html") if (root / "report.html").exists() else None,
    }
    write_json(root / "study.json", {**summary, "config": runs.identity(config)})
    if broken:
        failed = ", ".join(f"{name} ({why})" for name, why in broken.items())
        raise InputError(
            f"not all of the study is done: {failed}; everything else is kept, and the "
            "same command tries these again"
        )
    if summary["finished"]:
        total = sum(ledger.lines[s.name]["seconds"] for s in steps)
        _say(f"finished: {duration(total)} of work in {root}")
    return summary


def _say(text: str) -> None:
    print(f"== {text}", flush=True)


def _execute(step: Step, deadline: float | None) -> int:
    """The exit code of the step.

    Raises:
      _OutOfTime: the deadline has come; the step was told to stop.
      KeyboardInterrupt: so was this program.
    """
    _wait_for_another(step, deadline)
    if deadline is not None and time.monotonic() >= deadline:
        raise _OutOfTime
    # In a session of its own, so that it is told to stop once, by us.
    process = subprocess.Popen(
        [sys.executable, "-m", step.module, *step.argv()], start_new_session=True
    )
    try:
        return process.wait(None if deadline is None else deadline - time.monotonic())
    except subprocess.TimeoutExpired:
        _stop(process)
        raise _OutOfTime from None
    except KeyboardInterrupt:
        _stop(process)
        raise


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for_another(step: Step, deadline: float | None) -> None:
    """A step whose study was killed goes on alone; there is no second one beside it."""
    lock = step.output.with_name(".lock")
    if step.group == "report" or not lock.exists():
        return
    said = False
    with lock.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if not said:
                    _say(f"waiting for another process that runs {step.name}")
                said = True
            if deadline is not None and time.monotonic() >= deadline:
                raise _OutOfTime
            time.sleep(0.5)


def main(config: Config) -> None:
    """Entry of the command line."""
    summary = run(config)
    if not (summary["finished"] or config.plan):
        sys.exit(OUT_OF_TIME)


if __name__ == "__main__":
    launch.main(Config, main)
