"""The benchmarks of single questions: they run, and refuse to time different work."""

import importlib
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import all as every
from benchmarks import (
    contest,
    convolutions,
    cores,
    devices,
    dispatch,
    experts,
    growth,
    harness,
    meta_gradient,
    networks,
    precision,
    products,
    start,
    throughput,
)
from benchmarks.harness import Program
from distilljax import data, launch
from distilljax.config import FieldError
from distilljax.models import convnet, mlp
from distilljax.types import InputError

TINY = {"images": 4, "width": 4, "depth": 1, "size": 8, "repeats": 1}
SMALL = {"width": 4, "size": 8, "repeats": 1}
CONFIGS = {
    throughput: SMALL | {"ipcs": "1", "unrolls": "1,2", "steps": 1, "real_batch": 4},
    convolutions: TINY | {"formulations": "im2col"},
    meta_gradient: TINY | {"unroll": 2, "pieces": 2},
    networks: TINY | {"networks": "1,2", "steps": 2},
    dispatch: SMALL | {"methods": "gm", "dispatches": "1,2", "real_batch": 4},
    precision: TINY | {"steps": 2, "unroll": 2, "train_steps": 1, "seeds": 2},
    products: TINY | {"products": 2, "ntk_images": 2},
    experts: SMALL | {"experts": 2, "batch": 1500, "epochs": 7, "augment": ""},
    devices: TINY
    | {"devices": "1,2", "networks": 2, "steps": 2, "train_images": 4, "probes": 2},
    cores: SMALL | {"works": "dm,evaluation,experts,product", "networks": 3, "steps": 2},
    growth: SMALL
    | {"values": 2, "real_batch": 300, "works": "dm,experts"}
    | {"dimensions": "classes,size,experts"},
    start: {"works": "main", "width": 4, "repeats": 1},
}
ROWS = {throughput: 7, convolutions: 4, networks: 4, dispatch: 3, precision: 5}
ROWS |= {
    meta_gradient: 6,
    products: 7,
    experts: 2,
    devices: 4,
    cores: 12,
    growth: 3,
    start: 2,
}


def named(modules):
    return [pytest.param(m, id=m.__name__.split(".")[-1]) for m in modules]


def config_of(module, **changes):
    return module.Config().replace(CONFIGS[module] | changes)


# A second saved in running these programs is a minute lost in compiling them.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Programs that compile quickly."""

    def compiled(function, *args):
        made = jax.jit(function, compiler_options=QUICK).lower(*args).compile()
        return Program(made, 0.1, 0.2, made.memory_analysis().temp_size_in_bytes)

    monkeypatch.setattr(harness, "compiled", compiled)


@pytest.fixture
def perceptrons(monkeypatch):
    """Networks that compile quickly, wherever a ConvNet is asked for."""
    small = mlp.Config(width=4, depth=1)
    monkeypatch.setattr(convnet, "make", lambda config, *shape: mlp.make(small, *shape))


@pytest.fixture
def other_keys():
    """Random numbers that compile quickly; under vmap they are others than in a loop."""
    before = jax.config.jax_default_prng_impl
    jax.config.update("jax_default_prng_impl", "unsafe_rbg")
    yield
    jax.config.update("jax_default_prng_impl", before)


@pytest.fixture
def pretending(monkeypatch):
    """Programs that are not compiled: they give ones, and the odd one gives twos."""

    def pretend(odd):
        number = iter(range(100))

        def compiled(function, *args):
            shapes = jax.eval_shape(function, *args)
            value = 2.0 if next(number) == odd else 1.0
            made = jax.tree.map(lambda x: np.full(x.shape, value), shapes)
            return Program(lambda *_: made, 0.0, 0.0, 0)

        monkeypatch.setattr(harness, "compiled", compiled)

    return pretend


def ran(module, tmp_path, **changes):
    path = tmp_path / "record.json"
    module.run(config_of(module, json=str(path), **changes))
    record = json.loads(path.read_text())
    table = [line for line in module.table(record).splitlines() if line.startswith("|")]
    num_tables = sum(line.startswith("| ---") for line in table)
    assert len(table) == ROWS[module] + 2 * num_tables
    assert record["command"].startswith(f"python -m {module.__name__} ")
    assert "json" not in record["config"]
    return record, [[cell.strip() for cell in line[1:-1].split("|")] for line in table]


