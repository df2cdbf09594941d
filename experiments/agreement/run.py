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

Differences from the paper:
- Accuracies are matched to the members nearest to that of each network
  (`analysis.agreement.matched`), by a straight line read off at equal accuracy; no
  iteration is chosen. `iteration` is the median of the members found. A window holds
  predictions of at least two thirds of the early-stopped runs, however near those of a
  few come.
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
after each `--piece`, of others after each `--together`, where a resumed run continues.
A file that is damaged is named on stderr, and its networks are trained again.
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

import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from distilljax import data, devices, launch
from distilljax.analysis import pools
from distilljax.analysis.statistics import spread, spread_interval
from distilljax.config import FieldError
from distilljax.io.environment import environment, peak_memory_bytes
from experiments.agreement.compare import (
    Compared,
    Comparison,
    Pool,
    difference,
    early_pool,
    subset_pool,
)
from experiments.agreement.figures import matched_agreements
from experiments.agreement.options import (
    ANEW,
    EARLY,
    NAME,
    NAMES,
    SUBSET,
    Choice,
    Config,
    choose,
)
from experiments.agreement.record import (
    AccuracyRange,
    Agreed,
    Difference,
    EarlyPool,
    Matched,
    PoolRecord,
    SubsetPool,
    Summary,
    Unmatched,
)
from experiments.agreement.train import (
    Group,
    Problem,
    early_group,
    pool_name,
    row_groups,
    row_name,
    subset_group,
    train,
)
from experiments.lab.accuracy import spelt_accuracy
from experiments.lab.data import describe_dataset, load_data_of, named_data, short_name
from experiments.lab.kept import digest
from experiments.lab.keys import fresh_key
from experiments.lab.networks import sized_model
from experiments.lab.options import OWN
from experiments.lab.progress import duration
from experiments.lab.records import write_summary
from experiments.lab.sets import transform_digest
from experiments.lab.table import make_rows
from experiments.lab.terminal import new_table, show_table
from experiments.lab.workdir import command_of, open_workdir, workdir_path


def run(config: Config) -> Summary:
    """Trains the networks that are missing and compares all; returns the summary.

    Raises:
      InputError: options, an artefact, data or a working directory that cannot be used;
        artefacts of different data; training that diverges.
    """
    choice = choose(config)
    name = config.dataset or named_data(next(iter(choice.artefacts.values())))
    # Other artefacts of the same data belong in the same place, beside the same pools.
    neutral = {option: getattr(Config(), option) for option in ANEW}
    place = config.replace({**neutral, "dataset": name})
    workdir = workdir_path(NAME, place, f"{short_name(name)}-{config.model}")
    with open_workdir(workdir, NAME, place):
        summary = _run(config, choice, workdir)
    _show(summary, workdir)
    return summary


def _prepare(config: Config, choice: Choice, loaded: data.Dataset) -> Problem:
    own, transform = config.model == OWN, choice.transform
    rows = make_rows(
        choice.artefacts,
        loaded,
        config.protocol,
        config.seeds,
        own=own,
        labels=config.labels,
        seed=config.seed,
    )
    model, num_parameters = sized_model(choice.network, loaded, "model")
    test = rows[0].test
    trained_on = [loaded.fingerprint, transform_digest(transform)]
    # Networks on sets and those of the pools share no random number.
    keys = jax.random.split(fresh_key(config.seed), 3)
    arrays = [test.images, jax.random.key_data(keys)]
    real = data.on_device(loaded.train, transform, loaded.num_classes)
    mesh = devices.mesh(config.devices)
    return Problem(
        model,
        num_parameters,
        devices.everywhere(real, mesh),
        devices.everywhere(test, mesh),
        rows,
        pools.subsets(
            loaded.train.labels,
            config.subset_networks,
            config.subset_low,
            config.subset_high,
            config.seed,
        ),
        [choice.network.described(), digest(trained_on, arrays), config.seed],
        keys,
    )


