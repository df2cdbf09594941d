r"""Find the real-data networks that those trained on distilled sets predict like.

    python -m experiments.agreement --artefacts=a/distilled.npz,b/distilled.npz
    python -m experiments.agreement --artefacts=set.npz --model=convnet --width_scale=0.25 \
        --subset_networks=100 --early_runs=10 --early_every=4 --test_images=1000

Yang et al. 2024, sec. 4.1: does a distilled set compress the whole training, or its
beginning? Two pools of networks are trained on real images (SGD, learning rate 0.01,
momentum 0.9, batch 256, no augmentation): 520 on random subsets with 0.5 % to 5 % of each
class, 100 epochs each; and 30 on the whole training set, stopped after each of the first
196 iterations. A network trained on the distilled set (`--protocol`, `study`) is compared
with members of either pool that have its accuracy: the agreement is the share of test
images for which both predict the same class. The paper's values are modes (CIFAR-10, ten
images a class, one network a set, the iteration chosen by hand):

    |      | subset-trained | early-stopped | at iteration |
    |------|----------------|---------------|--------------|
    | bptt |           .622 |          .660 |          130 |
    | dm   |           .47  |          .575 |           40 |
    | gm   |           .51  |          .58  |           35 |
    | tm   |           .57  |          .63  |           90 |

What differs here:
- Accuracies are matched to the members nearest to that of each network
  (`analysis.agreement.matched`), by a straight line read off at equal accuracy; no
  iteration is chosen. `iteration` is the median of the members found. A window holds predictions of at
  least two thirds of the early-stopped runs, however near those of a few come.
- Several networks for each set, and beside the sets as many random real images. The value
  is the mean over these networks. Its variance is the sum of two: the pool's, which the
  networks share, by the jackknife of that mean over pool networks (early-stopped: over
  whole runs), windows kept; and that between networks over their number, which holds some
  of the pool's again, so the sum errs on the large side. Of the difference, early-stopped
  less subset-trained, it is the variance between the networks' own differences: what makes
  one network agree more with both pools cancels. Intervals are 95 %, Student's t with
  Welch and Satterthwaite's degrees of freedom. They do not hold the choice of test images
  or that of the distilled set.
- Cohen's kappa and error consistency (Geirhos et al. 2020), at equal accuracy too.
- Cohen's d is the difference over the standard deviation of single agreements, networks and
  windows together.
- A set with a network whose accuracy no member of a pool has, within `--tolerance`, is
  marked unmatched, with the reason; the others go on.

The pools depend on data, preprocessing and network, not on the sets: the same command with
other artefacts, protocol, seeds or rules of matching, in the same working directory, trains
none of them again. Predictions are kept in `networks/`, those of subset-trained networks
after each `--piece`, of others after each `--together`; a run that was cut goes on there.
All sets of one command have the same preprocessing and, with `--model=own`, network.

Time: a ConvNet of width 32, grey 28x28 images, one CPU core: 0.8 ms an image trained on,
0.24 ms one predicted, measured apart. So a network on a subset of the embedded 8,000 takes
18 s on average, a run of 196 iterations with 2,000 test images predicted after each two and
a half minutes, a network on 100 images half a minute: four hours for four sets and the
defaults. `--early_every=4` and fewer of each are for a CPU. On a GPU `--together=8
--chunk=256` is a first guess: not yet run on a GPU. Embedded subsets hold 40 to 400 images,
not the paper's 250 to 2,500; for networks on them to be as good as those on good sets,
raise `--subset_high`.
"""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit

from distilljax import data
from distilljax.analysis import pools
from distilljax.analysis.statistics import Combined, spread_interval
from distilljax.config import FieldError
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.io.files import write_json
from experiments.agreement.compare import Look, difference, early_pool, subset_pool
from experiments.agreement.figures import matched_agreements
from experiments.agreement.options import (
    ANEW,
    EARLY,
    MODULE,
    NAMES,
    SUBSET,
    Choice,
    Config,
    choose,
    transform_of,
)
from experiments.agreement.train import (
    Problem,
    early_group,
    pool_name,
    row_groups,
    row_name,
    subset_group,
    train,
)
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.kept import digest
from experiments.lab.keys import fresh_key
from experiments.lab.networks import OWN, sized_model
from experiments.lab.progress import duration
from experiments.lab.sets import transform_digest
from experiments.lab.table import make_rows
from experiments.lab.workdir import command_of, open_workdir, workdir_path


