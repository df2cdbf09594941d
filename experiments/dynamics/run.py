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

Each run is trained once; the networks at the points that are looked at are kept in
`run0.npz` and so on. Each measurement is a line of `measurements.jsonl`, with its standard
error, number of probes and time; the same command again computes only those that are
missing. All points of a curve share their random probes. Pictures: `dynamics.png`, and
`spectrum.png` where spectra were asked for.
"""

import math
import pathlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from distilljax import devices, launch
from distilljax.core import parameters
from distilljax.curvature.estimators import SpectralDensity, smoothed_density
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.probes import PROBES
from distilljax.types import Params
from experiments.dynamics.figures import densities, probe_curves
from experiments.dynamics.measure import Measurements, Program, Series, measure
from experiments.dynamics.options import REAL_SETS, Choice, Config, choose
from experiments.dynamics.record import Curve, Learner, Summary
from experiments.dynamics.setting import Setting, prepare
from experiments.lab import keys
from experiments.lab.data import describe_dataset
from experiments.lab.kept import Arrays, digest
from experiments.lab.progress import CellProgress, duration
from experiments.lab.records import write_summary
from experiments.lab.terminal import new_table, show_table
from experiments.lab.training import Descent, TrajectoryTrainer
from experiments.lab.workdir import identity_of, open_workdir, workdir_path

NAME = "experiments.dynamics"

SPECTRUM = "hessian_spectrum"


def run(config: Config) -> Summary:
    """Trains, measures, draws; returns the contents of `summary.json`.

    Raises:
      InputError: options, artefacts, data or a working directory that cannot be used;
        training that diverges, or a measurement that is NaN.
    """
    choice = choose(config)
    label = "-".join([pathlib.Path(config.train_on).stem, *choice.every])
    workdir = workdir_path(NAME, config, label)
    with open_workdir(workdir, NAME, config):
        summary = _run(config, choice, workdir)
    _show(summary, workdir)
    return summary


def _run(config: Config, choice: Choice, workdir: pathlib.Path) -> Summary:
    began = time.perf_counter()
    mesh = devices.mesh(config.devices)
    setting = prepare(config, choice)
    measurements = Measurements(
        workdir / "measurements.jsonl",
        identity_of(config),
        setting,
        choice.points(config.iterations),
        config.runs,
    )
    _measure(config, setting, measurements, workdir, mesh)
    curves = _curves(measurements, config.runs)
    name, group = config.chosen("model")
    summary: Summary = {
        "curves": curves,
        "sets": {
            name: {
                "images": int(source.labels.shape[0]),
                "method": named.artefact.method if named else None,
                "path": named.path if named else None,
            }
            for name, source in setting.sets.items()
            for named in [choice.artefacts.get(name)]
        },
        "trained_on": config.train_on,
        "runs": config.runs,
        "model": cast(Learner, {"name": name, **group.to_dict()}),
        "parameters": parameters.num_params(setting.model),
        "dataset": describe_dataset(setting.loaded),
        "seconds": {
            "measuring": measurements.seconds(),
            "this_command": time.perf_counter() - began,
        },
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    probe_curves(workdir / "dynamics.png", curves, soft=REAL_SETS)
    if SPECTRUM in measurements.at:
        panels = _spectra(measurements, list(setting.sets))
        densities(workdir / "spectrum.png", panels, soft=REAL_SETS)
    return write_summary(workdir, Summary, summary)


def _measure(
    config: Config,
    setting: Setting,
    measurements: Measurements,
    workdir: pathlib.Path,
    mesh: Mesh | None,
) -> None:
    """Trains the networks that are needed, and measures what is missing."""
    missing = {
        series: left
        for series in measurements.series
        if (left := measurements.missing(series))
    }
    total = sum(len(measurements.at[series.probe]) for series in measurements.series)
    if before := total - sum(map(len, missing.values())):
        print(f"{before} measurements were made before, in {workdir}")
    every_point = sorted({0, config.iterations}.union(*measurements.at.values()))
    name, group = config.chosen("model")
    trainer = TrajectoryTrainer(
        Arrays(workdir),
        digest([setting.trained_on, name, group.to_dict()]),
        setting.model,
        setting.train_on,
        Descent(config.iterations, config.lr, config.momentum, config.batch, config.seed),
        every_point,
    )
    runs = sorted({series.run for series in missing})
    trainer.train(runs)
    unflatten = parameters.unflatten(setting.model)
    programs = {
        name: Program.of(
            PROBES[name].make(getattr(config, name), setting.model, mesh), mesh
        )
        for name in measurements.at
    }
    progress = CellProgress(
        list(missing), "measurement", [len(left) for left in missing.values()], noun="curve"
    )
    for run in runs:
        networks = trainer.trained(run)

        def params(iteration: int, networks: np.ndarray = networks) -> Params:
            return unflatten(jnp.asarray(networks[every_point.index(iteration)]))

        for series in (s for s in missing if s.run == run):
            program = programs[series.probe]
            for iteration, record in measure(
                program,
                keys.probes(config.seed, series.probe),
                params,
                program.probe.select(setting.sets[series.set], setting.reference),
                measurements.at[series.probe],
                missing[series],
            ):
                measurements.write(series, iteration, record)
                where = f"iteration {iteration}"
                progress.trained(series, 1, record["seconds"], where)
            progress.finished(series, where)


def _curves(measurements: Measurements, runs: int) -> dict[str, dict[str, Curve]]:
    """Returns quantity -> set -> its curve."""
    curves: dict[str, dict[str, Curve]] = defaultdict(dict)
    for series in (s for s in measurements.series if s.run == 0):
        at = measurements.at[series.probe]
        rows = [
            [measurements.quantities(series._replace(run=run), i) for i in at]
            for run in range(runs)
        ]
        for name, first in rows[0][0].items():
            if not isinstance(first["value"], list):
                along = [[point[name] for point in row] for row in rows]
                curves[f"{series.probe}.{name}"][series.set] = _curve(along, at)
    return curves


def _curve(rows: Sequence[Sequence[Mapping[str, Any]]], at: Sequence[int]) -> Curve:
    """Returns the mean over runs, its spread, and the standard error of the probes."""

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


def _spectra(
    measurements: Measurements, names: Sequence[str]
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Returns the densities of the first run at up to six points: title -> set."""
    at = measurements.at[SPECTRUM]
    shown = [at[i] for i in np.unique(np.linspace(0, len(at) - 1, 6).round().astype(int))]
    panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for iteration in shown:
        found = {
            name: measurements.quantities(Series(0, SPECTRUM, name), iteration)
            for name in names
        }
        nodes = {name: np.asarray(q["nodes"]["value"]) for name, q in found.items()}
        low = min(x.min() for x in nodes.values())
        high = max(x.max() for x in nodes.values())
        width = max((high - low) / 100, 1e-6)
        grid = np.linspace(low - 4 * width, high + 4 * width, 600)
        panels[f"iteration {iteration}"] = {
            name: (
                grid,
                _density(nodes[name], found[name]["weights"]["value"], grid, width),
            )
            for name in names
        }
    return panels


