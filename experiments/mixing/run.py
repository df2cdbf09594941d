"""Add real images to distilled sets, and see whether that helps.

    python -m experiments.mixing --artefacts=a/distilled.npz,b/distilled.npz
    python -m experiments.mixing --artefacts=set.npz --real_per_class=0,2,10 --seeds=10
    python -m experiments.mixing --artefacts=set.npz --model=convnet --width_scale=0.25

Yang et al. 2024, sec. 3: if distilled images stood in for real ones, more real images
beside them could do no harm. A network is trained on the set and n random real images of
each class, for each n of `--real_per_class`; to compare with, on as many random real
images as the set takes, and the same n. In the paper (CIFAR-10, ten distilled images a
class, ConvNet of depth 3 and width 128, protocol `study`, one network a point, each from
other weights):

    | real images per class | +0   | +2   | +10  | +50  | +250 |
    |-----------------------|------|------|------|------|------|
    | bptt                  | .587 | .544 | .498 | .504 | .597 |
    | tm                    | .533 | .492 | .454 | .497 | .592 |
    | gm                    | .447 | .440 | .424 | .472 | .59  |
    | dm                    | .430 | .404 | .417 | .480 | .59  |
    | random real images    | .273 | .287 | .326 | .452 | .585 |

Here each point is several networks. Those of one number start from the same weights and
get the same real images, of which a smaller n is a part of a larger one; so the
difference to +0 is taken network by network. Intervals are 95 % confidence intervals of
the mean over networks (Student's t): they hold the choice of weights and of real images,
not that of the distilled set. Whether real images lower the accuracy is read off m numbers
of them, in intervals of level 1 - 0.05 / m.

`--chunk` bounds the memory of a step on all images at once: the gradient is summed over
chunks, each computed forwards twice. Width 32, 2,600 grey 28x28 images on one CPU core
shared with other work: 2.4 GiB and 16 s a step at once, 0.24 GiB and 7 s in chunks of
260. There +0 takes half a minute a network, +250 half an hour; leave 250 out on a CPU.

Each finished cell is kept in `cells.jsonl`; the same command again computes only those
that are missing, or whose artefact has changed. `summary.json` has every network's
accuracy, `mixing.png` draws the means.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import data, devices, launch
from distilljax.analysis.statistics import (
    ALPHA,
    Interval,
    SpreadInterval,
    spread,
    spread_interval,
)
from distilljax.comparison.real import real_labels
from distilljax.config import FieldError, option
from distilljax.core.scan import scan
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.keys import subset_seed
from distilljax.types import Array, Batch, Model, Params
from experiments.lab import options
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.kept import digest
from experiments.lab.keys import fresh_key, images_of
from experiments.lab.networks import (
    ARCHITECTURES,
    check_width_scale,
    parse_architectures,
    scaled_network,
    sized_model,
)
from experiments.lab.progress import duration
from experiments.lab.protocols import chosen_network
from experiments.lab.records import write_summary
from experiments.lab.sets import Named, load_artefacts, stored_ipc
from experiments.lab.table import (
    CellTable,
    CellTrainer,
    Row,
    Training,
    make_rows,
    training_cost,
)
from experiments.lab.terminal import new_table, show_table
from experiments.lab.workdir import open_workdir, workdir_path
from experiments.mixing.figures import mixing_curves
from experiments.mixing.record import Summary, Verdict

NAME = "experiments.mixing"


@dataclasses.dataclass(frozen=True)
class Config(
    options.WorkdirOption,
    options.NetworksOption,
    options.SeedOption,
    options.TogetherOption,
    options.RealDataOptions,
    options.LabelsOption,
    options.ArtefactsOption,
):
    """Options of the experiment."""

    real_per_class: str = option(
        "0,2,10,50,250", "Real images added to each class, with commas; 0 is one of them."
    )
    model: str = option(
        options.OWN, f"Network: own (the artefact's), or one of {', '.join(ARCHITECTURES)}."
    )
    width_scale: float = option(
        1.0, "Width multiplier of every network but `own`; below 1 for a CPU.", above=0
    )
    protocol: options.ProtocolOrOwn = option(
        "study", "Training of the networks; own: as each set was made for."
    )
    seeds: int = option(5, "Networks trained in each cell.", low=2)
    chunk: int | None = option(
        250, "Images whose gradient is computed at a time; none: all of a step.", low=1
    )


class _Cell(NamedTuple):
    """A row with a number of real images of each class added."""

    row: Row
    added: int
    network: str  # its settings
    identity: str

    @property
    def num_images(self) -> int:
        """Images of the mixed set."""
        num, k = self.row.sets.labels.shape[1:]
        return num + k * self.added

    @property
    def kind(self) -> str:
        """Network and number of images."""
        return f"{self.network}, {self.num_images}"

    @property
    def title(self) -> str:
        """Name in progress lines."""
        return f"{self.row.label} +{self.added} real per class"


def _numbers(config: Config) -> list[int]:
    text = config.real_per_class
    numbers = options.parse_integers(text, "real_per_class", low=0, example="0,2,10")
    if 0 not in numbers:
        raise FieldError("real_per_class", text, "0 must be one of the numbers")
    return sorted(numbers)


def _model_name(config: Config) -> str:
    found = parse_architectures(config.model, "model")
    if len(found) > 1:
        raise FieldError("model", config.model, "name one")
    return found[0]


def in_chunks(model: Model, chunk: int | None) -> Model:
    """Returns the network with logits computed for at most `chunk` images at a time.

    So is their derivative: the reverse pass computes each chunk again, and holds the
    intermediate values of one chunk alone. What differs is rounding. The network treats
    images one by one, as all of `distilljax.models` do.
    """
    if chunk is None:
        return model

    def apply(params: Params, images: Array) -> Array:
        num = images.shape[0]
        num_chunks = -(-num // chunk)
        if num_chunks == 1:
            return model.apply(params, images)
        size = -(-num // num_chunks)
        filling = ((0, num_chunks * size - num), *((0, 0),) * (images.ndim - 1))
        parts = jnp.pad(images, filling).reshape(num_chunks, size, *images.shape[1:])
        _, logits = scan(lambda _, part: ((), model.apply(params, part)), (), parts)
        return logits.reshape(num_chunks * size, -1)[:num]

    return model._replace(apply=apply)


def mixed_sets(
    row: Row, added: int, train: data.Split, networks: np.ndarray, seed: int
) -> Batch:
    """Returns the sets of a row with `added` random real images of each class.

    The real images of network s are the next ones of the random order of which
    `random_subsets` takes the first, so that a random row has none twice.

    Args:
      row: of which each network has a set of its own, n images.
      added: real images of each class.
      train: where they come from.
      networks: i[s], which networks.
      seed: draws the real images, as those of a random row.

    Returns:
      images f32[s, n + k added, h, w, c], labels f32[s, n + k added, k].
    """
    sets = jax.tree.map(lambda x: x[networks], row.sets)
    if not added:
        return sets
    k, own = sets.labels.shape[-1], row.about["images_per_class"]
    transform = row.artefact.transform
    real = []
    for network in networks.tolist():
        drawn = data.subset(train, own + added, seed=subset_seed(network, seed))
        images = drawn.images.reshape(k, own + added, *drawn.images.shape[1:])[:, own:]
        real.append(transform(jnp.asarray(images.reshape(-1, *images.shape[2:]))))
    one_hot = jax.nn.one_hot(jnp.repeat(jnp.arange(k), added), k)
    one_hot = real_labels(one_hot, row.protocol)
    labels = jnp.broadcast_to(one_hot, (len(real), *one_hot.shape))
    return Batch(
        jnp.concatenate([sets.images, jnp.stack(real)], axis=1),
        jnp.concatenate([sets.labels, labels], axis=1),
    )


def run(config: Config) -> Summary:
    """Fills the table; returns the contents of `summary.json`.

    Raises:
      InputError: options, an artefact, data or a working directory that cannot be used;
        artefacts of different data.
    """
    numbers, name = _numbers(config), _model_name(config)
    check_width_scale(config, [name])
    artefacts = load_artefacts(config.artefacts, data_dir=config.data_dir)
    label = f"{next(iter(artefacts))}-{config.protocol}"
    workdir = workdir_path(NAME, config, label)
    with open_workdir(workdir, NAME, config):
        summary = _run(config, numbers, name, artefacts, workdir)
    _show(summary, workdir)
    return summary


def _run(
    config: Config,
    numbers: Sequence[int],
    name: str,
    artefacts: Mapping[str, Named],
    workdir: pathlib.Path,
) -> Summary:
    first = next(iter(artefacts.values()))
    loaded = load_data_of(first, config.dataset, config.data_dir)
    smallest = int(np.bincount(loaded.train.labels).min())
    most = smallest - max(stored_ipc(named.artefact) for named in artefacts.values())
    if numbers[-1] > most:
        reason = f"the smallest class has {smallest} training images; add at most {most}"
        raise FieldError("real_per_class", config.real_per_class, reason)
    rows = make_rows(
        artefacts,
        loaded,
        config.protocol,
        config.seeds,
        own=name == options.OWN,
        labels=config.labels,
        seed=config.seed,
    )
    models: dict[str, tuple[Model, int]] = {}
    wanted, weights = [], {}
    for added in numbers:
        for row in rows:
            network = (
                chosen_network(config.protocol, row.label, row.artefact, "model")
                if name == options.OWN
                else scaled_network(name, config.width_scale)
            )
            described = json.dumps(network.described(), sort_keys=True)
            if described not in models:
                model, size = sized_model(network, loaded, "model")
                models[described] = in_chunks(model, config.chunk), size
            drawn_by = images_of(config.seed) if added else []
            identity = digest([row.identity, added, described, config.seed, *drawn_by])
            cell = _Cell(row, added, described, identity)
            wanted.append(cell)
            weights[cell.kind] = training_cost(
                cell.num_images, row.protocol, len(loaded.test.labels)
            )

    table = CellTable(
        workdir / "cells.jsonl", wanted, "network", config.seeds, weights=weights
    )
    keys = jax.random.split(fresh_key(config.seed), config.seeds)
    trainer = CellTrainer(
        keys, config.together, table.progress, devices.mesh(config.devices)
    )
    for cell in table.missing:
        began = time.perf_counter()

        def sets(chosen: np.ndarray, cell: _Cell = cell) -> Batch:
            return mixed_sets(cell.row, cell.added, loaded.train, chosen, config.seed)

        training = Training(name, cell.network, *models[cell.network], sets, cell.row)
        accuracy = spread(trainer.train(cell, training))
        record = {
            "row": cell.row.label,
            "real_per_class": cell.added,
            **accuracy,
            "seconds": time.perf_counter() - began,
        }
        table.finish(cell, record, f"{spelt_accuracy(accuracy)} %")
    return _summarise(config, workdir, loaded, table)


def _effects(accuracy: Mapping[str, SpreadInterval]) -> dict[str, SpreadInterval]:
    """Returns n -> change by n real images of each class, network by network."""
    alone = np.array(accuracy["0"]["values"])
    return {
        added: spread_interval(np.array(cell["values"]) - alone)
        for added, cell in accuracy.items()
        if added != "0"
    }


def _verdict(effects: Mapping[str, SpreadInterval]) -> Verdict:
    """Returns where real images lower the accuracy: the interval lies below zero.

    It is widened for the number of effects, of which any may be the one that does.
    """

    def highest(effect: SpreadInterval) -> float:
        low, high = effect["interval"]
        interval = Interval(low, high, effect["seeds"] - 1)
        return interval.at(effect["mean"], ALPHA / len(effects))[1]

    lowered = [int(n) for n, effect in effects.items() if highest(effect) < 0]
    lowest = min(effects, key=lambda n: effects[n]["mean"], default=None)
    return {
        "lowers": bool(lowered),
        "lowered_by": lowered,
        "lowest_at": None if lowest is None else int(lowest),
    }


def _summarise(
    config: Config,
    workdir: pathlib.Path,
    loaded: data.Dataset,
    table: CellTable[_Cell],
) -> Summary:
    accuracy: dict[str, dict[str, SpreadInterval]] = {
        cell.row.label: {} for cell in table.cells
    }
    networks = {}
    for cell in table.cells:
        values = table.record(cell)["values"]
        accuracy[cell.row.label][str(cell.added)] = spread_interval(values)
        networks[cell.row.label] = json.loads(cell.network)
    difference = {row: _effects(of_row) for row, of_row in accuracy.items()}
    about = {cell.row.label: cell.row.about for cell in table.cells}
    summary: Summary = {
        "accuracy": accuracy,
        "difference": difference,
        "verdict": {row: _verdict(effects) for row, effects in difference.items()},
        "rows": {row: {**about[row], "network": networks[row]} for row in accuracy},
        "protocol": config.protocol,
        "dataset": describe_dataset(loaded),
        "seconds": table.seconds(),
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    mixing_curves(
        workdir / "mixing.png",
        accuracy,
        _title(summary),
        soft=[row for row in accuracy if about[row]["path"] is None],
    )
    return write_summary(workdir, Summary, summary)


def _title(summary: Summary) -> str:
    return f"Test accuracy on {summary['dataset']['name']}, protocol {summary['protocol']}"


def _points(effect: SpreadInterval) -> str:
    """Returns a difference in percent points with its interval."""
    low, high = effect["interval"]
    return f"{100 * effect['mean']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def _sentence(effects: Mapping[str, SpreadInterval], verdict: Verdict) -> str:
    """Says whether adding real images lowers the accuracy."""
    least = verdict["lowest_at"]
    if least is None:
        return "no real images were added"
    lowest = f"at +{least} it changes by {_points(effects[str(least)])}"
    if verdict["lowers"]:
        where = ", ".join(f"+{n}" for n in verdict["lowered_by"])
        return f"real images lower the accuracy ({where}); {lowest}"
    return f"real images do not lower the accuracy beyond chance; {lowest}"


def _show(summary: Summary, workdir: pathlib.Path) -> None:
    accuracy = summary["accuracy"]
    numbers = list(next(iter(accuracy.values())))
    seeds = next(iter(accuracy.values()))["0"]["seeds"]
    table = new_table(
        _title(summary),
        ("real images per class added to", *(f"+{added}" for added in numbers)),
        caption=f"Percent: mean ± standard deviation of {seeds} networks.",
    )
    for row, of_row in accuracy.items():
        table.add_row(row, *(spelt_accuracy(of_row[added]) for added in numbers))
    show_table(table, 40 + 14 * len(numbers))
    for row, effects in summary["difference"].items():
        print(f"{row}: {_sentence(effects, summary['verdict'][row])}")
    seconds = duration(summary["seconds"])
    print(f"{seconds}. summary.json, mixing.png and cells.jsonl lie in {workdir}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
