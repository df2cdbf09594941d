"""Train on a part of a distilled set, and on a set that was distilled at its size.

    python -m experiments.subsets --artefacts=cifar10_dm_ipc10,cifar10_dm_ipc1
    python -m experiments.subsets --artefacts=a.npz,b.npz --per_class=1,2,5,10 --seeds=10

He et al. 2024 (arXiv 2403.06075): a part of a condensed set is worth much less than a set
condensed at its size (subset degradation). Of each method's sets the largest is taken
apart: each network is trained on k random images of each of its classes (another
choice for each network, of which a smaller k is a part of a larger one), for each k of
`--per_class`; on k random real images; and on the method's smaller sets, whole. Networks of
one number begin at the same weights, so differences are taken network by network;
intervals are Student's over networks, and hold the choice of the part, not that of
distilling the sets again.

Each finished cell is kept in `cells.jsonl`; the same command again computes only those
that are missing. `summary.json` has every network's accuracy, `subsets.png` the picture.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import data, devices, launch
from distilljax.analysis import coresets
from distilljax.config import FieldError, option
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.types import Batch, Model
from experiments.lab import grid, keys, options
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.kept import digest
from experiments.lab.networks import sized_model
from experiments.lab.progress import duration
from experiments.lab.protocols import chosen_network
from experiments.lab.records import RowRecord, write_summary
from experiments.lab.sets import Named, load_artefacts, stored_ipc
from experiments.lab.table import Row, make_rows
from experiments.lab.workdir import open_workdir, workdir_path
from experiments.subsets.figures import part_curves
from experiments.subsets.record import Comparison, Summary

NAME = "experiments.subsets"


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

    per_class: str = option(
        "", "Images of each class in a part, with commas; empty: as in the smaller sets."
    )
    protocol: options.ProtocolOrOwn = option(
        "study", "Training of the networks; own: as each set was made for."
    )
    seeds: int = option(5, "Networks trained in each cell.", low=2)


def smaller_sets(artefacts: Mapping[str, Named]) -> dict[str, list[str]]:
    """Returns the largest set of each method that has several -> its smaller sets.

    Raises:
      FieldError: a method with one set only, or with two of one size.
    """
    paths = ",".join(named.path for named in artefacts.values())
    by_method: dict[str, dict[int, str]] = {}
    for label, (_, artefact) in artefacts.items():
        sizes, size = by_method.setdefault(artefact.method, {}), stored_ipc(artefact)
        if size in sizes:
            reason = f"{sizes[size]} and {label} are of one method and size; name one"
            raise FieldError("artefacts", paths, reason)
        sizes[size] = label
    found = {}
    for method, sizes in by_method.items():
        if len(sizes) < 2:
            reason = f"there is one set by {method}; add one of another size"
            raise FieldError("artefacts", paths, reason)
        largest, *smaller = sorted(sizes, reverse=True)
        found[sizes[largest]] = [sizes[size] for size in smaller]
    return found


def _sizes(
    config: Config, artefacts: Mapping[str, Named], smaller: Mapping[str, list[str]]
) -> list[int]:
    """Returns the images of each class in a part, from small to large."""
    sizes = {
        stored_ipc(artefacts[label].artefact) for few in smaller.values() for label in few
    }
    text = config.per_class
    if text:
        given = options.parse_integers(text, "per_class", low=1, example="1,2,5")
        if absent := sizes - {*given}:
            reason = f"a set has {min(absent)} images of each class; name that, too"
            raise FieldError("per_class", text, reason)
        sizes = {*given}
    for label in smaller:
        artefact = artefacts[label].artefact
        held, k = len(artefact.distilled.images), len(artefact.class_names)
        if held != k * stored_ipc(artefact):
            reason = f"{label} stores {held} images in the place of fewer; it has no parts"
            raise FieldError("artefacts", config.artefacts, reason)
        if max(sizes) > held // k:
            reason = f"{label} has {held // k} images of each class; name no more"
            raise FieldError("per_class", text, reason)
    return sorted(sizes)


def run(config: Config) -> Summary:
    """Fills the table; returns the contents of `summary.json`.

    Raises:
      InputError: options, an artefact, data or a working directory that cannot be used;
        artefacts of different data, or of one size.
    """
    artefacts = load_artefacts(config.artefacts, data_dir=config.data_dir)
    smaller = smaller_sets(artefacts)
    sizes = _sizes(config, artefacts, smaller)
    workdir = workdir_path(NAME, config, f"{next(iter(artefacts))}-{config.protocol}")
    with open_workdir(workdir, NAME, config):
        summary = _run(config, artefacts, smaller, sizes, workdir)
    grid.show_grid(_title(summary), "images of each class", summary["accuracy"])
    seconds = duration(summary["seconds"])
    print(f"{seconds}. summary.json, subsets.png and cells.jsonl lie in {workdir}")
    return summary


def part_of(row: Row, num: int, seed: int, networks: np.ndarray) -> Batch:
    """Returns `num` images of each class of the sets of a row, others for each network.

    Args:
      row: of which each network has a set of its own.
      num: images of each class.
      seed: random seed.
      networks: i[s], which networks.

    Returns:
      images f32[s, k num, h, w, c], labels f32[s, k num, k].
    """
    held, k = row.sets.labels.shape[1:]
    parts = []
    for network in networks.tolist():
        key = keys.part(seed, network)
        where = coresets.random_part(key, k, held // k, num)
        parts.append(jax.tree.map(lambda x, n=network, w=where: x[n][w], row.sets))
    return jax.tree.map(lambda *one: jnp.stack(one), *parts)


def _run(
    config: Config,
    artefacts: Mapping[str, Named],
    smaller: Mapping[str, list[str]],
    sizes: Sequence[int],
    workdir: pathlib.Path,
) -> Summary:
    loaded = load_data_of(next(iter(artefacts.values())), config.dataset, config.data_dir)
    rows = make_rows(
        artefacts,
        loaded,
        config.protocol,
        config.seeds,
        own=True,
        labels=config.labels,
        seed=config.seed,
    )
    rows = [
        row._replace(
            about={
                **row.about,
                "network": chosen_network(
                    config.protocol, row.label, row.artefact, "artefacts"
                ).described(),
            }
        )
        for row in rows
    ]
    abouts = {row.label: row.about for row in rows}
    randoms = {label: grid.beside(abouts, label, "random") for label in smaller}
    models: dict[str, tuple[Model, int]] = {}
    cells = []
    for row in rows:
        network = chosen_network(config.protocol, row.label, row.artefact, "artefacts")
        described = json.dumps(network.described(), sort_keys=True)
        if described not in models:
            models[described] = sized_model(network, loaded, "artefacts")
        if row.label in smaller or row.label in randoms.values():
            cells += [_part_cell(row, num, described, config.seed) for num in sizes]
        elif row.about["path"] is not None:
            cells.append(_whole_cell(row, described, config.seed))
    found = grid.fill(
        workdir,
        cells,
        models,
        config.seeds,
        config.together,
        devices.mesh(config.devices),
        config.seed,
    )
    abouts = {label: abouts[label] for label in found.accuracy}
    return _summarise(config, workdir, loaded, abouts, smaller, randoms, found)


def _part_cell(row: Row, num: int, network: str, seed: int) -> grid.GridCell:
    def sets(networks: np.ndarray) -> Batch:
        return part_of(row, num, seed, networks)

    identity = digest([row.identity, "part", num, network, seed])
    num_images = num * row.sets.labels.shape[2]
    return grid.GridCell(row, str(num), sets, num_images, network, identity)


def _whole_cell(row: Row, network: str, seed: int) -> grid.GridCell:
    def sets(networks: np.ndarray) -> Batch:
        return jax.tree.map(lambda x: x[networks], row.sets)

    identity = digest([row.identity, "whole", network, seed])
    size = str(row.about["images_per_class"])
    return grid.GridCell(row, size, sets, row.sets.labels.shape[1], network, identity)


def _comparisons(
    accuracy: grid.Accuracies,
    abouts: Mapping[str, RowRecord],
    smaller: Mapping[str, list[str]],
    randoms: Mapping[str, str],
) -> list[Comparison]:
    found: list[Comparison] = []
    for whole, others in smaller.items():
        for other in others:
            size = str(abouts[other]["images_per_class"])
            part, random = accuracy[whole][size], accuracy[randoms[whole]][size]
            found.append(
                {
                    "whole": whole,
                    "distilled": other,
                    "random": randoms[whole],
                    "per_class": size,
                    "difference": grid.difference(part, accuracy[other][size]),
                    "above_random": grid.difference(part, random),
                }
            )
    return found


def _summarise(
    config: Config,
    workdir: pathlib.Path,
    loaded: data.Dataset,
    abouts: dict[str, RowRecord],
    smaller: Mapping[str, list[str]],
    randoms: Mapping[str, str],
    found: grid.Filled,
) -> Summary:
    summary: Summary = {
        "accuracy": found.accuracy,
        "comparisons": _comparisons(found.accuracy, abouts, smaller, randoms),
        "rows": abouts,
        "protocol": config.protocol,
        "dataset": describe_dataset(loaded),
        "seconds": found.seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    part_curves(
        workdir / "subsets.png", found.accuracy, summary["comparisons"], _title(summary)
    )
    return write_summary(workdir, Summary, summary)


def _title(summary: Summary) -> str:
    return f"Test accuracy on {summary['dataset']['name']}, protocol {summary['protocol']}"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
