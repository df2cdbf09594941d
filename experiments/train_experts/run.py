r"""Train experts on real data and keep their trajectories, for trajectory matching.

    python -m experiments.train_experts
    python -m experiments.train_experts --experts=16 --epochs=12 --recipe.augment= \
        --recipe.batch=64 --recipe.lr=0.02
    python -m experiments.train_experts --dataset=cifar10 --data_dir=DIR --experts=100 \
        --epochs=50 --preprocess=zca --convnet.width=128 --dtype=bfloat16

An expert is a network trained on the training images that are not held out; its
parameters are kept at its initialisation and after every epoch. The working directory
is a store of `distilljax.io.trajectories`, with `experts.png` (loss and held-out
accuracy over the epochs), `metrics.jsonl`, `config.json` and `summary.json` besides. The
same command given again resumes an interrupted run, and ends with the same bits; it loses
the epoch it was in, and the one before if that was still being saved.

`--arrangement=auto` trains the experts of a program one after the other on CPU, each on
a core of its own, and tells of each epoch when its experts have finished it. CPU
seconds for an expert and epoch of 7,000 grey 28x28 images, width-32 ConvNet, four
experts together, two x86 cores shared with other work: batch 256 map 5.2, vmap 7.1;
batch 64 map 5.1, vmap 5.9. Elsewhere it takes vmap, which is not measured yet.
"""

import dataclasses
import pathlib
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np

from distilljax import devices, io, launch, platforms, processes
from distilljax.analysis.statistics import spread
from distilljax.config import chooses, option
from distilljax.core import parameters
from distilljax.io import records, trajectories
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.models import MODELS
from distilljax.training import expert
from distilljax.training.expert import Recipe
from distilljax.types import InputError, Model
from experiments.lab import kept, keys
from experiments.lab.choices import ModelChoice
from experiments.lab.data import (
    DataOptions,
    Prepared,
    check_same_data,
    describe_dataset,
    prepare,
    short_name,
)
from experiments.lab.experts import identify_experts
from experiments.lab.networks import model_of
from experiments.lab.options import (
    NetworksOption,
    ProcessesOption,
    SeedOption,
    WorkdirOption,
)
from experiments.lab.pictures import kept_apart
from experiments.lab.progress import SECONDS_BETWEEN_LINES, duration
from experiments.lab.records import finished_summary, write_summary
from experiments.lab.workdir import claim_data, open_workdir, workdir_path
from experiments.train_experts.figures import expert_curves
from experiments.train_experts.programs import Programs, Trained
from experiments.train_experts.record import Summary

NAME = "experiments.train_experts"
METRICS = "metrics.jsonl"


@chooses("model", MODELS, "convnet", "The network.", changed={"convnet": {"width": 32}})
@dataclasses.dataclass(frozen=True)
class Config(
    WorkdirOption, NetworksOption, ProcessesOption, SeedOption, DataOptions, ModelChoice
):
    """Options of the experiment."""

    experts: int = option(10, "Number of experts.", low=1)
    epochs: int = option(20, "Passes of each over the data.", low=1)
    recipe: Recipe = option(Recipe(), "Training of an expert.")
    dtype: Literal["float32", "float16", "bfloat16"] = option(
        "float32", "Type of the parameters on disk; they are trained in float32."
    )
    together: int = option(4, "Experts trained side by side by one program.", low=1)
    arrangement: Literal["auto", "vmap", "map"] = option(
        "auto", "Side by side: each step at once (vmap), or one after another (map)."
    )

    def devices_of_cores(self) -> int:
        """Returns the devices that CPU cores are made: no more than experts to share."""
        wanted = super().devices_of_cores()
        return self.devices or min(wanted, self.together, self.experts)


