"""Attributes of the most influenced images: the statistics, then a whole tiny run."""

import contextlib
import io as text_io
import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from distilljax import data, launch
from distilljax.analysis import leave_one_out
from distilljax.analysis.leave_one_out import Retrained
from distilljax.types import InputError
from experiments.attributes import groups as attributes_groups
from experiments.attributes import run as attributes_run
from experiments.attributes import tests as attributes_tests
from experiments.influence import run as influence_run
from tests.experiments.helpers import write

TOP = 5


def test_holm_is_that_of_a_hand_computed_case():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(attributes_tests.holm(p), [0.03, 0.06, 0.06, 0.02])
    both = attributes_tests.holm(np.stack([p, np.array([0.5, 0.3, 0.001, 0.4])]))
    np.testing.assert_allclose(both, [[0.03, 0.06, 0.06, 0.02], [0.9, 0.9, 0.004, 0.9]])


TIED = [0.0, 0.0, 0.3, 0.3, 0.3, 0.5, 0.9, 2.0]


@pytest.mark.parametrize("values", [TIED, list(range(8)), [0, 0, 1, 0, 1, 1, 0, 0]])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_exact_p_values_are_those_of_all_subsets(values, size):
    ranks = stats.rankdata(values)
    subsets = np.array(list(itertools.combinations(range(8), size)))
    sums = ranks[subsets].sum(axis=1)
    expected = [
        min(1, 2 * min(np.mean(sums <= s + 1e-9), np.mean(sums >= s - 1e-9))) for s in sums
    ]
    test = attributes_tests.RankTest.of(np.array(values, np.float32), size)
    np.testing.assert_allclose(test.p_values(test.sums(subsets)), expected, rtol=1e-12)


def test_p_values_agree_with_scipy(monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.normal(size=30)
    boolean = np.r_[np.ones(9), np.zeros(21)]
    tied = rng.integers(0, 6, 30)
    for _ in range(5):
        group = rng.permutation(30)[:8]
        one, other = (lambda x, g=group: x[g]), (lambda x, g=group: np.delete(x, g))
        test = attributes_tests.RankTest.of(values, 8)
        exact = stats.mannwhitneyu(one(values), other(values), method="exact")
        assert test.p_values(test.sums(group)) == pytest.approx(exact.pvalue, rel=1e-9)
        test, having = attributes_tests.RankTest.of(boolean, 8), int(boolean[group].sum())
        chance = stats.hypergeom(30, 9, 8)
        tail = min(chance.cdf(having), chance.sf(having - 1))
        assert test.scores.max() == 1
        assert test.p_values(test.sums(group)) == pytest.approx(min(1, 2 * tail))
        with monkeypatch.context() as patched:
            patched.setattr(attributes, "MOST_WORK", 0)
            for x in (values, tied):
                test = attributes_tests.RankTest.of(x, 8)
                assert test.table is None
                usual = stats.mannwhitneyu(one(x), other(x), method="asymptotic")
                assert test.p_values(test.sums(group)) == pytest.approx(usual.pvalue)


def test_effects_count_pairs():
    rng = np.random.default_rng(1)
    for values in (rng.integers(0, 4, 12), rng.integers(0, 2, 12)):
        group = rng.permutation(12)[:5]
        others = np.delete(values, group)
        pairs = [np.sign(x - y) for x in values[group] for y in others]
        test = attributes_tests.RankTest.of(values, 5)
        assert test.effects(test.sums(group)) == pytest.approx(np.mean(pairs))
    assert np.mean(pairs) == pytest.approx(values[group].mean() - others.mean())


def test_rare_values_do_not_mislead():
    """Five of a hundred, all in the group: the normal distribution is wrong by far."""
    values = np.r_[np.linspace(1, 2, 5), np.zeros(95)]
    test = attributes_tests.RankTest.of(values, 20)
    found = test.p_values(test.sums(np.arange(20)))
    chance = stats.hypergeom(100, 5, 20).pmf(5)
    assert 0.2 * chance < found < 3 * chance


def test_groups_are_of_the_image_s_class():
    classes = np.array([0, 1, 0, 1, 0, 1])
    found = np.array([[0.1, 0.9, 0.5, 0.8, 0.7, -1], [5, 1, 4, 2, 3, 0.0]])
    labels = np.array([0, 1])
    own = attributes_groups.groups_of(found, labels, classes, 2, "class")
    assert [g.members.tolist() for g in own] == [[2, 1], [1, 0]]
    assert [g.label for g in own] == [0, 1]
    every = attributes_groups.groups_of(found, labels, classes, 3, "all")
    # Of 1, 3, 4 position 4 is of class 0, the last of it; of 0, 2, 4 none is of class 1.
    assert [g.members.tolist() for g in every] == [[2], []]


def planted(rng, num_images=4, per_class=40, strength=0.0):
    """Values, classes and groups; attribute 1 is higher within a group by `strength`."""
    classes = rng.permutation(np.repeat([0, 1], per_class))
    values = rng.normal(size=(2 * per_class, 5)).astype(np.float32)
    values[:, 3] = values[:, 3] > 0
    values[:, 4] = classes  # constant in a class: no test
    groups = []
    for i in range(num_images):
        members = rng.permutation(per_class)[:10]
        values[np.flatnonzero(classes == i % 2)[members], 1] += strength
        groups.append(attributes_groups.Group(i % 2, members))
    return values, classes, groups


def test_what_is_planted_is_found_and_nothing_else():
    rng = np.random.default_rng(2)
    values, classes, groups = planted(rng, num_images=2, strength=2.0)
    found = attributes_tests.enrichment(rng, values, classes, groups, 99)
    assert len(found.p) == 2 * 4
    np.testing.assert_array_equal(found.attributes[found.p_holm <= 0.05], [1, 1])
    assert (found.effects[found.p_holm <= 0.05] > 0.5).all()
    for i in range(8):
        label, members = groups[found.images[i]]
        of_class = values[classes == label, found.attributes[i]]
        inside, outside = of_class[members], np.delete(of_class, members)
        assert found.rates[i] == pytest.approx(inside.mean())
        assert found.bases[i] == pytest.approx(outside.mean(), abs=1e-6)
        if found.attributes[i] != 3:
            usual = stats.mannwhitneyu(inside, outside, method="exact")
            assert found.p[i] == pytest.approx(usual.pvalue)
    np.testing.assert_allclose(found.p_holm, attributes_tests.holm(found.p))
    np.testing.assert_allclose(found.q, stats.false_discovery_control(found.p))
    assert attributes_tests.chance_p(2, found.chance_holm) == 0.01


def test_chance_alone_is_kept_below_alpha():
    """Of permutations at most 5 % have a finding, up to four standard errors."""
    rng = np.random.default_rng(3)
    values, classes, groups = planted(rng)
    found = attributes_tests.enrichment(rng, values, classes, groups, 600)
    assert (found.p_holm > 0.05).all()
    assert (found.chance_holm > 0).mean() <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 600)
    assert (found.chance_q > 0).sum() >= (found.chance_holm > 0).sum()
    assert attributes_tests.chance_p(0, found.chance_holm) == 1


