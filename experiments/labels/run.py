"""Give distilled, random and herded images the labels of experts, and see which gain.

    python -m experiments.labels --artefacts=a/distilled.npz,b/distilled.npz
    python -m experiments.labels --artefacts=cifar10_dm_ipc1 --early=1 --late=20 --seeds=5

Qin et al. 2024 (arXiv 2406.10485): random real images under soft labels of an expert come
close to distilled sets, and for few images an expert stopped early gives the better
labels. Each set is trained on with hard labels, and with the class probabilities that one
network gives its images after `--early` and after `--late` epochs on all real training
images (that of the artefacts, by `--recipe`). Random images are drawn anew for each
network, herded ones once (`analysis.coresets`). Networks of one number begin at the same
weights, so gains are taken network by network; intervals are Student's over networks, and
hold neither the choice of the set nor that of the expert.

Departures: probabilities are of temperature 1; the same labels serve all steps, and images
are not augmented; the protocol is that of `--protocol`, not the authors'.

The experts are kept in `experts/`, each finished cell in `cells.jsonl`; the same command
again goes on where it was. `summary.json` has every network's accuracy, `labels.png` the
picture.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import data, devices, launch
from distilljax.comparison.real import real_labels, select_baselines
from distilljax.config import FieldError, option
from distilljax.core import losses, parameters
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.training import evaluation
from distilljax.training.expert import Recipe
from distilljax.types import Array, Batch, Model, RealSet
from experiments.lab import grid, keys, options
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.kept import Arrays, digest
from experiments.lab.networks import Network, shared_network, sized_model
from experiments.lab.progress import duration
from experiments.lab.protocols import chosen_network
from experiments.lab.records import write_summary
from experiments.lab.sets import Named, load_artefacts, shared_transform
from experiments.lab.table import Row, make_rows
from experiments.lab.training import EpochTrainer, Net, plan_net
from experiments.lab.workdir import open_workdir, workdir_path
from experiments.labels.figures import label_lines
from experiments.labels.record import EARLY, HARD, LATE, ExpertRecord, Summary

NAME = "experiments.labels"
HERDING = "herding"
CHUNK = 500  # images of a real set that an expert sees at a time


@dataclasses.dataclass(frozen=True)
class Config(
    options.WorkdirOption,
    options.NetworksOption,
    options.SeedOption,
    options.TogetherOption,
    options.RealDataOptions,
    options.ArtefactsOption,
):
    """Options of the experiment."""

    early: int = option(1, "Epochs of the early expert.", low=1)
    late: int = option(10, "Epochs of the late expert.", low=2)
    recipe: Recipe = option(
        Recipe(momentum=0.9, augment=""), "Training of the experts on real images."
    )
    protocol: options.ProtocolOrOwn = option(
        "study", "Training on the sets; own: as each set was made for."
    )
    seeds: int = option(5, "Networks trained in each cell.", low=2)


class _Expert(NamedTuple):
    """A network that labels images."""

    net: Net
    probabilities: "_Probabilities"
    about: ExpertRecord


class _Probabilities:
    """Class probabilities of images, by one network."""

    def __init__(self, model: Model, vector: np.ndarray):
        self._params = parameters.unflatten(model)(jnp.asarray(vector))
        self._apply = model.apply
        self._of = jax.jit(lambda params, x: jax.nn.softmax(model.apply(params, x)))

    def __call__(self, images: Array) -> Array:
        """Returns f32[s, n, k] of images f32[s, n, h, w, c]."""
        return jnp.stack([self._of(self._params, own) for own in images])

    def accuracy(self, test: RealSet) -> float:
        """Returns the share of test images that it gets right."""
        logits = evaluation.predict(self._apply, self._params, test, chunk=CHUNK)
        return float(losses.accuracy(logits, test.labels))


def run(config: Config) -> Summary:
    """Trains what is missing; returns the contents of `summary.json`.

    Raises:
      InputError: options, an artefact, data or a working directory that cannot be used;
        artefacts of different data, preprocessing or networks; training that diverges.
    """
    if config.early >= config.late:
        reason = f"the late expert has {config.late} epochs; name fewer"
        raise FieldError("early", config.early, reason)
    artefacts = load_artefacts(config.artefacts, data_dir=config.data_dir)
    shared_transform(artefacts)
    network = shared_network(artefacts, functools.partial(chosen_network, config.protocol))
    workdir = workdir_path(NAME, config, f"{next(iter(artefacts))}-{config.protocol}")
    with open_workdir(workdir, NAME, config):
        summary = _run(config, network, artefacts, workdir)
    grid.show_grid(_title(summary), "labels of", summary["accuracy"])
    for name, expert in summary["experts"].items():
        print(f"{name}: {expert['epochs']} epochs, {expert['accuracy']:.1%} of test images")
    seconds = duration(summary["seconds"])
    print(f"{seconds}. summary.json, labels.png and cells.jsonl lie in {workdir}")
    return summary


def _run(
    config: Config, network: Network, artefacts: Mapping[str, Named], workdir: pathlib.Path
) -> Summary:
    first = next(iter(artefacts.values()))
    loaded = load_data_of(first, config.dataset, config.data_dir)
    model, size = sized_model(network, loaded, "artefacts")
    real = data.on_device(loaded.train, first.artefact.transform, loaded.num_classes)
    rows = _with_herding(
        make_rows(
            artefacts,
            loaded,
            config.protocol,
            config.seeds,
            own=True,
            labels="hard",
            seed=config.seed,
        ),
        loaded,
        real,
        config.seeds,
    )
    experts = _experts(config, network, (model, size), loaded, real, rows[0].test, workdir)
    described = json.dumps(network.described(), sort_keys=True)
    cells = [_cell(row, HARD, None, described, config.seed) for row in rows]
    cells += [
        _cell(row, name, expert, described, config.seed)
        for name, expert in experts.items()
        for row in rows
    ]
    found = grid.fill(
        workdir,
        cells,
        {described: (model, size)},
        config.seeds,
        config.together,
        devices.mesh(config.devices),
        config.seed,
    )
    return _summarise(config, network, workdir, loaded, rows, experts, found)


def _with_herding(
    rows: Sequence[Row], loaded: data.Dataset, real: RealSet, seeds: int
) -> list[Row]:
    """Returns the rows, and one of herded images for each of random ones."""
    found = list(rows)
    for row in rows:
        if row.about["method"] == "random":
            ipc = row.about["images_per_class"]
            sets = select_baselines([HERDING], loaded.train, real, ipc, seeds)[HERDING]
            found.append(
                row._replace(
                    label=row.label.replace("random", HERDING, 1),
                    sets=sets._replace(labels=real_labels(sets.labels, row.protocol)),
                    identity=digest([row.identity, HERDING]),
                    about={**row.about, "method": HERDING},
                )
            )
    return found


def _experts(
    config: Config,
    network: Network,
    sized: tuple[Model, int],
    loaded: data.Dataset,
    real: RealSet,
    test: RealSet,
    workdir: pathlib.Path,
) -> dict[str, _Expert]:
    """Trains the experts that are missing; one network, looked at twice."""
    nets = {}
    for name, epochs in ((EARLY, config.early), (LATE, config.late)):
        planned = plan_net(
            loaded, real.transform, network, config.recipe, epochs, config.seed
        )
        nets[name] = planned._replace(file=name)
    root = keys.expert(config.seed)
    trainer = EpochTrainer(Arrays(workdir / "experts"), config.recipe, config.seed, root)
    trainer.train([*nets.values()], {network.name: sized}, real)
    found = {}
    for name, net in nets.items():
        trained = trainer.trained(net)
        probabilities = _Probabilities(sized[0], trained.params)
        about: ExpertRecord = {
            "epochs": net.epochs,
            "accuracy": probabilities.accuracy(test),
            "training_loss": float(trained.losses[-1]),
            "seconds": trained.seconds,
        }
        found[name] = _Expert(net, probabilities, about)
    return found


def _cell(
    row: Row, labels: str, expert: _Expert | None, network: str, seed: int
) -> grid.GridCell:
    def sets(networks: np.ndarray) -> Batch:
        own = jax.tree.map(lambda x: x[networks], row.sets)
        if expert is None:
            return own
        soft = expert.probabilities(own.images)
        return own._replace(labels=real_labels(soft, row.protocol))

    of = None if expert is None else expert.net.identity
    identity = digest([row.identity, labels, of, network, seed])
    return grid.GridCell(row, labels, sets, row.sets.labels.shape[1], network, identity)


def _summarise(
    config: Config,
    network: Network,
    workdir: pathlib.Path,
    loaded: data.Dataset,
    rows: Sequence[Row],
    experts: Mapping[str, _Expert],
    found: grid.Filled,
) -> Summary:
    training = sum(expert.about["seconds"] for expert in experts.values())
    summary: Summary = {
        "accuracy": found.accuracy,
        "gain": {
            row: {name: grid.difference(of_row[name], of_row[HARD]) for name in experts}
            for row, of_row in found.accuracy.items()
        },
        "experts": {name: expert.about for name, expert in experts.items()},
        "rows": {row.label: {**row.about, "network": network.described()} for row in rows},
        "recipe": config.recipe.to_dict(),
        "protocol": config.protocol,
        "dataset": describe_dataset(loaded),
        "seconds": found.seconds + training,
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    names = {HARD: "hard"}
    for name, expert in experts.items():
        about = expert.about
        names[name] = f"{name}: {about['epochs']} ep., {about['accuracy']:.0%}"
    label_lines(
        workdir / "labels.png",
        found.accuracy,
        names,
        _title(summary),
        soft=[row.label for row in rows if row.about["path"] is None],
    )
    return write_summary(workdir, Summary, summary)


def _title(summary: Summary) -> str:
    return f"Test accuracy on {summary['dataset']['name']}, protocol {summary['protocol']}"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
