"""The inputs of campaigns, the commands that are tried, and their undisturbed results."""

import contextlib
import functools
import importlib
import io
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from distilljax import launch
from tests.campaigns.trials import call, numbers

ROOT = pathlib.Path(__file__).parents[2]
STUDY = ROOT / "experiments" / "results" / "study_embedded"
MLP = ("--model=mlp", "--mlp.width=8", "--mlp.depth=1")
SHORT = (
    *MLP,
    "--held_out=5",
    "--steps=12",
    "--score_every=4",
    "--score_seeds=1",
    "--eval_seeds=2",
    "--whole_epochs=0",
    "--checkpoint_seconds=0",
)


class Command(NamedTuple):
    """A command as campaigns run it."""

    name: str  # of the experiment
    argv: Callable[["World"], tuple[str, ...]]  # without --workdir
    inputs: Callable[["World"], list[pathlib.Path]]  # files that it reads
    place: str = "workdir"  # the flag of the folder that it writes


def _distill(world: "World") -> tuple[str, ...]:
    return (f"--dataset={world.data}", *SHORT, "--bptt.unroll=4", "--bptt.real_batch=20")


def _experts(world: "World") -> tuple[str, ...]:
    recipe = ("--recipe.batch=20", "--recipe.augment=", "--recipe.lr=0.05")
    return (
        f"--dataset={world.data}",
        *MLP,
        "--held_out=5",
        "--experts=3",
        "--epochs=3",
        "--together=2",
        *recipe,
    )


def _matching(world: "World") -> tuple[str, ...]:
    tm = ("--tm.expert_epochs=1", "--tm.max_start=2", "--tm.student_steps=4")
    return (
        f"--dataset={world.data}",
        *SHORT,
        "--method=tm",
        f"--experts_dir={world.finished('train_experts')}",
        *tm,
        "--tm.augment=",
    )


def _dynamics(world: "World") -> tuple[str, ...]:
    return (
        f"--artefacts={world.sets[0]}",
        *MLP,
        "--sets=train,random",
        "--ipc=2",
        "--probes=accuracy,hessian_trace",
        "--hessian_trace.num_probes=4",
        "--hessian_trace.batch=10",
        "--iterations=8",
        "--every=4",
        "--batch=20",
    )


def _agreement(world: "World") -> tuple[str, ...]:
    return (
        f"--artefacts={world.sets[0]},{world.sets[1]}",
        "--protocol=own",
        "--seeds=3",
        "--subset_networks=11",
        "--subset_low=0.05",
        "--subset_high=0.4",
        "--subset_epochs=3",
        "--early_runs=3",
        "--early_iterations=13",
        "--early_every=3",
        "--batch=25",
        "--lr=0.05",
        "--test_images=47",
        "--least=6",
        "--early_least=2",
        "--tolerance=0.5",
        "--piece=4",
        "--together=2",
        "--chunk=8",
    )


def _recognition(world: "World") -> tuple[str, ...]:
    return (
        f"--artefacts={world.sets[0]},{world.sets[1]}",
        "--width_scale=0.05",
        "--seeds=2",
        "--recipe.batch=30",
        "--recipe.lr=0.02",
        "--map_images=40",
        "--chunk=25",
        "--models=mlp",
        "--epochs=2",
    )


def _set(world: "World") -> list[pathlib.Path]:
    return [world.sets[0]]


def _sets(world: "World") -> list[pathlib.Path]:
    return list(world.sets)


def _data(world: "World") -> list[pathlib.Path]:
    return [world.data]


def _store(world: "World") -> list[pathlib.Path]:
    held = world.finished("train_experts")
    return [world.data, held / "experts.json", held / "trajectories.npy"]


def _influence(world: "World") -> list[pathlib.Path]:
    held = world.finished("influence")
    return [held / name for name in ("config.json", "summary.json", "influence.npz")]


def _records(world: "World") -> list[pathlib.Path]:
    return [p for p in world.records.rglob("*") if p.suffix in (".json", ".png")]


COMMANDS = {
    "distill": Command("distill", _distill, _data),
    "train_experts": Command("train_experts", _experts, _data),
    "matching": Command("distill", _matching, _store),
    "evaluate": Command(
        "evaluate", lambda w: (f"--artefact={w.sets[0]}", "--seeds=2"), _set
    ),
    "mixing": Command(
        "mixing",
        lambda w: (
            f"--artefacts={w.sets[0]}",
            "--protocol=own",
            "--seeds=2",
            "--real_per_class=0,1",
        ),
        _set,
    ),
    "recognition": Command("recognition", _recognition, _sets),
    "dynamics": Command("dynamics", _dynamics, _set),
    "influence": Command(
        "influence",
        lambda w: (
            f"--artefact={w.sets[2]}",
            "--seeds=2",
            "--test_images=12",
            "--piece=3",
        ),
        lambda w: [w.sets[2]],
    ),
    "agreement": Command("agreement", _agreement, _sets),
    "attributes": Command(
        "attributes",
        lambda w: (
            f"--influence={w.finished('influence')}",
            "--top=3",
            "--permutations=40",
            "--recipe.batch=30",
            "--recipe.lr=0.02",
        ),
        _influence,
    ),
    "coresets": Command(
        "coresets",
        lambda w: (f"--dataset={w.data}", "--held_out=2", "--seeds=2", *MLP, "--ipcs=1,3"),
        _data,
    ),
    "cross_architecture": Command(
        "cross_architecture",
        lambda w: (
            f"--artefacts={w.sets[0]},{w.sets[1]}",
            "--seeds=2",
            "--width_scale=0.1",
            "--models=own,mlp",
        ),
        _sets,
    ),
    "report": Command("report", lambda w: (f"--records={w.records}",), _records, "out"),
    "study": Command("study", lambda w: ("--jobs=1",), lambda w: []),
}


