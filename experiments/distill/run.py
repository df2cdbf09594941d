"""Distil a data set into a few images per class, and test networks trained on them.

    python -m experiments.distill
    python -m experiments.distill --method=dm --ipc=10
    python -m experiments.distill --dataset=cifar10 --data_dir=DIR --convnet.width=32
    python -m experiments.distill --seeds=0,1,2 --sweep.ipc=1,10

Without flags: the embedded subset of Fashion-MNIST, one image a class, `bptt`. The
working directory then holds the distilled set (`distilled.npz`; the best so far,
`so_far.npz`, while it runs), its picture (`grid.png`), the loss curve (`loss.png`),
`metrics.jsonl`, `config.json` and `summary.json`. The same command given again resumes an
interrupted run, and shows the summary of a finished one.

The same command with a larger `--steps` or `--eval_seeds`, and the `--workdir` of a
finished run, continues it: bit for bit as if it had that value from the start.

Several values of a flag are several runs: a folder each, and at the end one table with the
spread between distillations beside that over networks.

The set is chosen by the accuracy of fresh networks on held-out training images; the
test set is read once, at the end.
"""

import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from distilljax import __version__, data, io, launch, loop, processes, watching
from distilljax.analysis.statistics import Spread
from distilljax.comparison import fair
from distilljax.comparison.real import select_baselines
from distilljax.core.distilled import separate_targets
from distilljax.core.parametrisations import stored_numbers
from distilljax.distillation.start import held_out_score, labels_read
from distilljax.io import records
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.methods import METHODS
from distilljax.types import DistilledSet, InputError
from experiments.distill import given
from experiments.distill.figures import loss_curve
from experiments.distill.options import Config, learns_targets
from experiments.distill.presets import PRESETS
from experiments.distill.record import Notes, Summary
from experiments.distill.setting import Setting, make_setting
from experiments.distill.watch import BOARD, catch_up, find_hook, make_watcher
from experiments.lab import keys, sweep
from experiments.lab.accuracy import print_accuracies
from experiments.lab.baselines import parse_baselines
from experiments.lab.data import check_same_data, describe_dataset, short_name
from experiments.lab.pictures import image_grid, kept_apart
from experiments.lab.progress import Display, duration
from experiments.lab.records import describe_protocol, finished_summary, write_summary
from experiments.lab.sets import displayable
from experiments.lab.workdir import claim_data, identity_of, open_workdir, workdir_path

NAME = "experiments.distill"
RESULT, METRICS = "distilled.npz", "metrics.jsonl"
GROWS = ("steps", "eval_seeds", "whole_seeds")  # with which a finished run goes on
SO_FAR = "so_far.npz"  # the best set, until the run is finished


def run(config: Config) -> Summary:
    """Distils, tests, and writes everything into the working directory.

    Returns:
      The contents of `summary.json`: accuracies (fractions), times (seconds), versions.

    Raises:
      InputError: data, settings or working directory that cannot be used, or an outer
        loss that explodes; then `last_good.npz` holds the set before that.
    """
    hook = find_hook(config)
    method, _ = config.chosen("method")
    label = f"{short_name(config.dataset)}-{method}-ipc{config.ipc}"
    workdir = workdir_path(NAME, config, label)
    with open_workdir(workdir, NAME, config, GROWS):
        summary = finished_summary(workdir, Summary, "distill")
        if summary is None or not _has_result(config, workdir, summary):
            summary = _run(config, workdir, hook)
        else:
            check_same_data(workdir, config.dataset, config.data_dir, summary)
            given.check(config, workdir)
            print(f"this run was finished before; its results are in {workdir}")
            if config.tensorboard and processes.index() == 0:
                board = watching.TensorBoard(workdir / BOARD)
                catch_up(board, records.read(workdir / METRICS))
                board.close()
    _show(summary, workdir)
    return summary


def run_several(configs: Mapping[str, Config]) -> None:
    """Runs several configurations, by name, with one table at the end."""
    first = next(iter(configs.values()))
    find_hook(first)
    method, _ = first.chosen("method")
    sweep.run(configs, NAME, f"{short_name(first.dataset)}-{method}", run)


