"""Agreement with pools at equal accuracy, on tiny sets."""

import contextlib
import io as text_io
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data, io, launch
from distilljax.analysis import pools
from distilljax.analysis.statistics import satterthwaite
from distilljax.comparison.real import random_subsets
from distilljax.models import mlp
from distilljax.training import evaluation
from distilljax.types import Batch, InputError
from experiments.agreement import compare as agreement_compare
from experiments.agreement import figures as agreement_figures
from experiments.agreement import options as agreement_options
from experiments.agreement import run as agreement_run
from experiments.agreement import train as agreement_train
from experiments.lab.keys import fresh_key
from experiments.lab.records import open_sealed
from tests.analysis.test_pools import by_hand, classes, subset_batches, whole_batches
from tests.cases import some
from tests.experiments.helpers import (
    assert_computed_again,
    replace_contents,
    write,
    write_learned,
)

ROWS = ["subset", "two", "random, 2 per class"]
SEEDS, LR = 3, 0.05  # of `by_hand`
MODEL = mlp.make(mlp.Config(width=4, depth=1), (8, 8, 1), 3)


@pytest.fixture(scope="module")
def artefacts(dataset, tmp_path_factory):
    """One is called as a pool is."""
    folder = tmp_path_factory.mktemp("sets")
    one = write(folder / "subset.npz", dataset, ipc=2, steps=5)
    return [one, write(folder / "two.npz", dataset, ipc=2, seed=1, steps=5)]


def config(workdir, artefacts, *more):
    argv = [
        f"--workdir={workdir}",
        f"--artefacts={','.join(map(str, artefacts))}",
        "--protocol=own",
        f"--seeds={SEEDS}",
        "--subset_networks=11",
        "--subset_low=0.05",
        "--subset_high=0.4",
        "--subset_epochs=3",
        "--early_runs=3",
        "--early_iterations=13",
        "--early_every=3",
        "--batch=25",
        f"--lr={LR}",
        "--test_images=47",
        "--least=6",
        "--early_least=2",
        "--tolerance=0.5",
        "--piece=4",
        "--together=2",
        "--chunk=8",
        *more,
    ]
    return launch.parse(agreement_options.Config, argv)


@pytest.fixture(scope="module")
def finished(artefacts, tmp_path_factory):
    """A finished run: (workdir, summary, stdout, stderr)."""
    workdir = tmp_path_factory.mktemp("run") / "compared"
    out, err = text_io.StringIO(), text_io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        summary = agreement_run.run(config(workdir, artefacts))
    return workdir, summary, out.getvalue(), err.getvalue()


@pytest.fixture
def drawn(monkeypatch):
    """What the figure was given; nothing is drawn."""
    asked = []
    monkeypatch.setattr(
        agreement_run, "matched_agreements", lambda *given: asked.append(given)
    )
    return asked


def kept(workdir):
    """Kind -> number -> predictions, as the files hold them."""
    found = {}
    for path in (workdir / "networks").iterdir():
        with np.load(path) as held:
            of_kind = found.setdefault(str(held["kind"]), {})
            of_kind.update(zip(held["numbers"].tolist(), held["classes"], strict=True))
    return {kind: dict(sorted(of_kind.items())) for kind, of_kind in found.items()}


def problem(artefact):
    """The data, and the fifteen first test images of each class."""
    made = io.load(artefact)
    loaded = data.load(made.dataset["name"])
    first = np.concatenate([np.flatnonzero(loaded.test.labels == j)[:15] for j in range(3)])
    test = data.Split(*(x[np.sort(first)] for x in loaded.test))
    on_device = [data.on_device(split, made.transform, 3) for split in (loaded.train, test)]
    return made, loaded, *on_device


def network_key(group, number, seed=0):
    keys = jax.random.split(fresh_key(seed), 3)
    return jax.random.fold_in(keys[group], number)


