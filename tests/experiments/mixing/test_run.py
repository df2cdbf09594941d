"""Real images beside distilled ones, on tiny sets."""

import contextlib
import io as text_io
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from distilljax import data, io, launch
from distilljax.analysis.statistics import spread_interval
from distilljax.comparison.accuracy import compare_accuracies
from distilljax.comparison.real import random_subsets
from distilljax.core import losses
from distilljax.io import records
from distilljax.models import mlp
from distilljax.training.evaluation import PROTOCOLS, EvaluationProtocol
from distilljax.types import Batch, InputError
from experiments.lab.data import load_data_of
from experiments.lab.keys import fresh_key
from experiments.lab.records import open_sealed
from experiments.lab.sets import load_artefacts
from experiments.lab.table import CellTrainer, make_rows
from experiments.mixing import run as mixing_run
from tests.experiments.helpers import write, write_learned

RANDOM = "random, 2 per class"


@pytest.fixture(scope="module")
def artefact(dataset, tmp_path_factory):
    return write(tmp_path_factory.mktemp("sets") / "a" / "distilled.npz", dataset, ipc=2)


def config(workdir, artefacts, *more):
    argv = [
        f"--workdir={workdir}",
        f"--artefacts={artefacts}",
        "--protocol=own",
        "--seeds=3",
        *more,
    ]
    if not any(flag.startswith("--real_per_class=") for flag in more):
        argv.append("--real_per_class=3,0,1")
    return launch.parse(mixing_run.Config, argv)


@pytest.fixture(scope="module")
def finished(artefact, tmp_path_factory):
    """A finished table: (workdir, summary, stdout, stderr)."""
    workdir = tmp_path_factory.mktemp("run") / "table"
    out, err = text_io.StringIO(), text_io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        summary = mixing_run.run(config(workdir, artefact))
    return workdir, summary, out.getvalue(), err.getvalue()


def rows(artefact, seeds=3, protocol="own", seed=0):
    named = load_artefacts(str(artefact))
    loaded = load_data_of(next(iter(named.values())), None, None)
    return loaded, make_rows(named, loaded, protocol, seeds, own=True, seed=seed)


def test_everything_is_in_the_summary(finished):
    workdir, summary, out, err = finished
    assert open_sealed(workdir) == summary
    assert (workdir / "mixing.png").read_bytes().startswith(b"\x89PNG")
    assert list(summary["accuracy"]) == list(summary["rows"]) == ["a", RANDOM]
    for row, of_row in summary["accuracy"].items():
        assert list(of_row) == ["0", "1", "3"]
        for added, cell in of_row.items():
            values = np.array(cell["values"])
            assert len(values) == cell["seeds"] == 3
            half = 4.302653 * values.std(ddof=1) / 3**0.5
            mean = values.mean()
            expected = [mean - half, mean + half]
            np.testing.assert_allclose(cell["interval"], expected, atol=1e-6)
            assert added in ("0", *summary["difference"][row])
        change = np.array(of_row["3"]["values"]) - np.array(of_row["0"]["values"])
        assert summary["difference"][row]["3"]["values"] == change.tolist()
        assert f"{row}: real images" in out
    assert summary["rows"]["a"]["network"]["width"] == 4
    # One program for each number of images.
    compiled = [line for line in err.splitlines() if line.startswith("compiling")]
    assert [line.split(", ")[-1] for line in compiled] == [
        "6 images",
        "9 images",
        "15 images",
    ]


def test_without_real_images_it_is_what_evaluate_computes(finished, artefact):
    made, (loaded, _) = io.load(artefact), rows(artefact)
    expected = compare_accuracies(
        fresh_key(0),
        3,
        mlp.make(mlp.Config(width=4, depth=1), (8, 8, 1), 3),
        made.distilled,
        {"random": random_subsets(loaded.train, 2, 3, made.transform)},
        data.on_device(loaded.test, made.transform, 3),
        made.protocol,
    )
    for row, name in (("a", "distilled"), (RANDOM, "random")):
        found = finished[1]["accuracy"][row]["0"]["values"]
        np.testing.assert_allclose(found, expected[name]["values"])


