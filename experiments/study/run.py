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

import fcntl
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from distilljax import launch
from distilljax.io import records
from distilljax.io.files import replacing, write_json
from distilljax.types import InputError
from experiments.lab.progress import duration
from experiments.lab.steps import Step
from experiments.lab.workdir import identity_of
from experiments.lab.jobs import Jobs, usable_cores
from experiments.study.plan import Config, plan, workdir_of

NAME = "experiments.study"
OUT_OF_TIME = 75  # exit code; EX_TEMPFAIL of sysexits.h

SECONDS_BETWEEN_LOOKS = 0.05  # at the steps that are at work


class _Ledger:
    """The finished steps: a line of `study.jsonl` each."""

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
        """Writes down that a step ran for so long, and whether it is finished."""
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
    """Runs the missing steps; returns the state of every step.

    Returns:
      `finished`, whether all steps are; `steps`, name -> "done before", "done", "cut",
      "to do"; `seconds` of this command; `report`, where the page is.

    Raises:
      InputError: options that do not fit; steps that failed.
    """
    steps, root = plan(config), workdir_of(config)
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
    at_once = config.jobs or (min(len(usable_cores()), 4) if launch.only_cpu() else 1)
    jobs = Jobs(at_once, root / "logs")
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
    write_json(root / "study.json", {**summary, "config": identity_of(config)})
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
    """The state of each step, and which is next."""

    def __init__(self, steps: Sequence[Step], ledger: _Ledger, jobs: Jobs):
        self._steps, self._ledger, self._jobs = steps, ledger, jobs
        self.waiting = list(steps)
        self.state = dict.fromkeys((step.name for step in steps), "to do")
        self.broken: dict[str, str] = {}
        self._held: set[str] = set()  # said to be at work in another process
        self._passed = self._spent = 0.0  # weight, and seconds, of what was done here

    def start(self) -> None:
        """Starts the steps that can start, leaves out those done or blocked."""
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
        """Returns the seconds left, estimated from those passed."""
        each = self._spent / self._passed if self._passed else 60.0
        at_work = [job.step for job in self._jobs.running]
        left = sum(step.minutes for step in (*self.waiting, *at_work))
        return left * each / min(self._jobs.num, len(self.waiting) + len(at_work))

    def end(self) -> None:
        """Writes down the steps that have ended."""
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
        """Stops the steps that run, and writes that down."""
        for step, seconds in self._jobs.stop():
            self.state[step.name] = "cut"
            self._ledger.add(step, seconds, finished=False)

    def seconds(self) -> float:
        """Returns the seconds of all work, also by earlier commands."""
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


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; exit code 75 where it ran out of `--minutes`."""

    def command(config: Config) -> None:
        summary = run(config)
        if not (summary["finished"] or config.plan):
            sys.exit(OUT_OF_TIME)

    launch.main(Config, command, module=NAME, summary=__doc__, argv=argv)