def test_permutations_keep_what_depends():
    """Two equal groups and two equal attributes: findings come four at a time."""
    rng = np.random.default_rng(4)
    values, classes, groups = planted(rng, num_images=1)
    values = np.stack([values[:, 0]] * 2, axis=1)
    found = attributes_tests.enrichment(rng, values, classes, groups * 2, 800)
    assert set(found.chance_holm.tolist()) == {0, 4}


def test_groups_that_leave_nothing_to_compare_are_not_tested():
    rng = np.random.default_rng(5)
    values, classes, _ = planted(rng)
    groups = [
        attributes_groups.Group(0, np.arange(40)),
        attributes_groups.Group(1, np.arange(0)),
    ]
    found = attributes_tests.enrichment(rng, values, classes, groups, 19)
    assert len(found.p) == 0
    assert attributes_tests.chance_p(0, found.chance_holm) == 1


def test_coherence_is_the_mean_of_cosines():
    rng = np.random.default_rng(6)
    classes = np.repeat([0, 1], 12)
    features = rng.normal(size=(24, 3)) + 1
    features[[2, 5, 7]] = [[4, 0, 0.1], [3, 0.2, 0], [5, 0, 0]]  # alike, of class 0
    groups = [
        attributes_groups.Group(0, np.array([2, 5, 7])),
        attributes_groups.Group(1, np.array([3])),
        attributes_groups.Group(1, np.arange(12)),
        attributes_groups.Group(1, np.array([0, 4, 8])),
    ]
    found = attributes_tests.coherence(rng, features, classes, groups, 2000)
    assert found.images.tolist() == [0, 2, 3]

    def naive(rows):
        rows = [row / np.sqrt(row @ row) for row in rows]
        return np.mean([a @ b for a, b in itertools.combinations(rows, 2)])

    of_class = [features[:12], features[12:]]
    expected = [naive(of_class[0][[2, 5, 7]]), naive(of_class[1])]
    np.testing.assert_allclose(found.similarity[:2], expected)
    # On average a random group is as alike as the class.
    error = found.chance_std / np.sqrt(2000)
    by_chance = [naive(of_class[0]), expected[1], expected[1]]
    assert (np.abs(found.chance - by_chance) <= 5 * error + 1e-9).all()
    every = itertools.combinations(range(12), 3)
    beyond = [naive(of_class[0][list(g)]) >= expected[0] - 1e-12 for g in every]
    assert found.p[0] == pytest.approx(np.mean(beyond), abs=0.01)
    assert found.p[1] == 1
    np.testing.assert_allclose(found.q, stats.false_discovery_control(found.p))