@pytest.mark.parametrize("protocol", ["own", "study"])
def test_rows_are_trained_as_asked(artefact, protocol):
    _, (row, random) = rows(artefact, protocol=protocol)
    assert (
        row.protocol
        == random.protocol
        == PROTOCOLS.get(protocol, EvaluationProtocol(4, lr=None))
    )


def test_a_mixed_set_holds_the_images_asked_for(artefact):
    made, (loaded, (distilled, random)) = io.load(artefact), rows(artefact)
    train, transform = loaded.train, made.transform
    for network in (0, 2):
        few, many = (
            mixing_run.mixed_sets(distilled, added, train, np.array([network]), 0)
            for added in (1, 3)
        )
        # The set, and then real images that the random row has not got already.
        assert many.images.shape == (1, 6 + 9, 8, 8, 1)
        np.testing.assert_array_equal(many.images[0, :6], made.distilled.images)
        np.testing.assert_array_equal(many.labels[0, :6], few.labels[0, :6])
        drawn = data.subset(train, 2 + 3, seed=1000 + network)
        real = np.asarray(transform(jnp.asarray(drawn.images))).reshape(3, 5, 8, 8, 1)
        np.testing.assert_array_equal(many.images[0, 6:], real[:, 2:].reshape(9, 8, 8, 1))
        np.testing.assert_array_equal(many.labels[0, 6:], np.eye(3).repeat(3, axis=0))
        # A smaller number is a part of a larger one.
        np.testing.assert_array_equal(few.images[0, 6:], real[:, 2])
        np.testing.assert_array_equal(few.labels[0, 6:], np.eye(3))

        own = mixing_run.mixed_sets(random, 3, train, np.array([network]), 0)
        held = {image.tobytes() for image in np.asarray(own.images[0])}
        assert held == {image.tobytes() for image in real.reshape(15, 8, 8, 1)}
        assert len(held) == 15
        assert own.labels.sum(axis=1).tolist() == [[5, 5, 5]]


def test_studies_of_other_seeds_have_other_real_images(artefact):
    """Else what they agree in is taken for certain by an interval over them."""
    loaded, (distilled, random) = rows(artefact)
    _, (again, other) = rows(artefact, seed=1)
    networks = np.arange(3)
    assert (again.identity, again.label) == (distilled.identity, distilled.label)
    assert other.identity != random.identity
    mixed = [
        np.asarray(mixing_run.mixed_sets(row, 3, loaded.train, networks, seed).images)
        for row, seed in ((random, 0), (other, 1))
    ]
    for one, two in zip(*mixed, strict=True):
        assert not np.array_equal(one, two)
        # Each network has 15 different images, of which the random row holds the first.
        assert len({image.tobytes() for image in two}) == 15
    np.testing.assert_array_equal(mixed[1][:, :6], other.sets.images)
    drawn = data.subset(loaded.train, 2, seed=1000 + 2 + 2**20)
    expected = other.artefact.transform(jnp.asarray(drawn.images))
    np.testing.assert_array_equal(other.sets.images[2], expected)


def test_networks_have_sets_of_their_own(artefact):
    loaded, (row, _) = rows(artefact)
    stack = mixing_run.mixed_sets(row, 1, loaded.train, np.array([2, 0]), 0)
    for place, network in enumerate((2, 0)):
        one = mixing_run.mixed_sets(row, 1, loaded.train, np.array([network]), 0)
        np.testing.assert_array_equal(stack.images[place], one.images[0])
    assert not np.array_equal(stack.images[0, 6:], stack.images[1, 6:])
    alone = mixing_run.mixed_sets(row, 0, loaded.train, np.array([1]), 0)
    np.testing.assert_array_equal(alone.images, row.sets.images[1:2])


