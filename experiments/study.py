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
| laptop | embedded Fashion-MNIST | ConvNets of width 16 and 32 | 13 minutes |
| night | CIFAR-10 | the same | an hour |
| paper | CIFAR-10 | the paper's, width 128 | made for a GPU |

`paper` has not been run. What the others found is in `experiments/results/study_embedded`
and `study_cifar10`.

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

Without an accelerator several steps are at work at once (`--jobs`), each on cores of its
own, since a narrow network trains nearly as fast on one core as on two. What they print is
then marked with their names, and kept in `logs`.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib
import itertools
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal, NamedTuple

from distilljax import launch
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.io import records
from distilljax.io.files import replacing, write_json
from distilljax.types import InputError
from experiments import common, runs
from experiments.progress import duration
from experiments.scales import METHODS, SCALES, Flags, Scale

OUT_OF_TIME = 75  # exit code; EX_TEMPFAIL of sysexits.h
SECONDS_TO_END = 60.0  # that a step gets to write what it has
SECONDS_BETWEEN_LOOKS = 0.05  # at the steps that are at work

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


class _Job(NamedTuple):
    """A step at work."""

    step: Step
    process: subprocess.Popen[bytes]
    cores: frozenset[int]  # where it is; empty: anywhere
    began: float
    log: IO[str] | None  # of what it prints; none: it prints to our own output


class _Jobs:
    """The steps at work, at most `num`."""

    def __init__(self, num: int, logs: pathlib.Path):
        self.running: list[_Job] = []
        self._logs, self.num = logs, num
        self._free = _shares(num)

    def start(self, step: Step) -> None:
        command = [sys.executable, "-m", step.module, *step.argv()]
        log = None
        if self.num > 1:
            # A file and not a pipe: a step outlives a study that is killed.
            self._logs.mkdir(exist_ok=True)
            path = self._logs / f"{step.name}.txt"
            path.touch()
            log = path.open(encoding="utf-8", errors="replace")
            log.seek(0, os.SEEK_END)
        with contextlib.ExitStack() as stack:
            out: Any = stack.enter_context(path.open("ab")) if log else None
            # In a session of its own, so that it is told to stop once, by us.
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT if out else None,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        cores = self._free.pop()
        if cores:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, cores)
        self.running.append(_Job(step, process, cores, time.monotonic(), log))

    def ended(self) -> Iterator[tuple[Step, int, float]]:
        """Those that have ended since: step, exit code and seconds."""
        for job in list(self.running):
            code = job.process.poll()
            _relay(job)
            if code is not None:
                yield self._remove(job), code, time.monotonic() - job.began

    def stop(self) -> Iterator[tuple[Step, float]]:
        """Stops all; step and seconds of each."""
        for job in self.running:
            job.process.terminate()
        deadline = time.monotonic() + SECONDS_TO_END
        for job in list(self.running):
            try:
                job.process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
            _relay(job)
            yield self._remove(job), time.monotonic() - job.began

    def _remove(self, job: _Job) -> Step:
        self.running.remove(job)
        self._free.append(job.cores)
        if job.log:
            job.log.close()
        return job.step


