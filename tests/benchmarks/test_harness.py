"""The measuring tools, where what they give does not depend on the machine's speed."""

import json
import os
import pathlib
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import all as every
from benchmarks import cases, curvature, harness, methods, side_by_side
from benchmarks.harness import Column, Sample
from distilljax.types import InputError

RECORDS = pathlib.Path(harness.ROOT, "benchmarks", "records")


def test_rounds_take_turns_and_the_warm_up_does_not_count():
    order = []

    def contestant(name):
        def run():
            order.append(name)
            return Sample(len(order), 0.0)

        return run

    found = harness.interleave({name: contestant(name) for name in "abc"}, repeats=3)
    assert "".join(order) == "cab" + "abc" + "bca" + "cab"
    assert [s.wall for s in found["a"]] == [4, 9, 11]
    assert {len(samples) for samples in found.values()} == {3}


def test_summaries_and_ratios_by_hand():
    ours = [Sample(wall, 1.0) for wall in (1.0, 2.0, 3.0, 4.0, 100.0)]
    theirs = [Sample(wall, 2.0) for wall in (2.0, 4.0, 6.0, 8.0, 100.0)]
    found = harness.summary(ours, per=2)["wall_seconds"]
    assert found == {
        "median": 1.5,
        "min": 0.5,
        "q1": 1.0,
        "q3": 2.0,
        "values": [0.5, 1.0, 1.5, 2.0, 50.0],
    }
    ratio = harness.ratio(theirs, ours)
    assert ratio["wall"] == {"of_medians": 2.0, "q1": 2.0, "q3": 2.0}
    assert harness.ratio(ours, theirs)["cpu"]["of_medians"] == 0.5


def test_a_program_computes_and_says_what_it_needs():
    x = jnp.arange(6.0).reshape(2, 3)
    program = harness.compiled(lambda x: jnp.sin(x @ x.T) @ x, x)
    np.testing.assert_allclose(program.call(x), np.sin(x @ x.T) @ x, rtol=1e-6)
    record = json.loads(json.dumps(program.record()))
    assert record.keys() == {"trace_seconds", "compile_seconds", "temporary_bytes"}


def test_flops_by_hand():
    w, x = jnp.ones((3, 4)), jnp.ones((5, 3))
    one = 2 * 5 * 3 * 4
    assert harness.flops(jnp.matmul, x, w) == one
    # The gradient of w is one more product; that of x is asked for by nobody.
    assert harness.flops(jax.grad(lambda w: jnp.sin(x @ w).sum()), w) == 2 * one

    def repeated(w):
        each = jnp.arange(7 * 5 * 3.0).reshape(7, 5, 3)
        return jax.lax.scan(lambda c, x: (c + jnp.sin(x @ w).sum(), None), 0.0, each)[0]

    assert harness.flops(jax.jit(repeated), w) == 7 * one
    assert harness.flops(jax.grad(repeated), w) == 14 * one

    def either(flag, w):
        return jax.lax.cond(flag, lambda w: (x @ w).sum(), lambda w: w.sum(), w)

    assert harness.flops(either, True, w) == one

    images, kernel = jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 3, 8))

    def convolved(images, kernel):
        return jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert harness.flops(convolved, images, kernel) == 2 * (2 * 6 * 6 * 8) * (3 * 3 * 3)

    def unknown(n, w):
        return jax.lax.fori_loop(0, n, lambda i, s: s + (x @ w).sum(), 0.0)

    with pytest.raises(InputError, match="unknown length"):
        harness.flops(unknown, 3, w)