def test_cut_and_resumed_it_is_the_same(finished, artefact, tmp_path, monkeypatch):
    workdir, summary, _, _ = finished
    shutil.copytree(workdir, tmp_path / "cut")
    (tmp_path / "cut" / "summary.json").unlink()
    path = tmp_path / "cut" / "cells.jsonl"
    *lines, last = path.read_text().splitlines(keepends=True)
    assert len(lines) == 5
    path.write_text("".join(lines) + last[:30])
    trained, train = [], CellTrainer.train

    def watched(trainer, cell, training):
        trained.append((cell.row.label, cell.added))
        return train(trainer, cell, training)

    monkeypatch.setattr(CellTrainer, "train", watched)
    again = mixing_run.run(config(tmp_path / "cut", artefact))
    assert trained == [(RANDOM, 3)]
    for name in ("accuracy", "difference", "verdict", "rows"):
        assert again[name] == summary[name]
    trained.clear()
    mixing_run.run(config(tmp_path / "cut", artefact))
    assert not trained
    assert len(records.read(path)) == 6


@pytest.fixture
def fake(monkeypatch):
    """The cells that a run computes; nothing is trained."""
    asked = []

    def train(trainer, cell, training):
        asked.append((cell.row.label, cell.added, training.name))
        trainer._progress.trained(cell, 3, 1.0)
        return [0.25, 0.5, 0.75]

    monkeypatch.setattr(CellTrainer, "train", train)
    return asked


def test_cells_of_an_artefact_that_changed_are_computed_again(dataset, tmp_path, fake):
    path = write(tmp_path / "a.npz", dataset)
    chosen = config(tmp_path / "run", path, "--real_per_class=0,2", "--model=mlp")
    mixing_run.run(chosen)
    random = "random, 1 per class"
    assert fake == [(row, n, "mlp") for n in (0, 2) for row in ("a", random)]
    fake.clear()
    write(path, dataset, seed=1)
    mixing_run.run(chosen)
    assert fake == [("a", 0, "mlp"), ("a", 2, "mlp")]


def test_whether_real_images_lower_the_accuracy():
    def cell(values):
        return {"values": values}

    fallen = mixing_run._effects(
        {
            "0": cell([0.5, 0.6, 0.7]),
            "2": cell([0.4, 0.51, 0.59]),  # -0.1, -0.09, -0.11
            "10": cell([0.2, 0.9, 0.4]),  # -0.3, +0.3, -0.3: by chance
            "50": cell([0.6, 0.7, 0.8]),
        }
    )
    np.testing.assert_allclose(fallen["2"]["values"], [-0.1, -0.09, -0.11])
    half = 4.302653 * 0.01 / 3**0.5
    np.testing.assert_allclose(
        fallen["2"]["interval"], [-0.1 - half, -0.1 + half], rtol=1e-5
    )
    verdict = mixing_run._verdict(fallen)
    assert verdict == {"lowers": True, "lowered_by": [2], "lowest_at": 2}
    assert mixing_run._sentence(fallen, verdict) == (
        "real images lower the accuracy (+2); at +2 it changes by -10.0 points "
        "(-12.5 to -7.5)"
    )
    # By its own interval of 95 %, but not by one widened for three: -0.1 -+ 0.137.
    fallen["2"] = spread_interval([-0.1, -0.069, -0.131])
    assert fallen["2"]["interval"][1] < 0
    low, high = stats.t.interval(1 - 0.05 / 3, 2, -0.1, 0.031 / 3**0.5)
    assert low < 0 < high
    verdict = mixing_run._verdict(fallen)
    assert verdict == {"lowers": False, "lowered_by": [], "lowest_at": 2}
    del fallen["2"]
    verdict = mixing_run._verdict(fallen)
    assert verdict == {"lowers": False, "lowered_by": [], "lowest_at": 10}
    assert "do not lower the accuracy beyond chance; at +10" in mixing_run._sentence(
        fallen, verdict
    )


