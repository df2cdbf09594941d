"""Measure what probes see along the training of a network, on real and distilled sets.

    python -m experiments.dynamics --artefacts=a/distilled.npz,b/distilled.npz
    python -m experiments.dynamics --probes=accuracy@1,hessian_trace,ntk@50 --runs=3
    python -m experiments.dynamics --train_on=a/distilled.npz --sets=train,test

Yang et al. 2024, sec. 4.2 and 4.3: while a network learns real images, when does it
recognise a distilled set (`accuracy`), and how sharp is the loss on it (`hessian_trace`)?
Beyond the paper: extreme eigenvalues, the spectral density, the neural tangent kernel;
several runs; and with `--train_on` the reverse, a network that learns a distilled set.
The paper's run is `--convnet.width=128 --runs=1 --iterations=300` on CIFAR-10: its
networks recognise BPTT and TM sets wholly by iteration 150 (test accuracy .60), and the
trace on them peaks above 4,000 near iteration 75 and falls below 1,000 by 299, that on
real images stays near 2,000.

Each run is trained once; the networks at the points that are looked at lie in `run0.npz`
and so on. Each measurement is a line of `measurements.jsonl`, with its standard error,
number of probes and time; the same command again computes only those that are missing.
All points of a curve share their random probes. Pictures: `dynamics.png`, and
`spectrum.png` where spectra were asked for.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from distilljax import data
from distilljax.config import Config as Base
from distilljax.config import FieldError, chooses, offers, option
from distilljax.core import distilled as distilled_set
from distilljax.core import inner, losses, parameters, sampling
from distilljax.curvature.estimators import SpectralDensity, smoothed_density
from distilljax.io import records
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.io.files import replacing, write_json
from distilljax.models import MODELS
from distilljax.probes import PROBES, Point
from distilljax.probes.base import Source
from distilljax.training.evaluation import EvaluationProtocol, optimizer
from distilljax.types import Array, Batch, InputError, Key, Model, RealSet, Transform
from experiments.dynamics.figures import densities, probe_curves
from experiments.lab.data import Preprocess, describe_dataset, load_data_of
from experiments.lab.keys import fresh_key
from experiments.lab.networks import model_of
from experiments.lab.options import parse_names
from experiments.lab.progress import SECONDS_BETWEEN_LINES, duration
from experiments.lab.sets import Named, load_artefacts, random_subsets, transform_digest
from experiments.lab.workdir import open_workdir, workdir_path

REAL = "real"  # of --train_on

REAL_SETS = ("train", "test", "random")


@offers(PROBES, changed={"accuracy": {"images": 2000}})
@chooses(
    "model",
    MODELS,
    "convnet",
    "Network that is trained.",
    changed={"convnet": {"width": 32}},
)
@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the experiment."""

    artefacts: str = option("", "Distilled sets (.npz) to look at, with commas.")
    sets: str = option(
        ",".join(REAL_SETS),
        f"Real sets to look at, with commas: {', '.join(REAL_SETS)} (--ipc of each class).",
    )
    ipc: int = option(10, "Random real images of each class, in the set `random`.", low=1)
    probes: str = option(
        "accuracy,hessian_trace",
        f"Probes, with commas: {', '.join(PROBES)}; accuracy@5 looks every 5 iterations.",
    )
    dataset: str | None = option(
        None, "Real data; none: those the artefacts were made of, or `embedded`."
    )
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    preprocess: Preprocess = option(
        "normalise", "What images go through, without artefacts; else as theirs."
    )
    train_on: str = option(
        REAL, "What the network learns: `real`, or the path of a distilled set."
    )
    iterations: int = option(300, "Steps of SGD.", low=1)
    every: int = option(10, "Iterations between measurements.", low=1)
    batch: int = option(256, "Images a step; a distilled set is taken whole.", low=1)
    lr: float = option(0.01, "Learning rate.", above=0)
    momentum: float = option(0.9, "Momentum.", low=0, high=1)
    runs: int = option(1, "Networks trained, each from weights of its own.", low=1)
    seed: int = option(0, "Settles everything random.", low=0, high=2**31 - 1)
    workdir: str | None = option(
        None, "Where the results go; none: a folder under runs/ named by the settings."
    )


