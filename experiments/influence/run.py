"""Leave each distilled image out, and see which real test images miss it.

    python -m experiments.influence --artefact=runs/a/distilled.npz
    python -m experiments.influence --artefact=set.npz --seeds=5 --test_images=10000

Yang et al. 2024, sec. 5.2: from one initialisation a network is trained on the set without
each image in turn, and one on all of it (protocol `study`, 101 networks at ten images a
class); the influence of an image on a test image is the loss without it less that with
it. The paper shows the nine test images that each distilled image influences most, and
states 2 min 44 s for the 101 networks on an RTX 3090.

Here there are several initialisations, so that influence has a standard error, a noise
floor (how much another initialisation alone moves the loss) and a reliability (rank
correlation between initialisations). Beside it two approximations that train nothing
again, each compared with leave-one-out by rank correlation over test images:
- `gauss_newton`: influence functions with the damped Gauss-Newton matrix at the trained
  weights (Koh & Liang 2017), damping 1 / (lr * steps / (1 - momentum)) by default;
- `ntk`: kernel ridge regression on the set with the kernel of the trained network,
  without each image, in closed form.

Networks are trained a few at a time, and each piece is kept in `pieces/`; the same
command again trains only those that are missing. `influence.npz` holds all influences,
`influence.png` the pictures, `summary.json` the rest.
"""

import dataclasses
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich import box
from rich.console import Console
from rich.table import Table

from distilljax import data
from distilljax.analysis import leave_one_out
from distilljax.analysis.leave_one_out import Retrained
from distilljax.analysis.statistics import spread, spread_interval
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.curvature import hessian, influence, kernels, ntk
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.io.files import replacing, write_json
from distilljax.training import evaluation
from distilljax.types import Array, Batch, InputError, Key, Model, Params, RealSet
from experiments.influence.figures import influenced
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.kept import digest
from experiments.lab.keys import fresh_key
from experiments.lab.networks import own_network, sized_model
from experiments.lab.options import parse_names
from experiments.lab.progress import SECONDS_BETWEEN_LINES, duration
from experiments.lab.sets import Named, displayable, load_artefacts, transform_digest
from experiments.lab.workdir import open_workdir, workdir_path

