"""Distil a data set into a few images per class, and say what they are worth.

    python -m experiments.distill
    python -m experiments.distill --method=dm --ipc=10
    python -m experiments.distill --dataset=cifar10 --data_dir=DIR --convnet.width=32

Without flags: the embedded subset of Fashion-MNIST, one image a class, `bptt`. The
working directory then holds the distilled set (`distilled.npz`), its picture
(`grid.png`), the loss curve (`loss.png`), `metrics.jsonl`, `config.json` and
`summary.json`. The same command run again resumes a run that was cut, and shows the
summary of one that was finished.

The set is chosen by the accuracy of fresh networks on held-out training images; the
test set is read once, at the end.
"""

import dataclasses
import functools
import json
import pathlib
import time
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import __version__, data, io, loop
from distilljax.config import FieldError, chooses, option
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.core.outer import Source
from distilljax.core.parameters import Trajectories
from distilljax.core.parametrisations import (
    PARAMETRISATIONS,
    Parametrisation,
    stored_numbers,
)
from distilljax.io import records
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.io.files import write_json
from distilljax.methods import METHODS
from distilljax.models import MODELS
from distilljax.training import evaluation
from distilljax.training.evaluation import PROTOCOLS, EvaluationProtocol
from distilljax.types import Array, DistilledSet, InputError, Key, Model, RealSet, Transform
from experiments.distill.figures import loss_curve
from experiments.lab.accuracy import (
    compare_accuracies,
    measure_accuracies,
    print_accuracies,
)
from experiments.lab.baselines import BASELINES, parse_baselines, select_baselines
from experiments.lab.data import DataOptions, Prepared, prepare
from experiments.lab.networks import model_of
from experiments.lab.pictures import image_grid
from experiments.lab.progress import Display, duration
from experiments.lab.sets import displayable
from experiments.lab.workdir import identity_of, open_workdir, workdir_path
from experiments.train_experts.run import identify


@chooses(
    "model",
    MODELS,
    "convnet",
    "Network that is trained on the distilled set.",
    changed={"convnet": {"width": 32}},
)
@chooses("method", METHODS, "bptt", "How the set is learned.")
@chooses("parametrisation", PARAMETRISATIONS, "direct", "How the set is stored.")
@dataclasses.dataclass(frozen=True)
class Config(DataOptions):
    """Options of the experiment."""

    ipc: int = option(1, "Distilled images per class.", low=1)
    steps: int = option(80, "Outer steps.", low=1)
    init: Literal["real", "noise"] = option("real", "Images at the start.")
    init_from: str | None = option(None, "Start from this artefact (.npz) instead.")
    labels: Literal["hard", "soft", "expert"] = option(
        "hard",
        "One class each; or labels to be learned, which begin soft or as the experts see "
        "the images.",
    )
    confidence: float = option(
        0.9, "Share of its own class in a label of labels=soft at the start.", above=0
    )
    experts_dir: str | None = option(
        None, "Folder of expert trajectories, made by experiments.train_experts."
    )
    num_experts: int | None = option(
        None, "How many of the experts are loaded; none: all.", low=1
    )
    score_every: int = option(20, "Outer steps between looks at held-out data.", low=1)
    score_seeds: int = option(3, "Networks trained at each such look.", low=1)
    protocol: Literal["study", "dc", "dsa", "mtt"] = option(
        "study", "How networks are trained on the set, to choose it and to test it."
    )
    eval_seeds: int = option(5, "Networks trained for the final accuracy.", low=2)
    baselines: str = option(
        "random", f"Real images to compare with, with commas: {', '.join(BASELINES)}."
    )
    whole_epochs: int = option(
        3, "Epochs on the whole set, for comparison; 0 leaves it out.", low=0
    )
    whole_seeds: int = option(3, "Networks trained on the whole set.", low=2)
    seed: int = option(0, "Settles everything random.", low=0, high=2**31 - 1)
    checkpoint_seconds: float = option(60.0, "Time between checkpoints.", low=0)
    workdir: str | None = option(
        None, "Where the results go; none: a folder under runs/ named by the settings."
    )


# How networks are trained on the whole set, for comparison.
WHOLE = EvaluationProtocol(steps=None, epochs=1, batch=64, lr=0.02, decay_at=0.7)


def _keys(config: Any) -> Key:
    """Of the start and of the test, key[2]; apart from those of `loop.run`.

    `fold_in(key, i)` is `split(key, n)[i]` with JAX's default generator, so that small
    numbers would give the keys that the loop has split off.
    """
    return jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1 << 20))