@pytest.mark.slow
def test_steps_a_second_of_every_method(perceptrons, pretending, tmp_path):
    pretending(None)
    record, (heading, _, *rows) = ran(throughput, tmp_path)
    found = [row[0] + row[2] for row in rows]
    assert found == [
        "bptt1",
        "bptt2",
        "gm-",
        "dm-",
        "tm1",
        "tm2",
        "kernel-",
    ]
    one = record["records"][0]
    seconds = one["wall_seconds"]["median"]
    assert rows[0][heading.index("steps/s")] == harness.figure(1 / seconds)
    assert rows[0][heading.index("times as long as its first")] == "1.00"
    assert {r["against"] for r in record["records"][:2]} == {"bptt, ipc 1, unroll 1"}


@pytest.mark.slow
def test_growth_of_what_is_asked_for(perceptrons, pretending, tmp_path):
    pretending(None)
    record, (heading, _, *rows) = ran(growth, tmp_path)
    products = heading.index("power of products")
    found = {(row[0], row[1]): float(row[products]) for row in rows}
    assert found["classes", "dm"] == found["experts at once", "experts"] == 1
    assert found["pixels", "dm"] == 1
    assert {r["value"] for r in record["records"] if r["dimension"] == "size"} == {64, 256}


def test_only_what_unrolls_grows_with_the_unroll():
    found = growth.pairs(growth.Config(dimensions="unroll,experts"))
    assert found == [("unroll", "bptt"), ("unroll", "tm"), ("experts", "experts")]


def test_a_power_is_that_of_the_last_two_values():
    records = [{"value": x, "y": y} for x, y in ((1, 7.0), (2, 3.0), (8, 48.0))]
    assert growth.power(records, lambda r: r["y"]) == pytest.approx(2)
    assert np.isnan(growth.power(records, lambda r: 0))


@pytest.mark.slow
def test_every_method_steps(perceptrons, tmp_path):
    record, _ = ran(throughput, tmp_path)
    assert all(r["temporary_bytes"] > 0 for r in record["records"])


@pytest.mark.slow
def test_meta_gradients_agree_in_every_mode_and_in_pieces(perceptrons, tmp_path):
    record, (_, _, *rows) = ran(meta_gradient, tmp_path)
    assert {row[0] for row in rows} == {
        "reverse over reverse, none",
        "reverse over reverse, step",
        "reverse over reverse, nested",
        "reverse over reverse, step, pieces of 2",
        "forward over reverse",
        "forward over reverse, pieces of 2",
    }
    assert max(r["difference"] for r in record["records"]) < 1e-5


@pytest.mark.slow
def test_convolutions_agree_at_every_order_inside_and_outside(tmp_path):
    record, (_, _, *rows) = ran(convolutions, tmp_path)
    assert [row[:2] for row in rows] == [
        [name, place] for name in ("library", "im2col") for place in ("outside", "inside")
    ]
    by_kind = {r["kind"]: r for r in record["records"]}
    assert by_kind.keys() == {"forward", "gradient", "second"}
    # 3x3 kernels on 8x8 images with one channel, four outputs; a head of 4 x 4 x 4.
    assert by_kind["forward"]["flops"] == 4 * 2 * (8 * 8 * 4 * 9 + 4 * 4 * 4 * 10)
    assert by_kind["second"]["flops"] > by_kind["gradient"]["flops"] > 0
    assert max(r["difference"] for r in record["records"]) < 1e-5
    assert record["ceiling"]["flops_per_second"] > 0


@pytest.mark.slow
def test_networks_side_by_side_and_in_turn(perceptrons, tmp_path):
    record, (_, _, *rows) = ran(networks, tmp_path)
    assert [r[:2] for r in rows] == [["1", "loop"]] + [
        ["2", way] for way in ("loop", "map", "vmap")
    ]
    assert [r.get("against") for r in record["records"]][2:] == ["loop, 2"] * 2


@pytest.mark.slow
def test_ways_to_dispatch(perceptrons, pretending, monkeypatch, tmp_path):
    pretending(None)
    monkeypatch.setattr(contest, "difference", lambda *_: 0.0)
    _, (_, _, *rows) = ran(dispatch, tmp_path)
    ways = ["1 a dispatch", "2 a dispatch", "1 a dispatch, images from the host"]
    assert [row[:2] for row in rows] == [["gm", way] for way in ways]


@pytest.mark.slow
def test_precisions(perceptrons, tmp_path):
    record, (heading, _, *rows) = ran(precision, tmp_path)
    exact, _, _, coarse, _ = record["records"]
    for work in ("step", "meta_gradient"):
        assert exact[work]["difference"] < 1e-5 < 1e-4 < coarse[work]["difference"] < 0.3
    assert coarse["accuracy"]["seeds"] == 2
    assert rows[3][heading.index("accuracy ± std (seeds)")].endswith("(2)")
    assert record["4096_ones_in_bfloat16"]["product"] in (256, 4096)