class _Series(NamedTuple):
    """One curve: a probe on a set in one run."""

    run: int
    probe: str
    set: str


def _probes(config: Any) -> dict[str, int]:
    """Name of a probe -> iterations between its measurements.

    Raises:
      FieldError: an unknown probe, one named twice, or options of one not named.
    """
    cadence: dict[str, int] = {}
    for entry in config.probes.split(","):
        name, at, every = entry.strip().partition("@")
        if name not in PROBES:
            reason = f"there is no probe {name!r}; choose among {', '.join(PROBES)}"
            raise FieldError("probes", config.probes, reason)
        if name in cadence:
            raise FieldError("probes", config.probes, f"{name} is named twice")
        if at and not (every.isdecimal() and int(every) > 0):
            reason = (
                f"{entry.strip()}: after @ comes a number of iterations, as in {name}@5"
            )
            raise FieldError("probes", config.probes, reason)
        cadence[name] = int(every) if at else config.every
    for name in PROBES:
        if name not in cadence and getattr(config, name) != getattr(type(config)(), name):
            reason = f"does not name {name}, for which there are options"
            raise FieldError("probes", config.probes, reason)
    return cadence


def _real_sets(config: Any) -> list[str]:
    names = [name.strip() for name in config.sets.split(",") if name.strip()]
    unknown = [name for name in names if name not in REAL_SETS]
    if unknown or len(set(names)) < len(names):
        what = f"there is no set {unknown[0]!r}" if unknown else "a set is named twice"
        raise FieldError("sets", config.sets, f"{what}; known are {', '.join(REAL_SETS)}")
    return names


def points(iterations: int, every: int) -> list[int]:
    """The iterations looked at: 0, `every`, ... and the last one that is a multiple."""
    return list(range(0, iterations + 1, every))


def run(config: Any) -> dict[str, Any]:
    """Trains, measures, draws; returns what `summary.json` holds.

    Raises:
      InputError: options, artefacts, data or a working directory that cannot be used; a
        measurement that is not finite.
    """
    cadence, real_sets = _probes(config), _real_sets(config)
    paths = parse_names(config.artefacts, "artefacts")
    if config.train_on not in (REAL, *paths):
        paths.append(config.train_on)
    artefacts = load_artefacts(",".join(paths)) if paths else {}
    if not artefacts and not real_sets:
        raise FieldError("sets", config.sets, "name a set to look at, or give --artefacts")
    label = "-".join([pathlib.Path(config.train_on).stem, *cadence])
    workdir = workdir_path("experiments.dynamics", config, label)
    with open_workdir(workdir, "experiments.dynamics", config):
        summary = _run(config, cadence, real_sets, artefacts, workdir)
    _show(summary, workdir)
    return summary


class _Setting(NamedTuple):
    """What all runs share."""

    loaded: data.Dataset
    model: Model
    reference: RealSet  # test images, for probes that compare
    train_on: Source
    sets: Mapping[str, Source]
    fingerprints: Mapping[str, str]  # of the sets, and of what is trained on


def _prepare(
    config: Any, real_sets: Sequence[str], artefacts: Mapping[str, Named]
) -> _Setting:
    loaded, transform = _data(config, artefacts)
    k = loaded.num_classes
    train = data.on_device(loaded.train, transform, k)
    test = data.on_device(loaded.test, transform, k)
    smallest = int(train.class_sizes.min())
    if "random" in real_sets and config.ipc > smallest:
        reason = f"the smallest class has {smallest} training images"
        raise FieldError("ipc", config.ipc, reason)
    sets: dict[str, Source] = {}
    for name in real_sets:
        if name == "train":
            sets[name] = train
        elif name == "test":
            sets[name] = test
        else:
            drawn = random_subsets(loaded.train, config.ipc, 1, transform)
            sets[name] = jax.tree.map(lambda x: x[0], drawn)
    for name, named in artefacts.items():
        sets[name] = distilled_set.as_batch(named.artefact.distilled)
    train_on: Source = train
    if config.train_on != REAL:
        (name,) = (n for n, a in artefacts.items() if a.path == config.train_on)
        train_on = sets[name]
    fingerprints = {
        name: _digest(source, loaded.fingerprint) for name, source in sets.items()
    }
    fingerprints[""] = _digest(train_on, loaded.fingerprint)
    model = model_of(config, loaded.image_shape, k)
    return _Setting(loaded, model, test, train_on, sets, fingerprints)


