"""A whole tiny run on influences that are drawn at random."""

import contextlib
import io as text_io
import shutil

import numpy as np
import pytest
from scipy import stats

from distilljax import data, io, launch
from distilljax.disk.files import write_json
from distilljax.types import InputError
from experiments.attributes import run as attributes_run
from experiments.attributes.record import Summary
from experiments.lab import training
from experiments.lab.kept import Arrays, digest, read_arrays, write_arrays
from experiments.lab.records import checked, open_sealed
from experiments.lab.sets import transform_digest
from tests.experiments.helpers import write
from tests.experiments.lab.damage import DAMAGES, mended_line

TOP = 5


@pytest.fixture(scope="module")
def influences(dataset, tmp_path_factory):
    """What a run of experiments.influence on one image a class leaves; two seeds."""
    folder = tmp_path_factory.mktemp("influences")
    made = io.load(write(folder / "made" / "distilled.npz", dataset))
    fingerprint = made.dataset["fingerprint"]
    identity = digest([fingerprint, transform_digest(made.transform)], made.distilled)
    workdir = folder / "run"
    workdir.mkdir()
    path = str(folder / "made" / "distilled.npz")
    write_json(
        workdir / "config.json",
        {
            "experiment": "experiments.influence",
            "config": {"artefact": path, "dataset": None},
            "command": f"python -m experiments.influence --artefact={path}",
        },
    )
    write_json(workdir / "summary.json", {"dataset": {"fingerprint": fingerprint}})
    rng = np.random.default_rng(0)
    write_arrays(
        workdir / "influence.npz",
        identity,
        influences=rng.gamma(2.0, size=(2, 3, 60)).astype(np.float32) - 2,
        noise_floor=rng.random(60),
        test_positions=np.arange(60),
        estimated_ntk=np.zeros((2, 3, 60)),
    )
    return workdir


def config(influences, workdir, *more):
    argv = [
        f"--influence={influences}",
        f"--workdir={workdir}",
        f"--top={TOP}",
        "--permutations=40",
        "--recipe.batch=30",
        "--recipe.lr=0.02",
        *more,
    ]
    return launch.parse(attributes_run.Config, argv)


@pytest.fixture(scope="module")
def finished(influences, tmp_path_factory):
    """A finished run: (workdir, summary, stdout)."""
    workdir = tmp_path_factory.mktemp("out") / "run"
    out = text_io.StringIO()
    with contextlib.redirect_stdout(out):
        summary = attributes_run.run(config(influences, workdir))
    return workdir, summary, out.getvalue()


@pytest.fixture
def drawn(monkeypatch):
    """Name of the file -> what figures were given; nothing is drawn."""
    asked = {}
    for name in ("attributed", "effect_map"):
        monkeypatch.setattr(
            attributes_run, name, lambda path, *args, **_: asked.update({path.name: args})
        )
    return asked


