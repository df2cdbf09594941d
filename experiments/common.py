"""What experiments share: data and model of a configuration, accuracies over seeds."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit

from distilljax import data, io
from distilljax.config import Config, FieldError, option
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.models import MODELS, alexnet, convnet, mlp, resnet, vgg
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import (
    Array,
    Batch,
    DistilledSet,
    InputError,
    Key,
    Model,
    RealSet,
    Transform,
)
from experiments.runs import spread

Preprocess = Literal["normalise", "published", "zca", "zca_normed", "none"]


@dataclasses.dataclass(frozen=True)
class DataOptions(Config):
    """Which data, what they go through, and what of them is held out."""

    dataset: str = option(
        "embedded", "`embedded`, a TFDS name such as cifar10, or the path of an .npz file."
    )
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    preprocess: Preprocess = option("normalise", "What images go through first.")
    held_out: int = option(
        50, "Training images of each class held out, to choose the best set.", low=1
    )
    split_seed: int = option(0, "Settles which images are held out.", low=0, high=2**31 - 1)


class Prepared(NamedTuple):
    """Real data, divided, on the device."""

    data: data.Dataset
    rest: data.Split  # training images that are not held out
    transform: Transform  # fitted on `rest`
    real: RealSet  # `rest` on the device
    held_out: RealSet


def prepare(config: DataOptions) -> Prepared:
    """The data that the options ask for.

    Raises:
      InputError: data that cannot be had.
      FieldError: more images are held out than a class has.
    """
    loaded = data.load(config.dataset, config.data_dir)
    k, labels = loaded.num_classes, loaded.train.labels
    smallest = min(int((labels == j).sum()) for j in range(k))
    if config.held_out >= smallest:
        reason = f"the smallest class has {smallest} training images; hold out fewer"
        raise FieldError("held_out", config.held_out, reason)
    rest, held_out = data.hold_out(loaded.train, config.held_out, config.split_seed)
    transform = data.fit(config.preprocess, rest.images, config.dataset)
    return Prepared(
        loaded,
        rest,
        transform,
        data.on_device(rest, transform, k),
        data.on_device(held_out, transform, k),
    )


def model_of(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> Model:
    """The model that `--model` and its options describe.

    Raises:
      FieldError: the model does not fit images of this shape.
    """
    options: Any = config
    group = getattr(options, options.model)
    model = MODELS[options.model].make(group, image_shape, num_classes)
    try:
        jax.eval_shape(model.init, jax.random.key(0))
    except ValueError as error:
        raise FieldError("model", options.model, str(error)) from None
    return model


def fresh_key(seed: int) -> Key:
    """What is random in an experiment that looks at finished sets.

    Experts, and the networks of a distillation, take their keys from `key(seed)` itself,
    where `fold_in(key, i)` is `split(key, n)[i]`. From that root the first networks of an
    experiment would begin at the very weights that the experts of `tm` began at, for
    which the set was made; a set is better there than on networks it has never met.
    """
    purpose = int.from_bytes(hashlib.sha256(b"networks that look").digest()[:4], "big")
    return jax.random.fold_in(jax.random.key(seed), purpose)


def random_subsets(split: data.Split, ipc: int, seeds: int, transform: Transform) -> Batch:
    """`seeds` independent random sets of `ipc` real images a class, stacked.

    Returns:
      images f32[s, n, h, w, c], labels f32[s, n, k].
    """
    drawn = [data.subset(split, ipc, seed=1000 + seed) for seed in range(seeds)]
    k = int(split.labels.max()) + 1
    return Batch(
        jnp.stack([transform(jnp.asarray(one.images)) for one in drawn]),
        jnp.stack([jax.nn.one_hot(one.labels, k) for one in drawn]),
    )


def repeated(batch: Batch, seeds: int) -> Batch:
    """The same set for each of `seeds` networks, in the shape of `random_subsets`."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, *x.shape)), batch)


def accuracies(
    key: Key,
    seeds: int,
    model: Model,
    train_on: Batch | RealSet,
    test: RealSet,
    protocol: EvaluationProtocol,
    *,
    learning_rate: Array | float = 0.01,
) -> dict[str, Any]:
    """Test accuracy of fresh networks: mean, std, seeds, values.

    Args:
      key: settles everything random.
      seeds: number of networks.
      model: the network.
      train_on: a real set, or stacked small sets, one for each network.
      test: what to test on.
      protocol: how to train.
      learning_rate: the rate where the protocol leaves it to the set.
    """
    rate = jnp.asarray(learning_rate, jnp.float32)
    keys = jax.random.split(key, seeds)
    return spread(_fresh_accuracy(model, protocol, keys, train_on, test, rate))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _fresh_accuracy(
    model: Model,
    protocol: EvaluationProtocol,
    keys: Key,
    train_on: Batch | RealSet,
    test: RealSet,
    rate: Array,
) -> Array:
    """Compiled once for all sets of one shape."""
    return evaluation.fresh_accuracy(
        keys,
        model,
        train_on,
        test,
        protocol,
        learning_rate=rate,
        stacked=isinstance(train_on, Batch),
    )


