"""Setting of a distillation: data, network, method, experts and start of the set."""

import functools
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from distilljax import data, devices, io
from distilljax.comparison.real import check_baselines, validation_images
from distilljax.config import FieldError
from distilljax.core.distilled import hard_labels
from distilljax.core.outer import Method, Source
from distilljax.core.parameters import Trajectories
from distilljax.core.parametrisations import PARAMETRISATIONS, Parametrisation
from distilljax.distillation.choices import check_drawn
from distilljax.distillation.start import (
    ExpertLogits,
    initial_set,
    learns_targets,
    mean_logits,
)
from distilljax.methods import METHODS
from distilljax.training.evaluation import PROTOCOLS, EvaluationProtocol
from distilljax.types import DistilledSet, Model, RealSet, Transform
from experiments.distill.options import (
    Config,
    check_options,
    matches_experts,
    needs_experts,
)
from experiments.lab import keys
from experiments.lab.baselines import parse_baselines
from experiments.lab.data import Prepared, prepare
from experiments.lab.experts import identify_experts, later_settings
from experiments.lab.networks import model_of
from experiments.lab.options import expand
from experiments.lab.sets import file_of, load


class Setting(NamedTuple):
    """All that a distillation needs."""

    prepared: Prepared
    model: Model
    method: Method
    parametrisation: Parametrisation
    protocol: EvaluationProtocol
    source: Source  # of the outer steps
    start: DistilledSet
    experts: Mapping[str, Any] | None  # description of those that are used
    # Training images that the networks of the protocol look at, where it has them look.
    validation: RealSet | None
    mesh: Mesh | None  # devices that share the work


class _Experts(NamedTuple):
    """Trajectories that are used, and what they are."""

    trajectories: Trajectories
    description: Mapping[str, Any]


def make_setting(config: Config) -> Setting:
    """Returns the setting that the options describe.

    Raises:
      InputError: options, data or experts that cannot be used.
    """
    check_options(config)
    prepared = prepare(config)
    loaded = prepared.data
    model = model_of(config, loaded.image_shape, loaded.num_classes)
    parametrisation = _parametrisation(config, loaded)
    name, group = config.chosen("method")
    mesh = devices.mesh(config.devices)
    method = METHODS[name].make(group, model, parametrisation, mesh=mesh)
    experts = _load_experts(config, prepared) if needs_experts(config) else None
    source: Source = prepared.real
    logits = None
    if experts is not None:
        logits = functools.partial(mean_logits, model, experts.trajectories)
        source = experts.trajectories if matches_experts(config) else source
    per_class = parametrisation.images_per_class or config.ipc
    start = _start(config, prepared, per_class, logits)
    check_baselines(
        parse_baselines(config.baselines, least=0), loaded.train, prepared.real, config.ipc
    )
    check_drawn(name, group, prepared.real.labels.shape[0])
    return Setting(
        prepared,
        model,
        method,
        parametrisation,
        PROTOCOLS[config.protocol],
        source,
        start,
        None if experts is None else experts.description,
        validation_images(
            PROTOCOLS[config.protocol],
            prepared.rest,
            prepared.transform,
            loaded.num_classes,
        ),
        mesh,
    )


def _parametrisation(config: Config, loaded: data.Dataset) -> Parametrisation:
    name, group = config.chosen("parametrisation")
    shape, k = loaded.image_shape, loaded.num_classes
    try:
        return PARAMETRISATIONS[name].make(group, shape, k, config.ipc)
    except FieldError as error:
        path = f"{name}.{error.path}"
        raise FieldError(path, error.value, error.reason) from None


def _load_experts(config: Config, prepared: Prepared) -> _Experts:
    """Returns the epochs that the method, or the labels at the start, need."""
    store = io.trajectories.open(expand(str(config.experts_dir)))
    store.check(identify_experts(config, prepared), later_settings(config))
    group: Any = config.chosen("method")[1]
    matched = matches_experts(config)
    last = group.last_epoch if matched else store.description.num_epochs
    first = group.min_start if matched else last
    read = store.read(config.num_experts or len(store.complete), first, last)
    return _Experts(read, store.description._asdict())


def _start(
    config: Config, prepared: Prepared, per_class: int, logits: ExpertLogits | None
) -> DistilledSet:
    """Returns the set before the first outer step.

    Args:
      config: the options.
      prepared: the data.
      per_class: images of each class.
      logits: of the experts; None where there are none.
    """
    if config.init_from:
        return _continued(config, config.init_from, prepared)
    try:
        return initial_set(
            prepared,
            lambda: keys.distillation(config.seed)[0],
            config.seed,
            per_class,
            learning_rate=getattr(config.chosen("method")[1], "inner_lr", 0.01),
            init=config.init,
            confidence=config.confidence if config.labels == "soft" else 1.0,
            logits=logits if config.labels == "expert" else None,
        )
    except FieldError as error:
        path = {"experts": "experts_dir"}.get(error.path, error.path)
        raise FieldError(path, getattr(config, path), error.reason) from None


def _continued(config: Config, path: str, prepared: Prepared) -> DistilledSet:
    """Returns the set of an artefact, to be learned further."""
    loaded, before = prepared.data, load(file_of(expand(path)), config.data_dir)
    num, *shape = before.distilled.images.shape
    if before.class_names != loaded.class_names or tuple(shape) != loaded.image_shape:
        raise FieldError("init_from", path, "was made of other data")
    if num != config.ipc * loaded.num_classes:
        reason = f"has {num} images; set --ipc={num // loaded.num_classes}"
        raise FieldError("init_from", path, reason)
    places = np.repeat(np.arange(loaded.num_classes), config.ipc)
    if not np.array_equal(hard_labels(before.distilled), places):
        reason = (
            f"its labels are not {config.ipc} of each class in order, as those of a start "
            "are; start from another set"
        )
        raise FieldError("init_from", path, reason)
    if not _close(before.transform, prepared.transform):
        reason = (
            "was made with another preprocessing; give the --preprocess, --held_out "
            "and --split_seed of the run that made it"
        )
        raise FieldError("init_from", path, reason)
    _tell_of_rate(config, path, float(jnp.exp(before.distilled.log_lr)))
    if before.targets is not None:
        if learns_targets(config.chosen("method")[0]):
            reason = (
                "holds real-valued labels, which a start does not take over; to learn that "
                "set further, give its own command more --steps"
            )
            raise FieldError("init_from", path, reason)
        print(
            f"init_from={path}: its real-valued labels are left, images begin with the "
            "largest class of each",
            file=sys.stderr,
        )
    return before.distilled


def _tell_of_rate(config: Config, path: str, theirs: float) -> None:
    """Says that a start has an inner learning rate of its own, where another is given."""
    method, group = config.chosen("method")
    ours = getattr(group, "inner_lr", None)
    if ours != getattr(getattr(Config(), method), "inner_lr", None):
        print(
            f"init_from={path}: the set begins with its own inner learning rate, "
            f"{theirs:.3g}; --{method}.inner_lr={ours} is not used",
            file=sys.stderr,
        )


def _close(a: Transform, b: Transform) -> bool:
    """Whether two preprocessings agree, but for the rounding of another machine."""
    (kind_a, arrays_a), (kind_b, arrays_b) = data.to_arrays(a), data.to_arrays(b)
    return kind_a == kind_b and all(
        bool(jnp.allclose(arrays_a[name], arrays_b[name], atol=1e-6)) for name in arrays_a
    )