def test_everything_is_in_the_summary(finished, artefacts):
    workdir, summary, out, err = finished
    assert open_sealed(workdir) == summary
    assert (workdir / "agreement.png").read_bytes().startswith(b"\x89PNG")
    assert list(summary["agreement"]) == list(summary["rows"]) == ROWS
    for label, row in summary["agreement"].items():
        assert list(row) == ["accuracy", "subset", "early_stopped", "difference"]
        assert row["accuracy"]["seeds"] == SEEDS
        assert label in out
    assert summary["rows"]["two"]["path"] == str(artefacts[1])
    assert summary["rows"]["two"]["images_per_class"] == 2
    assert summary["rows"][ROWS[2]]["path"] is None
    assert summary["rows"][ROWS[2]]["method"] == "random"
    assert summary["model"]["parameters"] == 64 * 4 + 4 + 4 * 3 + 3
    assert summary["test_images"] == 45
    assert f"--artefacts={artefacts[0]},{artefacts[1]}" in summary["command"]
    subset, early = summary["pools"]["subset"], summary["pools"]["early_stopped"]
    assert subset["networks"] == 11
    assert early["networks"] == 3 * 4
    assert len(subset["files"]) == 3
    assert len(early["files"]) == 2
    for file in subset["files"] + early["files"]:
        assert (workdir / file).exists()
    # One program for subsets of all sizes, one for runs, one for sets.
    compiled = [line for line in err.splitlines() if line.startswith("compiling")]
    assert len(compiled) == 3
    # Of each set, networks 0 and 1 in one piece, 2 in another.
    assert "piece 11/11" in err


def test_pools_are_trained_as_one_network_after_another(finished, artefacts):
    _, loaded, real, test = problem(artefacts[0])
    found = kept(finished[0])
    assert list(found["subset-trained"]) == list(range(11))
    assert list(found["early-stopped"]) == [0, 1, 2]
    drawn = pools.subsets(loaded.train.labels, 11, 0.05, 0.4, seed=0)
    for number in (0, 7):
        init_key, order_key = jax.random.split(network_key(1, number))
        positions, size, _ = (x[number] for x in drawn)
        batches = subset_batches(order_key, positions, size, 3, 25)
        *_, params = by_hand(MODEL, MODEL.init(init_key), real, batches)
        expected = classes(MODEL, params, test)
        np.testing.assert_array_equal(found["subset-trained"][number], expected)
    init_key, order_key = jax.random.split(network_key(2, 2))
    batches = list(whole_batches(order_key, 120, 25, 12))[:12]
    steps = list(by_hand(MODEL, MODEL.init(init_key), real, batches))
    for look, params in enumerate(steps[2::3]):
        expected = classes(MODEL, params, test)
        np.testing.assert_array_equal(found["early-stopped"][2][look], expected)


def test_networks_on_sets_are_those_of_the_protocol(finished, artefacts):
    made, loaded, _, test = problem(artefacts[1])
    found = kept(finished[0])
    random = random_subsets(loaded.train, 2, SEEDS, made.transform)
    images = made.distilled.images
    labels = jnp.eye(3)[np.repeat(np.arange(3), 2)]

    @jax.jit
    def train(key, images):
        batch = Batch(images, labels)
        return evaluation.train(key, MODEL, batch, made.protocol, learning_rate=0.05)

    for label, sets in (("two", [images] * SEEDS), (ROWS[2], random.images)):
        for number in range(SEEDS):
            params = train(network_key(0, number), sets[number])
            expected = classes(MODEL, params, test)
            np.testing.assert_array_equal(found[f"networks on {label}"][number], expected)


def read_off(accuracies, values, target):
    """A weighted straight line at the target, by numpy."""
    x = accuracies - target
    if np.ptp(x) == 0 or not np.isfinite(values).all():
        return values.mean()
    u = x / (1.1 * np.abs(x).max())
    weights = (1 - np.abs(u) ** 3) ** 3
    return np.polyfit(x, values, 1, w=np.sqrt(weights))[1]