def run(config: Config) -> Summary:
    """Trains the experts and writes everything into the working directory.

    Returns:
      The contents of `summary.json`: accuracies (fractions), times (seconds), versions.

    Raises:
      InputError: data, settings or working directory that cannot be used; experts of a
        newer format; a disk that is too small; or an expert that diverges.
    """
    model, _ = config.chosen("model")
    label = f"{short_name(config.dataset)}-{model}-{config.experts}"
    workdir = workdir_path(NAME, config, label)
    with open_workdir(workdir, NAME, config):
        summary = finished_summary(workdir, Summary, "train_experts")
        if summary is None or not _has_result(workdir):
            summary = _run(config, workdir)
        else:
            check_same_data(workdir, config.dataset, config.data_dir, summary)
            print(f"these experts were trained before; they are in {workdir}")
    _show(summary, workdir)
    return summary


@processes.once
def _has_result(workdir: pathlib.Path) -> bool:
    """Whether the experts of a finished run are there; says so on stderr where not."""
    try:
        store = trajectories.open(workdir)
        store.verify()
        if len(store.complete) < store.shape[0]:
            raise InputError(f"{workdir}: experts are missing")
    except trajectories.NewerError:
        raise
    except InputError as error:
        _drop(workdir, str(error))
        return False
    return True


def _drop(workdir: pathlib.Path, why: str) -> None:
    """Removes experts that cannot be used, and what was kept to go on with them."""
    print(f"{why.partition(';')[0]}; trained again", file=sys.stderr, flush=True)
    for name in (trajectories.DESCRIBED, trajectories.DATA, METRICS):
        (workdir / name).unlink(missing_ok=True)
    shutil.rmtree(workdir / "checkpoints", ignore_errors=True)