class World:
    """A folder with all inputs; undisturbed runs are made when first asked for."""

    data: pathlib.Path
    sets: tuple[pathlib.Path, ...]
    records: pathlib.Path

    def __init__(self, root: pathlib.Path):
        self.root = root.resolve()
        for name in ("home", "temporary", "here"):
            (self.root / name).mkdir(parents=True)
        self.data, self.other_data = self.root / "data.npz", self.root / "other.npz"
        write_data(self.data, 0)
        write_data(self.other_data, 7)
        self.sets = tuple(self.root / "sets" / f"{n}.npz" for n in ("one", "two", "single"))
        self.records = self.root / "records"
        self._made = False
        self._finished: dict[str, pathlib.Path] = {}
        self._numbers: dict[str, Mapping[str, Any]] = {}

    @contextlib.contextmanager
    def entered(self):
        """Makes this the place of the process: current, home and temporary folder."""
        before, here = dict(os.environ), pathlib.Path.cwd()
        os.environ.update(
            HOME=str(self.root / "home"),
            TMPDIR=str(self.root / "temporary"),
            MPLCONFIGDIR=str(self.root / "temporary" / "matplotlib"),
            PYTHONPATH=str(ROOT),
            JAX_PLATFORMS="cpu",
        )
        cache = str(self.root / "temporary" / "xla")
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
        os.chdir(self.root / "here")
        try:
            yield self
        finally:
            os.chdir(here)
            os.environ.clear()
            os.environ.update(before)

    def make_sets(self) -> None:
        """Writes the distilled sets and the records, once."""
        from tests.experiments.helpers import write

        if self._made:  # a trial may have taken one of the files away
            return
        self._made = True
        for seed, (path, ipc) in enumerate(zip(self.sets, (2, 2, 1), strict=True)):
            write(path, self.data, ipc=ipc, seed=seed)
        shutil.copytree(STUDY, self.records, ignore=shutil.ignore_patterns("report.html"))
        for name in ("verdicts.json", "study.json", "study.jsonl"):
            (self.records / name).unlink(missing_ok=True)

    def argv(self, which: str, workdir: pathlib.Path, **changed: str) -> list[str]:
        """Returns the arguments of a command; `changed` are other values of flags."""
        command = COMMANDS[which]
        given = [
            word for word in command.argv(self) if word.split("=")[0][2:] not in changed
        ]
        own = workdir / "report.html" if command.place == "out" else workdir
        more = [f"--{name}={value}" for name, value in changed.items()]
        return [*given, *more, f"--{command.place}={own}"]

    def run(self, which: str, workdir: pathlib.Path, **changed: str):
        """Runs a command in this process."""
        self.make_sets()
        argv = self.argv(which, workdir, **changed)
        if which == "study":
            with _fake_study(workdir):
                return call("study", argv)
        return call(COMMANDS[which].name, argv)

    def finished(self, which: str) -> pathlib.Path:
        """Returns the folder of an undisturbed run."""
        if which not in self._finished:
            workdir = self.root / "finished" / which
            ended = self.run(which, workdir)
            if ended.code:
                raise RuntimeError(f"{which} does not run: {ended.err[-2000:]}")
            self._finished[which] = workdir
        return self._finished[which]

    def numbers(self, which: str) -> Mapping[str, Any]:
        """Returns the results of the undisturbed run."""
        if which not in self._numbers:
            self._numbers[which] = numbers(self.finished(which))
        return self._numbers[which]

    def other(self, which: str) -> pathlib.Path:
        """Returns the folder of an undisturbed run with another seed."""
        name = f"{which}-other"
        if name not in self._finished:
            workdir = self.root / "finished" / name
            changed = {"seed": "5"} if _has_seed(which) else {}
            ended = self.run(which, workdir, **changed)
            if ended.code:
                raise RuntimeError(f"{name} does not run: {ended.err[-2000:]}")
            self._finished[name] = workdir
        return self._finished[name]


@functools.cache
def _has_seed(which: str) -> bool:
    module = importlib.import_module(f"experiments.{COMMANDS[which].name}.run")
    return "seed" in dict(launch.flatten(module.Config().to_dict()))


@contextlib.contextmanager
def _fake_study(root: pathlib.Path):
    from experiments.study import run as study_run
    from tests.experiments.study import fake_study

    plan = study_run.plan
    study_run.plan = lambda config: fake_study.steps(root)
    try:
        yield
    finally:
        study_run.plan = plan


def striped(num_per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images u8[n, 8, 8, 1] of three classes, told apart by bright rows."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3, dtype=np.int32), num_per_class)
    images = rng.integers(0, 150, (len(labels), 8, 8, 1))
    for j in range(3):
        images[labels == j, 2 * j : 2 * j + 2] += 60
    return images.astype(np.uint8), labels


def data_arrays(seed: int) -> dict[str, np.ndarray]:
    """Returns the arrays of a data set."""
    train, test = striped(40, seed), striped(20, seed + 1)
    return {
        "train_images": train[0],
        "train_labels": train[1],
        "test_images": test[0],
        "test_labels": test[1],
        "class_names": np.array(["top", "middle", "bottom"]),
    }


def write_data(path: pathlib.Path, seed: int) -> None:
    """Writes a data set."""
    held = io.BytesIO()
    np.savez(held, **data_arrays(seed))
    path.write_bytes(held.getvalue())
