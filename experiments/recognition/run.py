r"""Show distilled sets to networks that were trained on real images.

    python -m experiments.recognition --artefacts=a/distilled.npz,b/distilled.npz
    python -m experiments.recognition --artefacts=set.npz --models=convnet,resnet18 \
        --epochs=40,60 --seeds=5
    python -m experiments.recognition --artefacts=set.npz --models=convnet16 --epochs=3

Yang et al. 2024, sec. 3: do networks that know only real images recognise distilled ones?
Networks are trained on the whole training set (SGD, learning rate 0.01, momentum 0.9,
batch 256, no augmentation), then shown each distilled set, the test set, and as many
random training images as the set takes. A distilled image's class is the most likely one
of its label. The paper's values (CIFAR-10, ten images a class; one network each, whose
test accuracy stands below its name):

    |      | ResNet-18 | ConvNet, 40 epochs | ConvNet of width 16, 20 | ResNet-34 |
    |      |     .9079 |              .8091 |                   .6837 |     .9276 |
    |------|-----------|--------------------|-------------------------|-----------|
    | tm   |       .93 |               1.00 |                    1.00 |       .95 |
    | bptt |       .91 |               1.00 |                    1.00 |       .95 |
    | dm   |       .46 |                .71 |                     .54 |       .41 |
    | gm   |       .41 |                .68 |                     .55 |       .36 |

Here several networks show the spread. The norm of the paper's ResNets and how long they
were trained are not known to us: instance norm and 40 epochs here. Random training images
were part of the training; the test set says what unseen real images would be.

Beyond the table, `pixels.png`: how pixel values of the sets, back in the range of images,
compare with real ones, and which share leaves 0..1, by more than half a grey level.
`features.png`: what the input of the last linear layer of one network (`--map_model`)
looks like in two dimensions, by the principal components of the test images' features,
and by UMAP of both (five neighbours, seed 42) where umap-learn is installed, which
`pip install 'distilljax[umap]'` does.

A network in training is kept after an epoch in `networks/`, a trained one stays there:
the same command resumes, and a command with other artefacts but the same settings trains
nothing again. Its summary and pictures then take the place of those before. The artefacts
of one command have the same preprocessing, under which the networks are trained.

Time: width-16 ConvNet, 8,000 grey 28x28 images, one CPU core shared with other work: 7 s
an epoch. The paper's widths and ResNets are for a GPU, or for `--width_scale` below 1.
"""

import dataclasses
import itertools
import json
import math
import pathlib
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from rich import box
from rich.console import Console
from rich.table import Table

from distilljax import data
from distilljax.analysis.statistics import spread
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.core.inner import InnerState
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.io.files import replacing, write_json
from distilljax.probes import Point, accuracy
from distilljax.training import expert
from distilljax.training.expert import Recipe
from distilljax.types import Array, Batch, InputError, Key, Model, Params, RealSet
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.kept import digest
from experiments.lab.keys import fresh_key
from experiments.lab.networks import (
    ARCHITECTURES,
    Network,
    parse_architectures,
    scaled_network,
    sized_model,
)
from experiments.lab.pictures import accuracy_dots
from experiments.lab.progress import CellProgress, duration
from experiments.lab.sets import (
    Named,
    load_artefacts,
    random_subsets,
    stored_ipc,
    transform_digest,
)
from experiments.lab.table import CellTable
from experiments.lab.workdir import command_of, open_workdir, workdir_path
from experiments.recognition.figures import feature_maps, pixel_densities
from experiments.recognition.measures import (
    measure_pixels,
    principal_components,
    umap_points,
)

MODULE = "experiments.recognition"

TEST, REAL = "test images", "real images"

EPOCHS = {"convnet16": 20}  # of `--epochs=`; others have MOST_EPOCHS

MOST_EPOCHS = 40