def test_precisions_that_a_backend_does_not_have(
    perceptrons, pretending, monkeypatch, tmp_path
):
    asked = []

    def fresh_accuracy(keys, model, batch, test, protocol, *, learning_rate):
        asked.append((len(keys), protocol.steps, len(batch.labels), len(test.labels)))
        return jnp.array([0.5, 0.7])

    monkeypatch.setattr(precision.evaluation, "fresh_accuracy", fresh_accuracy)
    expected = {"step": 1.0, "meta_gradient": 1.0}
    monkeypatch.setattr(precision, "reference", lambda *_: expected)
    monkeypatch.setattr(contest, "difference", lambda *_: 1e-4)
    pretending(None)
    _, (heading, _, *rows) = ran(precision, tmp_path)
    names = ["default", "highest", "tf32", "bfloat16", "activations"]
    assert [row[0] for row in rows] == names
    for absent in rows[1:3]:
        assert set(absent[1:]) == {"-"}
    assert asked == [(2, 1, 100, 2000)] * 3
    assert rows[3][heading.index("accuracy ± std (seeds)")] == "60.0% ± 14.1% (2)"
    assert rows[3].count("0.00010") == 2


def test_bfloat16_is_what_the_layers_compute_in():
    seen = []

    def apply(params, images):
        seen.append((params.dtype, images.dtype))
        return images @ params

    found = precision.precisions()["bfloat16"]
    low = precision.casting(convnet.Model(None, apply, apply), found)
    images, params = np.full((1, 1), 1 + 2**-8, np.float32), np.ones((1, 1), np.float32)
    out = low.apply(params, images)
    assert out.dtype == np.float32
    assert out[0, 0] == 1.0  # seven bits after the point
    assert seen == [("bfloat16", "bfloat16")]


def test_products_and_kernels(perceptrons, other_keys, tmp_path):
    record, _ = ran(products, tmp_path)
    assert [r["contestant"] for r in record["ntk"]] == [
        "full",
        "trace",
        "classes",
        "full, by products",
    ]
    assert {r["against"] for r in record["hessian"]} == {products.USED}


def test_experts_an_hour_are_said_to_be_extrapolated(perceptrons, tmp_path):
    record, (heading, _, *rows) = ran(experts, tmp_path)
    assert heading[1] == "experts/h, extrapolated from 1 epoch to 7"
    seconds = record["records"][0]["wall_seconds"]["median"]
    assert rows[0][1] == harness.figure(3600 / (7 * seconds))


@pytest.mark.slow  # two processes, each of which compiles for itself
def test_devices_give_the_same_numbers(tmp_path):
    record, (_, _, *rows) = ran(devices, tmp_path)
    assert [row[:2] for row in rows] == [
        [work, num] for work in ("evaluation", "trace") for num in "12"
    ]
    threads = record["environment"]["threads"]
    assert f"share {threads} core" in devices.table(record)


SIDES = [["1", "1"], ["all", "1"], ["all", "2"]]  # cores and devices


@pytest.mark.slow  # three processes, each of which compiles for itself
def test_cores_as_threads_and_as_devices_give_the_same_numbers(tmp_path):
    record, (heading, _, *rows) = ran(cores, tmp_path)
    works = "dm", "evaluation", "experts", "product"
    assert [row[:3] for row in rows] == [[work, *side] for work in works for side in SIDES]
    assert [one["cores"] for one in record["records"]] == [1, None, None] * len(works)
    one_core = rows[0][heading.index("as one core")]
    assert one_core == "1.00"


@pytest.mark.slow  # six runs of the command
def test_the_main_job_is_timed_as_a_command(tmp_path):
    small = (
        "--model=mlp --mlp.width=8 --steps=3 --score_every=3 --score_seeds=1 --noscores "
        "--eval_seeds=2 --whole_epochs=0 --bptt.unroll=2"
    )
    changes = {"works": "evaluation,main", "main_options": small, "steps": 1}
    record, (_, _, *rows) = ran(cores, tmp_path, **changes)
    works = "evaluation", "main"
    assert [row[:3] for row in rows] == [[work, *side] for work in works for side in SIDES]
    assert all(one["cpu_seconds"]["median"] > 0.1 for one in record["records"][3:])