@np.errstate(invalid="ignore", divide="ignore")
def by_numpy(pool, runs, least, least_runs, labels, target):
    """One network beside a pool."""
    accuracies, own = (pool == labels).mean(axis=1), (target == labels).mean()
    gaps = np.abs(accuracies - own)
    window = np.flatnonzero(gaps <= np.sort(gaps)[least - 1])
    while len(set(runs[window])) < least_runs:
        window = np.flatnonzero(gaps <= np.sort(gaps)[len(window)])
    agree = (pool[window] == target).mean(axis=1)
    shares = [[(row == c).mean() for c in range(3)] for row in (*pool[window], target)]
    chance = np.array(shares[:-1]) @ np.array(shares[-1])
    right, my_right = pool[window] == labels, target == labels
    a, b = right.mean(axis=1), my_right.mean()
    by_chance = a * b + (1 - a) * (1 - b)
    same = (right == my_right).mean(axis=1)

    def without(run):
        others = runs[window] != run
        return accuracies[window][others], agree[others]

    return {
        "window": window,
        "agreements": agree,
        "without": {run: read_off(*without(run), own) for run in set(runs)},
        "value": read_off(accuracies[window], agree, own),
        "half_width": gaps[window].max(),
        "mean_gap": (accuracies[window] - own).mean(),
        "kappa": read_off(accuracies[window], (agree - chance) / (1 - chance), own),
        "error_consistency": read_off(
            accuracies[window], (same - by_chance) / (1 - by_chance), own
        ),
    }


def test_the_summary_is_what_numpy_makes_of_the_predictions(finished, dataset):
    workdir, summary, _, _ = finished
    found = kept(workdir)
    with np.load(dataset) as held:
        labels = held["test_labels"].reshape(3, 20)[:, :15].ravel()
    given = {
        "subset": (np.stack(list(found["subset-trained"].values())), np.arange(11), 6, 1),
        "early_stopped": (
            np.concatenate(list(found["early-stopped"].values())),
            np.arange(3).repeat(4),
            *(2, 2),
        ),
    }
    iterations, undefined = np.tile([3, 6, 9, 12], 3), []
    for label in ROWS:
        targets = found[f"networks on {label}"].values()
        row, each = summary["agreement"][label], {}
        np.testing.assert_allclose(
            row["accuracy"]["values"], [(one == labels).mean() for one in targets]
        )
        for name, one_of in given.items():
            each[name] = [by_numpy(*one_of, labels, one) for one in targets]
            for field in ("value", "mean_gap", "kappa", "error_consistency"):
                mean = np.mean([one[field] for one in each[name]])
                if np.isnan(mean):
                    undefined.append(field)
                    assert row[name][field] is None
                else:
                    np.testing.assert_allclose(row[name][field], mean, atol=2e-5)
            widest = max(one["half_width"] for one in each[name])
            np.testing.assert_allclose(row[name]["half_width"], widest)
            members = np.concatenate([one["window"] for one in each[name]])
            assert row[name]["num_members"] == len(set(members))
            runs = set(one_of[1][members])
            assert row[name]["num_runs"] == len(runs)
            without = np.mean([[one["without"][r] for r in runs] for one in each[name]], 0)
            jackknife = np.sqrt((len(runs) - 1) * without.var())
            np.testing.assert_allclose(row[name]["pool_error"], jackknife, atol=2e-5)
            between = np.std([one["value"] for one in each[name]], ddof=1) / SEEDS**0.5
            total = np.hypot(between, row[name]["pool_error"])
            np.testing.assert_allclose(row[name]["standard_error"], total, atol=1e-5)
            low, high = row[name]["interval"]
            np.testing.assert_allclose((low + high) / 2, row[name]["value"], atol=1e-7)
            # Student's t has more than two degrees of freedom here, and fewer than all.
            assert 1.96 * total < (high - low) / 2 + 1e-6 < 4.31 * total
        assert row["early_stopped"]["iteration"] == np.median(iterations[members])
        early, subset = (
            np.array([one["value"] for one in each[name]])
            for name in ("early_stopped", "subset")
        )
        difference = row["difference"]
        np.testing.assert_allclose(difference["values"], early - subset, atol=2e-5)
        mean = (early - subset).mean()
        np.testing.assert_allclose(difference["value"], mean, atol=2e-5)
        error = np.sqrt(
            row["subset"]["pool_error"] ** 2
            + row["early_stopped"]["pool_error"] ** 2
            + (early - subset).var(ddof=1) / SEEDS
        )
        np.testing.assert_allclose(difference["standard_error"], error, atol=1e-5)
        a, b = (
            np.concatenate([one["agreements"] for one in each[name]])
            for name in ("early_stopped", "subset")
        )
        pooled = (len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)
        d = mean / np.sqrt(pooled / (len(a) + len(b) - 2))
        np.testing.assert_allclose(difference["cohen_d"], d, atol=1e-2)
    # A kappa is undefined beside a network that is always right, or says but one class.
    assert set(undefined) <= {"kappa", "error_consistency"}
    assert len(undefined) < 6