def _digest(source: Source, fingerprint: str) -> str:
    digest = hashlib.sha256(fingerprint.encode())
    if isinstance(source, Batch):
        for array in source:
            digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()


def _data(config: Any, artefacts: Mapping[str, Named]) -> tuple[data.Dataset, Transform]:
    if not artefacts:
        loaded = data.load(config.dataset or "embedded", config.data_dir)
        return loaded, data.fit(config.preprocess, loaded.train.images, loaded.name)
    first = next(iter(artefacts.values()))
    transforms = {transform_digest(a.artefact.transform) for a in artefacts.values()}
    if len(transforms) > 1:
        raise InputError(
            f"{', '.join(artefacts)} were made with different preprocessing, so no one "
            "network can look at all of them; give them to separate runs"
        )
    loaded = load_data_of(first, config.dataset, config.data_dir)
    return loaded, first.artefact.transform


class _Trainer:
    """Trains a run and keeps the networks at the points that are looked at."""

    def __init__(self, config: Any, setting: _Setting, at: Sequence[int]):
        self._config, self._setting, self._at = config, setting, at
        protocol = EvaluationProtocol(
            steps=config.iterations, lr=config.lr, momentum=config.momentum
        )
        rule = optimizer(protocol, config.iterations, config.lr)
        loss_fn = losses.cross_entropy(setting.model.apply)
        whole = isinstance(setting.train_on, Batch)

        def start(key: Key) -> inner.InnerState:
            return inner.init(setting.model.init(key), rule)

        def advance(
            state: inner.InnerState, positions: Array, first: Array, last: Array, on: Any
        ) -> tuple[inner.InnerState, Array]:
            def step(i: Array, state: inner.InnerState) -> inner.InnerState:
                batch = on if whole else sampling.take(on, positions[i])
                return inner.step(loss_fn, rule, state, batch)[0]

            state = jax.lax.fori_loop(first, last, step, state)
            return state, parameters.flatten(state.params)

        self._start, self._advance = jax.jit(start), jax.jit(advance)

    def networks(self, run: int, file: pathlib.Path) -> np.ndarray:
        """Parameters at each point, f32[points, p], from the file or trained now.

        Raises:
          InputError: training diverged.
        """
        described = self._setting.fingerprints[""]
        if file.exists():
            with np.load(file) as held:
                if str(held["trained_on"]) == described:
                    return held["params"]
        config, on = self._config, self._setting.train_on
        init_key, order_key = jax.random.split(
            jax.random.fold_in(fresh_key(config.seed), run)
        )
        num = on.labels.shape[0]
        positions = sampling.epochs(
            order_key, num, min(config.batch, num), config.iterations
        )
        state = self._start(init_key)
        rows = [np.asarray(parameters.flatten(state.params))]
        began = last_line = time.monotonic()
        for first, last in zip(self._at[:-1], self._at[1:], strict=True):
            state, row = self._advance(state, positions, first, last, on)
            rows.append(np.asarray(row))
            if not np.isfinite(rows[-1]).all():
                raise InputError(
                    f"training diverged between iterations {first} and {last}; lower --lr"
                )
            if time.monotonic() - last_line > SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                left = (last_line - began) / last * (self._at[-1] - last)
                print(
                    f"run {run}: iteration {last}/{self._at[-1]}, {duration(left)} left",
                    file=sys.stderr,
                    flush=True,
                )
        params = np.stack(rows)
        with replacing(file) as temporary, temporary.open("wb") as opened:
            np.savez(opened, params=params, trained_on=described)
        return params


