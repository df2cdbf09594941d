"""Divide what each set says about the classes among the directions of feature space.

    python -m experiments.spectrum --artefacts=a/distilled.npz,b/distilled.npz
    python -m experiments.spectrum --artefacts=set.npz --seeds=10 --share=0.99

Bo et al. 2025 (arXiv 2503.01212): with features X and labels Y of a set, its class moments
X^T Y have an energy along each eigenvector of the feature correlations of real images.
Their theory has distribution and gradient matching keep strong directions (low-pass),
trajectory matching and kernel methods weak ones (high-pass). Features are those of
networks at their initialisation, and of the same networks after `--steps` steps on real
images. Strong are the directions that together hold `--share` of the variance of real
features.

n random images have energy in every direction by chance, the variance there over n. So
the energy of a set in weak directions is compared with that of as many random real images
(drawn anew for each network), network by network. The share of a set's energy that is weak
is recorded, too; it is high as well where a set has little in strong directions.

The energies of each network are kept in `energies/`; the same command again goes on where
it was. `summary.json` has the shares of every network and the energies in bands,
`spectrum.png` the picture. `distilljax.analysis.spectrum` has the equations.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import data, launch
from distilljax.analysis import spectrum
from distilljax.analysis.statistics import spread_interval
from distilljax.config import option
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Array, Batch, Key, Model, Params, RealSet
from experiments.lab import keys, options
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.kept import Arrays, digest
from experiments.lab.networks import (
    Network,
    own_network,
    shared_network,
    sized_model,
)
from experiments.lab.progress import CellProgress, duration
from experiments.lab.records import RowRecord, write_summary
from experiments.lab.sets import Named, load_artefacts, shared_transform
from experiments.lab.table import Row, make_rows
from experiments.lab.terminal import new_table, show_table
from experiments.lab.workdir import open_workdir, workdir_path
from experiments.spectrum.figures import responses
from experiments.spectrum.record import INITIAL, REAL, STAGES, Stage, Summary

NAME = "experiments.spectrum"


@dataclasses.dataclass(frozen=True)
class Config(
    options.WorkdirOption,
    options.SeedOption,
    options.RealDataOptions,
    options.LabelsOption,
    options.ArtefactsOption,
):
    """Options of the experiment."""

    seeds: int = option(5, "Networks.", low=2)
    steps: int = option(300, "Steps of training on real images.", low=1)
    batch: int = option(50, "Images of such a step.", low=1)
    real_images: int = option(
        10_000,
        "Real images whose features give the directions, as many of each class.",
        low=20,
    )
    share: float = option(
        0.9,
        "Share of real feature variance that strong directions hold.",
        above=0,
        high=0.999,
    )


class _Look(NamedTuple):
    """A network at one stage; a `Cell`."""

    stage: str
    number: int
    identity: str
    kind: str = "network"

    @property
    def title(self) -> str:
        """Name in progress lines; that of its file, too, without the space."""
        return f"{self.stage} {self.number}"

    @property
    def file(self) -> str:
        """Its name among the pieces."""
        return f"{self.stage}{self.number}"


class _Energies(NamedTuple):
    """What a network's features come to."""

    eigenvalues: np.ndarray  # f32[d]
    energies: np.ndarray  # f32[r, d], a row a set
    real: np.ndarray  # f32[d], of all real images
    seconds: np.ndarray  # f64[]


def run(config: Config) -> Summary:
    """Looks with the networks that are missing; returns the contents of `summary.json`.

    Raises:
      InputError: options, an artefact, data or a working directory that cannot be used;
        artefacts of different data, preprocessing or networks.
    """
    artefacts = load_artefacts(config.artefacts, data_dir=config.data_dir)
    shared_transform(artefacts)
    network = shared_network(artefacts, own_network)
    workdir = workdir_path(NAME, config, next(iter(artefacts)))
    with open_workdir(workdir, NAME, config):
        summary = _run(config, network, artefacts, workdir)
    _show(summary, workdir)
    return summary