def test_everything_is_in_the_summary(finished, influences, dataset):
    workdir, summary, out = finished
    read = open_sealed(workdir)
    assert checked(Summary, read, str(workdir), "attributes") == summary
    for name in ("attributes.png", "effects.png"):
        assert (workdir / name).read_bytes().startswith(b"\x89PNG")
    counts, alike, rows = (summary[k] for k in ("attributes", "coherence", "enrichment"))
    assert counts["images"] == 3
    assert len(rows) == counts["tests"] <= 3 * len(summary["annotators"]["measured"])
    assert [row["p"] for row in rows] == sorted(row["p"] for row in rows)
    assert counts["significant"] == sum(row["p_holm"] <= 0.05 for row in rows)
    with_one = {row["image"] for row in rows if row["p_holm"] <= 0.05}
    assert counts["images_with_finding"] == len(with_one)
    assert 1 / 41 <= counts["p"] <= 1
    beyond = np.subtract(alike["similarity"], alike["chance"])
    half = stats.t.ppf(0.975, 2) * beyond.std(ddof=1) / np.sqrt(3)
    assert alike["mean"] == pytest.approx(beyond.mean())
    assert alike["interval"] == pytest.approx([beyond.mean() - half, beyond.mean() + half])
    assert alike["images_above"] == sum(q < 0.05 for q in alike["q_values"])
    assert (summary["label"], summary["method"]) == ("made", "none")
    assert summary["artefact"].endswith("made/distilled.npz")
    assert summary["dataset"]["fingerprint"] == data.load(str(dataset)).fingerprint
    assert summary["influence"]["test_images"] == 60
    assert 0.5 < summary["network"]["accuracy"] <= 1
    assert f"{counts['significant']} of {counts['tests']} tests significant" in out

    with np.load(influences / "influence.npz") as held:
        mean, positions = held["influences"].mean(axis=0), held["test_positions"]
    test = data.load(str(dataset)).test
    with np.load(workdir / "attributes.npz") as held:
        groups = held["groups"]
    assert groups.shape == (3, TOP)
    for j, group in enumerate(groups):
        order = [p for p in positions[np.argsort(-mean[j])] if test.labels[p] == j]
        assert group.tolist() == order[:TOP]
    # A row of the table, computed from the pixels.
    (row,) = [r for r in rows if (r["image"], r["attribute"]) == (1, "brightness")]
    light = test.images.mean(axis=(1, 2, 3)) / 255
    others = [p for p in positions if test.labels[p] == 1 and p not in groups[1]]
    assert row["mean"] == pytest.approx(light[groups[1]].mean(), rel=1e-5)
    assert row["base"] == pytest.approx(light[others].mean(), rel=1e-5)
    usual = stats.mannwhitneyu(light[groups[1]], light[others], method="exact")
    assert row["p"] == pytest.approx(usual.pvalue)
    pairs = np.sign(np.subtract.outer(light[groups[1]], light[others]))
    assert row["effect"] == pytest.approx(pairs.mean())


def with_influences(influences, folder, values):
    """A copy of the run, with other influences."""
    shutil.copytree(influences, folder)
    changed(folder, lambda arrays: arrays | {"influences": values})
    return folder


def changed(folder, change):
    """Writes other arrays, as experiments.influence would."""
    identity, arrays = read_arrays(folder / "influence.npz")
    write_arrays(folder / "influence.npz", identity, **change(arrays))


def test_bright_images_first_is_what_they_share(influences, dataset, tmp_path, drawn):
    """And where influences are random, nothing."""
    with np.load(influences / "influence.npz") as held:
        shape, positions = held["influences"].shape, held["test_positions"]
    light = data.load(str(dataset)).test.images[positions].mean(axis=(1, 2, 3))
    bright = with_influences(
        influences, tmp_path / "bright", np.broadcast_to(light, shape).astype(np.float32)
    )
    summary = attributes_run.run(config(bright, tmp_path / "a", "--epochs=1"))
    found = {(r["image"], r["attribute"]) for r in summary["enrichment"][:3]}
    assert found == {(j, "brightness") for j in range(3)}
    for row in summary["enrichment"][:3]:
        assert row["effect"] == 1
        assert row["p"] == pytest.approx(2 / 15504)  # of twenty choose five
        assert row["p_holm"] < 0.05
    assert summary["attributes"]["images_with_finding"] == 3
    assert summary["attributes"]["p"] == 1 / 41
    assert summary["attributes"]["p_fewer"] == 1
    effects, marks = drawn["effects.png"][:2]
    brightness = list(summary["annotators"]["measured"]).index("brightness")
    np.testing.assert_array_equal(effects[:, brightness], 1)
    np.testing.assert_array_equal(marks[:, brightness], 2)
    texts = drawn["attributes.png"][3]
    assert all(of[0][0].startswith("brightness") and of[0][1] for of in texts)

    noise = np.random.default_rng(7).normal(size=shape)
    random = with_influences(influences, tmp_path / "random", noise)
    summary = attributes_run.run(config(random, tmp_path / "b", "--epochs=1"))
    assert summary["attributes"]["significant"] == 0
    assert summary["attributes"]["p"] == 1
    low, high = summary["coherence"]["interval"]
    assert low < 0 < high
    assert summary["coherence"]["images_above"] == 0