def _density(
    nodes: np.ndarray, weights: Sequence[float], grid: np.ndarray, width: float
) -> np.ndarray:
    spectrum = SpectralDensity(jnp.asarray(nodes), jnp.asarray(weights))
    return np.asarray(smoothed_density(spectrum, jnp.asarray(grid), width).value)


def _show(summary: Summary, workdir: pathlib.Path) -> None:
    names = list(summary["sets"])
    table = new_table(
        f"Trained on {summary['trained_on']}, last measurement; {_spread(summary)}",
        ("quantity", *names),
    )
    for quantity, row in summary["curves"].items():
        table.add_row(quantity, *(_spelt(row[name]) for name in names))
    show_table(table, 40 + 18 * len(names))
    print(
        f"{duration(summary['seconds']['measuring'])} of measuring. summary.json, "
        f"measurements.jsonl and the pictures lie in {workdir}"
    )


def _spread(summary: Summary) -> str:
    if summary["runs"] > 1:
        return f"mean ± standard deviation of {summary['runs']} runs"
    return "± standard error of the probes"


def _spelt(curve: Curve) -> str:
    """Returns the last mean, and its standard deviation or error."""
    mean = curve["mean"][-1]
    if mean is None:
        return "infinite"
    beside = (curve["std"] or curve["standard_error"])[-1]
    return f"{mean:.4g}" + (f" ±{beside:.2g}" if beside else "")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