def _run(
    config: Config, network: Network, artefacts: Mapping[str, Named], workdir: pathlib.Path
) -> Summary:
    first = next(iter(artefacts.values()))
    loaded = load_data_of(first, config.dataset, config.data_dir)
    model, _ = sized_model(network, loaded, "artefacts")
    transform, k = first.artefact.transform, loaded.num_classes
    smallest = int(np.bincount(loaded.train.labels).min())
    each = min(max(2, config.real_images // k), smallest)
    real = data.on_device(loaded.train, transform, k)
    chosen = data.on_device(data.subset(loaded.train, each, 0), transform, k)
    rows = make_rows(
        artefacts,
        loaded,
        "study",
        config.seeds,
        own=False,
        labels=config.labels,
        seed=config.seed,
    )
    protocol = EvaluationProtocol(steps=config.steps, batch=config.batch)
    how = [
        [row.identity for row in rows],
        [network.described(), protocol.to_dict(), loaded.fingerprint],
        [each, config.seed],
    ]
    looks = [
        _Look(stage, number, digest([how, stage, number]))
        for number in range(config.seeds)
        for stage in STAGES
    ]
    found = _look(config, looks, model, protocol, real, chosen, rows, workdir)
    about: dict[str, RowRecord] = {
        row.label: {**row.about, "network": network.described()} for row in rows
    }
    return _summarise(config, workdir, loaded, about, looks, found, each * k)


def _look(
    config: Config,
    looks: Sequence[_Look],
    model: Model,
    protocol: EvaluationProtocol,
    real: RealSet,
    chosen: RealSet,
    rows: Sequence[Row],
    workdir: pathlib.Path,
) -> dict[_Look, _Energies]:
    """Returns the energies that each network sees; computes those that are missing."""
    pieces = Arrays(workdir / "energies")
    found = {}
    for look in looks:
        held = pieces.read(look.file, look.identity, _Energies._fields)
        if held is not None:
            found[look] = _Energies(*(held[name] for name in _Energies._fields))
    if found:
        print(f"{len(found)} of {len(looks)} networks looked before, in {workdir}")
    missing = [look for look in looks if look not in found]
    progress = CellProgress(missing, "network", 1, noun="network")
    roots = jax.random.split(keys.fresh_key(config.seed), config.seeds)
    train = jax.jit(lambda key, real: evaluation.train(key, model, real, protocol))
    energies = _energies(model)
    for look in missing:
        began, key = time.perf_counter(), roots[look.number]
        params = initial(model, key) if look.stage == INITIAL else train(key, real)
        sets = [_set_of(row, look.number) for row in rows]
        values, of_sets, of_real = jax.device_get(energies(params, sets, chosen))
        took = time.perf_counter() - began
        found[look] = _Energies(values, np.stack(of_sets), of_real, np.array(took))
        pieces.write(look.file, look.identity, **found[look]._asdict())
        progress.trained(look, 1, took)
        progress.finished(look, "")
    return found


def _set_of(row: Row, number: int) -> Batch:
    """Returns the set of a row that stands beside a network."""
    return jax.tree.map(lambda x: x[number], row.sets)


def initial(model: Model, key: Key) -> Params:
    """Returns the weights at which `evaluation.train` begins with this key."""
    return model.init(jax.random.split(key, 3)[0])


def _energies(model: Model) -> Callable[..., tuple[Array, list[Array], Array]]:
    """Compiles (params, sets, real) -> eigenvalues, energies of the sets, of the real."""

    @jax.jit
    def compute(
        params: Params, sets: Sequence[Batch], real: RealSet
    ) -> tuple[Array, list[Array], Array]:
        features = evaluation.predict(model.features, params, real)
        along = spectrum.basis(features)
        labels = jax.nn.one_hot(real.labels, real.class_sizes.shape[0])
        of_sets = [
            spectrum.energy(model.features(params, one.images), one.labels, along)
            for one in sets
        ]
        return along.eigenvalues, of_sets, spectrum.energy(features, labels, along)

    return compute


def bands_of(dimensions: int) -> list[int]:
    """Returns the first direction of each octave, from 0, then the number of them."""
    ends = [0, 1]
    while ends[-1] < dimensions:
        ends.append(min(2 * ends[-1], dimensions))
    return ends


def _in_bands(values: np.ndarray, bands: Sequence[int]) -> np.ndarray:
    """Returns sums over bands, f[..., b] of f[..., d]."""
    return np.add.reduceat(values, bands[:-1], axis=-1)


def _stage(
    config: Config, labels: Sequence[str], found: Sequence[_Energies], bands: Sequence[int]
) -> Stage:
    strong = [
        spectrum.num_strong(jnp.asarray(one.eigenvalues), config.share) for one in found
    ]

    def weak(place: int | None) -> tuple[list[float], list[float]]:
        """Returns shares, and energies over those of all real images."""
        shares, ratios = [], []
        for one, num in zip(found, strong, strict=True):
            own = one.real if place is None else one.energies[place]
            shares.append(float(spectrum.weak_share(jnp.asarray(own), num)))
            ratios.append(float(own[num:].sum() / one.real[num:].sum()))
        return shares, ratios

    variance = [one.eigenvalues / one.eigenvalues.sum() for one in found]
    values = {label: weak(place) for place, label in enumerate(labels)}
    values[REAL] = weak(None)
    return {
        "strong": strong,
        "dimensions": len(found[0].eigenvalues),
        "variance": _in_bands(np.mean(variance, axis=0), bands).tolist(),
        "weak": {label: spread_interval(of) for label, (of, _) in values.items()},
        "weak_energy": {label: spread_interval(of) for label, (_, of) in values.items()},
        "response": {
            label: [
                (
                    _in_bands(one.energies[place], bands) / _in_bands(one.real, bands)
                ).tolist()
                for one in found
            ]
            for place, label in enumerate(labels)
        },
    }


def _summarise(
    config: Config,
    workdir: pathlib.Path,
    loaded: data.Dataset,
    about: dict[str, RowRecord],
    looks: Sequence[_Look],
    found: Mapping[_Look, _Energies],
    num_real: int,
) -> Summary:
    bands = bands_of(len(found[looks[0]].eigenvalues))
    summary: Summary = {
        "stages": {
            stage: _stage(
                config,
                [*about],
                [found[look] for look in looks if look.stage == stage],
                bands,
            )
            for stage in STAGES
        },
        "bands": bands,
        "share": config.share,
        "rows": about,
        "real_images": num_real,
        "steps": config.steps,
        "dataset": describe_dataset(loaded),
        "seconds": sum(float(one.seconds) for one in found.values()),
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    soft = [label for label, row in about.items() if row["path"] is None]
    responses(workdir / "spectrum.png", summary["stages"], bands, soft=soft)
    return write_summary(workdir, Summary, summary)


def _show(summary: Summary, workdir: pathlib.Path) -> None:
    seeds = len(summary["stages"][INITIAL]["strong"])
    table = new_table(
        f"Share of the energy in weak directions, {summary['dataset']['name']}",
        ("images", *(f"{stage} networks" for stage in STAGES)),
        caption=f"Percent: mean ± standard deviation of {seeds} networks.",
    )
    for label in summary["stages"][INITIAL]["weak"]:
        weak = [summary["stages"][stage]["weak"][label] for stage in STAGES]
        cells = (spelt_accuracy(one) for one in weak)
        table.add_row(label, *cells)
    show_table(table, 80)
    for stage, of in summary["stages"].items():
        print(f"{stage}: {of['strong']} of {of['dimensions']} directions are strong")
    print(f"{duration(summary['seconds'])}. summary.json and spectrum.png lie in {workdir}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