def _matches_experts(config: Any) -> bool:
    return METHODS[config.method].SOURCE == "experts"


def _needs_experts(config: Any) -> bool:
    return _matches_experts(config) or config.labels == "expert"


def _check(config: Any) -> None:
    """What can be refused before any data are read."""
    parse_baselines(config.baselines)
    group = getattr(config, config.method)
    learned = getattr(group, "label_lr", 0.0)
    if learned and config.labels == "hard":
        reason = "hard labels cannot be learned; add --labels=soft or --labels=expert"
        raise FieldError(f"{config.method}.label_lr", learned, reason)
    if config.labels == "soft" and not learned:
        reason = f"{config.method} does not learn them here"
        if hasattr(group, "label_lr"):
            reason += f"; give --{config.method}.label_lr"
        raise FieldError("labels", "soft", reason)
    if config.init_from and (config.parametrisation, config.labels) != ("direct", "hard"):
        reason = "goes with --parametrisation=direct and --labels=hard alone"
        raise FieldError("init_from", config.init_from, reason)
    if config.experts_dir and not _needs_experts(config):
        reason = f"--method={config.method} --labels={config.labels} uses none"
        raise FieldError("experts_dir", config.experts_dir, reason)
    if not config.experts_dir and _needs_experts(config):
        reason = (
            "a folder of expert trajectories is needed; make one with "
            "python -m experiments.train_experts"
        )
        raise FieldError("experts_dir", None, reason)