def _relay(job: _Job) -> None:
    """Prints the whole lines that a step has written since."""
    while job.log:
        before = job.log.tell()
        line = job.log.readline()
        if not line.endswith("\n"):
            job.log.seek(before)
            return
        print(f"{job.step.name} | {line}", end="", flush=True)


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _shares(num: int) -> list[frozenset[int]]:
    """The cores of each of `num` jobs; none where they cannot be told apart."""
    cores = _cores()
    told_apart = hasattr(os, "sched_setaffinity") and launch.only_cpu()
    if num == 1 or num > len(cores) or not told_apart:
        return [frozenset()] * num
    bounds = [len(cores) * i // num for i in range(num + 1)]
    return [frozenset(cores[a:b]) for a, b in itertools.pairwise(bounds)]


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
    at_once = config.jobs or (min(len(_cores()), 4) if launch.only_cpu() else 1)
    jobs = _Jobs(at_once, root / "logs")
    progress = _Progress(steps, _Ledger(root / "study.jsonl"), jobs)
    try:
        while progress.waiting or jobs.running:
            if (
                config.minutes is not None
                and time.monotonic() > began + 60 * config.minutes
            ):
                raise _OutOfTime
            progress.start()
            progress.end()
            time.sleep(SECONDS_BETWEEN_LOOKS)
    except _OutOfTime:
        _say(f"{config.minutes:g} minutes are over; the same command goes on from here")
    finally:
        progress.cut()
    state, broken = progress.state, progress.broken
    seconds = time.monotonic() - began
    summary = {
        "finished": all(s.startswith("done") for s in state.values()),
        "steps": state,
        "seconds": seconds,
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
        _say(
            f"finished in {duration(seconds)}, {duration(progress.seconds())} of work "
            f"in {root}"
        )
    return summary


class _Progress:
    """What became of each step, and which is next."""

    def __init__(self, steps: Sequence[Step], ledger: _Ledger, jobs: _Jobs):
        self._steps, self._ledger, self._jobs = steps, ledger, jobs
        self.waiting = list(steps)
        self.state = dict.fromkeys((step.name for step in steps), "to do")
        self.broken: dict[str, str] = {}
        self._held: set[str] = set()  # said to be at work in another process
        self._passed = self._spent = 0.0  # weight, and seconds, of what was done here

    def start(self) -> None:
        """Starts what can be started, leaves out what is done or cannot be."""
        others = [step for step in self.waiting if _at_work(step)]
        for step in others:
            if step.name not in self._held:
                _say(f"waiting for another process that runs {step.name}")
                self._held.add(step.name)
        free = self._jobs.num - len(self._jobs.running) - len(others)
        for step in [step for step in self.waiting if step not in others]:
            head = f"step {self._steps.index(step) + 1} of {len(self._steps)}: {step.name}"
            if blocking := [name for name in step.needs if name in self.broken]:
                self.broken[step.name] = f"needs {blocking[0]}"
                self.waiting.remove(step)
                _say(f"{head} is left out, for it needs {blocking[0]}")
            elif free < 1 or not self._ready(step):
                continue
            elif step.group != "report" and self._ledger.holds(step):
                self.state[step.name] = "done before"
                self.waiting.remove(step)
                _say(f"{head} was finished before")
            else:
                _say(f"{head}; about {duration(self._left())} left in all")
                _say(f"$ {step.command()}")
                self.waiting.remove(step)
                self._jobs.start(step)
                free -= 1

    def _ready(self, step: Step) -> bool:
        before = step.needs
        if step.group == "report":
            if self._jobs.running:
                return False
            before = tuple(s.name for s in self.waiting if s.group != "report")
        return all(self.state.get(name, "done").startswith("done") for name in before)

    def _left(self) -> float:
        """Seconds, guessed from those passed."""
        each = self._spent / self._passed if self._passed else 60.0
        at_work = [job.step for job in self._jobs.running]
        left = sum(step.minutes for step in (*self.waiting, *at_work))
        return left * each / min(self._jobs.num, len(self.waiting) + len(at_work))

    def end(self) -> None:
        """Writes down what has ended."""
        for step, code, seconds in self._jobs.ended():
            self._ledger.add(step, seconds, finished=not code)
            if code:
                self.broken[step.name] = f"exit code {code}"
                _say(f"step {step.name} failed with exit code {code}; the reason is above")
                continue
            self._passed, self._spent = self._passed + step.minutes, self._spent + seconds
            self.state[step.name] = "done"
            _say(f"step {step.name} took {duration(seconds)}")

    def cut(self) -> None:
        """Stops what is at work, and writes that down."""
        for step, seconds in self._jobs.stop():
            self.state[step.name] = "cut"
            self._ledger.add(step, seconds, finished=False)

    def seconds(self) -> float:
        """Of all work, also by earlier commands."""
        return sum(self._ledger.lines[step.name]["seconds"] for step in self._steps)


def _say(text: str) -> None:
    print(f"== {text}", flush=True)


def _at_work(step: Step) -> bool:
    """Whether another process runs it: that of a study that was killed goes on alone."""
    lock = step.output.with_name(".lock")
    if step.group == "report" or not lock.exists():
        return False
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def main(config: Config) -> None:
    """Entry of the command line."""
    summary = run(config)
    if not (summary["finished"] or config.plan):
        sys.exit(OUT_OF_TIME)


if __name__ == "__main__":
    launch.main(Config, main)