class _Progress:
    """Lines on stderr after ten seconds of silence, and after each curve."""

    def __init__(self, missing: Mapping[_Series, int]):
        self._left = dict(missing)
        self._total = sum(missing.values())
        self._seconds: dict[tuple[str, str], float] = {}
        self._last_line = time.monotonic()

    def measured(self, series: _Series, iteration: int, seconds: float) -> None:
        """One point more."""
        self._left[series] -= 1
        kind = (series.probe, series.set)
        self._seconds[kind] = seconds
        finished = not self._left[series]
        if finished or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            dearest = max(self._seconds.values())
            left = sum(
                num * self._seconds.get((s.probe, s.set), dearest)
                for s, num in self._left.items()
            )
            print(
                f"run {series.run}: {self._total - sum(self._left.values())}/{self._total}"
                f"  {series.probe} on {series.set} at iteration {iteration}"
                f"  {seconds:.2g} s each  about {duration(left)} left",
                file=sys.stderr,
                flush=True,
            )


def _run(
    config: Any,
    cadence: Mapping[str, int],
    real_sets: Sequence[str],
    artefacts: Mapping[str, Named],
    workdir: pathlib.Path,
) -> dict[str, Any]:
    began = time.perf_counter()
    setting = _prepare(config, real_sets, artefacts)
    probes = {
        name: PROBES[name].make(getattr(config, name), setting.model) for name in cadence
    }
    at = {name: points(config.iterations, every) for name, every in cadence.items()}
    every_point = sorted({0, config.iterations}.union(*at.values()))
    file = workdir / "measurements.jsonl"
    done = _done(file, setting)
    wanted = [
        _Series(r, probe, name)
        for r in range(config.runs)
        for probe in probes
        for name in setting.sets
    ]
    missing = {
        series: sum((series, i) not in done for i in at[series.probe]) for series in wanted
    }
    if before := sum(len(at[s.probe]) for s in wanted) - sum(missing.values()):
        print(f"{before} measurements were made before, in {workdir}")
    progress = _Progress({s: num for s, num in missing.items() if num})
    trainer = _Trainer(config, setting, every_point)
    unflatten = parameters.unflatten(setting.model)
    programs: dict[str, Any] = {
        name: (jax.jit(probe.init), jax.jit(probe.measure))
        for name, probe in probes.items()
    }
    for r in range(config.runs):
        if not any(num for s, num in missing.items() if s.run == r):
            continue
        networks = trainer.networks(r, workdir / f"run{r}.npz")

        def params(iteration: int, networks: np.ndarray = networks) -> Any:
            return unflatten(jnp.asarray(networks[every_point.index(iteration)]))

        for series in (s for s in wanted if s.run == r and missing[s]):
            for iteration, record in _measured(
                programs[series.probe],
                _probe_key(config.seed, series),
                params,
                probes[series.probe].select(setting.sets[series.set], setting.reference),
                at[series.probe],
                [i for i in at[series.probe] if (series, i) in done],
            ):
                line = {
                    **series._asdict(),
                    "iteration": iteration,
                    **record,
                    "fingerprint": _identity(setting, series.set),
                }
                done[series, iteration] = line
                records.append(file, [line])
                progress.measured(series, iteration, record["seconds"])
    return _summarise(config, setting, artefacts, wanted, at, done, workdir, began)


def _identity(setting: _Setting, name: str) -> str:
    """Of the set that is looked at, the real images it is compared with, and the run."""
    return hashlib.sha256(
        (setting.fingerprints[name] + setting.fingerprints[""]).encode()
    ).hexdigest()


