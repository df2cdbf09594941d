"""Distillation, end to end on a tiny data set."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import distilljax
from distilljax import data, io, launch
from distilljax.config import FieldError
from distilljax.io import records
from distilljax.methods import METHODS, bptt
from distilljax.models import mlp
from distilljax.training import evaluation
from distilljax.training.evaluation import PROTOCOLS, EvaluationProtocol
from distilljax.types import InputError
from experiments.distill import run as distill_run
from experiments.evaluate import run as evaluate
from experiments.lab import keys
from experiments.lab.records import open_sealed
from experiments.lab.workdir import open_workdir
from tests.cases import some
from tests.experiments.conftest import MLP
from tests.experiments.helpers import DAMAGE, damage

ROOT = pathlib.Path(__file__).parents[3]
FILES = {
    "config.json",
    "distilled.npz",
    "grid.png",
    "loss.png",
    "metrics.jsonl",
    "summary.json",
}
TINY = [
    *MLP,
    "--steps=12",
    "--score_every=5",
    "--held_out=5",
    "--eval_seeds=3",
    "--checkpoint_seconds=0",
]
WHOLE = ["--whole_epochs=2", "--whole_seeds=2"]
BPTT = ["--bptt.unroll=4", "--bptt.real_batch=20"]


def flags(dataset, workdir, *more):
    whole = [] if "--whole_epochs=0" in more else WHOLE
    return [f"--dataset={dataset}", f"--workdir={workdir}", *TINY, *whole, *more]


def config(dataset, workdir, *more):
    return launch.parse(distill_run.Config, flags(dataset, workdir, *more))


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """A finished bptt run: (workdir, summary)."""
    workdir = tmp_path_factory.mktemp("run") / "bptt"
    return workdir, distill_run.run(config(dataset, workdir, *BPTT))


def images_of(workdir):
    return np.asarray(io.load(workdir / "distilled.npz").distilled.images)


def test_leaves_everything_a_person_needs(finished):
    workdir, summary = finished
    assert {path.name for path in workdir.iterdir()} >= FILES
    assert open_sealed(workdir) == summary
    for name, seeds in (("distilled", 3), ("random", 3), ("whole", 2)):
        row = summary["accuracy"][name]
        assert row["seeds"] == seeds == len(row["values"])
        assert row["mean"] == pytest.approx(np.mean(row["values"]))
        assert row["std"] == pytest.approx(np.std(row["values"], ddof=1))
        assert 0 <= row["mean"] <= 1
    assert summary["peak_memory_bytes"] > 1e8
    assert summary["seconds"]["total"] > 0
    assert "jax" in summary["environment"]
    for picture in ("grid.png", "loss.png"):
        assert (workdir / picture).read_bytes().startswith(b"\x89PNG")
    history = records.read(workdir / "metrics.jsonl")
    assert [record["step"] for record in history] == list(range(1, 13))
    assert [r["step"] for r in history if "score" in r] == [5, 10, 12]


GROWN = ["--score_every=3", "--whole_epochs=0", "--noscores", "--baselines=", *BPTT]


@pytest.mark.slow
def test_more_steps_and_networks_on_a_finished_run(dataset, tmp_path, capsys):
    def run(place, *more):
        return distill_run.run(config(dataset, tmp_path / place, *GROWN, *more))

    first = run("grown", "--steps=6", "--eval_seeds=2")
    held = images_of(tmp_path / "grown")
    capsys.readouterr()
    grown = run("grown", "--steps=12", "--eval_seeds=3")
    told = capsys.readouterr()
    assert "this run goes on: eval_seeds from 2 to 3, steps from 6 to 12" in told.out
    assert "resuming at step 6" in told.out
    assert "was scored at step" not in told.err
    kept = tmp_path / "grown" / "before" / "eval_seeds2-steps6"
    assert open_sealed(kept) == first
    np.testing.assert_array_equal(images_of(kept), held)
    whole = run("whole", "--steps=12", "--eval_seeds=3")
    np.testing.assert_array_equal(
        images_of(tmp_path / "grown"), images_of(tmp_path / "whole")
    )
    assert grown["accuracy"] == whole["accuracy"]
    histories = [records.read(tmp_path / p / "metrics.jsonl") for p in ("grown", "whole")]
    assert histories[0] == histories[1]
    again = run("grown", "--steps=12", "--eval_seeds=3")
    assert again == grown
    with pytest.raises(InputError, match=r"steps is 12 there, 6 here.*may be larger"):
        run("grown", "--steps=6", "--eval_seeds=3")
    with pytest.raises(InputError, match=r"holds a different run .seed is 0 there"):
        run("grown", "--steps=15", "--eval_seeds=3", "--seed=1")


@pytest.mark.slow
def test_a_score_that_a_longer_run_would_not_have_is_told(dataset, tmp_path, capsys):
    for steps in (4, 6):
        distill_run.run(config(dataset, tmp_path / "r", *GROWN, f"--steps={steps}"))
    assert "the set was scored at step 4 too, where this run" in capsys.readouterr().err


@pytest.mark.slow
def test_several_seeds_end_in_one_table(dataset, tmp_path, capsys):
    short = ["--steps=2", "--eval_seeds=2", "--whole_epochs=0", "--noscores", *BPTT]
    words = [*flags(dataset, tmp_path / "many", *short), "--seeds=0,1"]
    configs = launch.parse_many(distill_run.Config, words)
    distill_run.run_several(configs)
    shown = capsys.readouterr().out
    assert "== 2 of 2 runs are finished" in shown
    values = [
        json.loads((tmp_path / "many" / name / "summary.json").read_text())["accuracy"]
        for name in ("seed0", "seed1")
    ]
    means = [np.mean(one["distilled"]["values"]) for one in values]
    assert f"{np.mean(means):.2%}" in shown
    assert f"{np.std(means, ddof=1):.2%} (2)" in shown
    assert (tmp_path / "many" / "sweep.png").exists()
    distill_run.run_several(configs)
    assert capsys.readouterr().out.count("this run was finished before") == 2
    alone = distill_run.run(config(dataset, tmp_path / "alone", *short, "--seed=1"))
    assert alone["accuracy"] == values[1]
    with pytest.raises(InputError, match="holds a single run; choose another --workdir"):
        distill_run.run_several(
            {n: c.replace({"workdir": str(tmp_path / "alone")}) for n, c in configs.items()}
        )


def test_a_run_that_fails_stops_no_other(dataset, tmp_path, capsys):
    short = ["--steps=2", "--eval_seeds=2", "--whole_epochs=0", "--noscores", *BPTT]
    words = [*flags(dataset, tmp_path / "many", *short), "--sweep.ipc=100,1"]
    configs = launch.parse_many(distill_run.Config, words)
    with pytest.raises(InputError, match="1 of 2 runs failed; ipc100: --ipc=100: 100 im"):
        distill_run.run_several(configs)
    assert "== 1 of 2 runs are finished" in capsys.readouterr().out
    assert (tmp_path / "many" / "ipc1" / "distilled.npz").exists()


def test_the_library_gives_the_same_set_and_numbers(finished, dataset):
    """`distilljax.distil` and its comparison, with the settings of the command."""
    made = distilljax.distil(
        str(dataset),
        bptt.Config(unroll=4, real_batch=20),
        mlp.Config(width=16, depth=1),
        steps=12,
        score_every=5,
        held_out=5,
    )
    np.testing.assert_array_equal(made.distilled.images, images_of(finished[0]))
    assert made.history == records.read(finished[0] / "metrics.jsonl")
    found = made.compare(networks=3, whole_epochs=2, whole_networks=2)
    assert found.accuracy == finished[1]["accuracy"]
    assert found.scores == finished[1]["scores"]


def test_scores_of_dd_ranking_are_in_the_summary(finished):
    mean = {name: row["mean"] for name, row in finished[1]["accuracy"].items()}
    scores = finished[1]["scores"]
    assert scores["ior"] == pytest.approx(mean["distilled"] - mean["random"])
    assert scores["hlr"] == pytest.approx(mean["whole"] - mean["distilled"])
    assert 0 < scores["lrs"] < 100


@pytest.mark.parametrize("loss", some(["squared_error", "cross_entropy"], "squared_error"))
def test_real_valued_labels_are_kept_and_read(dataset, tmp_path, loss, monkeypatch):
    """A squared error reads learned labels; cross-entropy the largest class of each."""
    protocol = EvaluationProtocol(steps=3, lr=0.05, loss=loss)
    monkeypatch.setitem(PROTOCOLS, "study", protocol)
    options = ["--method=kernel", "--kernel.real_batch=20", "--kernel.pool=2", "--noscores"]
    workdir = tmp_path / "run"
    summary = distill_run.run(config(dataset, workdir, *options, "--kernel.label_lr=0.1"))
    held = io.load(workdir / "distilled.npz")
    assert held.targets is not None
    one_hot = np.eye(3)[np.asarray(held.targets).argmax(1)]
    np.testing.assert_array_equal(jax.nn.softmax(held.distilled.label_logits), one_hot)
    if summary["best_step"]:
        assert not np.allclose(held.targets, one_hot - 1 / 3)
    labels = "own" if loss == "squared_error" else "hard"
    batch = evaluation.as_batch(
        held.distilled, protocol, targets=held.targets, labels=labels
    )
    expected = evaluation.fresh_accuracy(
        jax.random.split(keys.distillation(0)[1], 3),
        mlp.make(mlp.Config(width=16, depth=1), (8, 8, 1), 3),
        batch,
        data.on_device(data.load(str(dataset)).test, held.transform, 3),
        protocol,
    )
    found = summary["accuracy"]["distilled"]["values"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_start_from_real_valued_labels_says_what_becomes_of_them(
    finished, dataset, tmp_path, capsys
):
    made = io.load(finished[0] / "distilled.npz")
    source = tmp_path / "source.npz"
    targets = jax.numpy.eye(3)[np.repeat(np.arange(3), 1)] - 0.4
    io.save(source, made._replace(targets=targets))
    start = [f"--init_from={source}", "--steps=1", "--noscores", "--baselines="]
    argv = config(dataset, tmp_path / "bptt", *start, *BPTT)
    distill_run.run(argv)
    assert "its real-valued labels are left" in capsys.readouterr().err
    argv = config(dataset, tmp_path / "kernel", *start, "--method=kernel")
    with pytest.raises(FieldError, match=r"init_from=.*give its own command more --steps"):
        distill_run.run(argv)


@pytest.mark.parametrize("name", some(["squared", "looking"], "squared"))
def test_a_set_is_scored_by_its_protocol(dataset, tmp_path, monkeypatch, name):
    """Squared errors and looks at held-out images, without any baseline."""
    short = {
        "squared": EvaluationProtocol(steps=3, loss="squared_error", augment="flip"),
        "looking": EvaluationProtocol(steps=4, check_every=2, patience=2),
    }[name]
    monkeypatch.setitem(PROTOCOLS, "rfad", short)
    more = ["--protocol=rfad", "--baselines=", "--whole_epochs=0", *BPTT]
    workdir = tmp_path / "run"
    summary = distill_run.run(config(dataset, workdir, *more))
    extra = ["distilled_plain"] if name == "squared" else []
    assert list(summary["accuracy"]) == ["distilled", *extra]
    assert summary["scores"] == {"weight": 0.5}
    made = io.load(workdir / "distilled.npz")
    loaded = data.load(str(dataset))
    rest, _ = data.hold_out(loaded.train, 5, 0)
    looked = data.on_device(data.subset(rest, 3, 0), made.transform, 3)
    expected = evaluation.fresh_accuracy(
        jax.random.split(keys.distillation(0)[1], 3),
        mlp.make(mlp.Config(width=16, depth=1), (8, 8, 1), 3),
        evaluation.as_batch(made.distilled, short),
        data.on_device(loaded.test, made.transform, 3),
        short,
        validation=looked if name == "looking" else None,
    )
    found = summary["accuracy"]["distilled"]["values"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_artefact_describes_itself(finished, dataset):
    artefact = io.load(finished[0] / "distilled.npz")
    assert artefact.method == "bptt"
    assert artefact.class_names == ("top", "middle", "bottom")
    assert artefact.distilled.images.shape == (3, 8, 8, 1)
    assert artefact.config["bptt"]["unroll"] == 4
    assert artefact.notes["best_step"] == finished[1]["best_step"]
    assert launch.parse(distill_run.Config, flags(dataset, "x", *BPTT)).replace(
        artefact.config
    ) == config(dataset, "x", *BPTT)


def test_config_json_holds_a_command_that_repeats_the_run(finished, dataset):
    held = json.loads((finished[0] / "config.json").read_text())
    command = held["command"]
    assert command.startswith("python -m experiments.distill ")
    again = launch.parse(distill_run.Config, command.split()[3:])
    assert again == config(dataset, finished[0], *BPTT).replace({"workdir": None})


def test_a_finished_run_is_shown_not_repeated(finished, dataset, capsys):
    before = (finished[0] / "metrics.jsonl").stat().st_mtime_ns
    assert distill_run.run(config(dataset, finished[0], *BPTT)) == finished[1]
    assert "finished before" in capsys.readouterr().out
    assert (finished[0] / "metrics.jsonl").stat().st_mtime_ns == before


def copied(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    return workdir


@pytest.mark.parametrize("how", some(DAMAGE, "truncated", "deleted"))
def test_a_damaged_summary_is_made_again(finished, dataset, tmp_path, capsys, how):
    """From the last checkpoint, with the same numbers."""
    workdir, other = copied(finished, tmp_path), tmp_path / "other.json"
    other.write_text("[]\n")
    damage(how, workdir / "summary.json", other)
    if how == "flipped":  # a digit may still be one; no JSON without its first brace
        text = (workdir / "summary.json").read_text()
        (workdir / "summary.json").write_text("z" + text[1:])
    again = distill_run.run(config(dataset, workdir, *BPTT))
    assert again["accuracy"] == finished[1]["accuracy"]
    assert again["best_step"] == finished[1]["best_step"]
    np.testing.assert_array_equal(images_of(workdir), images_of(finished[0]))
    said = [line for line in capsys.readouterr().err.splitlines() if "again" in line]
    assert len(said) == (how != "deleted")
    assert all("summary.json cannot be read (" in line for line in said)


@pytest.mark.parametrize("how", ["truncated", "emptied", "deleted"])
def test_without_its_history_a_run_has_the_same_numbers(
    finished, dataset, tmp_path, capsys, how
):
    workdir = copied(finished, tmp_path)
    (workdir / "summary.json").unlink()
    damage(how, workdir / "metrics.jsonl", workdir / "config.json")
    again = distill_run.run(config(dataset, workdir, *BPTT))
    assert again["accuracy"] == finished[1]["accuracy"]
    said = [line for line in capsys.readouterr().err.splitlines() if "lacks" in line]
    (line,) = said
    assert line.endswith(" of 12 steps; loss.png is drawn without them")


def test_a_run_is_not_resumed_on_other_data(dataset, tmp_path, capsys):
    moved = tmp_path / "moved.npz"
    moved.write_bytes(dataset.read_bytes())
    chosen = config(moved, tmp_path / "run", *BPTT, "--steps=1", "--whole_epochs=0")
    before = distill_run.run(chosen)
    with np.load(dataset) as held:
        arrays = dict(held)
    np.savez(moved, **arrays | {"test_images": 255 - arrays["test_images"]})
    with pytest.raises(InputError, match="holds a run on other data"):
        distill_run.run(chosen)  # it is finished, and would be shown
    moved.unlink()
    assert distill_run.run(chosen) == before
    assert "is not compared with its data" in capsys.readouterr().err
    np.savez(moved, **arrays | {"test_images": 255 - arrays["test_images"]})
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(InputError, match="holds a run on other data"):
        distill_run.run(chosen)


def test_the_set_of_another_run_is_not_shown_as_its_own(
    finished, dataset, tmp_path, capsys
):
    workdir = copied(finished, tmp_path)
    held = io.load(workdir / "distilled.npz")
    io.save(workdir / "distilled.npz", held._replace(config={**held.config, "seed": 7}))
    assert distill_run.run(config(dataset, workdir, *BPTT))["best_step"]
    assert "is the set of another run; made again" in capsys.readouterr().err
    np.testing.assert_array_equal(images_of(workdir), images_of(finished[0]))
    assert io.load(workdir / "distilled.npz").config["seed"] == 0


def test_checkpoints_of_another_run_are_refused(finished, dataset, tmp_path):
    workdir, other = copied(finished, tmp_path), tmp_path / "other"
    distill_run.run(config(dataset, other, *BPTT, "--seed=7"))
    (workdir / "summary.json").unlink()
    shutil.rmtree(workdir / "checkpoints")
    shutil.copytree(other / "checkpoints", workdir / "checkpoints")
    with pytest.raises(InputError, match="cannot be restored"):
        distill_run.run(config(dataset, workdir, *BPTT))


def test_a_broken_history_is_refused_by_name(finished, dataset, tmp_path):
    workdir = copied(finished, tmp_path)
    (workdir / "summary.json").unlink()
    path = workdir / "metrics.jsonl"
    path.write_text("{" + path.read_text())
    with pytest.raises(InputError, match=r"metrics\.jsonl has a damaged line .* delete it"):
        distill_run.run(config(dataset, workdir, *BPTT))


def test_a_summary_of_another_version_is_refused(finished, dataset, tmp_path):
    workdir = copied(finished, tmp_path)
    (workdir / "summary.json").write_text(json.dumps({**finished[1], "format": 2}))
    with pytest.raises(InputError, match=r"format 2 of experiments\.distill, and this"):
        distill_run.run(config(dataset, workdir, *BPTT))


OWN = {
    "bptt": ["--bptt.real_batch=10", "--bptt.unroll=2"],
    "gm": ["--gm.real_batch=10"],
    "dm": ["--dm.real_batch=10"],
    "tm": ["--tm.student_steps=2", "--tm.max_start=2"],
    "kernel": ["--kernel.real_batch=10", "--kernel.pool=2"],
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_from_the_command_line(dataset, experts, tmp_path, method):
    argv = [f"--method={method}", *OWN[method], "--ipc=2", "--steps=2"]
    if METHODS[method].SOURCE == "experts":
        argv.append(f"--experts_dir={experts}")
    summary = distill_run.run(config(dataset, tmp_path, *argv))
    assert io.load(tmp_path / "distilled.npz").method == method
    assert summary["accuracy"]["distilled"]["seeds"] == 3


TM = ["--method=tm", *OWN["tm"], "--tm.label_lr=1", "--steps=2", "--whole_epochs=0"]


def test_labels_that_begin_as_the_experts_see_the_images(dataset, experts, tmp_path):
    argv = [*TM, f"--experts_dir={experts}", "--labels=expert", "--num_experts=1"]
    summary = distill_run.run(config(dataset, tmp_path, *argv))
    logits = np.asarray(io.load(tmp_path / "distilled.npz").distilled.label_logits)
    assert (logits.argmax(-1) == [0, 1, 2]).all(), "from images that are classified right"
    assert np.isfinite(logits).all()
    assert len(np.unique(logits)) == logits.size
    assert summary["experts"]["num_epochs"] == 5
    held = json.loads((tmp_path / "config.json").read_text())
    assert str(experts) not in json.dumps(held)


def test_a_run_is_not_resumed_with_other_experts(dataset, experts, tmp_path):
    argv = [*TM, f"--experts_dir={experts}", "--labels=soft"]
    distill_run.run(config(dataset, tmp_path, *argv))
    (tmp_path / "summary.json").unlink()
    described = json.loads((tmp_path / "experts.json").read_text())
    (tmp_path / "experts.json").write_text(json.dumps(described | {"seed": 7}))
    with pytest.raises(InputError, match="holds a run with other experts"):
        distill_run.run(config(dataset, tmp_path, *argv))
    (tmp_path / "experts.json").write_text("{")
    with pytest.raises(InputError, match=r"experts\.json is damaged; choose another"):
        distill_run.run(config(dataset, tmp_path, *argv))


def test_a_finished_run_is_not_shown_as_that_of_other_experts(
    dataset, experts, tmp_path, capsys
):
    workdir, other = tmp_path / "run", tmp_path / "other"
    argv = [*TM, "--labels=soft"]
    own = config(dataset, workdir, *argv, f"--experts_dir={experts}")
    before = distill_run.run(own)
    assert distill_run.run(own) == before
    shutil.copytree(experts, other)
    described = json.loads((other / "experts.json").read_text())
    described["description"]["seed"] = 7
    (other / "experts.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="holds a run with other experts; give the"):
        distill_run.run(config(dataset, workdir, *argv, f"--experts_dir={other}"))
    capsys.readouterr()
    assert distill_run.run(config(dataset, workdir, *argv)) == before
    assert "experts" not in capsys.readouterr().err
    gone = config(dataset, workdir, *argv, "--experts_dir=absent")
    assert distill_run.run(gone) == before
    assert "absent: there are no experts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("memory", 3 * 3),
        pytest.param("multi_formation", 3 * 4, marks=pytest.mark.slow),
    ],
)
def test_a_parametrised_set_is_saved_decoded(dataset, tmp_path, name, images):
    argv = [f"--parametrisation={name}", *BPTT, "--baselines=random,herding,k_centre"]
    if name == "memory":
        argv.append("--memory.images=3")
    summary = distill_run.run(config(dataset, tmp_path, *argv, "--whole_epochs=0"))
    artefact = io.load(tmp_path / "distilled.npz")
    assert artefact.distilled.images.shape == (images, 8, 8, 1)
    assert artefact.config["parametrisation"] == name
    assert summary["stored_numbers"] <= 3 * 64
    assert list(summary["accuracy"]) == ["distilled", "random", "herding", "k_centre"]
    again = evaluate.run(
        launch.parse(
            evaluate.Config,
            [
                f"--artefact={tmp_path / 'distilled.npz'}",
                f"--workdir={tmp_path / 'again'}",
                "--seeds=3",
            ],
        )
    )
    assert again["accuracy"].keys() == {"distilled", "random"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method=tm"], "experts_dir=None: a folder of expert trajectories is needed"),
        (["--labels=expert"], "experts_dir=None: a folder of expert"),
        (["--experts_dir=x"], "experts_dir='x': --method=bptt --labels=hard uses none"),
        (["--method=tm", "--experts_dir=absent"], "absent: there are no experts"),
        (["--bptt.label_lr=1"], "bptt.label_lr=1.0: hard labels cannot be learned"),
        (["--labels=soft"], "labels='soft': bptt does not .* --bptt.label_lr"),
        (["--method=dm", "--labels=soft"], "labels='soft': dm does not learn them here$"),
        (["--labels=soft", "--bptt.label_lr=1", "--confidence=0.3"], "more than chance"),
        (["--num_experts=2"], "num_experts=2: --method=bptt --labels=hard uses none"),
        (["--confidence=0.8"], "confidence=0.8: --labels=hard uses none; leave it out"),
        (["--init=noise", "--init_from=x"], "init='noise': --init_from names the images"),
        (
            ["--whole_epochs=0", "--whole_seeds=5"],
            "whole_seeds=5: --whole_epochs=0 trains none; leave it out",
        ),
        (["--baselines=best"], "baselines='best': unknown baseline 'best'"),
        (
            ["--parametrisation=multi_formation", "--multi_formation.factor=3"],
            "multi_formation.factor=3",
        ),
        (["--parametrisation=multi_formation", "--ipc=9"], "ipc=9: 36 images of each"),
        (["--preprocess=published"], "no published constants for"),
        (["--init=noise", "--ipc=90"], "^baselines: random takes 90 images of each class"),
        (
            ["--init=noise", "--ipc=90", "--baselines=herding"],
            "^baselines: herding takes 90 .*; leave herding out",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(dataset, tmp_path, more, message):
    with pytest.raises(InputError) as caught:
        distill_run.run(config(dataset, tmp_path / "run", *more))
    assert re.search(message, str(caught.value)), caught.value
    assert not (tmp_path / "run").exists()


def test_experts_of_another_split_are_refused(dataset, experts, tmp_path):
    argv = [*TM, f"--experts_dir={experts}", "--labels=soft", "--split_seed=1"]
    with pytest.raises(InputError, match="split_seed is 0 there and 1 is wanted"):
        distill_run.run(config(dataset, tmp_path / "run", *argv))


@pytest.mark.slow
def test_noise_becomes_a_set_that_teaches(dataset, tmp_path):
    """A set that is still noise teaches nothing: a third is right by chance."""
    more = ["--bptt.unroll=8", "--bptt.real_batch=60", "--init=noise", "--score_every=30"]
    still = [*more, "--steps=1", "--bptt.image_lr=1e-9", "--whole_epochs=0"]
    untaught = distill_run.run(config(dataset, tmp_path / "a", *still))
    learned = [*more, "--steps=60", "--whole_epochs=60"]
    taught = distill_run.run(config(dataset, tmp_path / "b", *learned))
    assert untaught["accuracy"]["distilled"]["mean"] < 0.6
    assert taught["accuracy"]["distilled"]["mean"] > 0.8
    assert taught["accuracy"]["whole"]["mean"] > 0.9


def start_process(argv):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.distill", *argv],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_killed_and_resumed_is_the_same_run_bit_for_bit(finished, dataset, tmp_path, how):
    argv = flags(dataset, tmp_path, *BPTT)
    checkpoints = tmp_path / "checkpoints"
    process = start_process(argv)
    deadline = time.monotonic() + 300
    while not any(path.name.isdigit() for path in checkpoints.glob("*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == (-how if how == signal.SIGKILL else 130), stderr
    assert not (tmp_path / "summary.json").exists()

    process = start_process(argv)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "resuming at step" in stdout
    workdir, _ = finished
    np.testing.assert_array_equal(images_of(tmp_path), images_of(workdir))
    assert records.read(tmp_path / "metrics.jsonl") == records.read(
        workdir / "metrics.jsonl"
    )
    accuracy = json.loads((tmp_path / "summary.json").read_text())["accuracy"]
    assert accuracy == finished[1]["accuracy"]


def test_continues_from_an_artefact(finished, dataset, tmp_path):
    source = finished[0] / "distilled.npz"
    more = [*BPTT, f"--init_from={source}", "--steps=1", "--bptt.image_lr=1e-12"]
    distill_run.run(config(dataset, tmp_path, *more))
    np.testing.assert_allclose(
        images_of(tmp_path), images_of(finished[0]), rtol=0, atol=1e-6
    )


def test_continues_from_an_artefact_without_matrices(dataset, tmp_path, capsys):
    """Its preprocessing is fitted again, to the images that its run did not hold out."""
    argv = [*BPTT, "--preprocess=zca", "--held_out=5", "--whole_epochs=0", "--noscores"]
    distill_run.run(config(dataset, tmp_path / "first", *argv))
    source, expected = tmp_path / "first" / "distilled.npz", images_of(tmp_path / "first")
    io.save(source, io.load(source), matrices=False)
    more = [*argv, f"--init_from={source}", "--steps=1", "--bptt.image_lr=1e-12"]
    distill_run.run(config(dataset, tmp_path / "second", *more))
    np.testing.assert_allclose(images_of(tmp_path / "second"), expected, rtol=0, atol=1e-5)
    assert "is fitted to" in capsys.readouterr().err


def test_a_start_that_is_not_in_order_of_classes_is_refused(finished, dataset, tmp_path):
    made, source = io.load(finished[0] / "distilled.npz"), tmp_path / "source.npz"
    logits = made.distilled.label_logits
    for wrong in (logits[::-1], logits[np.array([0, 0, 1])]):
        turned = made.distilled._replace(label_logits=wrong)
        io.save(source, made._replace(distilled=turned))
        argv = config(dataset, tmp_path / "run", *BPTT, f"--init_from={source}")
        with pytest.raises(FieldError, match=r"init_from=.*not 1 of each class in order"):
            distill_run.run(argv)
    assert not (tmp_path / "run").exists()


def test_a_run_that_began_with_another_set_is_refused(finished, dataset, tmp_path, capsys):
    source, workdir = tmp_path / "set.npz", tmp_path / "run"
    shutil.copy(finished[0] / "distilled.npz", source)
    more = [f"--init_from={source}", "--steps=1", "--whole_epochs=0", "--noscores"]
    chosen = config(dataset, workdir, *BPTT, *more)
    before = distill_run.run(chosen)
    assert distill_run.run(chosen) == before
    held = io.load(source)
    changed = held.distilled._replace(images=held.distilled.images + 1)
    io.save(source, held._replace(distilled=changed))
    summary = (workdir / "summary.json").read_bytes()
    with pytest.raises(InputError, match=r"holds a run from another set \(the SHA-256 of"):
        distill_run.run(chosen)  # it is finished, and would be shown
    (workdir / "summary.json").unlink()
    with pytest.raises(InputError, match="holds a run from another set"):
        distill_run.run(chosen)
    (workdir / "summary.json").write_bytes(summary)
    (workdir / "start.json").unlink()  # as in runs made before
    assert distill_run.run(chosen) == before
    source.unlink()
    capsys.readouterr()
    assert distill_run.run(chosen) == before
    assert "is not compared with what it was given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--ipc=36"], "ipc=36: 36 images of each class are wanted, the smallest has 35"),
        (["--held_out=40"], "held_out=40: the smallest class, 'top', has 40"),
        (["--init_from=absent.npz"], "absent.npz: no such file"),
        (["--bptt.real_batch=106"], "bptt.real_batch=106: there are 105 training images"),
        (["--dataset=absent.npz"], "absent.npz"),
    ],
)
def test_what_the_data_cannot_give_is_refused(dataset, tmp_path, more, message):
    with pytest.raises(InputError) as caught:
        distill_run.run(config(dataset, tmp_path / "run", *more))
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists(), "a mistake must not claim the place"


def test_a_convnet_too_deep_for_the_images_is_refused(dataset, tmp_path):
    argv = [f"--dataset={dataset}", f"--workdir={tmp_path}", "--held_out=5"]
    with pytest.raises(FieldError, match=r"model=.*cannot halve a 1x1"):
        distill_run.run(launch.parse(distill_run.Config, [*argv, "--convnet.depth=4"]))


def test_a_workdir_of_another_run_is_refused(finished, dataset):
    with pytest.raises(InputError, match=r"different run \(bptt.unroll is 4 there, 5 here"):
        distill_run.run(config(dataset, finished[0], "--bptt.unroll=5", BPTT[1]))
    assert {path.name for path in finished[0].iterdir()} >= FILES


def test_a_workdir_of_something_else_is_refused(dataset, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds files of something else"):
        distill_run.run(config(dataset, tmp_path))
    assert [path.name for path in tmp_path.iterdir() if path.suffix] == ["thesis.tex"]


def test_a_workdir_that_cannot_be_written_is_refused(dataset, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to workdir"):
        distill_run.run(config(dataset, tmp_path / "file" / "run"))


def test_a_workdir_in_use_is_refused(dataset, tmp_path):
    chosen = config(dataset, tmp_path, *BPTT)
    with (
        open_workdir(tmp_path, "experiments.distill", chosen),
        pytest.raises(InputError, match="in use by another process"),
    ):
        distill_run.run(chosen)


def test_divergence_keeps_the_last_good_set_and_says_what_to_lower(dataset, tmp_path):
    with pytest.raises(InputError) as caught:
        distill_run.run(config(dataset, tmp_path, *BPTT, "--bptt.image_lr=1e30"))
    assert "--bptt.image_lr=1e+30" in str(caught.value)
    assert "last_good.npz" in str(caught.value)
    assert np.isfinite(io.load(tmp_path / "last_good.npz").distilled.images).all()


@pytest.mark.parametrize("varied", ["--seeds=1,01", "--sweep.workdir=a,b"])
def test_one_run_is_not_counted_twice(dataset, tmp_path, monkeypatch, varied):
    monkeypatch.chdir(tmp_path)
    configs = launch.parse_many(distill_run.Config, [f"--dataset={dataset}", varied])
    with pytest.raises(InputError, match="have the same settings, so they would be one"):
        distill_run.run_several(configs)
    assert not list(tmp_path.iterdir())