SECONDS_BETWEEN_SAVES = 30.0


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the experiment."""

    artefacts: str = option("", "Distilled sets (.npz) of the same data, with commas.")
    models: str = option(
        "convnet,convnet16,resnet18,resnet34",
        f"Networks, with commas: {', '.join(ARCHITECTURES)}.",
    )
    width_scale: str = option(
        "1", "Times the width of each of --models, with commas, or of all; 1 is for a GPU."
    )
    epochs: str = option(
        "",
        "Epochs of each of --models, with commas, or one number for all; empty: "
        f"{MOST_EPOCHS}, and of convnet16 {EPOCHS['convnet16']}.",
    )
    recipe: Recipe = option(
        Recipe(momentum=0.9, augment=""), "How networks are trained on real images."
    )
    dataset: str | None = option(None, "Real data; none: those the sets were made of.")
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    seeds: int = option(3, "Networks of each architecture.", low=2)
    chunk: int = option(250, "Images that a trained network looks at at a time.", low=1)
    map_model: str | None = option(
        None, "Whose features are drawn; none: resnet18 if it is there, else the first."
    )
    map_images: int = option(2000, "Most test images among the drawn features.", low=2)
    seed: int = option(0, "Settles everything random.", low=0, high=2**31 - 1)
    workdir: str | None = option(
        None, "Where the results go; none: a folder under runs/ named by the settings."
    )


class _Choice(NamedTuple):
    """What the options come to before data are read."""

    epochs: dict[str, int]  # architecture -> epochs; in the order of --models
    networks: dict[str, Network]
    map_model: str
    artefacts: dict[str, Named]


class _Net(NamedTuple):
    """A network to train on real images."""

    network: Network
    number: int
    epochs: int
    identity: str  # SHA-256 of what it is trained on, and how

    @property
    def kind(self) -> str:
        """Epochs cost what the architecture does."""
        return self.network.name

    @property
    def title(self) -> str:
        """In progress lines."""
        return f"{self.network.name} {self.number}"

    def path(self, workdir: pathlib.Path) -> pathlib.Path:
        """The file that it is kept in."""
        name = f"{self.network.name}_{self.number}_{self.identity[:8]}.npz"
        return workdir / "networks" / name


class _Kept(NamedTuple):
    """A network as its file holds it."""

    epoch: int  # that it has been through
    params: np.ndarray  # f32[p], see `parameters.flatten`
    optimizer: np.ndarray  # f32[q], empty once it is trained
    losses: np.ndarray  # f32[epoch], the mean training loss of each
    seconds: float  # of training


class _Row(NamedTuple):
    """Images to show: one set for all networks, or for each its own."""

    label: str
    sets: tuple[Batch | RealSet, ...]
    identity: str
    about: Mapping[str, Any]  # for `summary.json`

    def of(self, number: int) -> Batch | RealSet:
        """What is shown to network `number`."""
        return self.sets[number if len(self.sets) > 1 else 0]


class _Cell(NamedTuple):
    """A row shown to the networks of an architecture."""

    row: _Row
    architecture: str
    identity: str

    @property
    def kind(self) -> str:
        """It costs what the network and the number of images do."""
        return f"{self.architecture}, {self.row.of(0).labels.shape[0]}"

    @property
    def title(self) -> str:
        """In progress lines."""
        return f"{self.architecture} sees {self.row.label}"


def _epochs(config: Config, names: Sequence[str]) -> dict[str, int]:
    if not config.epochs.strip():
        return {name: EPOCHS.get(name, MOST_EPOCHS) for name in names}
    try:
        numbers = [int(part) for part in config.epochs.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= len(names)
    if len(numbers) != len(names) or min(numbers) < 1:
        reason = f"expected one positive integer, or one for each of {', '.join(names)}"
        raise FieldError("epochs", config.epochs, reason)
    return dict(zip(names, numbers, strict=True))


def _networks(config: Config, names: Sequence[str]) -> dict[str, Network]:
    try:
        scales = [float(part) for part in config.width_scale.split(",")]
    except ValueError:
        scales = []
    if len(scales) == 1:
        scales *= len(names)
    if len(scales) != len(names) or not all(0 < scale < math.inf for scale in scales):
        reason = f"expected one positive number, or one for each of {', '.join(names)}"
        raise FieldError("width_scale", config.width_scale, reason)
    return dict(zip(names, map(scaled_network, names, scales), strict=True))


def _choose(config: Config) -> _Choice:
    names = parse_architectures(config.models, own=False)
    epochs = _epochs(config, names)
    map_model = config.map_model or ("resnet18" if "resnet18" in names else names[0])
    if map_model not in names:
        raise FieldError("map_model", map_model, f"choose among {', '.join(names)}")
    artefacts = load_artefacts(config.artefacts)
    (first, (_, made)), *others = artefacts.items()
    for label, (_, artefact) in others:
        if transform_digest(artefact.transform) != transform_digest(made.transform):
            raise InputError(
                f"{first} and {label} were made under different preprocessing, and the "
                "networks are trained under one; show them in commands of their own"
            )
    return _Choice(epochs, _networks(config, names), map_model, artefacts)


def run(config: Config) -> dict[str, Any]:
    """Trains what is not trained, shows the sets; returns what `summary.json` holds.

    Raises:
      InputError: options, an artefact, data or a working directory that cannot be used;
        artefacts of different data or preprocessing; training that diverges.
    """
    choice = _choose(config)
    first = next(iter(choice.artefacts.values())).artefact
    name = config.dataset or first.dataset["name"]
    # Other artefacts of the same data belong in the same place.
    place = config.replace({"artefacts": "", "dataset": name})
    label = f"{pathlib.Path(name).stem}-{'-'.join(choice.epochs)}"
    workdir = workdir_path(MODULE, place, label)
    with open_workdir(workdir, MODULE, place):
        summary = _run(config, choice, workdir)
    _show(summary, workdir)
    return summary


def _run(config: Config, choice: _Choice, workdir: pathlib.Path) -> dict[str, Any]:
    first = next(iter(choice.artefacts.values()))
    transform = first.artefact.transform
    loaded = load_data_of(first, config.dataset, config.data_dir)
    models = {
        name: sized_model(network, loaded) for name, network in choice.networks.items()
    }
    real = data.on_device(loaded.train, transform, loaded.num_classes)
    nets = _nets(config, choice, loaded, transform)
    rows = _rows(config, choice.artefacts, loaded)
    (workdir / "networks").mkdir(exist_ok=True)
    _train(config, nets, models, real, workdir)

    wanted = [
        _Cell(
            row,
            name,
            digest([row.identity, [n.identity for n in nets if n.kind == name]]),
        )
        for name in choice.epochs
        for row in rows
    ]
    table = CellTable(workdir / "cells.jsonl", wanted, "network", config.seeds)
    for name in choice.epochs:
        left = [cell for cell in table.missing if cell.architecture == name]
        if left:
            print(f"compiling {name}, to look", file=sys.stderr, flush=True)
            of_name = [net for net in nets if net.kind == name]
            _look_at(left, table, _Looker(models[name][0], config.chunk), of_name, workdir)

    pixels, curves = measure_pixels(choice.artefacts, loaded.train)
    pixel_densities(workdir / "pixels.png", curves, soft=[REAL])
    drawn = next(net for net in nets if net.kind == choice.map_model)
    looker = _Looker(models[choice.map_model][0], config.chunk)
    features = _map(config, choice.artefacts, loaded, looker, drawn, workdir)
    kept = {net: _read(net, workdir) for net in nets}
    summary: dict[str, Any] = {
        "recognition": _recognition(table),
        "rows": {row.label: row.about for row in rows},
        "networks": {
            name: _about_networks(
                {net: kept[net] for net in nets if net.kind == name}, models[name][1]
            )
            for name in choice.epochs
        },
        "recipe": config.recipe.to_dict(),
        "pixels": pixels,
        "features": features,
        "dataset": describe_dataset(loaded),
        "command": command_of(MODULE, config),
        "seconds": table.seconds() + sum(one.seconds for one in kept.values()),
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    write_json(workdir / "summary.json", summary)
    accuracy_dots(
        workdir / "recognition.png",
        {
            row: {name: cell["accuracy"] for name, cell in of_row.items()}
            for row, of_row in summary["recognition"].items()
        },
        _title(summary),
        soft=[row.label for row in rows if row.about["path"] is None],
        chance=1 / loaded.num_classes,
        measure="share recognised",
    )
    return json.loads(json.dumps(summary))


def _nets(
    config: Config, choice: _Choice, loaded: data.Dataset, transform: Any
) -> list[_Net]:
    found = []
    for name, epochs in choice.epochs.items():
        network = choice.networks[name]
        trained_on = [loaded.fingerprint, transform_digest(transform)]
        how = [network.described(), config.recipe.to_dict(), epochs, config.seed]
        found += [
            _Net(network, number, epochs, digest([*trained_on, *how, number]))
            for number in range(config.seeds)
        ]
    return found


def _rows(
    config: Config, artefacts: Mapping[str, Named], loaded: data.Dataset
) -> list[_Row]:
    """The artefacts, random real images of each number that they have, the test set."""
    k = loaded.num_classes
    transform = next(iter(artefacts.values())).artefact.transform
    real = [loaded.fingerprint, transform_digest(transform)]
    rows, random = list[_Row](), dict[int, _Row]()
    for label, (path, artefact) in artefacts.items():
        images, ipc = artefact.distilled.images, stored_ipc(artefact)
        labels = distilled_set.hard_labels(artefact.distilled)
        about: dict[str, Any] = {
            "path": path,
            "method": artefact.method,
            "version": artefact.version,
        }
        rows.append(
            _Row(
                label,
                (Batch(images, jax.nn.one_hot(labels, k)),),
                digest("distilled", (images, labels)),
                {**about, "num_images": len(labels), "images_per_class": ipc},
            )
        )
        if ipc not in random:
            drawn = random_subsets(loaded.train, ipc, config.seeds, transform)
            about = {"path": None, "method": "random"}
            random[ipc] = _Row(
                f"random, {ipc} per class",
                tuple(Batch(*one) for one in zip(*drawn, strict=True)),
                digest([*real, "random", ipc, config.seeds]),
                {**about, "num_images": k * ipc, "images_per_class": ipc},
            )
    test = data.on_device(loaded.test, transform, k)
    about = {"path": None, "method": "test", "num_images": len(loaded.test.labels)}
    seen = _Row(TEST, (test,), digest([*real, "test"]), about)
    return [*rows, *random.values(), seen]


def _read(net: _Net, workdir: pathlib.Path) -> _Kept:
    """What is kept of a network.

    Raises:
      InputError: a file that cannot be read, or holds another network.
    """
    path = net.path(workdir)
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        if str(arrays["identity"]) != net.identity:
            raise ValueError("it holds another network")
        return _Kept(
            int(arrays["epoch"]),
            arrays["params"],
            arrays["optimizer"],
            arrays["losses"],
            float(arrays["seconds"]),
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read ({error}); delete it, and the network is trained again"
        ) from None


def _write(net: _Net, kept: _Kept, workdir: pathlib.Path) -> None:
    with replacing(net.path(workdir)) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            identity=np.array(net.identity),
            epoch=np.array(kept.epoch),
            params=kept.params,
            optimizer=kept.optimizer,
            losses=kept.losses,
            seconds=np.array(kept.seconds),
        )


def _train(
    config: Config,
    nets: Sequence[_Net],
    models: Mapping[str, tuple[Model, int]],
    real: RealSet,
    workdir: pathlib.Path,
) -> None:
    """Leaves every network in its file, trained."""
    begun = {net: _read(net, workdir) for net in nets if net.path(workdir).exists()}
    new = _Kept(0, np.zeros(0), np.zeros(0), np.zeros(0), 0.0)
    epochs_left = {net: net.epochs - begun.get(net, new).epoch for net in nets}
    todo = [net for net in nets if epochs_left[net]]
    if done := len(nets) - len(todo):
        print(f"{done} of {len(nets)} networks were trained before, in {workdir}")
    progress = CellProgress(
        todo, "epoch", [epochs_left[net] for net in todo], noun="network"
    )
    key = fresh_key(config.seed)
    for name, of_name in itertools.groupby(todo, lambda net: net.kind):
        model, size = models[name]
        print(f"compiling {name}, {size:,} parameters", file=sys.stderr, flush=True)
        begin, advance = _programs(key, model, config.recipe, real)
        for net in of_name:
            state = begin(expert.epoch_key(key, net.number, 0))
            kept = begun.get(net, new)
            if kept.epoch:
                print(f"{net.title} goes on after epoch {kept.epoch}")
                restore = ravel_pytree(state.opt_state)[1]
                state = InnerState(
                    parameters.unflatten(model)(jnp.asarray(kept.params)),
                    restore(jnp.asarray(kept.optimizer)),
                )
            _train_one(net, kept, state, advance, key, real, progress, workdir)


def _programs(
    key: Key, model: Model, recipe: Recipe, real: RealSet
) -> tuple[Callable[[Key], InnerState], Callable[..., Any]]:
    """Compiled: key -> the network at epoch 0; key, state, real -> state, loss."""

    def compute(key: Key, state: InnerState, real: RealSet) -> tuple[InnerState, Array]:
        return expert.epoch(key, model, real, recipe, state)

    begin = jax.jit(lambda key: expert.init(key, model, recipe))
    given = key, jax.eval_shape(begin, key), real
    return begin, jax.jit(compute).lower(*given).compile()


def _train_one(
    net: _Net,
    kept: _Kept,
    state: InnerState,
    advance: Callable[..., Any],
    key: Key,
    real: RealSet,
    progress: CellProgress,
    workdir: pathlib.Path,
) -> None:
    """From where `kept` is to the end, saved every few epochs."""
    losses, seconds = kept.losses.tolist(), kept.seconds
    saved = time.monotonic()
    for epoch in range(kept.epoch + 1, net.epochs + 1):
        began = time.perf_counter()
        state, loss = advance(expert.epoch_key(key, net.number, epoch), state, real)
        losses.append(float(loss))
        took = time.perf_counter() - began
        seconds += took
        if not np.isfinite(losses[-1]):
            raise InputError(
                f"{net.title} at epoch {epoch} has a training loss of {losses[-1]}; lower "
                "its learning rate, --recipe.lr"
            )
        progress.trained(net, 1, took, f"loss {losses[-1]:.3g}")
        last = epoch == net.epochs
        if last or time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
            optimizer = ravel_pytree(() if last else state.opt_state)[0]
            params = np.asarray(parameters.flatten(state.params))
            now = _Kept(epoch, params, np.asarray(optimizer), np.array(losses), seconds)
            _write(net, now, workdir)
            saved = time.monotonic()
    progress.finished(net, f"loss {losses[-1]:.3g}")


class _Looker:
    """Shows images to networks of one architecture; a program for each shape."""

    def __init__(self, model: Model, chunk: int):
        self._chunk, self._model = chunk, model
        probe = accuracy.make(accuracy.Config(chunk=chunk), model)

        def look(params: Params, source: Batch | RealSet) -> dict[str, Array]:
            point, key = Point(params, jnp.zeros(())), jax.random.key(0)
            _, found = probe.measure(key, (), point, source, source)
            return {name: estimate.value for name, estimate in found.items()}

        self._look, self._features = jax.jit(look), jax.jit(model.features)

    def params(self, net: _Net, workdir: pathlib.Path) -> Params:
        """Of a trained network."""
        return parameters.unflatten(self._model)(jnp.asarray(_read(net, workdir).params))

    def look(self, params: Params, source: Batch | RealSet) -> tuple[float, float]:
        """Accuracy and mean cross-entropy."""
        found = self._look(params, source)
        return float(found["accuracy"]), float(found["loss"])

    def features(self, params: Params, images: Array) -> np.ndarray:
        """f32[n, h, w, c], preprocessed -> f32[n, d], the input of the last layer."""
        found = []
        for start in range(0, len(images), self._chunk):
            part = images[start : start + self._chunk]
            missing = ((0, self._chunk - len(part)), *((0, 0),) * 3)
            padded = self._features(params, jnp.pad(part, missing))
            found.append(np.asarray(padded)[: len(part)])
        return np.concatenate(found)


def _look_at(
    left: Sequence[_Cell],
    table: CellTable[_Cell],
    looker: _Looker,
    nets: Sequence[_Net],
    workdir: pathlib.Path,
) -> None:
    """Fills the cells of one architecture."""
    params = [looker.params(net, workdir) for net in nets]
    for cell in left:
        began, pairs = time.perf_counter(), []
        for number, one in enumerate(params):
            before = time.perf_counter()
            pairs.append(looker.look(one, cell.row.of(number)))
            table.progress.trained(cell, 1, time.perf_counter() - before)
        right, loss = map(spread, zip(*pairs, strict=True))
        record = {
            "row": cell.row.label,
            "architecture": cell.architecture,
            "accuracy": right,
            "loss": loss,
            "seconds": time.perf_counter() - began,
        }
        table.finish(cell, record, f"{spelt_accuracy(right)} %")


def _recognition(table: CellTable[_Cell]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {cell.row.label: {} for cell in table.cells}
    for cell in table.cells:
        record = table.record(cell)
        found[cell.row.label][cell.architecture] = {
            name: record[name] for name in ("accuracy", "loss")
        }
    return found


def _about_networks(kept: Mapping[_Net, _Kept], num_parameters: int) -> dict[str, Any]:
    """Of one architecture, for `summary.json`."""
    first = next(iter(kept))
    return {
        **first.network.described(),
        "parameters": num_parameters,
        "epochs": first.epochs,
        "training_loss": spread([one.losses[-1] for one in kept.values()]),
        "seconds": sum(one.seconds for one in kept.values()),
        "files": [f"networks/{net.path(pathlib.Path()).name}" for net in kept],
    }


def _map(
    config: Config,
    artefacts: Mapping[str, Named],
    loaded: data.Dataset,
    looker: _Looker,
    net: _Net,
    workdir: pathlib.Path,
) -> dict[str, Any]:
    """Draws features of test and distilled images; returns what to record."""
    params = looker.params(net, workdir)
    transform = next(iter(artefacts.values())).artefact.transform
    num = min(config.map_images, len(loaded.test.labels))
    order = np.random.default_rng(config.seed).permutation(len(loaded.test.labels))[:num]
    parts = [looker.features(params, transform(jnp.asarray(loaded.test.images[order])))]
    labels = [loaded.test.labels[order]]
    for _, made in artefacts.values():
        parts.append(looker.features(params, made.distilled.images))
        labels.append(np.asarray(distilled_set.hard_labels(made.distilled)))
    components = principal_components(parts[0])
    ends = np.cumsum([len(part) for part in parts])[:-1]

    shares = " and ".join(f"{share:.0%}" for share in components.explained)
    maps = {f"PCA, {shares}": [components.project(part) for part in parts]}
    points, about_umap = umap_points(np.concatenate(parts))
    if points is not None:
        maps["UMAP"] = np.split(points, ends)
    names = [TEST, *artefacts]
    feature_maps(
        workdir / "features.png",
        {
            title: dict(zip(names, zip(split, labels, strict=True), strict=True))
            for title, split in maps.items()
        },
        loaded.class_names,
        f"Features of {net.network.name}, network {net.number}, on {loaded.name}",
        background=TEST,
    )
    return {
        "network": net.title,
        "num_test": num,
        "explained": components.explained.tolist(),
        "umap": about_umap,
    }


def _title(summary: Mapping[str, Any]) -> str:
    return f"Recognised by networks trained on {summary['dataset']['name']}"


def _show(summary: Mapping[str, Any], workdir: pathlib.Path) -> None:
    recognition = summary["recognition"]
    names = list(summary["networks"])
    seeds = next(iter(recognition.values()))[names[0]]["accuracy"]["seeds"]
    table = Table(
        title=_title(summary),
        title_justify="left",
        caption=f"Percent: mean ± standard deviation of {seeds} networks; loss.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("shown")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for label, row in recognition.items():
        shown = (
            f"{spelt_accuracy(row[n]['accuracy'])}; {row[n]['loss']['mean']:.2f}"
            for n in names
        )
        table.add_row(label, *shown)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 40 + 20 * len(names))
    console.print(table)
    for label, found in summary["pixels"].items():
        low, high = (found["quantiles"][str(share)] for share in (0.0, 1.0))
        print(
            f"{label}: {found['outside']:.1%} of pixel values outside 0..1, from "
            f"{low:.2f} to {high:.2f}"
        )
    seconds = duration(summary["seconds"])
    print(
        f"{seconds}. summary.json, recognition.png, pixels.png, features.png and networks/ "
        f"lie in {workdir}"
    )


def main(config: Config) -> None:
    """Entry of the command line."""
    run(config)
