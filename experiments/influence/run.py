"""Leave each distilled image out, and see on which real test images the loss rises.

    python -m experiments.influence --artefact=runs/a/distilled.npz
    python -m experiments.influence --artefact=set.npz --seeds=5 --test_images=10000

Yang et al. 2024, sec. 5.2: from one initialisation a network is trained on the set without
each image in turn, and one on all of it (protocol `study`, 101 networks at ten images a
class); the influence of an image on a test image is the loss without it less that with
it. The paper shows the nine test images that each distilled image influences most, and
states 2 min 44 s for the 101 networks on an RTX 3090.

Here there are several initialisations, so that influence has a standard error, a noise
floor (how much another initialisation alone moves the loss) and a reliability (rank
correlation between initialisations). Beside it are three approximations without
retraining, each compared with leave-one-out by rank correlation over test images:
- `gauss_newton`: influence functions with the damped Gauss-Newton matrix at the trained
  weights (Koh & Liang 2017), damping 1 / (lr * steps / (1 - momentum)) by default;
- `ntk`: kernel ridge regression on the set with the kernel of the trained network,
  without each image, in closed form;
- `trak`: Park et al. 2023 (arXiv 2303.14186), by random projections of the gradients.

With `--subsets=N` networks are trained on N random halves of the set, too, from each
initialisation. The linear datamodelling score (Park et al. 2023) is the rank correlation
over these halves of a test image's loss with the sum of the influences of the images that
a half has, for each approximation and for leave-one-out.

Networks are trained a few at a time, and each piece is kept in `pieces/`; the same
command again trains only those that are missing or damaged. `influence.npz` holds all
influences, `influence.png` the pictures, `summary.json` the rest.
"""

import dataclasses
import math
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import data, devices, launch
from distilljax.analysis import datamodels, leave_one_out
from distilljax.analysis.leave_one_out import LeaveOneOut
from distilljax.analysis.statistics import spread
from distilljax.config import FieldError, option
from distilljax.core import parameters
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.training.evaluation import PROTOCOLS
from distilljax.types import Array, Estimate
from experiments.influence.estimates import (
    ESTIMATES,
    Approximation,
    compare,
    datamodelling,
    estimate,
)
from experiments.influence.figures import influenced
from experiments.influence.record import (
    Correlations,
    Estimated,
    Reliability,
    Score,
    Subsets,
    Summary,
)
from experiments.influence.train import PROTOCOL, Problem, retrained, trained_on
from experiments.lab import options
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.kept import digest, write_arrays
from experiments.lab.keys import fresh_key, parts_key
from experiments.lab.networks import own_network, sized_model
from experiments.lab.progress import duration
from experiments.lab.protocols import batch_of
from experiments.lab.records import write_summary
from experiments.lab.sets import Named, displayable, load_artefacts, transform_digest
from experiments.lab.terminal import new_table, show_table
from experiments.lab.workdir import open_workdir, workdir_path

NAME = "experiments.influence"
LEAST_SUBSETS = 3
MOST = 9  # test images shown beside a distilled one


@dataclasses.dataclass(frozen=True)
class Config(
    options.WorkdirOption,
    options.ProcessesOption,
    options.SeedOption,
    options.TogetherOption,
    options.RealDataOptions,
    options.LabelsOption,
):
    """Options of the experiment."""

    artefact: str = option("", "The distilled set (.npz).")
    seeds: int = option(3, "Initialisations, each with n + 1 networks.", low=2)
    test_images: int = option(
        1000, "Test images whose losses are compared, as many of each class.", low=10
    )
    estimates: str = option(
        ",".join(ESTIMATES),
        f"Approximations, with commas: {', '.join(ESTIMATES)}; or none.",
    )
    damping: float | None = option(
        None, "Gauss-Newton damping; none: derived from the number of steps.", above=0
    )
    ridge: float = option(
        1e-2, "Ridge of ntk and trak, as a share of the kernel's mean diagonal.", above=0
    )
    projections: int = option(100, "Random directions of trak.", low=1)
    subsets: int = option(
        0,
        "Random halves of the set that networks are trained on besides, from each "
        "initialisation, for the linear datamodelling score; 0: none.",
        low=0,
    )
    chunk: int | None = option(
        None,
        "Test images that a network predicts at a time; none: 32 on a CPU, 500 elsewhere.",
        low=1,
    )
    piece: int = option(11, "Networks in a piece that is kept.", low=1)
    shown: int = option(10, "Distilled images in the picture.", low=1)