def _capped(test: data.Split, most: int | None) -> data.Split:
    """Returns the first images of each class, in order; all of them without a limit."""
    if most is None or most >= len(test.labels):
        return test
    num_classes = int(test.labels.max()) + 1
    if most < num_classes:
        reason = f"there are {num_classes} classes; give at least one image of each"
        raise FieldError("test_images", most, reason)
    each = most // num_classes
    of_class = [np.flatnonzero(test.labels == j)[:each] for j in range(num_classes)]
    chosen = np.sort(np.concatenate(of_class))
    return data.Split(test.images[chosen], test.labels[chosen])


def _run(config: Config, choice: Choice, workdir: pathlib.Path) -> Summary:
    first = next(iter(choice.artefacts.values()))
    loaded = load_data_of(first, config.dataset, config.data_dir)
    loaded = loaded._replace(test=_capped(loaded.test, config.test_images))
    problem = _prepare(config, choice, loaded)
    subset, early = pool_name(SUBSET), pool_name(EARLY)
    groups = {
        subset: subset_group(config, problem),
        early: early_group(config, problem),
        **row_groups(config, problem),
    }
    trained = train(groups, problem.num_parameters, workdir)

    labels = loaded.test.labels
    found = {
        SUBSET: subset_pool(config, trained[subset][0], labels),
        EARLY: early_pool(config, trained[early][0], labels),
    }
    targets = {row.label: trained[row_name(row.label)][0] for row in problem.rows}
    compared = _compare(found, targets, loaded, config.tolerance)
    accuracy = {label: (own == labels).mean(axis=1) for label, own in targets.items()}
    model = {**choice.network.described(), "parameters": problem.num_parameters}
    summary: Summary = {
        "agreement": {
            label: _agreed(accuracy[label], of_row) for label, of_row in compared.items()
        },
        "rows": {row.label: {**row.about, "network": model} for row in problem.rows},
        "pools": {
            "subset": _subset_record(
                config, problem, found[SUBSET], groups[subset], trained[subset][1]
            ),
            "early_stopped": _early_record(
                config, found[EARLY], groups[early], trained[early][1]
            ),
        },
        "model": model,
        "protocol": config.protocol,
        "matching": {
            "least": {
                "subset": found[SUBSET].least,
                "early_stopped": found[EARLY].least,
            },
            "least_runs": {
                "subset": found[SUBSET].least_runs,
                "early_stopped": found[EARLY].least_runs,
            },
            "tolerance": config.tolerance,
        },
        "test_images": len(labels),
        "dataset": describe_dataset(loaded),
        "command": command_of(NAME, config),
        "seconds": sum(seconds for _, seconds in trained.values()),
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    _draw(workdir, found, compared, accuracy, _title(summary))
    return write_summary(workdir, Summary, summary)


def _compare(
    found: Mapping[str, Pool],
    targets: Mapping[str, np.ndarray],
    loaded: data.Dataset,
    tolerance: float,
) -> dict[str, dict[str, Compared]]:
    """Returns row -> pool -> the networks of that row beside that pool."""
    comparisons = {
        name: Comparison(pool, loaded.test.labels, loaded.num_classes)
        for name, pool in found.items()
    }
    return {
        label: {
            name: comparison.compare(own, tolerance)
            for name, comparison in comparisons.items()
        }
        for label, own in targets.items()
    }


def _agreed(accuracy: np.ndarray, of_row: Mapping[str, Compared]) -> Agreed:
    return {
        "accuracy": spread_interval(accuracy),
        "subset": of_row[SUBSET].summary,
        "early_stopped": of_row[EARLY].summary,
        "difference": difference(of_row),
    }


def _subset_record(
    config: Config, problem: Problem, pool: Pool, group: Group, seconds: float
) -> SubsetPool:
    sizes = problem.subsets.sizes
    return {
        "shares": [config.subset_low, config.subset_high],
        "images": [int(sizes.min()), int(sizes.max())],
        "epochs": config.subset_epochs,
        **_pool_record(config, pool, group, seconds),
    }


def _early_record(config: Config, pool: Pool, group: Group, seconds: float) -> EarlyPool:
    last = pool.accuracy.reshape(config.early_runs, -1)[:, -1]
    return {
        "runs": config.early_runs,
        "iterations": config.early_iterations,
        "every": config.early_every,
        "last_accuracy": spread(last),
        **_pool_record(config, pool, group, seconds),
    }


def _pool_record(config: Config, pool: Pool, group: Group, seconds: float) -> PoolRecord:
    accuracy: AccuracyRange = {
        "lowest": float(pool.accuracy.min()),
        "median": float(np.median(pool.accuracy)),
        "highest": float(pool.accuracy.max()),
    }
    return {
        "networks": len(pool.accuracy),
        "batch": config.batch,
        "lr": config.lr,
        "momentum": config.momentum,
        "accuracy": accuracy,
        "seconds": seconds,
        "files": group.files(),
    }


def _draw(
    workdir: pathlib.Path,
    found: Mapping[str, Pool],
    compared: Mapping[str, Mapping[str, Compared]],
    accuracy: Mapping[str, np.ndarray],
    title: str,
) -> None:
    matched = {
        label: {
            name: (one.summary, np.concatenate([m.agreements for m in one.matches]))
            for name, one in of_row.items()
            if "unmatched" not in one.summary
        }
        for label, of_row in compared.items()
    }
    clouds = {
        label: {name: (found[name].accuracy, one.cloud) for name, one in of_row.items()}
        for label, of_row in compared.items()
    }
    path = workdir / "agreement.png"
    matched_agreements(path, matched, clouds, accuracy, NAMES, title)


def _title(summary: Summary) -> str:
    name, protocol = summary["dataset"]["name"], summary["protocol"]
    return f"Agreement at equal accuracy on {name}, protocol {protocol}"


def _percent(estimate: Matched | Difference | Unmatched) -> str:
    """Returns a value with half its interval, such as 71.2 ±0.8."""
    if "unmatched" in estimate:
        return "unmatched"
    low, high = estimate["interval"]
    half = "?" if low is None or high is None else f"{50 * (high - low):.1f}"
    return f"{100 * estimate['value']:.1f} ±{half}"


def _cells(row: Agreed) -> list[str]:
    """Returns the cells of a row of the table."""
    early, change = row["early_stopped"], row["difference"]
    iteration = None if "unmatched" in early else early.get("iteration")
    d = None if "unmatched" in change else change["cohen_d"]
    return [
        spelt_accuracy(row["accuracy"]),
        _percent(row["subset"]),
        _percent(early),
        "-" if iteration is None else f"{iteration:g}",
        _percent(change),
        "-" if d is None else f"{d:.1f}",
    ]


def _show(summary: Summary, workdir: pathlib.Path) -> None:
    found = summary["agreement"]
    seeds = next(iter(found.values()))["accuracy"]["seeds"]
    columns = ("accuracy", *NAMES.values(), "at iteration", "difference", "Cohen's d")
    table = new_table(
        _title(summary),
        ("trained on", *columns),
        caption=f"Percent. Accuracy: mean ± standard deviation of {seeds} networks; "
        "the rest: ± half the 95 % interval.",
    )
    for label, row in found.items():
        table.add_row(label, *_cells(row))
    show_table(table, 140)
    for label, row in found.items():
        for name, one in ((SUBSET, row["subset"]), (EARLY, row["early_stopped"])):
            if "unmatched" in one:
                print(f"{label} is unmatched, {NAMES[name]}: {one['unmatched']}")
    seconds = duration(summary["seconds"])
    print(f"{seconds}. summary.json, agreement.png and networks/ lie in {workdir}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
