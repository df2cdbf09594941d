"""`distil`: from a data set to a distilled set, in one call."""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import __version__, checks, io, keys, loop, pictures, processes, watching
from distilljax import data as datasets
from distilljax.comparison.real import validation_images
from distilljax.core.augment import Augmentation
from distilljax.core.distilled import separate_targets
from distilljax.core.outer import Optimizers
from distilljax.core.parameters import Trajectories
from distilljax.core.parametrisations import Parametrisation
from distilljax.disk.files import locked
from distilljax.distillation import choices, compare
from distilljax.distillation.choices import (
    Chosen,
    DataChoice,
    MethodChoice,
    ModelChoice,
    ParametrisationChoice,
    ProtocolChoice,
)
from distilljax.distillation.compare import Comparison
from distilljax.distillation.start import (
    Init,
    held_out_score,
    initial_set,
    labels_read,
    learns_targets,
)
from distilljax.io import records
from distilljax.methods import METHODS
from distilljax.models import convnet
from distilljax.types import DistilledSet, InputError, Key, Model, Transform

LEARNING_RATE = 0.01  # inner, at the start, where the method has none


class Distillation(NamedTuple):
    """A finished distillation.

    Of the example of `distil`:

        >>> made.pixels.shape, made.artefact.method
        ((3, 8, 8, 1), 'dm')

    Attributes:
      artefact: the best set with its preprocessing, settings and protocol.
      result: the best set, the last, their scores and steps.
      history: one record for each outer step: `step`, `loss`, `grad_norm`,
        `learning_rate`, and `score` where held-out images were looked at.
      prepared: the data, divided, on the device.
      model: the network.
      key: the root of all that was random.
    """

    artefact: io.Artefact
    result: loop.Result
    history: list[dict[str, Any]]
    prepared: datasets.Prepared
    model: Model
    key: Key

    @property
    def distilled(self) -> DistilledSet:
        """The best set, on which networks are trained."""
        return self.artefact.distilled

    @property
    def pixels(self) -> np.ndarray:
        """The images for a picture, f32[n, h, w, c], clipped to 0..1, class-ordered."""
        return self.artefact.pixels

    def __repr__(self) -> str:
        return f"Distillation({self.artefact!r}, {len(self.history)} outer steps)"

    def _repr_png_(self) -> bytes | None:
        return self.artefact._repr_png_()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the artefact, one file that `distilljax.load` reads.

        Raises:
          InputError: no such folder.
        """
        io.save(checks.path(path), self.artefact)

    def compare(
        self,
        *,
        networks: int = 5,
        baselines: Sequence[str] = ("random",),
        scores: bool = True,
        whole_epochs: int = 3,
        whole_networks: int = 3,
    ) -> Comparison:
        """Tests fresh networks, trained on the set and on real images, on the test set.

        The arguments are those of `distilljax.compare`; the same networks as in
        `experiments.distill` with the same seed.
        """
        artefact, prepared = self.artefact, self.prepared
        tested = compare.Tested(
            artefact,
            prepared.data,
            self.model,
            artefact.protocol,
            labels_read(artefact.protocol, targets=artefact.targets is not None),
            prepared.real,
            prepared.rest,
            artefact.config["ipc"],
        )
        trained = compare.Trained(
            networks, baselines, scores, whole_epochs, whole_networks, whole_epochs or 3
        )
        test_key = keys.start_and_test(self.key)[1]
        seed = keys.seed_of(self.key)
        return compare.measure(tested, trained, test_key, keys.expert(self.key), seed)


class _Job(NamedTuple):
    """All that the outer loop needs, and what identifies it."""

    prepared: datasets.Prepared
    model: Chosen
    method: Chosen
    start: DistilledSet
    source: Any
    settings: dict[str, Any]


def distil(
    data: DataChoice,
    method: MethodChoice = "bptt",
    model: ModelChoice = convnet.Config(width=32),  # noqa: B008
    *,
    ipc: int = 1,
    steps: int = 80,
    key: int | Key = 0,
    preprocess: str | Transform = "normalise",
    held_out: int | None = None,
    init: Init | DistilledSet = "real",
    confidence: float = 1.0,
    learning_rate: float | None = None,
    parametrisation: ParametrisationChoice = "direct",
    optimizers: Optimizers | None = None,
    augmentation: Augmentation | None = None,
    experts: Trajectories | None = None,
    protocol: ProtocolChoice = "study",
    score_every: int = 20,
    score_networks: int = 3,
    checkpoints: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    on_progress: Callable[[loop.Progress], object] | None = None,
    hook: watching.Hook | None = None,
) -> Distillation:
    """Distils a data set into a few images per class.

    The set is chosen by the accuracy of fresh networks on held-out training images; the
    test set is not looked at. With the same settings it is the set of
    `experiments.distill`.

        >>> import numpy as np
        >>> import distilljax
        >>> from distilljax.methods import dm
        >>> from distilljax.models import mlp
        >>> labels = np.arange(60) % 3
        >>> images = np.random.default_rng(0).integers(0, 99, (60, 8, 8, 1))
        >>> images = (images + 50 * labels.reshape(-1, 1, 1, 1)).astype(np.uint8)
        >>> data = distilljax.dataset(images, labels, images, labels)
        >>> matching = dm.Config(real_batch=8, augment="")
        >>> made = distilljax.distil(data, matching, mlp.Config(width=8), steps=4)
        >>> made.distilled.images.shape, len(made.history)
        ((3, 8, 8, 1), 4)

    Args:
      data: of `distilljax.dataset` or `distilljax.data.load`, or the name of a data set.
      method: a key of `METHODS`, the `Config` of one, or a `Method` of your own.
      model: a key of `MODELS`, the `Config` of one, or a `Model` of your own.
      ipc: images per class.
      steps: outer steps, those before a resume included.
      key: a seed or a PRNG key, the root of all that is random.
      preprocess: a kind of `distilljax.data.fit`, or a fitted transform.
      held_out: held-out training images of each class; None: 50, or a fifth of the
        smallest class where that is less.
      init: random training images, noise (`unit_noise`: with norm 1 for each image), or a
        set to be learned further.
      confidence: probability of its own class in a label at the start; labels that are
        learned must begin below 1.
      learning_rate: inner learning rate at the start; None: `inner_lr` of the method, else
        0.01.
      parametrisation: a key of `PARAMETRISATIONS`, the `Config` of one, or a
        `Parametrisation`.
      optimizers: of images, labels and inner learning rate, in place of those of the
        method's `Config`: optax transformations or schedules.
      augmentation: a function of (key, images f32[b, h, w, c]), in place of the `augment`
        of the method's `Config`.
      experts: expert trajectories, for `tm`.
      protocol: a key of `PROTOCOLS`, or an `EvaluationProtocol`: how the networks are
        trained that choose the set, and that test it.
      score_every: outer steps between scores on the held-out images.
      score_networks: networks trained for a score.
      checkpoints: folder of the run, made where it is missing: its checkpoints, from which
        the same call resumes to the same result, and `metrics.jsonl`. A call with other
        settings or experts is refused; functions of your own are not compared. None:
        nothing is written.
      checkpoint_seconds: time between checkpoints.
      on_progress: called about every second with a `loop.Progress`, whose `distilled` is
        the current set; it may raise `distilljax.Stop` to end the run and keep its result.
        `print` prints a line, `distilljax.watching.Line()` one that a notebook rewrites.
      hook: called for each outer step with (step, metrics, images), see
        `distilljax.watching`; for TensorBoard, Weights & Biases and others.

    Raises:
      InputError: arguments that cannot be used; the message says what to do. Or the hook
        failed: with `checkpoints` the run is kept to that step.
      loop.DivergedError: the outer loss explodes; it holds the last good set.
    """
    root = keys.as_key(key)
    ipc, steps = checks.positive(ipc, "ipc"), checks.positive(steps, "steps")
    if learning_rate is not None:
        choices.check_rate(learning_rate, "learning_rate")
    confidence = choices.number(confidence, "confidence")
    if choices.number(checkpoint_seconds, "checkpoint_seconds") < 0:
        raise InputError(f"checkpoint_seconds={checkpoint_seconds}: must be at least 0")
    if not isinstance(checkpoints, str | os.PathLike | None):
        raise InputError(f"checkpoints={checkpoints!r:.40}: give the path of a folder")
    if isinstance(init, DistilledSet):
        _check_begun(learning_rate, confidence)
    if on_progress is not None and not callable(on_progress):
        raise InputError(f"on_progress={on_progress!r}: give a function, such as print")
    if hook is not None:
        watching.check_hook(hook)
    protocol_name, how = choices.protocol(protocol)
    loaded = choices.dataset(data)
    name = _name(data, loaded)
    prepared = datasets.prepare(loaded, preprocess, held_out=held_out, name=name)
    network = choices.model(model, loaded.image_shape, loaded.num_classes)
    stored = choices.parametrisation(parametrisation, loaded, ipc)
    chosen = choices.method(method, network.made, stored.made, optimizers, augmentation)
    source = _source(chosen, experts, prepared)
    chosen.made.check_source(source)
    rate = learning_rate
    if rate is None:
        rate = getattr(chosen.config, "inner_lr", LEARNING_RATE)
    start = _start(init, prepared, root, stored.made, ipc, rate, confidence)
    settings = {
        **chosen.described("method"),
        **network.described("model"),
        **stored.described("parametrisation"),
        "ipc": ipc,
        "seed": keys.seed_of(root),
        "preprocess": preprocess if isinstance(preprocess, str) else choices.OWN,
        "held_out": int(prepared.held_out.class_sizes[0]),
        "init": init if isinstance(init, str) else choices.OWN,
        "confidence": confidence,
        "learning_rate": rate,
        "protocol": how.to_dict() if protocol_name == choices.OWN else protocol_name,
        "score_every": checks.positive(score_every, "score_every"),
        "score_networks": checks.positive(score_networks, "score_networks"),
    }
    given = {"optimizers": optimizers, "augmentation": augmentation}
    settings |= {name: choices.OWN for name, own in given.items() if own is not None}
    job = _Job(prepared, network, chosen, start, source, settings)
    validation = validation_images(
        how, prepared.rest, prepared.transform, loaded.num_classes
    )
    watcher = watching.Watcher(
        [] if hook is None else [hook],
        lambda found: pictures.pixels(found.images, prepared.transform),
    )
    result, history = _run(
        job,
        root,
        checkpoints,
        watcher,
        num_steps=steps,
        score=held_out_score(
            network.made, how, score_networks, targets=learns_targets(chosen.name)
        ),
        score_source=(prepared.held_out, validation),
        score_every=score_every,
        checkpoint_seconds=checkpoint_seconds,
        on_progress=on_progress or (lambda progress: None),
    )
    best, targets = result.best, None
    if learns_targets(chosen.name):
        best, targets = separate_targets(best)
    artefact = io.Artefact(
        distilled=best,
        transform=prepared.transform,
        class_names=loaded.class_names,
        dataset={
            "name": name,
            "source": loaded.source,
            "fingerprint": loaded.fingerprint,
        },
        method=chosen.name,
        config={**settings, "steps": result.num_steps},
        protocol=how,
        version=__version__,
        notes={
            "best_step": result.best_step,
            "held_out_accuracy": result.best_score,
            "inner_learning_rate": float(jnp.exp(result.best.log_lr)),
        },
        targets=targets,
    )
    if isinstance(init, DistilledSet):  # its own, which the settings do not know
        own = {"learning_rate": float(jnp.exp(start.log_lr)), "confidence": None}
        artefact = artefact._replace(config={**artefact.config, **own})
    return Distillation(artefact, result, history, prepared, network.made, root)


def _name(given: DataChoice, loaded: datasets.Dataset) -> str:
    """Returns the name by which `data.load` finds the data again, where there is one."""
    if not isinstance(given, datasets.Dataset):
        return os.fspath(given)
    return "embedded" if loaded.source == "embedded" else loaded.name


def _source(
    chosen: Chosen, experts: Trajectories | None, prepared: datasets.Prepared
) -> Any:
    """Returns the data of the method's step.

    Raises:
      InputError: experts that are missing, or that the method does not read.
    """
    if chosen.config is None:
        return prepared.real if experts is None else experts
    if METHODS[chosen.name].SOURCE == "experts":
        if not isinstance(experts, Trajectories):
            raise InputError(
                f"method {chosen.name} needs experts: Trajectories of the same network, "
                "made with distilljax.training.expert or read with "
                "distilljax.io.trajectories"
            )
        return experts
    if experts is not None:
        raise InputError(f"experts: method {chosen.name} uses none; leave them out")
    choices.check_drawn(chosen.name, chosen.config, prepared.real.labels.shape[0])
    return prepared.real


def _start(
    init: Any,
    prepared: datasets.Prepared,
    root: Key,
    stored: Parametrisation,
    ipc: int,
    rate: float,
    confidence: float,
) -> DistilledSet:
    loaded = prepared.data
    if isinstance(init, DistilledSet):
        for name, values in init._asdict().items():
            if (held := checks.concrete(values)) is None:
                raise InputError(f"init.{name} is traced; call distil outside of jax.jit")
            if not jnp.issubdtype(held.dtype, jnp.floating):
                raise InputError(
                    f"init.{name}: {held.dtype}; a distilled set is floating point, its "
                    "images preprocessed: make it of transform(images) with "
                    "distilljax.core.distilled.create"
                )
            if not np.isfinite(held).all():
                raise InputError(f"init.{name} holds NaN or infinity; give another set")
        init = DistilledSet(*map(jnp.asarray, init))
        sizes = jnp.shape(init.images)[:1], jnp.shape(init.label_logits)[:1]
        if sizes[0] != sizes[1] or jnp.shape(init.log_lr):
            raise InputError(
                f"init has {list(sizes[0])} images, {list(sizes[1])} labels and log_lr "
                f"{list(jnp.shape(init.log_lr))}; give as many labels as images, and one "
                "number: distilljax.core.distilled.create does"
            )
        shapes = jnp.shape(init.images)[1:], jnp.shape(init.label_logits)[1:]
        if shapes != (loaded.image_shape, (loaded.num_classes,)):
            raise InputError(
                f"init has images {list(shapes[0])} and labels {list(shapes[1])}; the data "
                f"have {list(loaded.image_shape)} and {loaded.num_classes} classes"
            )
        return init
    named = isinstance(init, str)
    if not named or init not in get_args(Init):
        given = f"={init!r:.40}" if named else f" is a {type(init).__name__}"
        names = ", ".join(map(repr, get_args(Init)))
        raise InputError(f"init{given}: choose {names} or a DistilledSet")
    return initial_set(
        prepared,
        lambda: keys.start_and_test(root)[0],
        keys.seed_of(root),
        stored.images_per_class or ipc,
        learning_rate=rate,
        init=init,
        confidence=confidence,
    )


def _check_begun(learning_rate: float | None, confidence: float) -> None:
    """Refuses what nothing reads beside a set that a run begins with."""
    given = {"learning_rate": learning_rate is not None, "confidence": confidence != 1}
    for name in (name for name, there in given.items() if there):
        raise InputError(
            f"{name}: init is a set, which has its own; leave it out, or give another set"
        )


def _identity(job: _Job, root: Key) -> str:
    """Returns the SHA-256 of all that a checkpoint must agree with; not of functions."""
    found = hashlib.sha256(json.dumps(job.settings, sort_keys=True, default=str).encode())
    found.update(job.prepared.data.fingerprint.encode())
    if (generator := keys.generator()) != keys.GENERATOR:
        found.update(generator.encode())
    for leaf in (*job.start, jax.random.key_data(root)):
        found.update(np.ascontiguousarray(leaf).tobytes())
    if isinstance(job.source, Trajectories):
        for held in map(jnp.asarray, job.source):
            found.update(f"{held.dtype}{held.shape}".encode())
            found.update(np.ascontiguousarray(held).view(np.uint8).data)
    return found.hexdigest()


def _run(
    job: _Job,
    root: Key,
    folder: str | os.PathLike[str] | None,
    watcher: watching.Watcher,
    **options: Any,
) -> tuple[loop.Result, list[dict[str, Any]]]:
    """Takes the outer steps, resuming those of the folder; returns their records too."""
    history: list[dict[str, Any]] = []
    if folder is None:
        with watcher.closing("with checkpoints=FOLDER a run is kept"):
            result = _steps(job, root, watcher, _keep(history), **options)
        return result, history
    place = pathlib.Path(folder).expanduser()
    with _claimed(place):
        metrics = place / "metrics.jsonl"
        saved = io.Checkpoints(place / "checkpoints", identity=_identity(job, root))
        records.keep_until(metrics, saved.latest_step() or 0)
        keep = functools.partial(records.append, metrics)
        with (
            watcher.closing("the run is kept to there, and the same call goes on"),
            contextlib.closing(saved),
        ):
            result = _steps(job, root, watcher, keep, checkpoints=saved, **options)
        return result, records.read(metrics)


@contextlib.contextmanager
def _claimed(place: pathlib.Path) -> Iterator[None]:
    """Makes the folder of a run where it is missing, and keeps other runs out of it.

    Raises:
      InputError: it cannot be made, or another run is in it.
    """
    lock = _lock(place)
    try:
        yield
    finally:
        if processes.index() == 0:
            os.close(lock)


@processes.once
def _lock(place: pathlib.Path) -> int:
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = locked(place / ".lock")
    except OSError as error:
        raise InputError(
            f"checkpoints={str(place)!r}: the folder cannot be made, or not be written "
            f"({error.strerror}); choose another"
        ) from None
    if lock is None:
        raise InputError(
            f"checkpoints={str(place)!r}: another run is in that folder; wait for it, or "
            "choose another"
        )
    return lock


def _keep(history: list[dict[str, Any]]) -> Callable[[Sequence[Mapping[str, Any]]], None]:
    return lambda new: history.extend(dict(record) for record in new)


def _steps(
    job: _Job,
    root: Key,
    watcher: watching.Watcher,
    keep: Callable[[Sequence[Mapping[str, Any]]], None],
    on_progress: Callable[[loop.Progress], object],
    **options: Any,
) -> loop.Result:
    def record(new: Sequence[Mapping[str, Any]]) -> None:
        keep(new)
        watcher.records(new)

    def progressed(at: loop.Progress) -> None:
        watcher.progress(at)
        on_progress(at)

    try:
        return loop.run(
            job.method.made,
            job.start,
            job.source,
            root,
            on_records=record,
            on_progress=progressed,
            **options,
        )
    except loop.DivergedError as error:
        config = job.method.config
        if config is None:
            raise
        lower = " or ".join(
            f"{name}={getattr(config, name)}" for name in METHODS[job.method.name].LOWER
        )
        message = f"{error}; lower {lower} of {job.method.name}"
        raise loop.DivergedError(message, error.step, error.last_good) from None