def _run(config: Config, workdir: pathlib.Path, hook: watching.Hook | None) -> Summary:
    began = time.perf_counter()
    setting = make_setting(config)
    identity = claim_data(workdir, setting.prepared.data)
    given.keep(config, workdir, setting.experts)
    result = _distil(config, setting, workdir, identity, hook)
    distilled_at = time.perf_counter()
    notes = _notes(setting, result)
    artefact = _artefact(config, setting, result.best, notes)
    io.save(workdir / RESULT, artefact)
    processes.once((workdir / SO_FAR).unlink)(missing_ok=True)
    with kept_apart("the pictures"):
        _draw(config, setting, result, workdir)
    print("training networks on the set and on real images, to test it", file=sys.stderr)
    accuracy, scores = _accuracies(config, setting, result.best)
    summary: Summary = {
        "accuracy": accuracy,
        "scores": scores,
        "protocol": describe_protocol(config.protocol, setting.protocol),
        "dataset": describe_dataset(setting.prepared.data),
        "best_step": notes["best_step"],
        "held_out_accuracy": notes["held_out_accuracy"],
        "inner_learning_rate": notes["inner_learning_rate"],
        "stored_numbers": notes["stored_numbers"],
        "experts": notes["experts"],
        "steps": result.num_steps,
        "seconds": {
            "compile": result.compile_seconds,
            "distil": distilled_at - began,
            "test": time.perf_counter() - distilled_at,
            "total": time.perf_counter() - began,
        },
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    return write_summary(workdir, Summary, summary)


@processes.once
def _has_result(config: Config, workdir: pathlib.Path, summary: Summary) -> bool:
    """Whether the set of a finished run is there; else checkpoints give it again."""
    path = workdir / RESULT
    try:
        held = io.load(path)
        theirs = held.config, held.dataset.get("fingerprint")
        if theirs != (identity_of(config), summary["dataset"]["fingerprint"]):
            raise InputError(f"{path} is the set of another run")
    except InputError as error:
        print(f"{error}; made again", file=sys.stderr, flush=True)
        return False
    return True


def _tell_of_scores(config: Config, history: Sequence[Mapping[str, Any]]) -> None:
    """Says where a run that goes on was scored besides, at the end it had before."""
    scored = [record["step"] for record in history if record.get("score") is not None]
    extra = [s for s in scored if s % config.score_every and s < config.steps]
    if extra:
        print(
            f"the set was scored at step {extra[0]} too, where this run ended before; a "
            f"run of {config.steps} steps would not, so that the set it chooses may differ",
            file=sys.stderr,
            flush=True,
        )


def _title(config: Config, setting: Setting) -> str:
    method, _ = config.chosen("method")
    return f"{method} on {setting.prepared.data.name}, {config.ipc} per class"


def _distil(
    config: Config,
    setting: Setting,
    workdir: pathlib.Path,
    identity: str,
    hook: watching.Hook | None,
) -> loop.Result:
    """Takes the outer steps, from where the run of that identity was left.

    Raises:
      InputError: the outer loss explodes; `last_good.npz` holds the set before that. Or
        the hook fails; the run can go on from there.
    """
    metrics = workdir / METRICS
    checkpoints = io.Checkpoints(workdir / "checkpoints", identity=identity)
    done = checkpoints.latest_step() or 0
    _tell_of_scores(config, records.read(metrics) if done else [])
    if missing := records.keep_until(metrics, done):
        text = f"{metrics} lacks {missing} of {done} steps; loss.png is drawn without them"
        print(text, file=sys.stderr, flush=True)
    watcher = make_watcher(config, hook, setting, workdir, metrics)

    def record(new: Sequence[Mapping[str, Any]]) -> None:
        records.append(metrics, new)
        watcher.records(new)

    def save_best(step: int, score: float, best: DistilledSet) -> None:
        notes = {"best_step": step, "held_out_accuracy": score}
        io.save(workdir / SO_FAR, _artefact(config, setting, best, notes))

    def progressed(at: loop.Progress) -> None:
        display.update(at)
        watcher.progress(at)

    goes_on = "the run is kept to there, and the same command goes on"
    with watcher.closing(goes_on), Display(_title(config, setting)) as display:
        try:
            return loop.run(
                setting.method,
                setting.start,
                setting.source,
                jax.random.key(config.seed),
                num_steps=config.steps,
                score=held_out_score(
                    setting.model,
                    setting.protocol,
                    config.score_seeds,
                    setting.mesh,
                    targets=learns_targets(config),
                ),
                score_source=(setting.prepared.held_out, setting.validation),
                score_every=config.score_every,
                checkpoints=checkpoints,
                mesh=setting.mesh,
                checkpoint_seconds=config.checkpoint_seconds,
                on_records=record,
                on_progress=progressed,
                on_resume=lambda step: print(f"resuming at step {step} in {workdir}"),
                on_best=save_best,
            )
        except loop.DivergedError as error:
            good = workdir / "last_good.npz"
            io.save(good, _artefact(config, setting, error.last_good, {}))
            method, group = config.chosen("method")
            lower = " or ".join(
                f"--{method}.{name}={getattr(group, name)}"
                for name in METHODS[method].LOWER
            )
            refused = InputError(
                f"{error}; the set before that step is in {good}. "
                f"Lower {lower}, in a new --workdir"
            )
            raise processes.known_to_all(refused) from None
        finally:
            checkpoints.close()


def _notes(setting: Setting, result: loop.Result) -> Notes:
    encoded = jax.eval_shape(setting.parametrisation.encode, setting.start)
    return {
        "best_step": result.best_step,
        "held_out_accuracy": result.best_score,
        "inner_learning_rate": float(jnp.exp(result.best.log_lr)),
        "stored_numbers": stored_numbers(encoded),
        "experts": None if setting.experts is None else dict(setting.experts),
    }


def _artefact(
    config: Config, setting: Setting, distilled: DistilledSet, notes: Mapping[str, Any]
) -> io.Artefact:
    loaded, targets = setting.prepared.data, None
    if learns_targets(config):
        distilled, targets = separate_targets(distilled)
    return io.Artefact(
        distilled=distilled,
        transform=setting.prepared.transform,
        class_names=loaded.class_names,
        dataset={
            "name": config.dataset,
            "source": loaded.source,
            "fingerprint": loaded.fingerprint,
        },
        method=config.chosen("method")[0],
        config=identity_of(config),
        protocol=setting.protocol,
        version=__version__,
        notes=dict(notes),
        targets=targets,
    )


def _draw(
    config: Config, setting: Setting, result: loop.Result, workdir: pathlib.Path
) -> None:
    title = _title(config, setting)
    history = records.read(workdir / METRICS)
    loss_curve(workdir / "loss.png", history, title, result.best_step)
    transform = setting.prepared.transform
    image_grid(
        workdir / "grid.png",
        displayable(transform, result.best.images),
        setting.prepared.data.class_names,
        title,
        start=displayable(transform, setting.start.images),
    )


def _accuracies(
    config: Config, setting: Setting, best: DistilledSet
) -> tuple[dict[str, Spread], fair.Scores]:
    """Returns accuracies on the test set, which is read here, once, and the scores."""
    loaded, transform = setting.prepared.data, setting.prepared.transform
    targets = None
    if learns_targets(config):
        best, targets = separate_targets(best)
    train, test = (
        data.on_device(split, transform, loaded.num_classes)
        for split in (loaded.train, loaded.test)
    )
    baselines = select_baselines(
        parse_baselines(config.baselines, least=0),
        loaded.train,
        setting.prepared.real,
        config.ipc,
        config.eval_seeds,
        config.seed,
    )
    problem = fair.Problem(
        keys.distillation(config.seed)[1],
        keys.expert(config.seed),
        config.eval_seeds,
        setting.model,
        setting.protocol,
        best,
        targets,
        labels_read(setting.protocol, targets=targets is not None),
        baselines,
        train,
        test,
        setting.validation,
        setting.mesh,
    )
    wanted = fair.Wanted(
        config.scores, config.whole_epochs, config.whole_seeds, config.whole_epochs or 3
    )
    return fair.measure_fairly(problem, wanted)


def _show(summary: Summary, workdir: pathlib.Path) -> None:
    title = f"Test accuracy on {summary['dataset']['name']}"
    print_accuracies(summary["accuracy"], title)
    if "scores" in summary and (text := fair.spelt_scores(summary["scores"])):
        print(text)
    seconds = summary["seconds"]["total"]
    memory = summary["peak_memory_bytes"] / 2**30
    print(f"{duration(seconds)} in all, {memory:.1f} GiB at most. In {workdir}:")
    for name, text in (
        ("distilled.npz", "the distilled set, with its preprocessing and settings"),
        ("grid.png", "its picture"),
        ("loss.png", "outer loss and held-out accuracy"),
        ("metrics.jsonl", "every outer step"),
        ("config.json", "the settings and the command"),
        ("summary.json", "accuracies, times and versions"),
    ):
        print(f"  {name:<14} {text}")
    if (workdir / BOARD).is_dir():
        print(f"  {BOARD:<14} curves and pictures: tensorboard --logdir={workdir}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(
        Config,
        run,
        module=NAME,
        summary=__doc__,
        presets=PRESETS,
        several=run_several,
        argv=argv,
    )