def test_intervals_by_hand():
    error, low, high, freedom = satterthwaite(0.5, [(0.04**2, 2), (0.03**2, 4)])
    assert freedom == pytest.approx(4.2159, abs=1e-3)
    assert error == pytest.approx(0.05)
    # (25e-4)^2 / ((16e-4)^2 / 2 + (9e-4)^2 / 4) = 4.216; t_{.975} = 2.7225 there.
    assert [low, high] == pytest.approx(
        [0.5 - 2.7225 * 0.05, 0.5 + 2.7225 * 0.05], abs=2e-4
    )
    # One error alone has its own degrees of freedom: t_2 = 4.3027.
    assert satterthwaite(0.0, [(1.0, 2), (0.0, 9)])[2] == pytest.approx(4.3027, abs=1e-4)
    assert satterthwaite(0.5, [(0.0, 2)]) == (0.0, 0.5, 0.5, None)
    assert satterthwaite(0.5, [(float("nan"), 0), (0.1, 3)]) == (None,) * 4


def test_cut_and_resumed_it_is_the_same(finished, artefacts, tmp_path, drawn, capsys):
    workdir, summary, _, _ = finished
    shutil.copytree(workdir, cut := tmp_path / "cut")
    (cut / "summary.json").unlink()
    lost = [summary["pools"]["subset"]["files"][1]]
    for file in lost:
        (cut / file).unlink()
    stamps = {path: path.stat().st_mtime_ns for path in (cut / "networks").iterdir()}
    again = agreement_run.run(config(cut, artefacts))
    told = capsys.readouterr()
    # A piece of the eleven, three and nine networks.
    assert "19 of 23 networks were trained before" in told.out
    assert "piece 1/1" in told.err
    for path, stamp in stamps.items():
        assert path.stat().st_mtime_ns == stamp
    for file in lost:
        with np.load(workdir / file) as one, np.load(cut / file) as other:
            np.testing.assert_array_equal(one["classes"], other["classes"])
    for name in ("agreement", "rows", "model"):
        assert again[name] == summary[name]


def test_other_sets_and_rules_find_the_pools_there(
    finished, dataset, tmp_path, drawn, monkeypatch, capsys
):
    workdir, summary, _, _ = finished
    shutil.copytree(workdir, place := tmp_path / "place")
    asked = []
    # In place of training: networks that are right once, and never.
    fake = pools.Predicted(np.zeros((2, 45), np.uint8), np.ones(2, bool))
    for name, right in (("lucky", 1), ("other", 0)):
        write(tmp_path / f"{name}.npz", dataset, ipc=1, seed=3 + right)

    class Program:
        def lower(self, *given):
            return self

        def compile(self):
            return self

        def __call__(self, key, numbers, sets, test, rate, validation):
            asked.append(np.asarray(numbers).tolist())
            wrong = (test.labels + 1) % 3
            return fake._replace(classes=np.stack([wrong, wrong]).astype(np.uint8))

    def groups(config, problem, old=agreement_train.row_groups):
        return {n: g._replace(program=Program()) for n, g in old(config, problem).items()}

    monkeypatch.setattr(agreement_run, "row_groups", groups)
    paths = [tmp_path / "lucky.npz"]
    again = agreement_run.run(
        config(place, paths, "--tolerance=1e-6", "--protocol=study", "--least=3")
    )
    assert asked == [[0, 1], [2, 2]] * 2
    assert again["pools"]["subset"]["files"] == summary["pools"]["subset"]["files"]
    row = again["agreement"]["lucky"]
    assert row["accuracy"]["mean"] == 0
    for name in ("subset", "early_stopped", "difference"):
        why = row[name]["unmatched"]
        assert "3 of 3 networks, such as number 0: no member of the pool" in why
        assert "widen the pool or raise the tolerance" in why
    told = capsys.readouterr().out
    assert "lucky is unmatched, subset-trained: 3 of 3 networks" in told
    assert "lucky is unmatched, early-stopped: 3 of 3 networks" in told
    ((_, matched, clouds, _, _, _),) = drawn
    assert matched["lucky"] == {}
    assert clouds["lucky"]["subset"][1].shape == (11,)


