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

Beyond the table, `pixels.png` compares the pixel values of the sets, back in the range of
images, with real ones; the terminal shows the share outside 0..1 by more than half a grey
level. `features.png` shows the input of the last linear layer of one network
(`--map_model`) in two dimensions: by the principal components of the test images'
features, and by UMAP of both (five neighbours, seed 42) where umap-learn is installed
(in a clone `pip install -e '.[umap]'`).

Networks are kept in `networks/`, also during training: the same command resumes, and a
command with other artefacts but the same settings trains nothing again. Its summary and
pictures then replace those before. The artefacts of one command have the same
preprocessing, under which the networks are trained.

Time: width-16 ConvNet, 8,000 grey 28x28 images, one CPU core shared with other work: 7 s
an epoch. The paper's widths and ResNets are for a GPU, or for `--width_scale` below 1.
"""

import itertools
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import jax.numpy as jnp
import numpy as np

from distilljax import data, launch
from distilljax.analysis.statistics import spread
from distilljax.core import distilled as distilled_set
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.types import Model, Transform
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.data import describe_dataset, load_data_of, named_data, short_name
from experiments.lab.kept import Arrays, digest
from experiments.lab.networks import sized_model
from experiments.lab.pictures import accuracy_dots
from experiments.lab.progress import duration
from experiments.lab.records import write_summary
from experiments.lab.sets import Named
from experiments.lab.table import CellTable
from experiments.lab.terminal import new_table, show_table
from experiments.lab.training import EpochTrainer, Net, Trained, plan_net
from experiments.lab.workdir import command_of, open_workdir, workdir_path
from experiments.recognition.figures import feature_maps, pixel_densities
from experiments.recognition.measures import (
    measure_pixels,
    principal_components,
    umap_points,
)
from experiments.recognition.options import Choice, Config, choose
from experiments.recognition.record import (
    REAL,
    TEST,
    Features,
    Networks,
    Recognised,
    Summary,
)
from experiments.recognition.shown import Looker, Row, make_rows

NAME = "experiments.recognition"


class _Cell(NamedTuple):
    """A row shown to the networks of an architecture."""

    row: Row
    architecture: str
    identity: str

    @property
    def kind(self) -> str:
        """Architecture and number of images."""
        return f"{self.architecture}, {self.row.of(0).labels.shape[0]}"

    @property
    def title(self) -> str:
        """Name in progress lines."""
        return f"{self.architecture} sees {self.row.label}"


def run(config: Config) -> Summary:
    """Trains what is not trained, shows the sets; returns the contents of `summary.json`.

    Raises:
      InputError: options, an artefact, data or a working directory that cannot be used;
        artefacts of different data or preprocessing; training that diverges.
    """
    choice = choose(config)
    name = config.dataset or named_data(next(iter(choice.artefacts.values())))
    # Other artefacts of the same data belong in the same place.
    place = config.replace({"artefacts": "", "dataset": name})
    label = f"{short_name(name)}-{'-'.join(choice.epochs)}"
    workdir = workdir_path(NAME, place, label)
    with open_workdir(workdir, NAME, place):
        summary = _run(config, choice, workdir)
    _show(summary, workdir)
    return summary


def _run(config: Config, choice: Choice, workdir: pathlib.Path) -> Summary:
    first = next(iter(choice.artefacts.values()))
    transform = first.artefact.transform
    loaded = load_data_of(first, config.dataset, config.data_dir)
    models = {
        name: sized_model(network, loaded) for name, network in choice.networks.items()
    }
    real = data.on_device(loaded.train, transform, loaded.num_classes)
    nets = _nets(config, choice, loaded, transform)
    rows = make_rows(choice.artefacts, loaded, config.seeds, config.seed)
    trainer = EpochTrainer(Arrays(workdir / "networks"), config.recipe, config.seed)
    trainer.train(list(itertools.chain(*nets.values())), models, real)

    table = CellTable(
        workdir / "cells.jsonl",
        [
            _Cell(row, name, digest([row.identity, [n.identity for n in of_name]]))
            for name, of_name in nets.items()
            for row in rows
        ],
        "network",
        config.seeds,
    )
    for name, of_name in nets.items():
        left = [cell for cell in table.missing if cell.architecture == name]
        if left:
            print(f"compiling {name}, to look", file=sys.stderr, flush=True)
            looker = Looker(models[name][0], config.chunk)
            vectors = [trainer.trained(net).params for net in of_name]
            _look_at(left, table, looker, vectors)
    return _summarise(config, choice, workdir, loaded, models, rows, nets, trainer, table)


def _nets(
    config: Config, choice: Choice, loaded: data.Dataset, transform: Transform
) -> dict[str, list[Net]]:
    """Returns the networks of each architecture."""
    found: dict[str, list[Net]] = {}
    for name, epochs in choice.epochs.items():
        how = choice.networks[name], config.recipe, epochs, config.seed
        planned = [plan_net(loaded, transform, *how, n) for n in range(config.seeds)]
        found[name] = [
            net._replace(file=f"{name}_{net.number}_{net.identity[:8]}") for net in planned
        ]
    return found


def _look_at(
    left: Sequence[_Cell],
    table: CellTable[_Cell],
    looker: Looker,
    vectors: Sequence[np.ndarray],
) -> None:
    """Fills the cells of one architecture, whose networks have these parameters."""
    params = [looker.params(vector) for vector in vectors]
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


def _summarise(
    config: Config,
    choice: Choice,
    workdir: pathlib.Path,
    loaded: data.Dataset,
    models: Mapping[str, tuple[Model, int]],
    rows: Sequence[Row],
    nets: Mapping[str, Sequence[Net]],
    trainer: EpochTrainer,
    table: CellTable[_Cell],
) -> Summary:
    pixels, curves = measure_pixels(choice.artefacts, loaded.train)
    pixel_densities(workdir / "pixels.png", curves, soft=[REAL])
    looker = Looker(models[choice.map_model][0], config.chunk)
    drawn = nets[choice.map_model][0]
    vector = trainer.trained(drawn).params
    features = _map(config, choice.artefacts, loaded, looker, drawn, vector, workdir)
    trained = {name: [trainer.trained(n) for n in of] for name, of in nets.items()}
    training = sum(one.seconds for of_name in trained.values() for one in of_name)
    summary: Summary = {
        "recognition": _recognition(table),
        "rows": {row.label: row.about for row in rows},
        "networks": {
            name: _about_networks(nets[name], trained[name], models[name][1])
            for name in nets
        },
        "recipe": config.recipe.to_dict(),
        "pixels": pixels,
        "features": features,
        "dataset": describe_dataset(loaded),
        "command": command_of(NAME, config),
        "seconds": table.seconds() + training,
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
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
    return write_summary(workdir, Summary, summary)


def _recognition(table: CellTable[_Cell]) -> dict[str, dict[str, Recognised]]:
    found: dict[str, dict[str, Recognised]] = {cell.row.label: {} for cell in table.cells}
    for cell in table.cells:
        record = table.record(cell)
        found[cell.row.label][cell.architecture] = {
            "accuracy": record["accuracy"],
            "loss": record["loss"],
        }
    return found


def _about_networks(
    nets: Sequence[Net], trained: Sequence[Trained], num_parameters: int
) -> Networks:
    """Returns the record of the networks of one architecture."""
    found = {
        **nets[0].network.described(),
        "parameters": num_parameters,
        "epochs": nets[0].epochs,
        "training_loss": spread([one.losses[-1] for one in trained]),
        "seconds": sum(one.seconds for one in trained),
        "files": [f"networks/{net.file}.npz" for net in nets],
    }
    return cast(Networks, found)


def _map(
    config: Config,
    artefacts: Mapping[str, Named],
    loaded: data.Dataset,
    looker: Looker,
    net: Net,
    vector: np.ndarray,
    workdir: pathlib.Path,
) -> Features:
    """Draws features of test and distilled images; returns their record."""
    params = looker.params(vector)
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


def _title(summary: Summary) -> str:
    return f"Recognised by networks trained on {summary['dataset']['name']}"


def _show(summary: Summary, workdir: pathlib.Path) -> None:
    recognition = summary["recognition"]
    names = list(summary["networks"])
    seeds = next(iter(recognition.values()))[names[0]]["accuracy"]["seeds"]
    table = new_table(
        _title(summary),
        ("shown", *names),
        caption=f"Percent: mean ± standard deviation of {seeds} networks; loss.",
    )
    for label, row in recognition.items():
        shown = (
            f"{spelt_accuracy(row[n]['accuracy'])}; {row[n]['loss']['mean']:.2f}"
            for n in names
        )
        table.add_row(label, *shown)
    show_table(table, 40 + 20 * len(names))
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


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
