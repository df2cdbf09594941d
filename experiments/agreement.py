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

import dataclasses
import functools
import json
import math
import pathlib
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit

from distilljax import data, launch
from distilljax.analysis import agreement, pools
from distilljax.analysis.agreement import Match
from distilljax.analysis.pools import MeanError, Predicted
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.io.files import replacing, write_json
from distilljax.training import evaluation
from distilljax.types import (
    Array,
    Batch,
    Estimate,
    InputError,
    Key,
    Model,
    RealSet,
    Transform,
)
from experiments import cells, common, figures, runs
from experiments.common import ARCHITECTURES, OWN, Named
from experiments.progress import duration

MODULE = "experiments.agreement"
SUBSET, EARLY = "subset", "early_stopped"
NAMES = {SUBSET: "subset-trained", EARLY: "early-stopped"}


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the experiment."""

    artefacts: str = option("", "Distilled sets (.npz) of the same data, with commas.")
    model: str = option(
        OWN, f"Network: own (the artefacts'), or one of {', '.join(ARCHITECTURES)}."
    )
    width_scale: float = option(
        1.0, "Times the width of every network but `own`; below 1 for a CPU.", above=0
    )
    dataset: str | None = option(None, "Real data; none: those the sets were made of.")
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    protocol: Literal["own", "study", "dc", "dsa", "mtt"] = option(
        "study", "How networks are trained on a set; own: as each set was made for."
    )
    seeds: int = option(5, "Networks trained on each set.", low=2)
    subset_networks: int = option(520, "Networks trained on random subsets.", low=2)
    subset_low: float = option(0.005, "Smallest share of each class.", above=0, high=1)
    subset_high: float = option(0.05, "Largest share of each class.", above=0, high=1)
    subset_epochs: int = option(100, "Passes over each subset.", low=1)
    early_runs: int = option(30, "Training runs on the whole training set.", low=2)
    early_iterations: int = option(196, "Iterations of each run.", low=1)
    early_every: int = option(1, "Iterations between predictions.", low=1)
    batch: int = option(256, "Most images of a step on real data.", low=1)
    lr: float = option(0.01, "Learning rate on real data.", above=0)
    momentum: float = option(0.9, "Momentum on real data.", low=0, high=1)
    test_images: int | None = option(
        None, "Most test images, as many of each class; none: all.", low=1
    )
    least: int = option(20, "Subset-trained networks wanted in a window.", low=2)
    early_least: int | None = option(
        None, "Early-stopped predictions wanted in a window; none: two for each run.", low=2
    )
    tolerance: float = option(
        0.02, "How near in accuracy a pool must come to a network.", above=0
    )
    piece: int = option(20, "Subset-trained networks between two savings.", low=1)
    together: int = option(
        1, "Networks trained side by side; more need more memory.", low=1
    )
    chunk: int | None = option(
        32,
        "Images of a subset's step, and test images, computed at a time; a GPU wants more.",
        low=1,
    )
    seed: int = option(0, "Settles everything random.", low=0, high=2**31 - 1)
    workdir: str | None = option(
        None, "Where the results go; none: a folder under runs/ named by the settings."
    )


# What the pools do not depend on.
_ANEW = ("artefacts", "protocol", "seeds", "least", "early_least", "tolerance")


class _Choice(NamedTuple):
    """What the options come to before data are read."""

    artefacts: dict[str, Named]
    network: common.Network


class _Piece(NamedTuple):
    """Networks that are trained in one dispatch, and kept together."""

    kind: str
    numbers: tuple[int, ...]  # which networks of its kind
    identity: str  # SHA-256 of all that settles them
    steps: int  # of training, all networks together

    @property
    def title(self) -> str:
        """In progress lines."""
        if len(self.numbers) == 1:
            return f"{self.kind}, number {self.numbers[0]}"
        return f"{self.kind}, {len(self.numbers)} of them"

    def path(self, workdir: pathlib.Path) -> pathlib.Path:
        """The file that it is kept in."""
        return workdir / "networks" / f"{self.identity[:16]}.npz"


class _Kept(NamedTuple):
    """A piece as its file holds it."""

    classes: np.ndarray  # u8[m, ..., n]
    seconds: float  # of training


class _Problem(NamedTuple):
    """What networks are trained on and tested on."""

    model: Model
    num_parameters: int
    real: RealSet
    test: RealSet
    rows: list[cells.Row]
    subsets: pools.Subsets
    described: list[Any]  # network, data, preprocessing, test images, seed
    keys: Key  # key[3], for the networks on sets, on subsets, and stopped early


class _Group(NamedTuple):
    """A pool, or the networks of a row: pieces that one compiled program trains."""

    pieces: list[_Piece]
    weight: float  # what a step costs, in images trained on
    program: Any  # jitted
    # Numbers of networks -> what the program is given. A piece with fewer than others has
    # some twice; the flags say which are wanted.
    given: Callable[[np.ndarray, np.ndarray], tuple[Any, ...]]

    def size(self) -> int:
        """Networks in a dispatch."""
        return max(len(piece.numbers) for piece in self.pieces)


class _Pool(NamedTuple):
    """Predictions of a pool, and the runs that they come from."""

    classes: np.ndarray  # u8[m, n]
    accuracy: np.ndarray  # f64[m]
    run: np.ndarray  # i[m]
    iteration: np.ndarray | None  # i[m]
    least: int  # members wanted in a window
    least_runs: int
    about: Mapping[str, Any]


class _Compared(NamedTuple):
    """The networks of a row beside one pool."""

    cloud: np.ndarray  # f32[m], agreement with each member, mean over the networks
    matches: list[Match]
    summary: dict[str, Any]


def _transform(choice: _Choice) -> Transform:
    """That of all artefacts."""
    return next(iter(choice.artefacts.values())).artefact.transform


def _choose(config: Config) -> _Choice:
    found = common.architectures(config.model, "model")
    if len(found) > 1:
        raise FieldError("model", config.model, "name one")
    if config.subset_low > config.subset_high:
        reason = f"is below subset_low={config.subset_low:g}; give a larger share"
        raise FieldError("subset_high", config.subset_high, reason)
    if config.early_every > config.early_iterations:
        reason = f"there are {config.early_iterations} iterations; look at least once"
        raise FieldError("early_every", config.early_every, reason)
    artefacts = common.artefacts(config.artefacts)
    (first, (_, made)), *others = artefacts.items()
    own = config.model == OWN
    network = (
        common.own_network(first, made, "model")
        if own
        else common.scaled(found[0], config.width_scale)
    )
    for label, (_, artefact) in others:
        if common.transform_digest(artefact.transform) != common.transform_digest(
            made.transform
        ):
            reason = (
                f"{first} and {label} were made under different preprocessing, and the "
                "pools are trained under one; compare them in commands of their own"
            )
            raise FieldError("artefacts", config.artefacts, reason)
        theirs = common.own_network(label, artefact, "model") if own else network
        if theirs.described() != network.described():
            reason = (
                f"{first} and {label} were made with different networks, and the pools "
                "are of one; choose another, or compare them in commands of their own"
            )
            raise FieldError("model", config.model, reason)
    return _Choice(artefacts, network)


def run(config: Config) -> dict[str, Any]:
    """Trains what is not trained, compares; returns what `summary.json` holds.

    Raises:
      InputError: options, an artefact, data or a working directory that cannot be used;
        artefacts of different data; training that diverges.
    """
    choice = _choose(config)
    first = next(iter(choice.artefacts.values())).artefact
    name = config.dataset or first.dataset["name"]
    # Other artefacts of the same data belong in the same place, beside the same pools.
    neutral = {option: getattr(Config(), option) for option in _ANEW}
    place = config.replace({**neutral, "dataset": name})
    label = f"{pathlib.Path(name).stem}-{config.model}"
    workdir = runs.directory(MODULE, place, label)
    with runs.opened(workdir, MODULE, place):
        summary = _run(config, choice, workdir)
    _show(summary, workdir)
    return summary


def _prepare(config: Config, choice: _Choice, loaded: data.Dataset) -> _Problem:
    own, transform = config.model == OWN, _transform(choice)
    rows = cells.rows(choice.artefacts, loaded, config.protocol, config.seeds, own=own)
    model, num_parameters = common.sized_model(choice.network, loaded, "model")
    test = rows[0].test
    trained_on = [loaded.fingerprint, common.transform_digest(transform)]
    # Networks on sets and those of the pools share no random number.
    keys = jax.random.split(common.fresh_key(config.seed), 3)
    settled = [test.images, jax.random.key_data(keys)]
    return _Problem(
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
        [choice.network.described(), common.digest(trained_on, settled), config.seed],
        keys,
    )


def _run(config: Config, choice: _Choice, workdir: pathlib.Path) -> dict[str, Any]:
    first = next(iter(choice.artefacts.values()))
    loaded = common.data_of(first, config.dataset, config.data_dir)
    loaded = loaded._replace(test=_capped(loaded.test, config.test_images))
    problem = _prepare(config, choice, loaded)
    groups = {
        _of_pool(SUBSET): _subset_group(config, problem),
        _of_pool(EARLY): _early_group(config, problem),
        **_row_groups(config, problem),
    }
    (workdir / "networks").mkdir(exist_ok=True)
    kept = _train(groups, problem.num_parameters, workdir)

    labels = loaded.test.labels
    subset, early = (
        (groups[name], *kept[name]) for name in (_of_pool(SUBSET), _of_pool(EARLY))
    )
    found = {
        SUBSET: _subset_pool(config, *subset, problem.subsets, labels),
        EARLY: _early_pool(config, *early, labels),
    }
    looks = {name: _Look(pool, labels, loaded.num_classes) for name, pool in found.items()}
    targets = {row.label: kept[_of_row(row.label)][0] for row in problem.rows}
    compared = {
        label: {name: look.compare(own, config.tolerance) for name, look in looks.items()}
        for label, own in targets.items()
    }
    accuracy = {label: (own == labels).mean(axis=1) for label, own in targets.items()}
    about_network = {**choice.network.described(), "parameters": problem.num_parameters}
    summary: dict[str, Any] = {
        "agreement": {
            label: {
                "accuracy": common.with_interval(accuracy[label]),
                **{name: one.summary for name, one in of_row.items()},
                "difference": _difference(of_row),
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
        "dataset": common.about_dataset(loaded),
        "command": runs.command(MODULE, config),
        "seconds": sum(seconds for _, seconds in kept.values()),
        "peak_memory_bytes": runs.peak_memory_bytes(),
        "environment": runs.environment(),
    }
    write_json(workdir / "summary.json", summary)
    figures.matched_agreements(
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


def _of_pool(name: str) -> str:
    return f"pool {name}"


def _of_row(label: str) -> str:
    """Not the label itself: an artefact may be called as a pool is."""
    return f"networks on {label}"


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


def _subset_group(config: Config, problem: _Problem) -> _Group:
    """The pool of networks trained on subsets, each piece with small and large ones."""
    names = ("subset_networks", "subset_low", "subset_high", "subset_epochs")
    subsets, described = problem.subsets, [SUBSET, *problem.described, _how(config, names)]
    steps = config.subset_epochs * -(-subsets.sizes // config.batch)
    by_size = np.argsort(-subsets.sizes, kind="stable")
    num_pieces = -(-config.subset_networks // config.piece)
    pieces = []
    for first in range(num_pieces):
        numbers = by_size[first::num_pieces]
        identity = common.digest([*described, numbers.tolist()])
        total = int(steps[numbers].sum())
        pieces.append(_Piece(NAMES[SUBSET], tuple(numbers.tolist()), identity, total))

    @jax.jit
    def program(
        key: Key,
        numbers: Array,
        positions: Array,
        sizes: Array,
        real: RealSet,
        test: RealSet,
    ) -> Predicted:
        return pools.subset_trained(
            _keys(key, numbers),
            problem.model,
            real,
            positions,
            sizes,
            test,
            epochs=config.subset_epochs,
            batch=config.batch,
            optimizer=_optimizer(config),
            chunk=config.chunk,
            together=config.together,
        )

    def given(numbers: np.ndarray, wanted: np.ndarray) -> tuple[Any, ...]:
        # A network that only fills a piece is not trained.
        sizes = np.where(wanted, subsets.sizes[numbers], 0)
        positions = subsets.positions[numbers]
        return problem.keys[1], numbers, positions, sizes, problem.real, problem.test

    mean = float(subsets.sizes.mean())
    weight = mean / math.ceil(mean / config.batch)
    return _Group(pieces, weight, program, given)


def _early_group(config: Config, problem: _Problem) -> _Group:
    """The pool of networks stopped early."""
    described = _how(config, ("early_iterations", "early_every"))

    @jax.jit
    def program(key: Key, numbers: Array, real: RealSet, test: RealSet) -> Predicted:
        return pools.early_stopped(
            _keys(key, numbers),
            problem.model,
            real,
            test,
            iterations=config.early_iterations,
            every=config.early_every,
            batch=config.batch,
            optimizer=_optimizer(config),
            chunk=config.chunk,
            together=config.together,
        )

    def given(numbers: np.ndarray, wanted: np.ndarray) -> tuple[Any, ...]:
        return problem.keys[2], numbers, problem.real, problem.test

    pieces = _in_turn(
        NAMES[EARLY],
        config.early_runs,
        config.together,
        [EARLY, *problem.described, described],
        config.early_iterations,
    )
    # To predict an image costs a third of training on it.
    weight = config.batch + len(problem.test.labels) / config.early_every / 3
    return _Group(pieces, weight, program, given)


def _row_groups(config: Config, problem: _Problem) -> dict[str, _Group]:
    """The networks trained on the sets of each row."""

    @functools.cache
    def program(protocol: evaluation.EvaluationProtocol) -> Any:
        @jax.jit
        def train(
            key: Key, numbers: Array, sets: Batch, test: RealSet, rate: Array
        ) -> Predicted:
            def one(given: tuple[Key, Batch]) -> Predicted:
                params = evaluation.train(
                    given[0], problem.model, given[1], protocol, learning_rate=rate
                )
                return pools.predicted(problem.model, params, test, config.chunk)

            batch_size = config.together if config.together > 1 else None
            return jax.lax.map(one, (_keys(key, numbers), sets), batch_size=batch_size)

        return train

    found = {}
    for row in problem.rows:
        num_images = row.sets.labels.shape[1]
        steps = row.protocol.num_steps(num_images)

        def given(
            numbers: np.ndarray, wanted: np.ndarray, row: cells.Row = row
        ) -> tuple[Any, ...]:
            sets = jax.tree.map(lambda x: x[numbers], row.sets)
            return problem.keys[0], numbers, sets, row.test, row.learning_rate

        name = _of_row(row.label)
        computed = [config.chunk, config.together]
        described = [row.identity, *problem.described, *computed]
        pieces = _in_turn(name, config.seeds, config.together, described, steps)
        weight = cells.cost(num_images, row.protocol, len(row.test.labels)) / steps
        found[name] = _Group(pieces, weight, program(row.protocol), given)
    return found


def _how(config: Config, names: Sequence[str]) -> dict[str, Any]:
    """What else settles the networks of a pool."""
    everywhere = ("batch", "lr", "momentum", "chunk", "together")
    return {name: getattr(config, name) for name in (*names, *everywhere)}


def _keys(key: Key, numbers: Array) -> Key:
    """A key for each network, by its number alone."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)