@pytest.fixture(scope="module")
def influences(dataset, tmp_path_factory):
    """A finished run of experiments.influence on one image a class; nothing is trained."""
    folder = tmp_path_factory.mktemp("influences")
    made = write(folder / "made" / "distilled.npz", dataset)
    argv = [
        f"--artefact={made}",
        f"--workdir={folder / 'run'}",
        "--seeds=2",
        "--test_images=60",
        "--estimates=none",
        "--piece=8",
    ]

    def losses(keys, left_out, model, batch, test, protocol, together):
        found = jax.random.gamma(jax.random.key(0), 2.0, (len(left_out), len(test.labels)))
        return Retrained(found, jnp.zeros(found.shape, int), found.mean(axis=1))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(figures, "influenced", lambda *_: None)
        patched.setattr(leave_one_out, "retrain", losses)
        influence_run.run(launch.parse(influence_run.Config, argv))
    return folder / "run"


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
            figures, name, lambda path, *args, **_: asked.update({path.name: args})
        )
    return asked


def test_everything_is_in_the_summary(finished, influences, dataset):
    workdir, summary, out = finished
    assert json.loads((workdir / "summary.json").read_text()) == summary
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
    with np.load(influences / "influence.npz") as held:
        arrays = dict(held)
    np.savez(folder / "influence.npz", **arrays | {"influences": values})
    return folder


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
    with pytest.raises(InputError, match="fewer than two distilled images"):
        attributes_run.run(config(there, tmp_path / "no", *flags))
    assert not (tmp_path / "no").exists()


class Killed(BaseException):
    pass


def test_killed_and_resumed_it_is_the_same(
    finished, influences, tmp_path, monkeypatch, drawn, capsys
):
    workdir, summary, _ = finished
    monkeypatch.setattr(attributes, "SECONDS_BETWEEN_SAVES", 0.0)
    keep = attributes_run._keep

    def dies(path, identity, **arrays):
        keep(path, identity, **arrays)
        if arrays.get("epoch") == 2:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(attributes, "_keep", dies)
        with pytest.raises(Killed):
            attributes_run.run(config(influences, tmp_path / "cut"))
    (tmp_path / "cut" / "annotations" / "measured.npz").write_bytes(b"cut off")
    again = attributes_run.run(config(influences, tmp_path / "cut"))
    said = capsys.readouterr()
    assert "own goes on after epoch 2" in said.out
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
        (["--annotators=guess"], "there is no annotator 'guess'"),
        (["--annotators="], "name at least one"),
        (["--clip.batch=7"], "no meaning without clip"),
        (["--width_scale=0.5"], "own has the width"),
        (["--model=guess"], "there is no architecture 'guess'"),
        (["--annotators=clip", "--clip.prompts=absent.json"], "clip.prompts"),
        (["--recipe.lr=1e30"], "training loss of"),
    ],
)
def test_mistakes_are_named(influences, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        attributes_run.run(config(influences, tmp_path / "wrong", *flags))
    assert not (tmp_path / "wrong" / "summary.json").exists()


def damaged(folder, change):
    with np.load(folder / "influence.npz") as held:
        arrays = dict(held)
    np.savez(folder / "influence.npz", **change(arrays))


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
    "cut off": (
        lambda f: (f / "influence.npz").write_bytes(
            (f / "influence.npz").read_bytes()[:80]
        ),
        "its files are damaged",
    ),
    "not finite": (
        lambda f: damaged(f, lambda a: a | {"influences": a["influences"] * np.nan}),
        "influences are not finite",
    ),
    "of other shapes": (
        lambda f: damaged(f, lambda a: a | {"test_positions": np.arange(7)}),
        "do not belong together",
    ),
    "positions": (
        lambda f: damaged(f, lambda a: a | {"test_positions": np.arange(60) + 9}),
        "outside the test set",
    ),
    "fewer images": (
        lambda f: damaged(f, lambda a: a | {"influences": a["influences"][:, 1:]}),
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