def remote_works(num):
    def fail():
        raise ValueError("a reason")

    held = np.ones(num // 8)
    return {
        "pid": os.getpid,
        "hold": lambda: np.ones(num // 8).sum(),
        "sum": lambda: held.sum(),
        "fail": fail,
        "die": lambda: os._exit(3),
    }


def test_another_process_works_and_measures_itself():
    num = 48 * harness.MIB
    with harness.Remote(remote_works, num) as remote:
        assert remote.call("pid") != os.getpid()
        assert remote.call("sum") == num // 8
        assert isinstance(remote.clock("sum"), Sample)
        with pytest.raises(RuntimeError, match="ValueError: a reason"):
            remote.call("fail")
        with pytest.raises(RuntimeError, match="KeyError"):
            remote.call("no such work")
        for _ in range(2):  # what was freed does not hide what is needed again
            grown = remote.growth("hold")
            if grown is None:
                pytest.skip("this system does not say how much memory a process holds")
            assert 0.99 * num < grown < 1.1 * num  # Linux counts by the batch
        with pytest.raises(RuntimeError, match="ended with code 3"):
            remote.call("die")


def test_no_more_cores_than_there_are():
    num = harness.pin(None)
    assert num >= 1
    with pytest.raises(InputError, match="threads="):
        harness.pin(num + 1)


def test_the_commit_says_where_the_source_differs(tmp_path, monkeypatch):
    def git(*args):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *args], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    assert harness.commit() is None
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    clean = harness.commit()
    assert len(clean) == 10
    (tmp_path / "a").write_text("2")
    assert harness.commit() == f"{clean}-dirty"


def test_a_record_names_no_place_and_can_be_repeated():
    config = methods.Config(ipc=3, repeats=2, json="/a/place.json")
    found = harness.described("methods", config)
    assert "place" not in json.dumps(found)
    assert found["command"] == "python -m benchmarks.methods --repeats=2 --ipc=3"
    assert found["config"]["ipc"] == 3
    assert found["environment"]["threads"] >= 1
    assert found["environment"]["processor"]
    text = harness.caption(found)
    assert found["date"] in text
    assert found["command"] in text


def test_tables():
    columns = (
        Column("name", lambda r: r["name"], left=True),
        Column("s", lambda r: harness.figure(r["s"])),
    )
    records = [{"name": "a", "s": 0.012345}, {"name": "b", "s": None}]
    table = harness.markdown(columns, records)
    assert table == "| name | s |\n| --- | ---: |\n| a | 0.0123 |\n| b | - |"
    text = "before\n<!-- table: x -->\nold\n<!-- end -->\nafter <!-- end -->\n"
    filled = harness.fill(text, "x", table)
    assert filled == text.replace("old", table)
    assert harness.fill(filled, "x", "old") == text
    with pytest.raises(InputError, match="table: y"):
        harness.fill(text, "y", table)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,230"),
        (12.345, "12.3"),
        (9.996, "10.00"),
        (0.00012345, "0.000123"),
        (-2.5, "-2.50"),
        (0, "0"),
        (None, "-"),
    ],
)
def test_figures(value, text):
    assert harness.figure(value) == text


def test_committed_records_give_the_tables_of_the_readme():
    readme = every.README.read_text()
    for name in every.IN_README:
        section = every.section(name, RECORDS / f"{name}.json")
        assert harness.fill(readme, name, section) == readme, name
    held = json.loads((RECORDS / "curvature_width32.json").read_text())
    assert "| PyHessian | 0.407 |" in curvature.table(held)


def test_a_missing_package_is_named_with_its_extra():
    with pytest.raises(InputError, match=r"no_such_package .* extra `torch`"):
        harness.need("no_such_package")


def test_other_numbers_are_refused_before_anything_is_timed():
    side_by_side.check("tm", {"loss": 1e-4, "gradient": 9e-4}, 1e-3)
    for value in (2e-3, float("nan")):
        with pytest.raises(InputError, match="tm: gradient differs"):
            side_by_side.check("tm", {"loss": 0.0, "gradient": value}, 1e-3)
    with pytest.raises(InputError, match="'sgd' is not one of bptt, gm"):
        side_by_side.Config(work="bptt,sgd")


def test_a_case_leaves_nothing_to_chance_and_gives_the_meta_gradient():
    sizes = cases.Sizes(ipc=2, width=4, depth=1, size=8, channels=1, real_batch=10)
    case = cases.make(["dm"], sizes)["dm"]
    step = jax.jit(case.function)
    found, again = (
        case.result(step(jax.random.key(seed), *case.args[1:])) for seed in (0, 1)
    )
    assert cases.difference(found["gradient"], again["gradient"]) < 1e-5
    model = cases.convnet.make(cases.convnet.Config(width=4, depth=1), (8, 8, 1), 10)
    params, real = case.given["params"], case.given["real_by_class"]

    def loss_fn(images):
        total = 0.0
        for label in range(10):
            ours = images[2 * label : 2 * label + 2]
            gap = model.features(params, ours).mean(0)
            gap = gap - model.features(params, real[label]).mean(0)
            total = total + (gap**2).sum()
        return total

    loss, gradient = jax.jit(jax.value_and_grad(loss_fn))(case.given["images"])
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(found["norm"], np.linalg.norm(gradient), rtol=1e-4)
    assert cases.difference(found["gradient"], gradient) < 1e-4