def _in_turn(
    kind: str, num: int, together: int, described: Sequence[Any], steps: int
) -> list[_Piece]:
    """Pieces of `together` networks, each of which takes as many steps."""
    return [
        _Piece(
            kind,
            numbers := tuple(range(first, min(first + together, num))),
            common.digest([*described, list(numbers)]),
            steps * len(numbers),
        )
        for first in range(0, num, together)
    ]


def _optimizer(config: Config) -> optax.GradientTransformation:
    return optax.sgd(config.lr, momentum=config.momentum or None)


def _train(
    groups: Mapping[str, _Group], num_parameters: int, workdir: pathlib.Path
) -> dict[str, tuple[np.ndarray, float]]:
    """Trains what is not in its file.

    Returns:
      Predictions of the networks of each group in the order of their numbers, and how long
      their training took.

    Raises:
      InputError: a network whose logits are not finite; a file that cannot be read.
    """
    kept = {
        piece.identity: _read(piece, workdir)
        for group in groups.values()
        for piece in group.pieces
        if piece.path(workdir).exists()
    }
    todo = [
        (name, piece)
        for name, group in groups.items()
        for piece in group.pieces
        if piece.identity not in kept
    ]
    num = sum(len(piece.numbers) for group in groups.values() for piece in group.pieces)
    if done := num - sum(len(piece.numbers) for _, piece in todo):
        print(f"{done} of {num} networks were trained before, in {workdir}")
    progress = cells.Progress(
        [piece for _, piece in todo],
        "step",
        [piece.steps for _, piece in todo],
        noun="piece",
        weights={group.pieces[0].kind: group.weight for group in groups.values()},
    )
    programs: dict[Any, Any] = {}
    for name, piece in todo:
        group = groups[name]
        size = len(piece.numbers)
        numbers = np.resize(np.array(piece.numbers), group.size())
        given = group.given(numbers, np.arange(len(numbers)) < size)
        which = group.program, tuple(leaf.shape for leaf in jax.tree.leaves(given))
        if which not in programs:
            title = f"compiling {piece.kind}, {num_parameters:,} parameters"
            print(title, file=sys.stderr, flush=True)
            programs[which] = group.program.lower(*given).compile()
        began = time.perf_counter()
        found = jax.device_get(programs[which](*given))
        seconds = time.perf_counter() - began
        if not found.finite[:size].all():
            remedy = (
                "lower --lr"
                if name in map(_of_pool, NAMES)
                else "choose another --protocol, or leave that set out"
            )
            raise InputError(
                f"{piece.title}: a network's predictions are not finite, its training "
                f"diverged; {remedy}"
            )
        kept[piece.identity] = _Kept(found.classes[:size], seconds)
        _write(piece, kept[piece.identity], workdir)
        progress.trained(piece, piece.steps, seconds)
        progress.finished(piece, "")
    return {name: _collected(group, kept) for name, group in groups.items()}