def _done(file: pathlib.Path, setting: _Setting) -> dict[tuple[_Series, int], Any]:
    """The measurements in the file that are of these sets; it is left with no others."""
    found = {}
    for record in records.read(file):
        series = _Series(record["run"], record["probe"], record["set"])
        known = series.set in setting.sets
        if known and record["fingerprint"] == _identity(setting, series.set):
            found[series, record["iteration"]] = record
    if file.exists():
        with replacing(file) as temporary:
            records.append(temporary, found.values())
    return found


def _probe_key(seed: int, series: _Series) -> Key:
    """One key for all points of a curve, and for the same curve of every run and set."""
    name = int.from_bytes(hashlib.sha256(series.probe.encode()).digest()[:4], "big")
    return jax.random.fold_in(jax.random.fold_in(fresh_key(seed), 2**31), name)


def _measured(
    programs: tuple[Callable, Callable],
    key: Key,
    params: Callable[[int], Any],
    looked_at: tuple[Source, Source],
    at: Sequence[int],
    done: Sequence[int],
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The measurements of a curve that are missing, in order.

    A probe compares with the first and the last point alone, so what was measured before
    is taken up again from those.

    Raises:
      InputError: a figure that is NaN.
    """
    init, measure = programs

    def point(index: int) -> Point:
        elapsed = at[index] - at[index - 1] if index else 0
        return Point(params(at[index]), jnp.asarray(elapsed, jnp.float32))

    state, last = None, None
    for index, iteration in enumerate(at):
        if iteration in done:
            continue
        began = time.perf_counter()
        if state is None:
            state = init(key, point(0), *looked_at)
        if index and last != index - 1:
            state, _ = measure(key, state, point(index - 1), *looked_at)
        state, quantities = measure(key, state, point(index), *looked_at)
        last = index
        quantities = jax.device_get(quantities)
        for name, found in quantities.items():
            if np.isnan(found.value).any():
                raise InputError(
                    f"{name} ({found.of}) is not a number at iteration {iteration}; the "
                    "loss or its derivatives hold NaN there: lower --lr, or look for NaN "
                    "in the data. Earlier measurements are kept"
                )
        yield (
            iteration,
            {
                "seconds": time.perf_counter() - began,
                "quantities": {n: _plain(found) for n, found in quantities.items()},
            },
        )


def _plain(estimate: Any) -> dict[str, Any]:
    """For a record: numbers that JSON can hold; what is not finite becomes null."""

    def plain(x: Any) -> Any:
        array = np.asarray(x, np.float64)
        if array.ndim:
            return [plain(row) for row in array]
        return float(array) if math.isfinite(array) else None

    return {
        "value": plain(estimate.value),
        "standard_error": plain(estimate.standard_error),
        "num_probes": int(estimate.num_probes),
        "of": estimate.of,
    }


def _summarise(
    config: Any,
    setting: _Setting,
    artefacts: Mapping[str, Named],
    wanted: Sequence[_Series],
    at: Mapping[str, Sequence[int]],
    done: Mapping[tuple[_Series, int], Mapping[str, Any]],
    workdir: pathlib.Path,
    began: float,
) -> dict[str, Any]:
    curves: dict[str, dict[str, Any]] = defaultdict(dict)
    for series in wanted:
        if series.run:
            continue
        rows = [
            [done[series._replace(run=r), i]["quantities"] for i in at[series.probe]]
            for r in range(config.runs)
        ]
        for name, first in rows[0][0].items():
            if not isinstance(first["value"], list):
                curves[f"{series.probe}.{name}"][series.set] = _curve(
                    [[point[name] for point in row] for row in rows],
                    at[series.probe],
                )
    seconds = sum(done[s, i]["seconds"] for s in wanted for i in at[s.probe])
    summary = {
        "curves": curves,
        "sets": {
            name: {
                "images": int(source.labels.shape[0]),
                "method": artefacts[name].artefact.method if name in artefacts else None,
                "path": artefacts[name].path if name in artefacts else None,
            }
            for name, source in setting.sets.items()
        },
        "trained_on": config.train_on,
        "runs": config.runs,
        "model": {"name": config.model, **getattr(config, config.model).to_dict()},
        "parameters": parameters.num_params(setting.model),
        "dataset": describe_dataset(setting.loaded),
        "seconds": {"measuring": seconds, "this_command": time.perf_counter() - began},
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    write_json(workdir / "summary.json", summary)
    probe_curves(workdir / "dynamics.png", curves, soft=REAL_SETS)
    if "hessian_spectrum" in at:
        _draw_spectra(workdir, setting, at["hessian_spectrum"], done)
    return json.loads(json.dumps(summary))


def _curve(rows: list[list[dict[str, Any]]], at: Sequence[int]) -> dict[str, Any]:
    """Over runs: mean, spread, and the standard error that the probes leave in the mean."""

    def array(field: str) -> np.ndarray:
        return np.array([[point[field] for point in row] for row in rows], np.float64)

    values, errors = array("value"), array("standard_error")
    num = len(rows)

    def plain(x: np.ndarray) -> list[float | None]:
        return [float(v) if math.isfinite(v) else None for v in x]

    return {
        "iterations": list(at),
        "mean": plain(values.mean(0)),
        "std": plain(values.std(0, ddof=1)) if num > 1 else None,
        "runs": num,
        "standard_error": plain(np.sqrt((errors**2).sum(0)) / num),
        "num_probes": rows[0][0]["num_probes"],
        "of": rows[0][0]["of"],
        "values": [plain(row) for row in values],
    }


def _draw_spectra(
    workdir: pathlib.Path,
    setting: _Setting,
    at: Sequence[int],
    done: Mapping[tuple[_Series, int], Mapping[str, Any]],
) -> None:
    """The density of the first run at up to six points, a line for each set."""
    shown = [at[i] for i in np.unique(np.linspace(0, len(at) - 1, 6).round().astype(int))]
    panels: dict[str, dict[str, Any]] = {}
    for iteration in shown:
        found = {
            name: done[_Series(0, "hessian_spectrum", name), iteration]["quantities"]
            for name in setting.sets
        }
        nodes = {name: np.asarray(q["nodes"]["value"]) for name, q in found.items()}
        low = min(x.min() for x in nodes.values())
        high = max(x.max() for x in nodes.values())
        width = max((high - low) / 100, 1e-6)
        grid = np.linspace(low - 4 * width, high + 4 * width, 600)
        panels[f"iteration {iteration}"] = {
            name: (
                grid,
                np.asarray(
                    smoothed_density(
                        SpectralDensity(
                            jnp.asarray(nodes[name]),
                            jnp.asarray(found[name]["weights"]["value"]),
                        ),
                        jnp.asarray(grid),
                        width,
                    ).value
                ),
            )
            for name in setting.sets
        }
    densities(workdir / "spectrum.png", panels, soft=REAL_SETS)


def _show(summary: Mapping[str, Any], workdir: pathlib.Path) -> None:
    table = Table(
        title=f"Trained on {summary['trained_on']}, last measurement; {_spread(summary)}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    names = list(summary["sets"])
    table.add_column("quantity")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for quantity, row in summary["curves"].items():
        table.add_row(quantity, *(_cell(row[name]) for name in names))
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 40 + 18 * len(names))
    console.print(table)
    print(
        f"{duration(summary['seconds']['measuring'])} of measuring. summary.json, "
        f"measurements.jsonl and the pictures lie in {workdir}"
    )


def _spread(summary: Mapping[str, Any]) -> str:
    if summary["runs"] > 1:
        return f"mean ± standard deviation of {summary['runs']} runs"
    return "± standard error of the probes"


def _cell(curve: Mapping[str, Any]) -> str:
    mean = curve["mean"][-1]
    if mean is None:
        return "infinite"
    beside = (curve["std"] or curve["standard_error"])[-1]
    return f"{mean:.4g}" + (f" ±{beside:.2g}" if beside else "")


def main(config: Any) -> None:
    """Entry of the command line."""
    run(config)
