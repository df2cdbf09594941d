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
same command run again resumes a run that was cut, and ends with the same bits; it loses
the epoch it was in, and the one before if that was still being saved.

`--arrangement=auto` trains the experts of a program one after the other on CPU. CPU
seconds for an expert and epoch of 7,000 grey 28x28 images, width-32 ConvNet, four experts
together, two x86 cores shared with other work: batch 256 map 5.2, vmap 7.1; batch 64 map
5.1, vmap 5.9. Elsewhere it takes vmap, which is not measured yet.
"""

import dataclasses
import json
import pathlib
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import io
from distilljax.analysis.statistics import spread
from distilljax.config import chooses, option
from distilljax.core import losses, parameters
from distilljax.core.inner import InnerState
from distilljax.io import records, trajectories
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.io.files import write_json
from distilljax.models import MODELS
from distilljax.training import evaluation, expert
from distilljax.training.expert import Recipe
from distilljax.types import Array, InputError, Key, Model, RealSet
from experiments.lab.data import DataOptions, Prepared, prepare
from experiments.lab.networks import model_of
from experiments.lab.progress import SECONDS_BETWEEN_LINES, duration
from experiments.lab.workdir import open_workdir, workdir_path
from experiments.train_experts.figures import expert_curves


@chooses("model", MODELS, "convnet", "The network.", changed={"convnet": {"width": 32}})
@dataclasses.dataclass(frozen=True)
class Config(DataOptions):
    """Options of the experiment."""

    experts: int = option(10, "How many experts.", low=1)
    epochs: int = option(20, "Passes of each over the data.", low=1)
    recipe: Recipe = option(Recipe(), "How an expert is trained.")
    dtype: Literal["float32", "float16", "bfloat16"] = option(
        "float32", "How parameters are kept on disk; they are trained in float32."
    )
    together: int = option(4, "Experts trained side by side by one program.", low=1)
    arrangement: Literal["auto", "vmap", "map"] = option(
        "auto", "Side by side: at once (vmap), or each step after step (map)."
    )
    seed: int = option(0, "Settles everything random.", low=0, high=2**31 - 1)
    workdir: str | None = option(
        None, "Where the experts go; none: a folder under runs/ named by the settings."
    )


class Trained(NamedTuple):
    """Experts after an epoch, as they leave the device."""

    params: Array  # f32[m, p]
    loss: Array  # f32[m], mean over the epoch; NaN at initialisation
    accuracy: Array  # f32[m], on held-out images


def identify(config: Any, prepared: Prepared) -> dict[str, Any]:
    """What experts and those who use them must agree on, for `Store.check`."""
    data = prepared.data
    return {
        "dataset": {"fingerprint": data.fingerprint},
        "preprocess": trajectories.describe_transform(prepared.transform, data.image_shape),
        "held_out": config.held_out,
        "split_seed": config.split_seed,
        "model": {
            "name": config.model,
            "config": getattr(config, config.model).to_dict(),
        },
    }


def _describe(config: Any, prepared: Prepared, num_params: int) -> trajectories.Description:
    same = identify(config, prepared)
    data = prepared.data
    same["dataset"] |= {"name": config.dataset, "source": data.source}
    return trajectories.Description(
        num_experts=config.experts,
        num_epochs=config.epochs,
        num_params=num_params,
        recipe=config.recipe.to_dict(),
        seed=config.seed,
        **same,
    )


class _Programs:
    """The compiled programs for `together` experts, or for the fewer that are left."""

    def __init__(self, config: Any, model: Model, prepared: Prepared):
        self._recipe, self._model = config.recipe, model
        self._real, self._held_out = prepared.real, prepared.held_out
        self._key = jax.random.key(config.seed)
        self._at_once = config.arrangement == "vmap" or (
            config.arrangement == "auto" and jax.default_backend() != "cpu"
        )
        self._begin = jax.jit(self._begin_all)
        self._advance: dict[int, Any] = {}  # number of experts -> program

    def begin(self, experts: range) -> tuple[InnerState, Trained]:
        """The experts of these numbers at epoch 0."""
        return self._begin(self._key, jnp.asarray(experts), self._held_out)

    def compile(self, num_experts: int) -> None:
        """Makes `advance` ready for so many experts, if it is not."""
        if num_experts in self._advance:
            return
        experts = range(num_experts)
        state, _ = jax.eval_shape(
            self._begin_all, self._key, jnp.asarray(experts), self._held_out
        )
        given = self._given(experts, 1, state)
        self._advance[num_experts] = jax.jit(self._advance_all).lower(*given).compile()

    def advance(
        self, experts: range, epoch: int, state: InnerState
    ) -> tuple[InnerState, Trained]:
        """One epoch on: `epoch` is the number of the one that is trained."""
        return self._advance[len(experts)](*self._given(experts, epoch, state))

    def _given(self, experts: range, epoch: int, state: Any) -> tuple[Any, ...]:
        numbers, number = jnp.asarray(experts), jnp.asarray(epoch)
        return self._key, numbers, number, state, self._real, self._held_out

    def _begin_all(
        self, key: Key, numbers: Array, held_out: RealSet
    ) -> tuple[InnerState, Trained]:
        def one(given: tuple[Array]) -> tuple[InnerState, Trained]:
            own_key = expert.epoch_key(key, given[0], 0)
            state = expert.init(own_key, self._model, self._recipe)
            return state, self._look(state, jnp.asarray(jnp.nan), held_out)

        return self._each(one, (numbers,))

    def _advance_all(
        self,
        key: Key,
        numbers: Array,
        epoch: Array,
        state: InnerState,
        real: RealSet,
        held_out: RealSet,
    ) -> tuple[InnerState, Trained]:
        def one(given: tuple[Array, InnerState]) -> tuple[InnerState, Trained]:
            number, state = given
            own_key = expert.epoch_key(key, number, epoch)
            state, loss = expert.epoch(own_key, self._model, real, self._recipe, state)
            return state, self._look(state, loss, held_out)

        return self._each(one, (numbers, state))

    def _look(self, state: InnerState, loss: Array, held_out: RealSet) -> Trained:
        logits = evaluation.predict(self._model.apply, state.params, held_out)
        accuracy = losses.accuracy(logits, held_out.labels)
        return Trained(parameters.flatten(state.params), loss, accuracy)

    def _each(self, one: Callable[[Any], Any], given: Any) -> Any:
        return jax.vmap(one)(given) if self._at_once else jax.lax.map(one, given)


def run(config: Any) -> dict[str, Any]:
    """Trains the experts and writes everything into the working directory.

    Returns:
      What `summary.json` holds: accuracies (fractions), times (seconds), versions.

    Raises:
      InputError: data, settings or working directory that cannot be used; a disk that
        is too small; or an expert that diverges.
    """
    label = f"{pathlib.Path(config.dataset).stem}-{config.model}-{config.experts}"
    workdir = workdir_path("experiments.train_experts", config, label)
    with open_workdir(workdir, "experiments.train_experts", config):
        if (workdir / "summary.json").exists():
            summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
            print(f"these experts were trained before; they are in {workdir}")
        else:
            summary = _run(config, workdir)
    _show(summary, workdir)
    return summary


def _run(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
    began = time.perf_counter()
    prepared = prepare(config)
    model = model_of(config, prepared.data.image_shape, prepared.data.num_classes)
    description = _describe(config, prepared, parameters.num_params(model))
    store = _store(config, workdir, description)
    metrics = workdir / "metrics.jsonl"
    checkpoints = io.Checkpoints(workdir / "checkpoints")
    try:
        _train(config, _Programs(config, model, prepared), store, checkpoints, metrics)
    finally:
        checkpoints.close()
    history = records.read(metrics)
    last = [one for one in history if one["epoch"] == config.epochs]
    title = f"{config.experts} experts ({config.model}) on {prepared.data.name}"
    expert_curves(workdir / "experts.png", history, title)
    epochs = [one["seconds"] for one in history if one["epoch"] > 0]
    summary = {
        "held_out_accuracy": spread([one["accuracy"] for one in last]),
        "training_loss": spread([one["loss"] for one in last]),
        "experts": config.experts,
        "epochs": config.epochs,
        "num_params": description.num_params,
        "bytes": trajectories.size_estimate(*description[:3], config.dtype),
        "dataset": dict(description.dataset),
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
    write_json(workdir / "summary.json", summary)
    shutil.rmtree(workdir / "checkpoints")
    return summary


def _store(
    config: Any, workdir: pathlib.Path, description: trajectories.Description
) -> trajectories.Store:
    """The store of this run, new or as it was left."""
    if (workdir / trajectories.DESCRIBED).exists():
        store = trajectories.open(workdir)
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
    """Such as 12.3 MiB."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while num >= 1024 and len(units) > 1:
        num /= 1024
        units.pop(0)
    return f"{num:.{0 if units[0] == 'B' else 1}f} {units[0]}"