def _run(config: Config, workdir: pathlib.Path) -> Summary:
    began = time.perf_counter()
    prepared = prepare(config)
    loaded = prepared.data
    identity = claim_data(workdir, loaded)
    model = model_of(config, loaded.image_shape, loaded.num_classes)
    description = _describe(config, prepared, parameters.num_params(model))
    store = _store(config, workdir, description)
    metrics = workdir / METRICS
    checkpoints = _open_checkpoints(config, workdir, metrics, identity)
    try:
        programs = _programs(config, model, prepared, workdir)
        _train(config, programs, store, checkpoints, metrics)
    finally:
        checkpoints.close()
    history = records.read(metrics)
    last = [one for one in history if one["epoch"] == config.epochs]
    name, _ = config.chosen("model")
    title = f"{config.experts} experts ({name}) on {loaded.name}"
    with kept_apart("the picture"):
        expert_curves(workdir / "experts.png", history, title)
    epochs = [one["seconds"] for one in history if one["epoch"] > 0]
    summary: Summary = {
        "held_out_accuracy": spread([one["accuracy"] for one in last]),
        "training_loss": spread([one["loss"] for one in last]),
        "experts": config.experts,
        "epochs": config.epochs,
        "num_params": description.num_params,
        "bytes": trajectories.size_estimate(*description[:3], config.dtype),
        "dataset": describe_dataset(loaded),
        "num_images": int(prepared.real.labels.shape[0]),
        "num_held_out": int(prepared.held_out.labels.shape[0]),
        "seconds": {
            "epoch": float(np.median(epochs)),
            "training": float(np.sum(epochs)),
            "since_last_start": time.perf_counter() - began,
        },
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    written = write_summary(workdir, Summary, summary)
    processes.once(shutil.rmtree)(workdir / "checkpoints")
    return written


def _describe(
    config: Config, prepared: Prepared, num_params: int
) -> trajectories.Description:
    same = identify_experts(config, prepared)
    same["dataset"] |= {"name": config.dataset, "source": prepared.data.source}
    return trajectories.Description(
        num_experts=config.experts,
        num_epochs=config.epochs,
        num_params=num_params,
        recipe=config.recipe.to_dict(),
        seed=config.seed,
        **same,
    )


def _difficulty(
    config: Config, model: Model, prepared: Prepared, workdir: pathlib.Path
) -> np.ndarray | None:
    """Returns the difficulty of each image, f32[n], kept as `difficulty.npz`."""
    if config.recipe.curriculum == "none":
        return None
    kept_scores, name = kept.Arrays(workdir), "difficulty"
    identity = kept.digest([config.seed, config.recipe.to_dict()], [prepared.real.labels])
    held = kept_scores.read(name, identity, ["scores"])
    if held is None:
        print("ranking the training images by difficulty, with 3 networks", flush=True)
        key = keys.difficulty(config.seed)
        ranked = jax.jit(expert.difficulty, static_argnums=(1, 3))
        scores = ranked(key, model, prepared.real, config.recipe)
        held = {"scores": np.asarray(scores)}
        kept_scores.write(name, identity, **held)
    return held["scores"]


def _programs(
    config: Config, model: Model, prepared: Prepared, workdir: pathlib.Path
) -> Programs:
    at_once = config.arrangement == "vmap" or (
        config.arrangement == "auto" and not platforms.on_cpu()
    )
    return Programs(
        jax.random.key(config.seed),
        model,
        config.recipe,
        prepared.real,
        prepared.held_out,
        at_once=at_once,
        mesh=devices.mesh(config.devices),
        scores=_difficulty(config, model, prepared, workdir),
    )


@processes.once
def _store(
    config: Config, workdir: pathlib.Path, description: trajectories.Description
) -> trajectories.Store:
    """Returns the store of this run, new or as it was left."""
    if (workdir / trajectories.DESCRIBED).exists():
        try:
            store = trajectories.open(workdir)
            store.verify()
        except trajectories.NewerError:
            raise
        except InputError as error:
            _drop(workdir, str(error))
        else:
            store.check(description._asdict())
            return store
    size = trajectories.size_estimate(*description[:3], config.dtype)
    # Checkpoints: two are kept and one is being written, of parameters and momentum.
    state = description.num_params * 4 * (2 if config.recipe.momentum else 1)
    needed = size + 3 * state * min(config.together, config.experts)
    free = shutil.disk_usage(workdir).free
    print(
        f"{config.experts} experts x {config.epochs + 1} epochs x "
        f"{description.num_params:,} parameters: {_bytes(size)} on disk, "
        f"{_bytes(free)} are free"
    )
    if needed > free:
        raise InputError(
            f"the experts need {_bytes(needed)}, and {workdir} has {_bytes(free)} left; "
            "make room, lower --experts or --epochs, or choose --dtype=bfloat16"
        )
    return trajectories.create(workdir, description, config.dtype)


def _bytes(num: float) -> str:
    """Returns a size such as 12.3 MiB."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while num >= 1024 and len(units) > 1:
        num /= 1024
        units.pop(0)
    return f"{num:.{0 if units[0] == 'B' else 1}f} {units[0]}"


def _numbers(config: Config, step: int) -> range:
    """Returns the experts that are trained in a step of the run, see `_train`."""
    first = step // (config.epochs + 1) * config.together
    return range(first, min(first + config.together, config.experts))


def _open_checkpoints(
    config: Config, workdir: pathlib.Path, metrics: pathlib.Path, identity: str
) -> io.Checkpoints:
    """Returns the checkpoints of the run; `metrics` ends with the latest of them.

    Where records are missing there is nothing to resume, and the checkpoints are dropped.
    """
    folder = workdir / "checkpoints"
    checkpoints = io.Checkpoints(folder, identity=identity)
    latest = checkpoints.latest_step()
    done = -1 if latest is None else latest
    records.keep_until(metrics, done, by=("step", "expert"))
    held = {(record["expert"], record["step"]) for record in records.read(metrics)}
    steps = range(done + 1)
    missing = sum((i, s) not in held for s in steps for i in _numbers(config, s))
    if not missing:
        return checkpoints
    print(f"{metrics} lacks {missing} records; computed again", file=sys.stderr, flush=True)
    checkpoints.close()
    processes.once(shutil.rmtree)(folder)
    records.keep_until(metrics, -1)
    return io.Checkpoints(folder, identity=identity)


def _train(
    config: Config,
    programs: Programs,
    store: trajectories.Store,
    checkpoints: io.Checkpoints,
    metrics: pathlib.Path,
) -> None:
    """Trains chunk after chunk of experts; keeps rows and a checkpoint of every epoch.

    Step s of the run is epoch s mod (epochs + 1) of chunk s // (epochs + 1); epoch 0 is
    the initialisation.
    """
    num_rows = config.epochs + 1
    num_steps = -(-config.experts // config.together) * num_rows

    latest = checkpoints.latest_step()
    done = -1 if latest is None else latest
    state: Any = None
    if latest is not None:
        experts = _numbers(config, done)
        state = jax.device_get(checkpoints.restore(done, programs.begin(experts)[0]))
        print(
            f"resuming in {store.path}: experts {_range(experts)} after epoch "
            f"{done % num_rows}"
        )

    ahead = [step for step in range(done + 1, num_steps) if step % num_rows]
    display = _Display(config, sum(len(_numbers(config, step)) for step in ahead))
    for step in range(done + 1, num_steps):
        experts, epoch = _numbers(config, step), step % num_rows
        if epoch == 0:
            started = time.perf_counter()
            state, trained = jax.device_get(programs.begin(experts))
            each = np.full(len(experts), (time.perf_counter() - started) / len(experts))
        else:
            state, trained, each = _epoch(programs, experts, epoch, state, display)
        # Rows, then records, then the checkpoint: a resumed run may write again what is
        # there, and never lacks what is not.
        store.write(experts.start, epoch, trained.params)
        new = [
            {
                "step": step,
                "expert": number,
                "epoch": epoch,
                "loss": float(trained.loss[i]),
                "accuracy": float(trained.accuracy[i]),
                "seconds": float(each[i]),
            }
            for i, number in enumerate(experts)
        ]
        records.append(metrics, new)
        checkpoints.save(step, state)


def _epoch(
    programs: Programs, experts: range, epoch: int, state: Any, display: "_Display"
) -> tuple[Any, Trained, np.ndarray]:
    """Returns the experts after an epoch, on the host, and the seconds of each."""
    found, seconds = [], []
    for some in programs.dispatches(experts):
        programs.compile(len(some))
        started = time.perf_counter()
        places = slice(some.start - experts.start, some.stop - experts.start)
        before = jax.tree.map(lambda x, places=places: x[places], state)
        found.append(jax.device_get(programs.advance(some, epoch, before)))
        taken = time.perf_counter() - started
        seconds += [taken / len(some)] * len(some)
        trained = found[-1][1]
        display.update(some, epoch, taken, trained.loss.mean(), trained.accuracy.mean())
    state, trained = jax.tree.map(lambda *xs: np.concatenate(xs), *found)
    return state, trained, np.array(seconds)


def _range(experts: range) -> str:
    return f"{experts.start + 1}-{experts.stop}" if len(experts) > 1 else f"{experts.stop}"


class _Display:
    """Progress on stderr: a line every few seconds; on stdout: a first estimate."""

    def __init__(self, config: Config, num_left: int):
        self._config, self._num_left = config, num_left  # epochs of single experts
        self._num_done, self._seconds = 0, 0.0
        self._last_line: float | None = None

    def update(
        self, experts: range, epoch: int, seconds: float, loss: float, accuracy: float
    ) -> None:
        """Tells that these experts have finished `epoch`, in so many seconds."""
        self._num_done += len(experts)
        self._seconds += seconds
        left = self._num_left - self._num_done
        rate = self._num_done / self._seconds
        now = time.monotonic()
        if self._last_line is None:
            print(f"about {duration(left / rate)} to go", flush=True)
        elif left and now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        print(
            f"experts {_range(experts)} of {self._config.experts}, epoch {epoch}/"
            f"{self._config.epochs}  {rate:.3g} epochs/s  {duration(left / rate)} left  "
            f"loss {loss:.4g}  held-out {accuracy:.1%}",
            file=sys.stderr,
            flush=True,
        )


def _show(summary: Summary, workdir: pathlib.Path) -> None:
    accuracy = summary["held_out_accuracy"]
    std = "" if accuracy["std"] is None else f" (std {accuracy['std']:.2%})"
    seconds = summary["seconds"]
    print(
        f"{summary['experts']} experts after {summary['epochs']} epochs: "
        f"{accuracy['mean']:.2%}{std} of {summary['num_held_out']} held-out images; "
        f"{duration(seconds['training'])} of training, {seconds['epoch']:.2g} s an expert "
        f"and epoch, {_bytes(summary['bytes'])}. In {workdir}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