def test_the_first_of_all_may_be_of_other_classes(influences, tmp_path, drawn):
    with np.load(influences / "influence.npz") as held:
        shape = held["influences"].shape
    values = np.tile(-np.arange(60.0), (*shape[:2], 1))
    values[:, 1] *= -1  # the second image: the last test images, of the last class
    values[:, 2] *= -1
    there = with_influences(influences, tmp_path / "there", values)
    flags = ["--among=all", "--epochs=1"]
    summary = attributes_run.run(config(there, tmp_path / "out", *flags))
    assert {row["image"] for row in summary["enrichment"]} == {0, 2}
    assert summary["coherence"]["images"] == [0, 2]
    assert summary["influence"]["own_class_among_top"] == pytest.approx(2 / 3)
    assert len(drawn["attributes.png"][1][1]) == 0
    values[:, 2] *= -1
    there = with_influences(influences, tmp_path / "fewer", values)
    with pytest.raises(InputError, match="in fewer than two classes"):
        attributes_run.run(config(there, tmp_path / "no", *flags))
    assert not (tmp_path / "no").exists()


class Killed(BaseException):
    pass


def test_killed_and_resumed_it_is_the_same(
    finished, influences, tmp_path, monkeypatch, drawn, capsys
):
    workdir, summary, _ = finished
    monkeypatch.setattr(training, "SECONDS_BETWEEN_SAVES", 0.0)
    keep = Arrays.write

    def dies(pieces, name, identity, **arrays):
        keep(pieces, name, identity, **arrays)
        if arrays.get("epoch") == 2:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Arrays, "write", dies)
        with pytest.raises(Killed):
            attributes_run.run(config(influences, tmp_path / "cut"))
    (tmp_path / "cut" / "annotations" / "measured.npz").write_bytes(b"cut off")
    again = attributes_run.run(config(influences, tmp_path / "cut"))
    said = capsys.readouterr()
    assert "own 0 goes on after epoch 2" in said.out
    assert "measured.npz cannot be read" in said.err
    for name in ("attributes", "coherence", "enrichment"):
        assert again[name] == summary[name], name
    kept = []
    for folder in (workdir, tmp_path / "cut"):
        with np.load(folder / "network.npz") as held:
            kept.append(held["params"])
    np.testing.assert_array_equal(*kept)
    stamp = (tmp_path / "cut" / "network.npz").stat().st_mtime_ns
    attributes_run.run(config(influences, tmp_path / "cut"))
    assert (tmp_path / "cut" / "network.npz").stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="holds a different run"):
        attributes_run.run(config(influences, tmp_path / "cut", "--top=6"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--influence="], "name a finished working directory"),
        (["--influence=absent"], "there is no such directory"),
        (["--dataset=absent.npz"], r"absent\.npz"),
        (["--artefact=absent.npz"], r"absent\.npz"),
        (["--top=20"], "20 test images of the smallest class"),
        (["--annotators=guess"], "unknown annotator 'guess'; choose among"),
        (["--annotators="], "name at least one annotator"),
        (["--clip.batch=7"], "no meaning without clip"),
        (["--width_scale=0.5"], "own has the width"),
        (["--model=guess"], "unknown architecture 'guess'"),
        (["--annotators=clip", "--clip.prompts=absent.json"], "clip.prompts"),
        (["--model=mlp,convnet"], "model='mlp,convnet': name one"),
        (["--recipe.lr=1e30"], "training of own 0 diverged at epoch 1, its training loss"),
    ],
)
def test_mistakes_are_named(influences, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        attributes_run.run(config(influences, tmp_path / "wrong", *flags))
    assert not (tmp_path / "wrong" / "summary.json").exists()


BROKEN = {
    "another experiment": (
        lambda f: (f / "config.json").write_text('{"experiment": "experiments.mixing"}'),
        "no working directory of experiments.influence",
    ),
    "no description": (lambda f: (f / "config.json").unlink(), "no working directory of"),
    "unfinished": (
        lambda f: (f / "influence.npz").unlink(),
        r"not finished, influence\.npz is missing; run this again .*--artefact=",
    ),
    "no summary": (lambda f: (f / "summary.json").unlink(), "not finished"),
    "of an older version": (
        lambda f: np.savez(f / "influence.npz", influences=np.zeros(3)),
        r"influence\.npz cannot be read .*; run this again .*--artefact=",
    ),
    "no positions": (
        lambda f: changed(f, lambda a: {n: x for n, x in a.items() if n[0] != "t"}),
        r"influence\.npz is damaged \(it has no test_positions\); run this again",
    ),
    "a damaged summary": (
        lambda f: (f / "summary.json").write_text("{"),
        r"summary\.json is damaged; run this again .*--artefact=",
    ),
    "not finite": (
        lambda f: changed(f, lambda a: a | {"influences": a["influences"] * np.nan}),
        "influences are not finite",
    ),
    "of other shapes": (
        lambda f: changed(f, lambda a: a | {"test_positions": np.arange(7)}),
        "do not belong together",
    ),
    "positions": (
        lambda f: changed(f, lambda a: a | {"test_positions": np.arange(60) + 9}),
        "outside the test set",
    ),
    "fewer images": (
        lambda f: changed(f, lambda a: a | {"influences": a["influences"][:, 1:]}),
        "of another set",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_influences_that_cannot_be_used(influences, tmp_path, kind):
    change, message = BROKEN[kind]
    shutil.copytree(influences, tmp_path / "there")
    change(tmp_path / "there")
    with pytest.raises(InputError, match=message):
        attributes_run.run(config(tmp_path / "there", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_influences_of_other_data_or_another_set(influences, dataset, tmp_path):
    with np.load(dataset) as held:
        arrays = dict(held)
    other = tmp_path / "other.npz"
    np.savez(other, **arrays | {"test_images": arrays["test_images"][::-1]})
    with pytest.raises(InputError, match="of other data than"):
        attributes_run.run(config(influences, tmp_path / "out", f"--dataset={other}"))
    another = write(tmp_path / "another.npz", dataset, seed=1)
    with pytest.raises(InputError, match="of another set than"):
        attributes_run.run(config(influences, tmp_path / "out", f"--artefact={another}"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["truncated", "emptied", "swapped", "flipped"])
def test_damaged_influences_are_refused_in_one_line(influences, tmp_path, kind, capsys):
    shutil.copytree(influences, tmp_path / "there")
    other = tmp_path / "other.npz"
    write_arrays(other, "another set", **read_arrays(influences / "influence.npz")[1])
    DAMAGES[kind](tmp_path / "there" / "influence.npz", other)
    argv = [f"--influence={tmp_path / 'there'}", f"--workdir={tmp_path / 'out'}", "--top=5"]
    with pytest.raises(SystemExit):
        attributes_run.main(argv)
    (line,) = capsys.readouterr().err.splitlines()
    if kind == "swapped":
        assert "are of another set than" in line
        assert "run experiments.influence on this one" in line
    else:
        assert "influence.npz" in line
        assert "run this again with its --workdir: python -m experiments.influ" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("kept", ["network.npz", "annotations/measured.npz"])
def test_damaged_pieces_are_computed_again(
    finished, influences, tmp_path, kind, kept, drawn, capsys
):
    workdir, summary, _ = finished
    shutil.copytree(workdir, tmp_path / "run")
    (other,) = {"network.npz", "annotations/measured.npz"} - {kept}
    DAMAGES[kind](tmp_path / "run" / kept, workdir / other)
    again = attributes_run.run(config(influences, tmp_path / "run"))
    err = capsys.readouterr().err
    assert mended_line(err, tmp_path / "run" / kept)
    assert ("computed again" in err) == (kind != "deleted")
    for name in ("attributes", "coherence", "enrichment", "annotators"):
        assert again[name] == summary[name], name
    ours, theirs = (read_arrays(folder / kept) for folder in (tmp_path / "run", workdir))
    assert ours[0] == theirs[0]
    for name in set(theirs[1]) - {"seconds"}:
        np.testing.assert_array_equal(ours[1][name], theirs[1][name])