# Options and the approximations that read them.
_READERS = {
    "damping": {"gauss_newton"},
    "ridge": {"ntk", "trak"},
    "projections": {"trak"},
}


def _chosen_estimates(config: Config) -> list[str]:
    if config.estimates == "none":
        names = list[str]()
    else:
        names = options.parse_choices(config.estimates, "estimates", ESTIMATES, "estimate")
    for name, readers in _READERS.items():
        if not readers & {*names}:
            why = f"--estimates={config.estimates} names none that reads it"
            options.refuse_unread(config, name, why)
    return names


def run(config: Config) -> Summary:
    """Trains the networks that are missing, compares all; returns the summary.

    Raises:
      InputError: options, an artefact, data or a working directory that cannot be used;
        training that diverges.
    """
    names = _chosen_estimates(config)
    if 0 < config.subsets < LEAST_SUBSETS:
        reason = f"a rank correlation needs at least {LEAST_SUBSETS}, or give 0"
        raise FieldError("subsets", config.subsets, reason)
    if not config.artefact:
        raise FieldError("artefact", "", "name a distilled set, such as distilled.npz")
    ((label, named),) = load_artefacts(config.artefact, "artefact", config.data_dir).items()
    workdir = workdir_path(NAME, config, label)
    with open_workdir(workdir, NAME, config):
        summary = _run(config, names, named, workdir)
    _show(summary, workdir)
    return summary