def run(config: Config) -> dict[str, Any]:
    """Trains what is not trained, compares; returns what `summary.json` holds.

    Raises:
      InputError: options, an artefact, data or a working directory that cannot be used;
        artefacts of different data; training that diverges.
    """
    choice = choose(config)
    first = next(iter(choice.artefacts.values())).artefact
    name = config.dataset or first.dataset["name"]
    # Other artefacts of the same data belong in the same place, beside the same pools.
    neutral = {option: getattr(Config(), option) for option in ANEW}
    place = config.replace({**neutral, "dataset": name})
    label = f"{pathlib.Path(name).stem}-{config.model}"
    workdir = workdir_path(MODULE, place, label)
    with open_workdir(workdir, MODULE, place):
        summary = _run(config, choice, workdir)
    _show(summary, workdir)
    return summary


def _prepare(config: Config, choice: Choice, loaded: data.Dataset) -> Problem:
    own, transform = config.model == OWN, transform_of(choice)
    rows = make_rows(choice.artefacts, loaded, config.protocol, config.seeds, own=own)
    model, num_parameters = sized_model(choice.network, loaded, "model")
    test = rows[0].test
    trained_on = [loaded.fingerprint, transform_digest(transform)]
    # Networks on sets and those of the pools share no random number.
    keys = jax.random.split(fresh_key(config.seed), 3)
    settled = [test.images, jax.random.key_data(keys)]
    return Problem(
        model,
        num_parameters,
        data.on_device(loaded.train, transform, loaded.num_classes),
        test,
        rows,
        pools.subsets(
            loaded.train.labels,
            config.subset_networks,
            config.subset_low,
            config.subset_high,
            config.seed,
        ),
        [choice.network.described(), digest(trained_on, settled), config.seed],
        keys,
    )