@pytest.mark.slow
def test_a_command_is_timed_to_its_first_outer_step(tmp_path):
    record, (_, _, *rows) = ran(start, tmp_path)
    assert [row[:2] for row in rows] == [["main", "cold"], ["main", "warm"]]
    assert all(one["cpu_seconds"]["median"] > 0.1 for one in record["records"])


@pytest.fixture
def started(monkeypatch):
    """Commands that are not started; returns what each cache held when one began."""
    held = []

    def run(module, *words, caches):
        held.append((caches.name, len(list(caches.iterdir()))))
        (caches / f"program{len(held)}").touch()
        told = {"step": 1, "loss": 2.0} | answers.pop(0)
        return harness.Sample(1.0, 2.0), json.dumps(told)

    answers = [{} for _ in range(20)]
    monkeypatch.setattr(start, "_run", run)
    return held, answers


@pytest.mark.parametrize(
    "wrong",
    [lambda: start.Config(width=0), lambda: every.Config(threads=0)],
    ids=["start", "all"],
)
def test_options_are_within_their_range(wrong):
    with pytest.raises(FieldError, match="must be at least 1"):
        wrong()


def test_a_cold_start_has_no_programs_and_a_warm_one_has_them(started, tmp_path):
    held, _ = started
    _, rows = ran(start, tmp_path, repeats=2)
    assert [num for kind, num in held if kind == "cold"] == [0] * 4
    assert [num for kind, num in held if kind == "warm"] == [0, 1, 2, 3]
    assert [row[-1] for row in rows[2:]] == ["-", "-"]


@pytest.mark.parametrize(
    ("answers", "match"),
    [
        ([{}, {"loss": 2.1}], "warm differs by 0.05 from cold.*nothing was timed"),
        ([{"step": 20}], "ended after outer step 20, not 1"),
    ],
)
def test_starts_of_other_work_are_not_timed(started, answers, match):
    started[1][:] = answers
    with pytest.raises(InputError, match=match):
        start.run(config_of(start))


def test_a_main_job_that_fails_is_not_timed(tmp_path):
    config = cores.Config(works="main", main_options="--method=dn")
    with pytest.raises(InputError, match=r"main job failed: error: --method=dn"):
        cores.measure(config)


def test_what_differs_is_refused():
    ones = {"a": np.ones(3), "b": np.ones((3, 1))}
    found = contest.same({"one": ones, "two": ones}, 1e-3)
    assert found == {"one": 0.0, "two": 0.0}
    worse = {"a": np.ones(3), "b": np.full((3, 1), 1.01)}
    assert contest.difference(worse, ones) == pytest.approx(0.01 / 2**0.5)
    for other in (worse, {"a": np.ones(3)}, {**ones, "b": np.full((3, 1), np.nan)}):
        with pytest.raises(InputError, match=r"two differs by .* from one, .* was timed"):
            contest.same({"one": ones, "two": other}, 1e-3)


@pytest.mark.parametrize(
    ("module", "odd", "name"),
    [
        (convolutions, 1, "library, inside, forward"),
        (convolutions, 10, "im2col, outside, second"),
        (networks, 1, "map, 2"),
        (networks, 2, "vmap, 2"),
        (experts, 1, r"at once \(vmap\)"),
    ],
)
def test_a_way_that_computes_something_else_is_not_timed(
    module, odd, name, pretending, request
):
    if module is not convolutions:
        request.getfixturevalue("perceptrons")
    config = config_of(module)
    if module is networks:
        config = config.replace({"networks": "2"})
    pretending(None)
    assert len(module.prepare(config)) > 1
    pretending(odd)
    with pytest.raises(InputError, match=f"{name} differs by .* nothing was timed"):
        module.prepare(config)


def test_a_product_that_is_another_is_not_timed(perceptrons, pretending):
    config = config_of(products)
    given = contest.given(config)
    pretending(2)
    with pytest.raises(InputError, match="reverse over forward differs by"):
        products.hessians(config, given)
    pretending(3)
    with pytest.raises(InputError, match="full, by products differs by"):
        products.kernels(config, given)


def test_float32_that_is_not_float64_is_not_timed(perceptrons, pretending):
    pretending(None)
    with pytest.raises(InputError, match=r"step in default differs by .* from float64"):
        precision.prepare(config_of(precision))


def test_steps_that_make_other_images_are_not_timed(perceptrons, pretending):
    pretending(1)
    with pytest.raises(InputError, match=r"gm, 2 differs by .* from gm, 1"):
        dispatch.prepare(config_of(dispatch))