def test_one_pool_out_of_reach_leaves_the_other():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)

    def network(accuracy):
        right = rng.random(40) < accuracy
        return np.where(right, labels, (labels + 1) % 3).astype(np.uint8)

    def pool(accuracy):
        members = np.stack([network(accuracy) for _ in range(6)])
        means = (members == labels).mean(axis=1)
        return agreement_compare.Pool(members, means, np.arange(6), None, 4, 1)

    targets = np.stack([network(0.5) for _ in range(2)])
    near, far = (
        agreement_compare.Comparison(pool(accuracy), labels, 3).compare(targets, 0.2)
        for accuracy in (0.5, 1.0)
    )
    assert 0 < near.summary["value"] < 1
    assert "no member of the pool comes within 0.2" in far.summary["unmatched"]
    found = agreement_compare.difference({"subset": far, "early_stopped": near})
    assert list(found) == ["unmatched"]
    assert found["unmatched"].startswith("subset-trained: 2 of 2 networks, such as")


def test_the_figure_bears_rows_without_a_match(tmp_path):
    values = np.array([0.5, 0.6, 0.55])
    cloud = {"subset": (values, values), "early_stopped": (values, values)}
    summary = {"value": 0.5, "interval": [None, None]}
    agreement_figures.matched_agreements(
        tmp_path / "x.png",
        {"a": {"subset": (summary, values)}, "b": {}},
        {"a": cloud, "b": cloud},
        {"a": values, "b": values},
        agreement_options.NAMES,
        "title",
    )
    assert (tmp_path / "x.png").stat().st_size > 5_000


def test_training_that_diverges_is_named(tmp_path):
    class Program:
        """The first network of each piece is well, the second is not."""

        def lower(self, *given):
            return self

        def compile(self):
            return lambda: pools.Predicted(np.zeros((2, 45)), np.array([True, False]))

    for name, kind, remedy in (
        (agreement_train.pool_name("subset"), "subset-trained", "lower --lr"),
        (agreement_train.row_name("subset"), "networks on subset", "another --protocol"),
    ):
        pieces = [
            agreement_train.Piece(kind, numbers, f"{len(numbers)} {kind}", 5)
            for numbers in ((0,), (1, 2))
        ]
        group = agreement_train.Group(pieces, 1.0, Program(), lambda numbers, wanted: ())
        message = rf"{kind}, 2 of them: .* diverged; .*{remedy}"
        with pytest.raises(InputError, match=message):
            agreement_train.train({name: group}, 7, tmp_path)
        # Number 0 is kept: what was not well only filled its piece.
        store = agreement_train._Store(tmp_path)
        assert store.read(pieces[0]).classes.shape == (1, 45)
        assert store.read(pieces[1]) is None


def rotated(contents):
    return [*contents[1:], contents[0]]


def flipped(content):
    """One bit of the predictions flipped."""
    at = content.index(b"classes.npy") + 170  # behind the headers
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def of_the_old_version(content):
    """The same arrays without a checksum."""
    with np.load(text_io.BytesIO(content)) as held:
        arrays = {name: held[name] for name in held.files if name != "checksum"}
    np.savez(out := text_io.BytesIO(), **arrays)
    return out.getvalue()


DAMAGES = {
    "cut": lambda contents: [content[:200] for content in contents],
    "emptied": lambda contents: [b"" for _ in contents],
    "swapped": rotated,
    "a bit flipped": lambda contents: [flipped(content) for content in contents],
    "of the old version": lambda contents: [of_the_old_version(c) for c in contents],
    "deleted": lambda contents: [None for _ in contents],
}