def _run(config: Config, choice: Choice, workdir: pathlib.Path) -> dict[str, Any]:
    first = next(iter(choice.artefacts.values()))
    loaded = load_data_of(first, config.dataset, config.data_dir)
    loaded = loaded._replace(test=_capped(loaded.test, config.test_images))
    problem = _prepare(config, choice, loaded)
    groups = {
        pool_name(SUBSET): subset_group(config, problem),
        pool_name(EARLY): early_group(config, problem),
        **row_groups(config, problem),
    }
    (workdir / "networks").mkdir(exist_ok=True)
    kept = train(groups, problem.num_parameters, workdir)

    labels = loaded.test.labels
    subset, early = (
        (groups[name], *kept[name]) for name in (pool_name(SUBSET), pool_name(EARLY))
    )
    found = {
        SUBSET: subset_pool(config, *subset, problem.subsets, labels),
        EARLY: early_pool(config, *early, labels),
    }
    looks = {name: Look(pool, labels, loaded.num_classes) for name, pool in found.items()}
    targets = {row.label: kept[row_name(row.label)][0] for row in problem.rows}
    compared = {
        label: {name: look.compare(own, config.tolerance) for name, look in looks.items()}
        for label, own in targets.items()
    }
    accuracy = {label: (own == labels).mean(axis=1) for label, own in targets.items()}
    about_network = {**choice.network.described(), "parameters": problem.num_parameters}
    summary: dict[str, Any] = {
        "agreement": {
            label: {
                "accuracy": spread_interval(accuracy[label]),
                **{name: one.summary for name, one in of_row.items()},
                "difference": difference(of_row),
            }
            for label, of_row in compared.items()
        },
        "rows": {
            row.label: {**row.about, "network": about_network} for row in problem.rows
        },
        "pools": {name: pool.about for name, pool in found.items()},
        "model": about_network,
        "protocol": config.protocol,
        "matching": {
            "least": {name: pool.least for name, pool in found.items()},
            "least_runs": {name: pool.least_runs for name, pool in found.items()},
            "tolerance": config.tolerance,
        },
        "test_images": len(labels),
        "dataset": describe_dataset(loaded),
        "command": command_of(MODULE, config),
        "seconds": sum(seconds for _, seconds in kept.values()),
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    write_json(workdir / "summary.json", summary)
    matched_agreements(
        workdir / "agreement.png",
        {
            label: {
                name: (
                    one.summary,
                    np.concatenate([match.agreements for match in one.matches]),
                )
                for name, one in of_row.items()
                if one.matches
            }
            for label, of_row in compared.items()
        },
        {
            label: {name: (found[name].accuracy, one.cloud) for name, one in of_row.items()}
            for label, of_row in compared.items()
        },
        accuracy,
        NAMES,
        _title(summary),
    )
    return json.loads(json.dumps(summary))


def _capped(test: data.Split, most: int | None) -> data.Split:
    """The first images of each class, in order; all of them if there is no limit."""
    if most is None or most >= len(test.labels):
        return test
    num_classes = int(test.labels.max()) + 1
    if most < num_classes:
        reason = f"there are {num_classes} classes; give at least one image of each"
        raise FieldError("test_images", most, reason)
    each = most // num_classes
    chosen = np.sort(
        np.concatenate(
            [np.flatnonzero(test.labels == j)[:each] for j in range(num_classes)]
        )
    )
    return data.Split(test.images[chosen], test.labels[chosen])


class Interval(NamedTuple):
    """How well a value is known; None where one of its errors is not known."""

    standard_error: float | None
    low: float | None  # of the 95 % interval
    high: float | None
    freedom: float | None  # degrees of freedom; None too where there is no error


def interval(value: float, parts: Sequence[tuple[float, int]]) -> Combined:
    """The 95 % interval of a value with several independent errors.

    Student's t with (sum v)^2 / sum v^2 / f degrees of freedom (Satterthwaite 1946).

    Args:
      value: what is estimated.
      parts: (variance v, degrees of freedom f) of each error.
    """
    total = sum(variance for variance, _ in parts)
    if not math.isfinite(total):
        return Combined(None, None, None, None)
    if total == 0:
        return Combined(0.0, float(value), float(value), None)
    freedom = total**2 / sum(variance**2 / f for variance, f in parts if variance)
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(total)
    return Combined(
        math.sqrt(total), float(value - half), float(value + half), float(freedom)
    )


def _title(summary: Mapping[str, Any]) -> str:
    name, protocol = summary["dataset"]["name"], summary["protocol"]
    return f"Agreement at equal accuracy on {name}, protocol {protocol}"


def _percent(estimate: Mapping[str, Any]) -> str:
    """A value with half its interval, such as 71.2 ±0.8."""
    low, high = estimate["interval"]
    half = "?" if low is None else f"{50 * (high - low):.1f}"
    return f"{100 * estimate['value']:.1f} ±{half}"


def _show(summary: Mapping[str, Any], workdir: pathlib.Path) -> None:
    found = summary["agreement"]
    seeds = next(iter(found.values()))["accuracy"]["seeds"]
    table = Table(
        title=_title(summary),
        title_justify="left",
        caption=f"Percent. Accuracy: mean ± standard deviation of {seeds} networks; "
        "the rest: ± half the 95 % interval.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    columns = ("accuracy", *NAMES.values(), "at iteration", "difference", "Cohen's d")
    table.add_column("trained on")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    reasons = {}
    for label, row in found.items():
        shown = []
        for name in (SUBSET, EARLY, "difference"):
            if why := row[name].get("unmatched"):
                reasons[label, name] = why
                shown.append("unmatched")
            else:
                shown.append(_percent(row[name]))
        iteration, d = row[EARLY].get("iteration"), row["difference"].get("cohen_d")
        table.add_row(
            label,
            spelt_accuracy(row["accuracy"]),
            *shown[:2],
            "-" if iteration is None else f"{iteration:g}",
            shown[2],
            "-" if d is None else f"{d:.1f}",
        )
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 140)
    console.print(table)
    for (label, name), why in reasons.items():
        if name in NAMES:
            print(f"{label} is unmatched, {NAMES[name]}: {why}")
    seconds = duration(summary["seconds"])
    print(f"{seconds}. summary.json, agreement.png and networks/ lie in {workdir}")


def main(config: Config) -> None:
    """Entry of the command line."""
    run(config)