@pytest.mark.slow
def test_all_dispatches_make_the_same_images(perceptrons):
    assert len(dispatch.prepare(config_of(dispatch, dispatches="1,2,4"))) == 4


def test_the_host_cuts_out_images_of_every_class():
    images = np.arange(12, dtype=np.uint8)[:, None, None, None]
    split = data.Split(images, np.arange(12, dtype=np.int32) % 3)
    real = data.on_device(split, data.fit("normalise", split.images), 3)
    host = dispatch.Host(real, 2)
    batches = [host.batch() for _ in range(9)]
    for batch in batches:
        shown = batch.images.ravel()
        assert batch.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert (shown % 3 == batch.labels).all()
        assert len(set(shown)) == 6
        assert (shown[batch.class_index] % 3 == np.arange(3)[:, None]).all()
    assert {x for batch in batches for x in batch.images.ravel()} == set(range(12))


@pytest.mark.slow
def test_images_that_the_host_mixes_up_are_not_fed(perceptrons, other_keys, monkeypatch):
    config = config_of(dispatch, dispatches="1")
    assert len(dispatch.prepare(config)) == 2
    honest = dispatch.Host.batch

    def mixed(self):
        batch = honest(self)
        return batch._replace(images=batch.images[::-1])

    monkeypatch.setattr(dispatch.Host, "batch", mixed)
    with pytest.raises(InputError, match=r"gm, host differs by .* from gm, device"):
        dispatch.prepare(config)


def test_a_process_has_the_devices_it_is_to_have(pretending):
    with devices.presented(3):
        script = "import jax; print(jax.device_count(), jax.default_backend())"
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True
        )
    assert done.stdout.split() == ["3", "cpu"], done.stderr
    pretending(None)
    values = config_of(devices).to_dict()
    assert devices.make(values, 1)["numbers"]()["evaluation"].shape == (2, 4, 10)
    with pytest.raises(InputError, match="expected 2 devices, found 1"):
        devices.make(values, 2)


def test_devices_that_disagree_are_not_timed(monkeypatch):
    class Remote:
        def __init__(self, make, values, num):
            self.num = num

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def call(self, name):
            assert name == "numbers"
            return {"evaluation": np.ones(2), "trace": np.asarray(float(self.num))}

    monkeypatch.setattr(devices, "Remote", Remote)
    with pytest.raises(InputError, match="trace, 2 devices differs by 1 from"):
        devices.measure(config_of(devices))


@pytest.mark.parametrize(
    ("module", "flag", "value"),
    [
        (throughput, "ipcs", "1,,2"),
        (throughput, "unrolls", "0"),
        (networks, "networks", "1,1"),
        (networks, "networks", "-2"),
        (convolutions, "formulations", "auto"),
        (convolutions, "formulations", "im2col,im2col"),
        (meta_gradient, "pieces", 3),
        (dispatch, "methods", "tm"),
        (dispatch, "dispatches", "5,25"),
        (dispatch, "dispatches", "1,4,6"),
        (experts, "experts", 0),
        (devices, "devices", "2,4"),
        (devices, "networks", 6),
        (devices, "images", 3),
        (precision, "seeds", -1),
        (growth, "works", "sgd"),
        (growth, "dimensions", "unroll,depth"),
        (products, "products", 0),
    ],
)
def test_wrong_flags(module, flag, value):
    with pytest.raises(FieldError, match=f"^{flag}="):
        module.Config().replace({flag: value})


@pytest.mark.parametrize("name", [*every.RUNS, *every.LONGER])
def test_the_flags_of_all_are_flags(name):
    module = importlib.import_module(f"benchmarks.{every.benchmark(name)}")
    for quick in (False, True):
        words = every.flags(name, every.Config(quick=quick, threads=1), torch=False)
        assert launch.parse(module.Config, [*words, "--json=x"]).json == "x"


def test_only_what_there_is_can_be_named():
    assert every.Config().names == list(every.RUNS)
    assert every.Config(only="memory,methods").names == ["memory", "methods"]
    with pytest.raises(FieldError, match=r"^only=.*'memo' is not one of methods, memory"):
        every.Config(only="methods,memo")


@pytest.mark.parametrize("name", every.IN_README)
def test_every_table_has_its_place(name):
    text = every.README.read_text(encoding="utf-8")
    assert f"python -m benchmarks.{every.benchmark(name)}`" in text
    assert "\nhere\n" in harness.fill(text, name, "here")