def _collected(group: _Group, kept: Mapping[str, _Kept]) -> tuple[np.ndarray, float]:
    numbers = np.concatenate([piece.numbers for piece in group.pieces])
    parts = [kept[piece.identity] for piece in group.pieces]
    classes = np.concatenate([part.classes for part in parts])
    return classes[np.argsort(numbers)], sum(part.seconds for part in parts)


def _read(piece: _Piece, workdir: pathlib.Path) -> _Kept:
    """What is kept of a piece.

    Raises:
      InputError: a file that cannot be read, or holds other networks.
    """
    path = piece.path(workdir)
    try:
        with np.load(path, allow_pickle=False) as held:
            if str(held["identity"]) != piece.identity:
                raise ValueError("it holds other networks")
            return _Kept(held["classes"], float(held["seconds"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read ({error}); delete it to train its networks again"
        ) from None


def _write(piece: _Piece, kept: _Kept, workdir: pathlib.Path) -> None:
    with replacing(piece.path(workdir)) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            identity=np.array(piece.identity),
            kind=np.array(piece.kind),
            numbers=np.array(piece.numbers),
            classes=kept.classes,
            seconds=np.array(kept.seconds),
        )


def _subset_pool(
    config: Config,
    group: _Group,
    classes: np.ndarray,
    seconds: float,
    subsets: pools.Subsets,
    labels: np.ndarray,
) -> _Pool:
    accuracy = (classes == labels).mean(axis=1)
    about = {
        "networks": config.subset_networks,
        "shares": [config.subset_low, config.subset_high],
        "images": [int(subsets.sizes.min()), int(subsets.sizes.max())],
        "epochs": config.subset_epochs,
        **_about(config, accuracy, seconds, group),
    }
    run = np.arange(len(accuracy))
    return _Pool(classes, accuracy, run, None, config.least, 1, about)


def _early_pool(
    config: Config, group: _Group, classes: np.ndarray, seconds: float, labels: np.ndarray
) -> _Pool:
    num_runs, num_looks, num_test = classes.shape
    classes = classes.reshape(-1, num_test)
    accuracy = (classes == labels).mean(axis=1)
    iterations = config.early_every * np.arange(1, num_looks + 1)
    last = accuracy.reshape(num_runs, num_looks)[:, -1]
    about = {
        "runs": num_runs,
        "networks": len(accuracy),
        "iterations": config.early_iterations,
        "every": config.early_every,
        "last_accuracy": runs.spread(last),
        **_about(config, accuracy, seconds, group),
    }
    return _Pool(
        classes,
        accuracy,
        np.repeat(np.arange(num_runs), num_looks),
        np.tile(iterations, num_runs),
        config.early_least or 2 * num_runs,
        math.ceil(num_runs * 2 / 3),
        about,
    )


def _about(
    config: Config, accuracy: np.ndarray, seconds: float, group: _Group
) -> dict[str, Any]:
    """What `summary.json` says of either pool."""
    return {
        "batch": config.batch,
        "lr": config.lr,
        "momentum": config.momentum,
        "accuracy": {
            "lowest": float(accuracy.min()),
            "median": float(np.median(accuracy)),
            "highest": float(accuracy.max()),
        },
        "seconds": seconds,
        "files": [f"networks/{p.path(pathlib.Path()).name}" for p in group.pieces],
    }


@functools.partial(jax.jit, static_argnums=3)
def _measure(
    targets: Array, members: Array, truth: Array, num_classes: int
) -> tuple[Array, Array, Array]:
    """Agreement, Cohen's kappa and error consistency of all with all, f32[s, m]."""
    return (
        agreement.agreement(targets, members),
        agreement.cohen_kappa(targets, members, num_classes),
        agreement.error_consistency(targets, members, truth),
    )


class _Look:
    """Compares networks with the members of one pool."""

    def __init__(self, pool: _Pool, labels: np.ndarray, num_classes: int):
        self._pool, self._labels = pool, labels
        members = jnp.asarray(pool.classes)
        truth = jnp.asarray(labels.astype(pool.classes.dtype))
        self._measure = lambda targets: _measure(targets, members, truth, num_classes)

    def compare(self, targets: np.ndarray, tolerance: float) -> _Compared:
        """The networks of a row, u8[s, n], at their accuracies."""
        agreements, kappas, consistencies = map(
            np.asarray, self._measure(jnp.asarray(targets))
        )
        cloud = agreements.mean(axis=0)
        pool, matches, unmatched = self._pool, list[Match](), dict[int, str]()
        for number, target in enumerate(targets):
            try:
                match = agreement.matched(
                    pool.classes,
                    self._labels,
                    target,
                    least=self._members_wanted(target),
                    tolerance=tolerance,
                    groups=pool.run,
                )
            except InputError as error:
                unmatched[number] = str(error)
            else:
                matches.append(match)
        if unmatched:
            number, why = next(iter(unmatched.items()))
            which = f"{len(unmatched)} of {len(targets)} networks, such as number {number}"
            return _Compared(cloud, [], {"unmatched": f"{which}: {why}"})
        return _Compared(cloud, matches, self._summary(matches, kappas, consistencies))

    def _members_wanted(self, target: np.ndarray) -> int:
        """In the window of a network, for `least` members and `least_runs` runs."""
        gaps = np.abs(self._pool.accuracy - (target == self._labels).mean())
        runs = np.unique(self._pool.run)
        nearest = np.sort([gaps[self._pool.run == run].min() for run in runs])
        enough = nearest[min(self._pool.least_runs, len(runs)) - 1]
        return max(self._pool.least, int((gaps <= enough).sum()))

    def _summary(
        self, matches: Sequence[Match], kappas: np.ndarray, consistencies: np.ndarray
    ) -> dict[str, Any]:
        pool = self._pool
        windows = [match.window for match in matches]
        each = np.array([float(match.estimate.value) for match in matches])
        pooled = pools.mean_error(matches, pool.run)
        known = interval(each.mean(), _parts(each, [pooled]))
        members = np.concatenate([window.members for window in windows])
        targets = [
            {
                "accuracy": match.accuracy,
                "value": float(match.estimate.value),
                "standard_error": _or_none(float(match.estimate.standard_error)),
                "num_members": len(match.agreements),
                "half_width": match.window.half_width,
                "mean_gap": match.window.mean_gap,
            }
            for match in matches
        ]
        summary = {
            "value": float(each.mean()),
            "standard_error": known.standard_error,
            "interval": [known.low, known.high],
            "freedom": known.freedom,
            "num_members": len(np.unique(members)),
            "num_runs": pooled.num_runs,
            "half_width": max(window.half_width for window in windows),
            "mean_gap": float(np.mean([window.mean_gap for window in windows])),
            "kappa": _level(matches, kappas),
            "error_consistency": _level(matches, consistencies),
            "pool_error": _or_none(pooled.error),
            "between_networks_error": float(each.std(ddof=1) / len(each) ** 0.5),
            "networks": targets,
        }
        if pool.iteration is not None:
            summary["iteration"] = float(np.median(pool.iteration[members]))
            for target, window in zip(targets, windows, strict=True):
                target["iteration"] = float(np.median(pool.iteration[window.members]))
        return summary


def _level(matches: Sequence[Match], values: np.ndarray) -> float | None:
    """Mean over networks of what f[s, m] comes to at their accuracies, if it is defined."""
    found = []
    for match, of_network in zip(matches, values, strict=True):
        inside = of_network[match.window.members]
        if not np.isfinite(inside).all():
            return None
        estimate = agreement.at_accuracy(match.accuracies, inside, match.accuracy)
        found.append(float(estimate.value))
    return float(np.mean(found))


def _parts(each: np.ndarray, pooled: Sequence[MeanError]) -> list[tuple[float, int]]:
    """Variances of a mean over networks and their degrees of freedom."""
    num = len(each)
    between = float(each.var(ddof=1)) / num
    return [(between, num - 1), *((one.error**2, one.num_runs - 1) for one in pooled)]


class Interval(NamedTuple):
    """How well a value is known; None where one of its errors is not known."""

    standard_error: float | None
    low: float | None  # of the 95 % interval
    high: float | None
    freedom: float | None  # degrees of freedom; None too where there is no error


def interval(value: float, parts: Sequence[tuple[float, int]]) -> Interval:
    """The 95 % interval of a value with several independent errors.

    Student's t with (sum v)^2 / sum v^2 / f degrees of freedom (Satterthwaite 1946).

    Args:
      value: what is estimated.
      parts: (variance v, degrees of freedom f) of each error.
    """
    total = sum(variance for variance, _ in parts)
    if not math.isfinite(total):
        return Interval(None, None, None, None)
    if total == 0:
        return Interval(0.0, float(value), float(value), None)
    freedom = total**2 / sum(variance**2 / f for variance, f in parts if variance)
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(total)
    return Interval(
        math.sqrt(total), float(value - half), float(value + half), float(freedom)
    )


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _difference(of_row: Mapping[str, _Compared]) -> dict[str, Any]:
    """Early-stopped less subset-trained, network by network."""
    for name, one in of_row.items():
        if why := one.summary.get("unmatched"):
            return {"unmatched": f"{NAMES[name]}: {why}"}
    both = [of_row[EARLY], of_row[SUBSET]]
    early, subset = (
        np.array([target["value"] for target in one.summary["networks"]]) for one in both
    )
    errors = [
        MeanError(
            math.nan if (error := one.summary["pool_error"]) is None else error,
            one.summary["num_runs"],
        )
        for one in both
    ]
    estimates = [
        Estimate(
            jnp.float32(one.summary["value"]),
            jnp.float32(pooled.error),
            jnp.int32(one.summary["num_members"]),
            "agreement",
        )
        for one, pooled in zip(both, errors, strict=True)
    ]
    values = [np.concatenate([m.agreements for m in one.matches]) for one in both]
    found = agreement.difference(estimates[0], estimates[1], (values[0], values[1]))
    value = both[0].summary["value"] - both[1].summary["value"]
    known = interval(value, _parts(early - subset, errors))
    return {
        "value": value,
        "standard_error": known.standard_error,
        "interval": [known.low, known.high],
        "freedom": known.freedom,
        "cohen_d": _or_none(float(found.cohen_d)),
        "pool_error": _or_none(float(found.standard_error)),
        "values": (early - subset).tolist(),
    }


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
            common.percent(row["accuracy"]),
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


if __name__ == "__main__":
    launch.main(Config, main)