@pytest.mark.parametrize("damage", some(DAMAGES, "cut", "swapped"))
def test_damaged_pieces_are_named_and_trained_again(
    finished, artefacts, tmp_path, drawn, capsys, damage
):
    workdir, summary, _, _ = finished
    shutil.copytree(workdir, cut := tmp_path / "cut")
    files = sorted((cut / "networks").iterdir())
    assert len(files) == 11
    replace_contents(files, DAMAGES[damage]([file.read_bytes() for file in files]))
    again = agreement_run.run(config(cut, artefacts))
    assert_computed_again(capsys.readouterr(), [] if damage == "deleted" else files)
    for name in ("agreement", "rows", "model", "matching"):
        assert again[name] == summary[name]
    assert kept_equal(kept(cut), kept(workdir))


def kept_equal(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[kind][number], other[kind][number])
        for kind in one
        for number in one[kind] | other[kind]
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--artefacts="], "artefacts=.*name distilled sets"),
        (["--artefacts=absent.npz"], "absent.npz: no such file"),
        (["--model=resnet"], "unknown architecture 'resnet'; choose among own, convnet"),
        (["--model=mlp,own"], "model='mlp,own': name one"),
        (["--model=vgg11"], "model='vgg11': 8x8 images cannot be halved"),
        (["--subset_high=0.01"], "subset_high=0.01: is below subset_low=0.05"),
        (["--early_every=14"], "early_every=14: there are 13 iterations"),
        (["--test_images=2"], "test_images=2: there are 3 classes"),
    ],
)
def test_wrong_input_is_refused_and_leaves_nothing(artefacts, tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        agreement_run.run(config(tmp_path / "run", artefacts, *more))
    assert not (tmp_path / "run").exists()


def test_sets_that_cannot_share_pools_are_refused(artefacts, dataset, tmp_path):
    loaded = data.load(str(dataset))
    plain = data.fit("none", loaded.train.images)
    wide = {"model": "mlp", "mlp": {"width": 5, "depth": 1}}
    for name, change, message in (
        ("plain", {"transform": plain}, "artefacts=.* different preprocessing"),
        ("wide", {"config": wide}, "model='own': subset and wide .* different networks"),
    ):
        path = write(tmp_path / f"{name}.npz", dataset, **change)
        with pytest.raises(InputError, match=message):
            agreement_run.run(config(tmp_path / "run", [artefacts[0], path]))
    # With a network of its own they can; no more than that is asked here.
    chosen = config(tmp_path / "run", [artefacts[0], path], "--model=mlp")
    assert agreement_options.choose(chosen).network.name == "mlp"


def test_learned_targets_and_a_network_centred_at_its_start(dataset, tmp_path, drawn):
    """Networks are trained and asked as the protocol has it, by the library alone."""
    protocol = evaluation.EvaluationProtocol(
        steps=4, lr=0.01, loss="mean_squared_error", label_scale=2.0, centre=True
    )
    learned = write_learned(tmp_path / "learned.npz", dataset, protocol=protocol)
    agreement_run.run(config(tmp_path / "run", [learned]))
    made = io.load(learned)
    loaded = data.load(str(dataset))
    test = data.on_device(agreement_run._capped(loaded.test, 47), made.transform, 3)
    key = jax.random.split(fresh_key(0), 3)[0]
    batch = evaluation.as_batch(made.distilled, protocol, targets=made.targets)
    network = evaluation.network(MODEL, protocol)
    found = kept(tmp_path / "run")[agreement_train.row_name("learned")]
    for number in range(SEEDS):
        one = jax.random.fold_in(key, number)
        params = evaluation.train(one, MODEL, batch, protocol)
        logits = evaluation.predict(network.apply, params, test)
        np.testing.assert_array_equal(found[number], logits.argmax(axis=1))


def test_a_protocol_with_another_network_is_refused(artefacts, tmp_path):
    with pytest.raises(InputError, match=r"protocol='rcig': brings a network that is not"):
        agreement_run.run(config(tmp_path / "run", artefacts, "--protocol=rcig"))
    assert not (tmp_path / "run").exists()