def _train(
    config: Any,
    programs: _Programs,
    store: trajectories.Store,
    checkpoints: io.Checkpoints,
    metrics: pathlib.Path,
) -> None:
    """Chunk after chunk of experts; rows, records and a checkpoint after every epoch.

    Step s of the run is epoch s mod (epochs + 1) of chunk s // (epochs + 1); epoch 0 is
    the initialisation.
    """
    num_rows = config.epochs + 1
    num_steps = -(-config.experts // config.together) * num_rows

    def numbers(step: int) -> range:
        first = step // num_rows * config.together
        return range(first, min(first + config.together, config.experts))

    latest = checkpoints.latest_step()
    done = -1 if latest is None else latest
    records.keep_until(metrics, done)
    state: Any = None
    if latest is not None:
        experts = numbers(done)
        state = checkpoints.restore(done, programs.begin(experts)[0])
        print(
            f"resuming in {store.path}: experts {_range(experts)} after epoch "
            f"{done % num_rows}"
        )

    ahead = [step for step in range(done + 1, num_steps) if step % num_rows]
    display = _Display(config, sum(len(numbers(step)) for step in ahead))
    for step in range(done + 1, num_steps):
        experts, epoch = numbers(step), step % num_rows
        programs.compile(len(experts))
        started = time.perf_counter()
        if epoch == 0:
            state, trained = programs.begin(experts)
        else:
            state, trained = programs.advance(experts, epoch, state)
        params, loss, accuracy = jax.device_get(trained)
        seconds = time.perf_counter() - started
        # Rows, then records, then the checkpoint: a resumed run may write again what is
        # there, and never lacks what is not.
        store.write(experts.start, epoch, params)
        new = [
            {
                "step": step,
                "expert": number,
                "epoch": epoch,
                "loss": float(loss[i]),
                "accuracy": float(accuracy[i]),
                "seconds": seconds / len(experts),
            }
            for i, number in enumerate(experts)
        ]
        records.append(metrics, new)
        checkpoints.save(step, state)
        if epoch > 0:
            display.update(experts, epoch, seconds, loss.mean(), accuracy.mean())


def _range(experts: range) -> str:
    return f"{experts.start + 1}-{experts.stop}" if len(experts) > 1 else f"{experts.stop}"


class _Display:
    """A line every few seconds, and an estimate after the first epoch."""

    def __init__(self, config: Any, num_left: int):
        self._config, self._num_left = config, num_left  # epochs of single experts
        self._num_done, self._seconds = 0, 0.0
        self._last_line: float | None = None

    def update(
        self, experts: range, epoch: int, seconds: float, loss: float, accuracy: float
    ) -> None:
        """Called when these experts have gone through `epoch`, in so many seconds."""
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


def _show(summary: dict[str, Any], workdir: pathlib.Path) -> None:
    accuracy = summary["held_out_accuracy"]
    spread = "" if accuracy["std"] is None else f" (std {accuracy['std']:.2%})"
    seconds = summary["seconds"]
    print(
        f"{summary['experts']} experts after {summary['epochs']} epochs: "
        f"{accuracy['mean']:.2%}{spread} of {summary['num_held_out']} held-out images; "
        f"{duration(seconds['training'])} of training, {seconds['epoch']:.2g} s an expert "
        f"and epoch, {_bytes(summary['bytes'])}. In {workdir}"
    )


def main(config: Any) -> None:
    """Entry of the command line."""
    run(config)