@pytest.mark.parametrize("num", [5, 8])  # the last chunk filled up; whole chunks
def test_chunks_change_neither_loss_nor_gradient(num, float64):
    model = mlp.make(mlp.Config(width=5, depth=1), (8, 8, 1), 3)
    params = jax.tree.map(lambda x: x.astype(jnp.float64), model.init(jax.random.key(0)))
    images = jax.random.normal(jax.random.key(1), (num, 8, 8, 1), jnp.float64)
    batch = Batch(images, jax.nn.one_hot(jnp.arange(num) % 3, 3, dtype=jnp.float64))
    found, expected = (
        jax.value_and_grad(losses.cross_entropy(one.apply))(params, batch)
        for one in (mixing_run.in_chunks(model, 4), model)
    )
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_chunks_bound_the_memory():
    model = mlp.make(mlp.Config(width=256, depth=1), (8, 8, 1), 3)
    params = model.init(jax.random.key(0))
    batch = Batch(jnp.zeros((2000, 8, 8, 1)), jnp.zeros((2000, 3)))

    def temporary(chunk):
        loss_fn = losses.cross_entropy(mixing_run.in_chunks(model, chunk).apply)
        compiled = jax.jit(jax.grad(loss_fn)).lower(params, batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    whole = temporary(None)
    assert whole > 2000 * 256 * 4
    assert temporary(100) < whole / 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--real_per_class=1,2"], "real_per_class='1,2': 0 must be one of the numbers"),
        (["--real_per_class=0,two"], "expected different integers from 0, with commas"),
        (["--real_per_class=0,-1"], "expected different integers from 0, with commas"),
        (["--real_per_class=0,2,2"], "expected different integers from 0, with commas"),
        (["--real_per_class=0,39"], "has 40 training images; add at most 38"),
        (["--artefacts="], "artefacts=.*name distilled sets"),
        (["--artefacts=absent.npz"], "absent.npz: no such file"),
        (["--model=resnet"], "unknown architecture 'resnet'; choose among own, convnet"),
        (["--model=mlp,own"], "model='mlp,own': name one"),
        (["--model=vgg11"], "model='vgg11': 8x8 images cannot be halved"),
    ],
)
def test_wrong_input_is_refused_and_leaves_nothing(artefact, tmp_path, fake, more, message):
    with pytest.raises(InputError, match=message):
        mixing_run.run(config(tmp_path / "run", artefact, *more))
    assert not fake
    assert not (tmp_path / "run").exists()


def test_real_images_beside_learned_targets(dataset, tmp_path):
    """Theirs are one-hot less 1/k, which is what a squared error reads."""
    learned = write_learned(tmp_path / "learned.npz", dataset)
    loaded, (row, random) = rows(learned)
    targets = io.load(learned).targets
    mixed = mixing_run.mixed_sets(row, 1, loaded.train, np.arange(2), 0)
    np.testing.assert_array_equal(mixed.labels[0, :6], targets)
    np.testing.assert_allclose(mixed.labels[0, 6:], np.eye(3) - 1 / 3, atol=1e-6)
    np.testing.assert_allclose(
        random.sets.labels[0], (np.eye(3) - 1 / 3).repeat(2, axis=0), atol=1e-6
    )


def test_learned_targets_want_a_loss_that_reads_them(dataset, tmp_path):
    learned = write_learned(tmp_path / "learned.npz", dataset)
    with pytest.raises(InputError, match=r"labels of learned are .* --labels=hard, or"):
        mixing_run.run(config(tmp_path / "run", learned, "--protocol=study"))
    assert not (tmp_path / "run").exists()
    summary = mixing_run.run(config(tmp_path / "run", learned, "--real_per_class=0,1"))
    assert list(summary["accuracy"]) == ["learned", RANDOM]