def _prepare(config: Config, named: Named) -> Problem:
    artefact = named.artefact
    loaded = load_data_of(named, config.dataset, config.data_dir)
    batch = batch_of("the set", artefact, PROTOCOLS[PROTOCOL], config.labels, selects=None)
    network = own_network("the set", artefact)
    model, _ = sized_model(network, loaded)
    labels = loaded.test.labels
    each = max(1, config.test_images // loaded.num_classes)
    positions = np.concatenate(
        [np.flatnonzero(labels == j)[:each] for j in range(loaded.num_classes)]
    )
    split = data.Split(loaded.test.images[positions], labels[positions])
    return Problem(
        named,
        loaded,
        model,
        network.described(),
        batch,
        data.on_device(split, artefact.transform, loaded.num_classes),
        positions,
        jax.random.split(fresh_key(config.seed), config.seeds),
        digest(
            [loaded.fingerprint, transform_digest(artefact.transform)],
            (batch.images, batch.labels) if config.labels == "hard" else artefact.distilled,
        ),
    )


class Influences(NamedTuple):
    """Influences of n distilled images on t test images, from s initialisations."""

    networks: LeaveOneOut
    each: np.ndarray  # f32[s, n, t]
    mean: np.ndarray  # f32[n, t]
    standard_error: np.ndarray  # f32[n, t]
    noise_floor: Array  # f32[t]
    most: np.ndarray  # i[n, 9], test images of most influence

    @classmethod
    def of(cls, networks: LeaveOneOut) -> "Influences":
        """Returns the influences that the losses of networks come to."""
        each = leave_one_out.influence(networks.without.losses, networks.whole.losses)
        mean = leave_one_out.mean_influence(each)
        values = np.asarray(mean.value)
        return cls(
            networks,
            np.asarray(each),
            values,
            np.asarray(mean.standard_error),
            leave_one_out.noise_floor(networks.whole.losses),
            np.argsort(-values, axis=1)[:, :MOST],
        )


def _estimated(
    config: Config, names: Sequence[str], problem: Problem, found: Influences
) -> tuple[dict[str, np.ndarray], dict[str, Estimated]]:
    """Returns each approximation, f[s, n, t], and how it compares."""
    settings = Approximation(config.damping, config.ridge, config.projections)
    test, protocol = problem.test_batch(), PROTOCOLS[PROTOCOL]
    values, compared = dict[str, np.ndarray](), dict[str, Estimated]()
    for name in names:
        each = []
        for number, key in enumerate(problem.keys, 1):
            text = f"estimating by {name}  network {number}/{len(problem.keys)}"
            print(text, file=sys.stderr, flush=True)
            each.append(
                estimate(name, settings, key, problem.model, protocol, problem.batch, test)
            )
        values[name] = np.stack([changes for changes, _ in each])
        compared[name] = {
            **compare(values[name], found.each, found.mean),
            "solved": [solved for _, solved in each],
        }
    return values, compared


def _on_subsets(
    config: Config,
    problem: Problem,
    workdir: pathlib.Path,
    found: Influences,
    estimates: Mapping[str, np.ndarray],
) -> Subsets | None:
    """Trains on random halves of the set, and scores all influences by them."""
    if not config.subsets:
        return None
    images = problem.batch.labels.shape[0]
    half = images // 2
    drawn = datamodels.random_members(parts_key(config.seed), config.subsets, images, half)
    members = np.asarray(drawn)
    trained = trained_on(
        problem,
        workdir,
        jnp.repeat(problem.keys, config.subsets),
        np.tile(members, (config.seeds, 1)),
        "subsets",
        piece=config.piece,
        together=config.together,
        chunk=config.chunk,
        mesh=devices.mesh(config.devices),
    )
    losses = np.asarray(trained.losses).reshape(config.seeds, config.subsets, -1)

    def score(values: np.ndarray) -> Score:
        return datamodelling(values, members, losses)

    return {
        "number": config.subsets,
        "size": half,
        "networks": config.seeds * config.subsets,
        "leave_one_out": score(found.each),
        "estimates": {name: score(values) for name, values in estimates.items()},
    }


def _run(
    config: Config, names: Sequence[str], named: Named, workdir: pathlib.Path
) -> Summary:
    began = time.perf_counter()
    problem = _prepare(config, named)
    trained = retrained(
        problem,
        workdir,
        piece=config.piece,
        together=config.together,
        chunk=config.chunk,
        mesh=devices.mesh(config.devices),
    )
    networks = leave_one_out.arrange(trained, config.seeds)
    found = Influences.of(networks)
    estimates, compared = _estimated(config, names, problem, found)
    write_arrays(
        workdir / "influence.npz",
        problem.digest,
        influences=found.each,
        noise_floor=found.noise_floor,
        test_positions=problem.test_positions,
        **{f"estimated_{name}": values for name, values in estimates.items()},
    )
    _draw(config, problem, found.most, workdir / "influence.png")
    subsets = _on_subsets(config, problem, workdir, found, estimates)
    summary = _summarise(config, problem, found, compared, subsets, began)
    return write_summary(workdir, Summary, summary)


def _draw(config: Config, problem: Problem, most: np.ndarray, path: pathlib.Path) -> None:
    artefact, loaded = problem.named.artefact, problem.loaded
    labels = np.asarray(problem.batch.labels.argmax(-1))
    test_labels = np.asarray(problem.test.labels)
    num = len(labels)
    shown = np.unique(np.linspace(0, num - 1, min(config.shown, num)).round().astype(int))
    influenced(
        path,
        displayable(artefact.transform, artefact.distilled.images)[shown],
        np.asarray(problem.test.images)[most[shown]] / 255.0,
        [loaded.class_names[j] for j in labels[shown]],
        [[loaded.class_names[j] for j in test_labels[row]] for row in most[shown]],
        "Test images whose loss rises most without each image "
        f"({artefact.method}, {loaded.name})",
    )


def _estimate(found: Estimate) -> Reliability:
    """Returns a number over seeds as it is recorded."""
    error = float(found.standard_error)
    return {
        "value": float(found.value),
        "standard_error": error if math.isfinite(error) else None,
        "of": found.of,
        "seeds": int(found.num_probes),
    }


def _summarise(
    config: Config,
    problem: Problem,
    found: Influences,
    compared: dict[str, Estimated],
    subsets: Subsets | None,
    began: float,
) -> Summary:
    artefact = problem.named.artefact
    labels = np.asarray(problem.batch.labels.argmax(-1))
    test_labels = np.asarray(problem.test.labels)
    num, floor = len(labels), float(found.noise_floor.mean())
    sizes = np.abs(found.mean)
    same_class = test_labels[found.most] == labels[:, None]
    return {
        "images": num,
        "test_images": len(test_labels),
        "networks": config.seeds * (num + 1),
        "accuracy_on_all": spread(found.networks.whole.accuracy),
        "accuracy_without_one": float(found.networks.without.accuracy.mean()),
        "mean_absolute_influence": float(sizes.mean()),
        "mean_noise_floor": floor,
        "over_noise": _estimate(
            leave_one_out.over_noise(jnp.asarray(found.each), found.networks.whole.losses)
        ),
        "share_above_two_standard_errors": float((sizes > 2 * found.standard_error).mean()),
        "reliability": _estimate(
            leave_one_out.reliability(jnp.asarray(found.each)).overall
        ),
        "same_class_among_top_nine": float(same_class.mean()),
        "estimates": compared,
        "subsets": subsets,
        "most_influenced": problem.test_positions[found.most].tolist(),
        "artefact": {"path": problem.named.path, "method": artefact.method},
        "parameters": parameters.num_params(problem.model),
        "protocol": PROTOCOL,
        "dataset": describe_dataset(problem.loaded),
        "seconds": time.perf_counter() - began,
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }


def _cells(row: Correlations) -> list[str]:
    """Returns the correlations of an approximation, mean and standard deviation."""
    both = (
        row["with_the_same_initialisation"],
        row["with_the_mean_over_initialisations"],
    )
    return [f"{one['mean']:.2f} ±{one['std']:.2f}" for one in both]


def _show(summary: Summary, workdir: pathlib.Path) -> None:
    print(
        f"{summary['networks']} networks; mean absolute influence "
        f"{summary['mean_absolute_influence']:.3g}, noise floor "
        f"{summary['mean_noise_floor']:.3g}; "
        f"{summary['share_above_two_standard_errors']:.0%} beyond two standard errors"
    )
    reliability = summary["reliability"]
    table = new_table(
        f"Rank correlation with leave-one-out, {reliability['seeds']} seeds",
        ("", "same weights at the start", "mean over them"),
    )
    error = reliability["standard_error"]
    beside = "" if error is None else f" ±{error:.2f}"
    table.add_row("leave-one-out from others", f"{reliability['value']:.2f}{beside}", "")
    for name, row in summary["estimates"].items():
        table.add_row(name, *_cells(row))
    show_table(table)
    _show_subsets(summary.get("subsets"))
    print(
        f"{summary['same_class_among_top_nine']:.0%} of the nine most influenced test "
        "images are of the class of the distilled image"
    )
    print(
        f"{duration(summary['seconds'])}. summary.json, influence.npz and influence.png "
        f"lie in {workdir}"
    )


def _show_subsets(subsets: Subsets | None) -> None:
    if subsets is None:
        return
    table = new_table(
        f"Linear datamodelling score, {subsets['number']} halves",
        ("", "a seed", "means over seeds"),
    )
    scores = {"leave-one-out": subsets["leave_one_out"], **subsets["estimates"]}
    for name, score in scores.items():
        table.add_row(
            name, f"{score['mean']:.2f} ±{score['std']:.2f}", f"{score['of_means']:.2f}"
        )
    show_table(table)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