class _Setting:
    """Everything a run needs, made from its configuration."""

    def __init__(self, config: Any):
        _check(config)
        prepared = prepare(config)
        self.data, rest, self.transform, self.real, self.held_out = prepared
        k, shape = self.data.num_classes, self.data.image_shape
        self.model = model_of(config, shape, k)
        self.group = getattr(config, config.method)
        self.parametrisation = self._parametrisation(config)
        self.method = METHODS[config.method].make(
            self.group, self.model, self.parametrisation
        )
        self.protocol: EvaluationProtocol = PROTOCOLS[config.protocol]
        self.experts = self._load_experts(config, prepared)
        self.source: Source = self.experts if _matches_experts(config) else self.real
        self.start = self._start(config, rest)

    def _parametrisation(self, config: Any) -> Parametrisation:
        name = config.parametrisation
        shape, k = self.data.image_shape, self.data.num_classes
        try:
            return PARAMETRISATIONS[name].make(getattr(config, name), shape, k, config.ipc)
        except FieldError as error:
            path = f"{name}.{error.path}"
            raise FieldError(path, error.value, error.reason) from None

    def _load_experts(self, config: Any, prepared: Prepared) -> Trajectories | None:
        """What the method, or the labels at the start, need of the experts."""
        self.experts_described: dict[str, Any] | None = None
        if not _needs_experts(config):
            return None
        store = io.trajectories.open(config.experts_dir)
        store.check(identify(config, prepared))
        self.experts_described = store.description._asdict()
        matched = _matches_experts(config)
        last = self.group.last_epoch if matched else store.description.num_epochs
        first = self.group.min_start if matched else last
        return store.read(config.num_experts or len(store.complete), first, last)

    def _start(self, config: Any, rest: data.Split) -> DistilledSet:
        if config.init_from:
            return self._continued(config)
        per_class = self.parametrisation.images_per_class or config.ipc
        smallest = int(self.real.class_sizes.min())
        if per_class > smallest:
            reason = (
                f"{per_class} images of each class are wanted, the smallest has {smallest} "
                "training images besides those held out; lower --ipc or --held_out"
            )
            raise FieldError("ipc", config.ipc, reason)
        trusted = rest
        if config.labels == "expert" and config.init == "real":
            trusted = self._classified_right(rest, per_class, config)
        chosen = data.subset(trusted, per_class, config.seed)
        images = self.transform(jnp.asarray(chosen.images))
        if config.init == "noise":
            images = jax.random.normal(_keys(config)[0], images.shape)
        if config.labels == "soft" and config.confidence * self.data.num_classes <= 1:
            reason = f"must be more than chance, 1/{self.data.num_classes}"
            raise FieldError("confidence", config.confidence, reason)
        start = distilled_set.create(
            images,
            jnp.asarray(chosen.labels),
            self.data.num_classes,
            learning_rate=getattr(self.group, "inner_lr", 0.01),
            confidence=config.confidence if config.labels == "soft" else 1.0,
        )
        if config.labels == "expert":
            start = start._replace(label_logits=self._expert_logits(images))
        return start

    def _classified_right(
        self, rest: data.Split, per_class: int, config: Any
    ) -> data.Split:
        """The images whose class the experts, by their mean logits, see (DATM)."""
        chunks = np.array_split(rest.images, -(-len(rest.images) // 500))
        seen = np.concatenate(
            [
                np.argmax(self._expert_logits(self.transform(jnp.asarray(chunk))), axis=-1)
                for chunk in chunks
            ]
        )
        right = seen == rest.labels
        fewest = min(
            int(right[rest.labels == j].sum()) for j in range(self.data.num_classes)
        )
        if fewest < per_class:
            reason = (
                f"the experts classify only {fewest} images of some class right, "
                f"{per_class} of each are wanted; train them longer, or start from noise"
            )
            raise FieldError("experts_dir", config.experts_dir, reason)
        return data.Split(rest.images[right], rest.labels[right])

    def _expert_logits(self, images: Array) -> Array:
        assert self.experts is not None
        return _mean_logits(self.model, self.experts, images)

    def _continued(self, config: Any) -> DistilledSet:
        before = io.load(config.init_from)
        num, *shape = before.distilled.images.shape
        if before.class_names != self.data.class_names or tuple(shape) != tuple(
            self.data.image_shape
        ):
            raise FieldError("init_from", config.init_from, "was made of other data")
        if num != config.ipc * self.data.num_classes:
            reason = f"has {num} images; set --ipc={num // self.data.num_classes}"
            raise FieldError("init_from", config.init_from, reason)
        if not _same(before.transform, self.transform):
            reason = (
                "was made with another preprocessing; give the --preprocess, --held_out "
                "and --split_seed of the run that made it"
            )
            raise FieldError("init_from", config.init_from, reason)
        return before.distilled


def _same(a: Transform, b: Transform) -> bool:
    (kind_a, arrays_a), (kind_b, arrays_b) = data.to_arrays(a), data.to_arrays(b)
    return kind_a == kind_b and all(
        bool(jnp.allclose(arrays_a[name], arrays_b[name], atol=1e-6)) for name in arrays_a
    )


@functools.partial(jax.jit, static_argnums=0)
def _mean_logits(model: Model, experts: Trajectories, images: Array) -> Array:
    """Logits at the experts' last epoch, averaged over the experts, f32[b, k]."""
    restore = parameters.unflatten(model)

    def logits(vector: Array) -> Array:
        return model.apply(restore(vector.astype(jnp.float32)), images)

    return jax.lax.map(logits, experts.params[:, -1]).mean(axis=0)


def score_function(model: Model, protocol: EvaluationProtocol, seeds: int) -> loop.Score:
    """Held-out accuracy, the mean over fresh networks trained on the set."""

    def score(key: Key, distilled: DistilledSet, held_out: RealSet) -> Array:
        return evaluation.fresh_accuracy(
            jax.random.split(key, seeds),
            model,
            distilled_set.as_batch(distilled),
            held_out,
            protocol,
            learning_rate=jnp.exp(distilled.log_lr),
        ).mean()

    return score


def run(config: Any) -> dict[str, Any]:
    """Distils, tests, and writes everything into the working directory.

    Returns:
      What `summary.json` holds: accuracies (fractions), times (seconds), versions.

    Raises:
      InputError: data, settings or working directory that cannot be used, or an outer
        loss that explodes; then `last_good.npz` holds the set before that.
    """
    label = f"{pathlib.Path(config.dataset).stem}-{config.method}-ipc{config.ipc}"
    workdir = workdir_path("experiments.distill", config, label)
    with open_workdir(workdir, "experiments.distill", config):
        if (workdir / "summary.json").exists():
            summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
            print(f"this run was finished before; its results are in {workdir}")
            _show(summary, workdir)
            return summary
        return _run(config, workdir)


def _run(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
    began = time.perf_counter()
    setting = _Setting(config)
    _keep_experts(workdir, setting.experts_described)
    metrics = workdir / "metrics.jsonl"
    checkpoints = io.Checkpoints(workdir / "checkpoints")
    records.keep_until(metrics, checkpoints.latest_step() or 0)
    title = f"{config.method} on {setting.data.name}, {config.ipc} per class"
    with Display(title) as display:
        try:
            result = loop.run(
                setting.method,
                setting.start,
                setting.source,
                jax.random.key(config.seed),
                num_steps=config.steps,
                score=score_function(setting.model, setting.protocol, config.score_seeds),
                score_source=setting.held_out,
                score_every=config.score_every,
                checkpoints=checkpoints,
                checkpoint_seconds=config.checkpoint_seconds,
                on_records=lambda new: records.append(metrics, new),
                on_progress=display.update,
                on_resume=lambda step: print(f"resuming at step {step} in {workdir}"),
            )
        except loop.DivergedError as error:
            good = workdir / "last_good.npz"
            io.save(good, _artefact(config, setting, error.last_good, {}))
            lower = " or ".join(
                f"--{config.method}.{name}={getattr(setting.group, name)}"
                for name in METHODS[config.method].LOWER
            )
            raise InputError(
                f"{error}; the set before that step is in {good}. "
                f"Lower {lower}, in a new --workdir"
            ) from None
        finally:
            checkpoints.close()
    distilled_at = time.perf_counter()

    notes = {
        "best_step": result.best_step,
        "held_out_accuracy": result.best_score,
        "inner_learning_rate": float(jnp.exp(result.best.log_lr)),
        "stored_numbers": stored_numbers(
            jax.eval_shape(setting.parametrisation.encode, setting.start)
        ),
        "experts": setting.experts_described,
    }
    io.save(workdir / "distilled.npz", _artefact(config, setting, result.best, notes))
    history = records.read(metrics)
    loss_curve(workdir / "loss.png", history, title, result.best_step)
    image_grid(
        workdir / "grid.png",
        displayable(setting.transform, result.best.images),
        setting.data.class_names,
        title,
        start=displayable(setting.transform, setting.start.images),
    )
    accuracy = _accuracies(config, setting, result.best)
    summary = {
        "accuracy": accuracy,
        "protocol": {"name": config.protocol, **setting.protocol.to_dict()},
        "dataset": {
            "name": setting.data.name,
            "source": setting.data.source,
            "fingerprint": setting.data.fingerprint,
        },
        **notes,
        "steps": config.steps,
        "seconds": {
            "compile": result.compile_seconds,
            "distil": distilled_at - began,
            "test": time.perf_counter() - distilled_at,
            "total": time.perf_counter() - began,
        },
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    write_json(workdir / "summary.json", summary)
    _show(summary, workdir)
    return summary


def _keep_experts(workdir: pathlib.Path, described: dict[str, Any] | None) -> None:
    """Writes down which experts the run uses; a resumed run must use the same."""
    if described is None:
        return
    path = workdir / "experts.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != described:
        raise InputError(
            f"workdir {workdir} holds a run with other experts; give the --experts_dir it "
            "had, or choose another --workdir"
        )
    write_json(path, described)


def _artefact(
    config: Any, setting: _Setting, distilled: DistilledSet, notes: dict[str, Any]
) -> io.Artefact:
    return io.Artefact(
        distilled=distilled,
        transform=setting.transform,
        class_names=setting.data.class_names,
        dataset={
            "name": config.dataset,
            "source": setting.data.source,
            "fingerprint": setting.data.fingerprint,
        },
        method=config.method,
        config=identity_of(config),
        protocol=setting.protocol,
        version=__version__,
        notes=notes,
    )


def _accuracies(config: Any, setting: _Setting, best: DistilledSet) -> dict[str, Any]:
    """The test set is read here, once."""
    k = setting.data.num_classes
    test = data.on_device(setting.data.test, setting.transform, k)
    key = _keys(config)[1]
    train = setting.data.train
    baselines = select_baselines(
        parse_baselines(config.baselines),
        train,
        setting.real,
        config.ipc,
        config.eval_seeds,
    )
    accuracy = compare_accuracies(
        key, config.eval_seeds, setting.model, best, baselines, test, setting.protocol
    )
    if config.whole_epochs:
        accuracy["whole"] = measure_accuracies(
            key,
            config.whole_seeds,
            setting.model,
            data.on_device(train, setting.transform, k),
            test,
            dataclasses.replace(WHOLE, epochs=config.whole_epochs),
        )
    return accuracy


def _show(summary: dict[str, Any], workdir: pathlib.Path) -> None:
    title = f"Test accuracy on {summary['dataset']['name']}"
    print_accuracies(summary["accuracy"], title)
    seconds = summary["seconds"]["total"]
    memory = summary["peak_memory_bytes"] / 2**30
    print(f"{duration(seconds)} in all, {memory:.1f} GiB at most. In {workdir}:")
    for name, what in (
        ("distilled.npz", "the distilled set, with its preprocessing and settings"),
        ("grid.png", "its picture"),
        ("loss.png", "outer loss and held-out accuracy"),
        ("metrics.jsonl", "every outer step"),
        ("config.json", "the settings and the command"),
        ("summary.json", "these figures, times and versions"),
    ):
        print(f"  {name:<14} {what}")


def main(config: Any) -> None:
    """Entry of the command line."""
    run(config)