def against(
    key: Key,
    seeds: int,
    model: Model,
    distilled: DistilledSet,
    baselines: Mapping[str, Batch],
    test: RealSet,
    protocol: EvaluationProtocol,
) -> dict[str, dict[str, Any]]:
    """Accuracies of `distilled` and of each baseline, sets of real images.

    Args:
      key: settles everything random.
      seeds: number of networks.
      model: the network.
      distilled: the set, decoded.
      baselines: name -> stacked sets, one for each network, see `random_subsets`.
      test: what to test on.
      protocol: how to train.
    """
    sets = {"distilled": repeated(distilled_set.as_batch(distilled), seeds), **baselines}
    rate = jnp.exp(distilled.log_lr)
    return {
        name: accuracies(key, seeds, model, stack, test, protocol, learning_rate=rate)
        for name, stack in sets.items()
    }


TRAINED_ON = {
    "distilled": "the distilled set",
    "random": "as many random real images",
    "herding": "as many by herding",
    "k_centre": "as many by k-centre",
    "whole": "the whole training set",
}


def accuracy_table(rows: dict[str, dict[str, Any]], title: str) -> None:
    """Prints accuracies, one row a training set, by the names of `TRAINED_ON`."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("trained on", "accuracy", "std", "seeds"):
        table.add_column(column, justify="left" if column == "trained on" else "right")
    for name, row in rows.items():
        std = "-" if row["std"] is None else f"{row['std']:.2%}"
        table.add_row(TRAINED_ON[name], f"{row['mean']:.2%}", std, str(row["seeds"]))
    Console().print(table)


def percent(accuracy: Mapping[str, Any]) -> str:
    """Mean and standard deviation for a cell of a table, such as 73.2 ±0.5."""
    return f"{100 * accuracy['mean']:.1f} ±{100 * accuracy['std']:.1f}"


def stored_ipc(artefact: io.Artefact) -> int:
    """Images a class whose storage the set takes; a parametrised one decodes to more."""
    num, k = artefact.distilled.label_logits.shape
    return int(artefact.config.get("ipc", num // k))


def displayable(transform: Transform, images: Array) -> np.ndarray:
    """What networks see -> f32[n, h, w, c] in 0..1 where it is in gamut."""
    return np.asarray(transform.inverse(images))


class Named(NamedTuple):
    """An artefact and where it lies."""

    path: str
    artefact: io.Artefact


def names(text: str, field: str) -> list[str]:
    """The names in a list with commas; may be none.

    Raises:
      FieldError: of the option `field`: a name comes twice.
    """
    found = [name.strip() for name in text.split(",") if name.strip()]
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        raise FieldError(field, text, f"{twice[0]} is named twice")
    return found


def artefacts(text: str, field: str = "artefacts") -> dict[str, Named]:
    """Label -> artefact, of the paths in a list with commas.

    The label of runs/x/distilled.npz is x, that of x.npz too; where two would be the
    same, paths are the labels.

    Raises:
      FieldError: of the option `field`: no path, or one that comes twice.
      InputError: a file that is no artefact; artefacts of different data.
    """
    paths = names(text, field)
    if not paths:
        reason = "name distilled sets, such as a/distilled.npz,b/distilled.npz"
        raise FieldError(field, text, reason)
    loaded = {path: io.load(path) for path in paths}

    def of(path: str) -> tuple[Any, ...]:
        made = loaded[path]
        shape = made.distilled.images.shape[1:]
        return made.dataset.get("fingerprint"), made.class_names, shape

    for path in paths[1:]:
        if of(path) != of(paths[0]):
            raise InputError(
                f"{paths[0]} was made of {loaded[paths[0]].dataset['name']}, {path} of "
                f"other data ({loaded[path].dataset['name']}); evaluate them apart"
            )
    places = [pathlib.Path(path).resolve() for path in paths]
    labels = [p.parent.name if p.stem == "distilled" else p.stem for p in places]
    if len(set(labels)) < len(labels):
        labels = paths
    return {
        label: Named(path, loaded[path]) for label, path in zip(labels, paths, strict=True)
    }


def data_of(named: Named, dataset: str | None, data_dir: str | None) -> data.Dataset:
    """The data that an artefact was made of, or others that fit it.

    Args:
      named: the artefact.
      dataset: `--dataset`; none: those it was made of.
      data_dir: `--data_dir`.

    Raises:
      InputError: data that cannot be had, have other classes or another image shape, or,
        where `dataset` is none, are not what the artefact was made of.
    """
    path, artefact = named
    name = dataset or artefact.dataset["name"]
    loaded = data.load(name, data_dir)
    shape = tuple(artefact.distilled.images.shape[1:])
    if loaded.class_names != artefact.class_names or loaded.image_shape != shape:
        raise InputError(
            f"{path} holds {shape} images of {len(artefact.class_names)} "
            f"classes ({artefact.class_names[0]}, ...), {name} has {loaded.image_shape} "
            f"images of {loaded.num_classes} classes ({loaded.class_names[0]}, ...); "
            "choose the --dataset it was made of"
        )
    if dataset is None and loaded.fingerprint != artefact.dataset["fingerprint"]:
        raise InputError(
            f"{name} is not what {path} was made of (its SHA-256 differs); "
            f"give --dataset={name} to test on it all the same"
        )
    return loaded


def digest(description: Any, arrays: Iterable[Any] = ()) -> str:
    """SHA-256, hex, of what JSON can hold and of arrays."""
    found = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for array in arrays:
        found.update(np.asarray(array).tobytes())
    return found.hexdigest()


def transform_digest(transform: Transform) -> str:
    """SHA-256, hex, of a preprocessing: its kind and what was fitted."""
    kind, arrays = data.to_arrays(transform)
    return digest([kind, sorted(arrays)], (arrays[name] for name in sorted(arrays)))


OWN = "own"  # the network that an artefact was made with
ARCHITECTURES: dict[str, tuple[str, Any]] = {  # name -> (key of MODELS, its Config)
    "convnet": ("convnet", convnet.Config()),
    "convnet16": ("convnet", convnet.Config(width=16)),
    "mlp": ("mlp", mlp.Config()),
    "resnet18": ("resnet", resnet.Config()),
    "resnet34": ("resnet", resnet.Config(depth=34)),
    "alexnet": ("alexnet", alexnet.Config()),
    "vgg11": ("vgg", vgg.Config()),
}


class Network(NamedTuple):
    """An architecture with its settings."""

    name: str  # of `ARCHITECTURES`, or `OWN`
    key: str  # of MODELS
    config: Any

    def described(self) -> dict[str, Any]:
        """Its settings, flat."""
        return {"model": self.key, **self.config.to_dict()}


def architectures(text: str, field: str = "models", *, own: bool = True) -> list[str]:
    """The architectures in a list with commas; `own` says whether `OWN` may be one.

    Raises:
      FieldError: of the option `field`: an unknown name, one that comes twice, or none.
    """
    found, known = names(text, field), [OWN] * own + [*ARCHITECTURES]
    if not found or (unknown := [name for name in found if name not in known]):
        what = f"there is no architecture {unknown[0]!r}" if found else "name at least one"
        raise FieldError(field, text, f"{what}; known are {', '.join(known)}")
    return found


def scaled(name: str, width_scale: float) -> Network:
    """One of `ARCHITECTURES`, its width times `width_scale`, at least 1."""
    key, group = ARCHITECTURES[name]
    width = max(1, round(group.width * width_scale))
    return Network(name, key, dataclasses.replace(group, width=width))


def own_network(label: str, artefact: io.Artefact, field: str = "models") -> Network:
    """The network that the artefact was made with.

    Raises:
      FieldError: of the option `field`: there is no network of the name that the artefact
        gives; it is called `label`.
    """
    key = str(artefact.config.get("model"))
    if key not in MODELS:
        reason = f"{label} was made with the network {key!r}, which there is not"
        raise FieldError(field, OWN, f"{reason}; choose another")
    config = MODELS[key].Config.from_dict(artefact.config.get(key, {}))
    return Network(OWN, key, config)


def sized_model(
    network: Network, loaded: data.Dataset, field: str = "models"
) -> tuple[Model, int]:
    """The model for these data and its number of parameters.

    Raises:
      FieldError: of the option `field`: the images do not fit it.
    """
    shape, k = loaded.image_shape, loaded.num_classes
    model = MODELS[network.key].make(network.config, shape, k)
    try:
        return model, parameters.num_params(model)
    except ValueError as error:
        raise FieldError(field, network.name, str(error)) from None


def with_interval(values: Any) -> dict[str, Any]:
    """`runs.spread`, and `interval`: the 95 % confidence interval of the mean.

    Mean -+ t std / sqrt(n), t the 97.5 % quantile of Student's distribution with n - 1
    degrees of freedom; n is at least 2.
    """
    found = spread(values)
    num = found["seeds"]
    half = float(stdtrit(num - 1, 0.975)) * found["std"] / num**0.5
    return found | {"interval": [found["mean"] - half, found["mean"] + half]}


def about_dataset(loaded: data.Dataset) -> dict[str, Any]:
    """What `summary.json` says of the data."""
    return {
        "name": loaded.name,
        "source": loaded.source,
        "fingerprint": loaded.fingerprint,
        "num_classes": loaded.num_classes,
    }