ESTIMATES = ("gauss_newton", "ntk")


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the experiment."""

    artefact: str = option("", "The distilled set (.npz).")
    dataset: str | None = option(None, "Data to test on; none: those it was made of.")
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    seeds: int = option(3, "Initialisations, each with n + 1 networks.", low=2)
    test_images: int = option(
        1000, "Test images whose losses are looked at, as many of each class.", low=10
    )
    estimates: str = option(
        ",".join(ESTIMATES),
        f"Approximations, with commas: {', '.join(ESTIMATES)}; or none.",
    )
    damping: float | None = option(
        None, "Of gauss_newton, in units of curvature; none: by the training time.", above=0
    )
    ridge: float = option(
        1e-2, "Of ntk, as a share of the kernel's mean diagonal.", above=0
    )
    piece: int = option(11, "Networks trained between two savings.", low=1)
    together: int = option(1, "Networks trained side by side.", low=1)
    shown: int = option(10, "Distilled images in the picture.", low=1)
    seed: int = option(0, "Settles everything random.", low=0, high=2**31 - 1)
    workdir: str | None = option(
        None, "Where the results go; none: a folder under runs/ named by the settings."
    )


class _Problem(NamedTuple):
    """What networks are trained on and tested on."""

    named: Named
    loaded: data.Dataset
    model: Model
    batch: Batch
    test: RealSet
    test_positions: np.ndarray  # i[t], in the test split
    keys: Key  # key[s]
    digest: str


def _estimates(config: Config) -> list[str]:
    if config.estimates == "none":
        return []
    names = parse_names(config.estimates, "estimates")
    if not names or (unknown := [name for name in names if name not in ESTIMATES]):
        what = f"there is no estimate {unknown[0]!r}" if names else "name one, or none"
        known = ", ".join(ESTIMATES)
        raise FieldError("estimates", config.estimates, f"{what}; known are {known}")
    return names


def run(config: Config) -> dict[str, Any]:
    """Trains, compares, draws; returns what `summary.json` holds.

    Raises:
      InputError: options, an artefact, data or a working directory that cannot be used.
    """
    names = _estimates(config)
    if not config.artefact:
        raise FieldError("artefact", "", "name a distilled set, such as distilled.npz")
    ((label, named),) = load_artefacts(config.artefact, "artefact").items()
    workdir = workdir_path("experiments.influence", config, label)
    with open_workdir(workdir, "experiments.influence", config):
        summary = _run(config, names, named, workdir)
    _show(summary, workdir)
    return summary


def _prepare(config: Config, named: Named) -> _Problem:
    artefact = named.artefact
    loaded = load_data_of(named, config.dataset, config.data_dir)
    model, _ = sized_model(own_network("the set", artefact), loaded)
    labels = loaded.test.labels
    each = max(1, config.test_images // loaded.num_classes)
    positions = np.concatenate(
        [np.flatnonzero(labels == j)[:each] for j in range(loaded.num_classes)]
    )
    split = data.Split(loaded.test.images[positions], labels[positions])
    return _Problem(
        named,
        loaded,
        model,
        distilled_set.as_batch(artefact.distilled),
        data.on_device(split, artefact.transform, loaded.num_classes),
        positions,
        jax.random.split(fresh_key(config.seed), config.seeds),
        digest(
            [loaded.fingerprint, transform_digest(artefact.transform)],
            artefact.distilled,
        ),
    )


def _retrained(config: Config, problem: _Problem, workdir: pathlib.Path) -> Retrained:
    """Every network of the study, in the order of `leave_one_out.pairs`.

    Raises:
      InputError: a network whose losses are not finite.
    """
    keys, left_out = leave_one_out.pairs(problem.keys, problem.batch.labels.shape[0])
    num = keys.shape[0]
    size = min(config.piece, num)
    folder = workdir / "pieces"
    folder.mkdir(exist_ok=True)
    protocol = evaluation.PROTOCOLS["study"]

    @jax.jit
    def train(keys: Key, left_out: Array, batch: Batch, test: RealSet) -> Retrained:
        return leave_one_out.retrain(
            keys, left_out, problem.model, batch, test, protocol, together=config.together
        )

    parts, trained, seconds, last_line = [], 0, 0.0, time.monotonic()
    starts = range(0, num, size)
    for i, first in enumerate(starts):
        file = folder / f"{i}.npz"
        held = _held(file, problem.digest)
        if held is None:
            # The last piece is filled up, so that one program serves all of them.
            chosen = np.arange(first, first + size) % num
            began = time.perf_counter()
            found = jax.device_get(
                train(keys[chosen], left_out[chosen], problem.batch, problem.test)
            )
            held = Retrained(*(x[: num - first] for x in found))
            if not np.isfinite(held.losses).all():
                raise InputError(
                    "a network's test loss is not finite: training on this set diverged "
                    "under the protocol `study`"
                )
            with replacing(file) as temporary, temporary.open("wb") as opened:
                np.savez(opened, digest=problem.digest, **held._asdict())
            trained += 1
            seconds += time.perf_counter() - began
            if time.monotonic() - last_line > SECONDS_BETWEEN_LINES or i == len(starts) - 1:
                last_line = time.monotonic()
                left = seconds / trained * (len(starts) - 1 - i)
                print(
                    f"network {min(first + size, num)}/{num}  "
                    f"{seconds / trained / size:.3g} s/network  "
                    f"about {duration(left)} left",
                    file=sys.stderr,
                    flush=True,
                )
        parts.append(held)
    return jax.tree.map(lambda *part: jnp.concatenate(part), *parts)


def _held(file: pathlib.Path, digest: str) -> Retrained | None:
    if not file.exists():
        return None
    with np.load(file) as held:
        if str(held["digest"]) != digest:
            return None
        return Retrained(*(held[name] for name in Retrained._fields))


def _losses(model: Model) -> Callable[[Params, Batch], Array]:
    def each(params: Params, batch: Batch) -> Array:
        logits = model.apply(params, batch.images)
        return optax.losses.softmax_cross_entropy(logits, batch.labels)

    return each


def estimate(
    name: str, config: Config, problem: _Problem, key: Key
) -> tuple[np.ndarray, dict[str, Any]]:
    """An approximation of all influences on one trained network.

    Args:
      name: of `ESTIMATES`.
      config: its damping or ridge.
      problem: the set and the test images.
      key: of the initialisation, the network that leave-one-out trains with it.

    Returns:
      f[n, t], and how well the linear systems were solved, if any were.
    """
    model, batch = problem.model, problem.batch
    protocol = evaluation.PROTOCOLS["study"]
    test = Batch(
        problem.test.transform(problem.test.images),
        jax.nn.one_hot(problem.test.labels, problem.loaded.num_classes),
    )

    @jax.jit
    def trained(key: Key, batch: Batch) -> Params:
        return evaluation.train(key, model, batch, protocol)

    params = trained(key, batch)
    if name == "gauss_newton":
        damping = config.damping
        if damping is None:
            steps = protocol.num_steps(batch.labels.shape[0])
            damping = (1 - protocol.momentum) / ((protocol.lr or 1.0) * steps)

        @jax.jit
        def solve(params: Params, batch: Batch, test: Batch) -> influence.Influence:
            return influence.influence_function(
                hessian.ggn(model.apply, params, batch),
                _losses(model),
                params,
                batch,
                _losses(model),
                test,
                damping=damping,
            )

        found = solve(params, batch, test)
        solved = {
            "damping": damping,
            "converged": int(found.solve.converged.sum()),
            "most_iterations": int(found.solve.num_iters.max()),
            "largest_residual": float(found.solve.residual.max()),
        }
        return np.asarray(found.changes), solved

    @jax.jit
    def ridge(params: Params, batch: Batch, test: Batch) -> Array:
        k_ss = ntk.empirical_ntk(model.apply, params, batch.images, form="trace")
        k_st = ntk.empirical_ntk(
            model.apply, params, batch.images, test.images, form="trace"
        )
        y = batch.labels - 1 / batch.labels.shape[1]
        fitted = kernels.predict(k_st.T, kernels.kernel_ridge(k_ss, y, ridge=config.ridge))
        without = kernels.leave_one_out(k_ss, k_st.T, y, config.ridge)
        target = test.labels - 1 / test.labels.shape[1]
        error = jnp.square(without - target).sum(-1) - jnp.square(fitted - target).sum(-1)
        return error / 2

    return np.asarray(ridge(params, batch, test)), {"ridge": config.ridge}


def _compared(
    estimated: np.ndarray, influences: np.ndarray, whole_mean: np.ndarray
) -> dict[str, Any]:
    """Rank correlations over test images, each seed and left-out image on its own."""

    def summary(values: np.ndarray) -> dict[str, Any]:
        finite = values[np.isfinite(values)]
        per_seed = np.nanmean(values, axis=1)
        return {
            **spread(per_seed),
            "over_images_std": float(finite.std(ddof=1)) if finite.size > 1 else None,
            "undefined": int(values.size - finite.size),
        }

    same = leave_one_out.rank_correlation(jnp.asarray(estimated), jnp.asarray(influences))
    mean = leave_one_out.rank_correlation(
        jnp.asarray(estimated),
        jnp.broadcast_to(jnp.asarray(whole_mean), estimated.shape),
    )
    return {
        "with_the_same_initialisation": summary(np.asarray(same)),
        "with_the_mean_over_initialisations": summary(np.asarray(mean)),
    }


def _run(
    config: Config, names: list[str], named: Named, workdir: pathlib.Path
) -> dict[str, Any]:
    began = time.perf_counter()
    problem = _prepare(config, named)
    arranged = leave_one_out.arrange(_retrained(config, problem, workdir), config.seeds)
    influences = leave_one_out.influence(arranged.without.losses, arranged.whole.losses)
    mean = leave_one_out.mean_influence(influences)
    floor = leave_one_out.noise_floor(arranged.whole.losses)
    reliability = leave_one_out.reliability(influences).overall
    compared: dict[str, Any] = {}
    estimates: dict[str, np.ndarray] = {}
    for name in names:
        print(f"estimating by {name}", file=sys.stderr, flush=True)
        found = [estimate(name, config, problem, key) for key in problem.keys]
        estimates[name] = np.stack([values for values, _ in found])
        compared[name] = {
            **_compared(estimates[name], np.asarray(influences), np.asarray(mean.value)),
            "solved": [solved for _, solved in found],
        }
    most = np.argsort(-np.asarray(mean.value), axis=1)[:, :9]
    with replacing(workdir / "influence.npz") as temporary, temporary.open("wb") as opened:
        held: dict[str, Any] = {
            "influences": np.asarray(influences),
            "noise_floor": np.asarray(floor),
            "test_positions": problem.test_positions,
        }
        held |= {f"estimated_{name}": values for name, values in estimates.items()}
        np.savez(opened, **held)
    artefact, loaded = named.artefact, problem.loaded
    labels = np.asarray(problem.batch.labels.argmax(-1))
    test_labels = np.asarray(problem.test.labels)
    num = len(labels)
    shown = np.unique(np.linspace(0, num - 1, min(config.shown, num)).round().astype(int))
    influenced(
        workdir / "influence.png",
        displayable(artefact.transform, artefact.distilled.images)[shown],
        np.asarray(problem.test.images)[most[shown]] / 255.0,
        [loaded.class_names[j] for j in labels[shown]],
        [[loaded.class_names[j] for j in test_labels[row]] for row in most[shown]],
        f"Test images that miss each image most ({artefact.method}, {loaded.name})",
    )
    sizes = np.abs(np.asarray(mean.value))
    significant = sizes > 2 * np.asarray(mean.standard_error)
    error = float(reliability.standard_error)
    summary = {
        "images": num,
        "test_images": len(test_labels),
        "networks": config.seeds * (num + 1),
        "accuracy_on_all": spread(arranged.whole.accuracy),
        "accuracy_without_one": float(arranged.without.accuracy.mean()),
        "mean_absolute_influence": float(sizes.mean()),
        "mean_noise_floor": float(floor.mean()),
        # Of each initialisation, before the mean over them makes influences smaller.
        "influence_over_noise": spread_interval(
            np.abs(np.asarray(influences)).mean(axis=(1, 2)) / float(floor.mean())
        ),
        "share_above_two_standard_errors": float(significant.mean()),
        "reliability": {
            "value": float(reliability.value),
            "standard_error": error if math.isfinite(error) else None,
            "of": reliability.of,
            "seeds": config.seeds,
        },
        "same_class_among_top_nine": float((test_labels[most] == labels[:, None]).mean()),
        "estimates": compared,
        "most_influenced": problem.test_positions[most].tolist(),
        "artefact": {"path": named.path, "method": artefact.method},
        "parameters": parameters.num_params(problem.model),
        "protocol": "study",
        "dataset": describe_dataset(loaded),
        "seconds": time.perf_counter() - began,
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    write_json(workdir / "summary.json", summary)
    return json.loads(json.dumps(summary))


def _show(summary: Mapping[str, Any], workdir: pathlib.Path) -> None:
    print(
        f"{summary['networks']} networks; mean absolute influence "
        f"{summary['mean_absolute_influence']:.3g}, noise floor "
        f"{summary['mean_noise_floor']:.3g}; "
        f"{summary['share_above_two_standard_errors']:.0%} beyond two standard errors"
    )
    seeds = summary["reliability"]["seeds"]
    title = f"Rank correlation with leave-one-out, {seeds} seeds"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("", "same weights at the start", "mean over them"):
        table.add_column(column, justify="left" if not column else "right")
    reliability = summary["reliability"]
    error = reliability["standard_error"]
    beside = "" if error is None else f" ±{error:.2f}"
    table.add_row("leave-one-out from others", f"{reliability['value']:.2f}{beside}", "")
    for name, row in summary["estimates"].items():
        cells = [
            f"{row[which]['mean']:.2f} ±{row[which]['std']:.2f}"
            for which in (
                "with_the_same_initialisation",
                "with_the_mean_over_initialisations",
            )
        ]
        table.add_row(name, *cells)
    Console().print(table)
    print(
        f"{summary['same_class_among_top_nine']:.0%} of the nine most influenced test "
        "images are of the class of the distilled image"
    )
    print(
        f"{duration(summary['seconds'])}. summary.json, influence.npz and influence.png "
        f"lie in {workdir}"
    )


def main(config: Config) -> None:
    """Entry of the command line."""
    run(config)
