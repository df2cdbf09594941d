"""Programs read as text: what is counted against what is known in closed form."""

import json
import multiprocessing

import jax
import jax.numpy as jnp
import pytest

from benchmarks import ahead, harness
from benchmarks.ahead import command, hlo, programs, targets, walk
from benchmarks.ahead import compile as compile_ahead
from benchmarks.ahead.command import rows
from distilljax.config import FieldError
from distilljax.types import InputError
from experiments.distill.presets import BY_METHOD

SPEED = walk.Speed({"low": 4.0, "default": 2.0, "highest": 1.0}, 10.0, 5.0, 0.0)

# A loop of seven passes without a stated number, as on a TPU; fusions that read a slice and
# write in place; collectives of two forms.
TEXT = """HloModule jit_f, is_scheduled=true, num_partitions=4

%sliced (p0: f32[7,8,4], p1: s32[]) -> f32[8,4] {
  %p0 = f32[7,8,4]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %ds = f32[1,8,4]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,8,4}
  ROOT %r = f32[8,4]{1,0} bitcast(%ds)
}

%updated (q0: f32[7,8,16], q1: f32[8,16], q2: s32[]) -> f32[7,8,16] {
  %q0 = f32[7,8,16]{2,1,0} parameter(0)
  %q1 = f32[8,16]{1,0} parameter(1)
  %q2 = s32[] parameter(2)
  %qz = s32[] constant(0)
  %qb = f32[1,8,16]{2,1,0} bitcast(%q1)
  ROOT %dus = f32[7,8,16]{2,1,0} dynamic-update-slice(%q0, %qb, %q2, %qz, %qz)
}

%body (arg: (s32[], f32[7,8,4], f32[4,16], f32[7,8,16])) -> (s32[], f32[7,8,4], f32[4,16], f32[7,8,16]) {
  %arg = (s32[], f32[7,8,4]{2,1,0}, /*index=2*/f32[4,16]{1,0}, f32[7,8,16]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %xs = f32[7,8,4]{2,1,0} get-tuple-element(%arg), index=1
  %w = f32[4,16]{1,0} get-tuple-element(%arg), index=2
  %ys = f32[7,8,16]{2,1,0} get-tuple-element(%arg), index=3
  %x = f32[8,4]{1,0} fusion(%xs, %i), kind=kLoop, calls=%sliced, metadata={op_name="jit(f)/while/body/jvp(Classifier)/backbone/Normalisation_0/sub"}
  %y = f32[8,16]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/while/body/transpose(jvp(Classifier))/head/Dense_0/dot_general"}
  %next = f32[7,8,16]{2,1,0} fusion(%ys, %y, %i), kind=kLoop, calls=%updated
  %one = s32[] constant(1)
  %j = s32[] add(%i, %one)
  ROOT %out = (s32[], f32[7,8,4]{2,1,0}, f32[4,16]{1,0}, f32[7,8,16]{2,1,0}) tuple(%j, %xs, %w, %next)
}

%condition (c: (s32[], f32[7,8,4], f32[4,16], f32[7,8,16])) -> pred[] {
  %c = (s32[], f32[7,8,4]{2,1,0}, f32[4,16]{1,0}, f32[7,8,16]{2,1,0}) parameter(0)
  %limit = s32[] constant(7)
  %ci = s32[] get-tuple-element(%c), index=0
  ROOT %lt = pred[] compare(%ci, %limit), direction=LT
}

ENTRY %main (a: f32[7,8,4], b: f32[4,16]) -> f32[7,8,16] {
  %a = f32[7,8,4]{2,1,0} parameter(0)
  %b = f32[4,16]{1,0} parameter(1)
  %start = s32[] constant(0)
  %copied = s32[] copy(%start)
  %empty = f32[7,8,16]{2,1,0} custom-call(), custom_call_target="AllocateBuffer"
  %init = (s32[], f32[7,8,4]{2,1,0}, f32[4,16]{1,0}, f32[7,8,16]{2,1,0}) tuple(%copied, %a, %b, %empty)
  %loop = (s32[], f32[7,8,4]{2,1,0}, f32[4,16]{1,0}, f32[7,8,16]{2,1,0}) while(%init), condition=%condition, body=%body, metadata={op_name="jit(f)/while"}
  %found = f32[7,8,16]{2,1,0} get-tuple-element(%loop), index=3
  %all = f32[7,8,16]{2,1,0} all-reduce(%found), replica_groups={{0,1,2,3}}, to_apply=%condition
  %begun = (f32[4,16]{1,0}, f32[16,16]{1,0}) all-gather-start(%b), dimensions={0}, replica_groups=[1,4]<=[4]
  %ended = f32[16,16]{1,0} all-gather-done(%begun)
  ROOT %last = f32[7,8,16]{2,1,0} copy(%all)
}
"""  # noqa: E501


def test_a_loop_by_hand():
    module = hlo.parse(TEXT)
    found = walk.count(module, SPEED)
    word = 4
    assert [(loop.trips, loop.kernels) for loop in found.loops] == [(7, 4)]
    assert found.total.flops == 7 * 2 * 8 * 16 * 4
    assert found.layers["dense"].flops == found.total.flops
    # A slice of 8x4, read and written; the index.
    assert found.layers["norm"].bytes == 7 * word * (2 * 8 * 4 + 1)
    assert found.layers["dense"].bytes == 7 * word * (8 * 4 + 4 * 16 + 8 * 16)
    # Of an update in place the update is read and written; i + 1; the copies outside.
    inside = 7 * word * (2 * 8 * 16 + 1 + 3)
    assert found.layers["other"].bytes == inside + word * (2 * 7 * 8 * 16 + 2)
    size = word * 7 * 8 * 16
    assert found.collectives == {
        "all-reduce": (1, size),
        "all-gather": (1, word * 16 * 16),
    }
    # Two passes of 3/4 of what is reduced, one of what is gathered, over the link.
    seconds = (2 * size + word * 16 * 16) * 3 / 4 / SPEED.link
    assert found.layers["collectives"].seconds == pytest.approx(seconds)
    dense = 7 * max(2 * 8 * 16 * 4 / 2.0, word * (8 * 4 + 4 * 16 + 8 * 16) / 10.0)
    assert found.layers["dense"].seconds == pytest.approx(dense)


def test_a_loop_of_unknown_length_is_told_and_assumed():
    text = TEXT.replace("%limit = s32[] constant(7)", "%limit = s32[] parameter(7)")
    module = hlo.parse(text)
    once, often = walk.count(module, SPEED), walk.count(module, SPEED, 70)
    assert [loop.trips for loop in once.loops] == [None]
    assert often.total.flops == 70 * once.total.flops


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("f32[3,5]{1,0}", 60),
        ("f32[3,5]{1,0:T(8,128)}", 4 * 8 * 128),
        ("bf16[3,5,130]{0,2,1:T(8,128)(2,1)}", 2 * 5 * 136 * 128),
        ("pred[7]", 7),
        ("s4[3]{0}", 2),
        ("u32[]{:S(2)}", 4),
        ("token[]", 0),
        ("(f32[2]{0}, /*index=1*/f8e4m3fn[6]{0})", 14),
    ],
)
def test_bytes_as_laid_out(text, size):
    assert sum(shape.bytes for shape in hlo.shapes(text)) == size


def test_what_lies_on_the_chip_is_no_traffic():
    on_chip = TEXT.replace("%x = f32[8,4]{1,0} fusion", "%x = f32[8,4]{1,0:S(1)} fusion")
    found = walk.count(hlo.parse(on_chip), SPEED)
    word = 4
    assert found.layers["norm"].bytes == 7 * word * (8 * 4 + 1)
    assert found.layers["dense"].bytes == 7 * word * (4 * 16 + 8 * 16)


def text_of(function, *args):
    return jax.jit(function).lower(*args).compile().as_text()


def test_products_of_nested_loops_are_those_of_the_jaxpr():
    x, w = jnp.ones((5, 6)), jnp.ones((6, 6))

    def function(x, w):
        def outer(x, _):
            return jax.lax.scan(lambda x, _: (jnp.sin(x @ w), None), x, None, length=3)

        return jax.lax.scan(outer, x, None, length=4)[0] @ w

    found = walk.count(hlo.parse(text_of(function, x, w)), SPEED)
    assert found.total.flops == harness.flops(function, x, w) == 13 * 2 * 5 * 6 * 6
    assert sorted(loop.trips for loop in found.loops) == [3, 4]


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_and_their_gradients_are_those_of_the_jaxpr(stride):
    """Holes that a stride leaves are not counted, so the three products are alike."""
    x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))

    def convolved(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def gradients(x, w):
        return jax.grad(lambda x, w: jnp.sin(convolved(x, w)).sum(), (0, 1))(x, w)

    once = 2 * 2 * (8 // stride) ** 2 * 9 * 3 * 5
    one = walk.count(hlo.parse(text_of(convolved, x, w)), SPEED)
    assert one.total.flops == once
    every = walk.count(hlo.parse(text_of(gradients, x, w)), SPEED)
    if stride == 1:
        assert every.total.flops == harness.flops(gradients, x, w) == 3 * once
    else:
        assert once * 2 < every.total.flops < once * 3.5


CUDNN = """HloModule m

ENTRY %main (x: f32[2,8,8,3], w: f32[5,3,3,3], g: f32[2,8,8,5]) -> f32[2,8,8,5] {{
  %x = f32[2,8,8,3]{{3,2,1,0}} parameter(0)
  %w = f32[5,3,3,3]{{3,2,1,0}} parameter(1)
  %g = f32[2,8,8,5]{{3,2,1,0}} parameter(2)
  ROOT %conv = ({result}, u8[64]{{0}}) custom-call({operands}), window={{size=3x3 pad=1_1x1_1}}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$conv{kind}"
}}
"""  # noqa: E501


@pytest.mark.parametrize(
    ("kind", "operands", "result"),
    [
        ("Forward", "%x, %w", "f32[2,8,8,5]{3,2,1,0}"),
        ("BiasActivationForward", "%x, %w", "f32[2,8,8,5]{3,2,1,0}"),
        ("BackwardInput", "%g, %w", "f32[2,8,8,3]{3,2,1,0}"),
        ("BackwardFilter", "%x, %g", "f32[5,3,3,3]{3,2,1,0}"),
    ],
)
def test_convolutions_of_cudnn(kind, operands, result):
    text = CUDNN.format(kind=kind, operands=operands, result=result)
    found = walk.count(hlo.parse(text), SPEED).total
    assert found.flops == 2 * 2 * 8 * 8 * 9 * 3 * 5
    sizes = {"%x": 2 * 8 * 8 * 3, "%w": 5 * 9 * 3, "%g": 2 * 8 * 8 * 5}
    (shape,) = hlo.shapes(result)
    read = sum(sizes[name] for name in operands.split(", "))
    assert found.bytes == 4 * read + shape.bytes  # and not the workspace


def test_layers_by_their_place():
    place = "jit(step)/transpose(jvp(Classifier))/backbone/"
    assert walk.layer(f"{place}Conv_1/cond/branch_0_fun/conv") == "convolution"
    assert walk.layer(f"{place}Normalisation_0/jvp(Classifier)/pool/mul") == "pool"
    assert walk.layer("jit(step)/while/add") == "other"


def test_no_program():
    with pytest.raises(InputError, match="no ENTRY"):
        hlo.parse("module @jit_f {}")


PRESETS = {
    "bptt": ("bptt", "cifar10_ipc10"),
    "rat": ("bptt", "rat_cifar10_ipc10"),
    "gm": ("gm", "cifar10_ipc10"),
    "gm_dsa": ("gm", "dsa_cifar10_ipc10"),
    "dm": ("dm", "cifar10_ipc10"),
    "tm": ("tm", "cifar10_ipc10"),
    "kernel": ("kernel", "frepo_cifar10_ipc10"),
}
KINDS = {
    "published": "normalise",
    "zca": "zca",
    "zca_normed": "zca_normed",
    "zca_scaled": "zca_scaled",
}


@pytest.mark.parametrize("name", PRESETS)
def test_programs_are_those_of_the_presets(name):
    assert PRESETS.keys() == programs.PRESETS.keys()
    method, preset = PRESETS[name]
    theirs, ours = BY_METHOD[method][preset], programs.PRESETS[name]
    assert ours.method == theirs.method
    assert ours.settings == theirs.settings
    assert ours.transform.kind == KINDS[theirs.experiment["preprocess"]]
    assert dict(ours.network) == dict(theirs.experiment.get("convnet", {}))
    random = getattr(ours.settings, "random_window", False)
    assert (ours.unknown_trips is not None) == random
    if random:
        assert ours.unknown_trips == (ours.settings.unroll - ours.settings.window) / 2


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_programs_are_described_without_data(name):
    sizes = programs.Sizes(width=4, ipc=1, real=100, test=20, unroll=2, images=4, probes=2)
    described = programs.PROGRAMS[name](sizes, None)
    leaves = jax.tree.leaves(described.args)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    assert callable(described.function)


def test_options_are_refused():
    with pytest.raises(FieldError, match="target"):
        ahead.Config(target="h100,a100")
    with pytest.raises(FieldError, match="at most 8"):
        ahead.Config(devices="1,16")
    assert ahead.Config().programs == tuple(programs.PROGRAMS)


def test_a_missing_compiler_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"target=v5e: libtpu .*\.\[ahead\]"):
        ahead.run(ahead.Config(target="v5e"))


def one_record(series, program, milliseconds):
    module = hlo.parse(TEXT)
    return {
        "series": series,
        "target": "h100",
        "program": program,
        "devices": 1,
        "bytes": {"arguments": 0, "temporaries": 2**20, "outputs": 0},
        "compile_cpu_seconds": 1.0,
        "estimated_seconds": None,
        **walk.count(module, SPEED).record(),
        "seconds": milliseconds / 1000,
    }


def test_the_table_shows_the_oldest_and_the_newest_series():
    records = [one_record("now", "gm", 20), one_record("now", "bptt", 5)]
    records += [one_record("before", "gm", 25), one_record("526ed50", "gm", 30)]
    records.append(one_record("526ed50, on a CPU host", "gm", 90))
    assert [[one["series"] for one in row] for row in rows(records)] == [
        ["now"],
        ["526ed50", "before", "now"],
        ["526ed50, on a CPU host"],
    ]
    text = ahead.table({"records": json.loads(json.dumps(records))})
    assert "| 30.0 → 20.0 |" in text
    assert "| gm | NVIDIA H100 SXM | 1 | 1.00 |" in text
    assert "| gm (526ed50, on a CPU host) | NVIDIA H100 SXM | 1 |" in text


def test_what_is_not_compiled_says_why_in_the_table():
    refused = {"series": "now", "program": "gm", "target": "h100", "devices": 8}
    records = [one_record("before", "gm", 30) | {"devices": 8}]
    records.append(refused | {"refused": "not within 9 CPU s"})
    line = ahead.table({"records": records}).splitlines()[2]
    assert line.startswith("| gm | NVIDIA H100 SXM | 8 | 1.00 → - |")
    assert line.endswith("| not within 9 CPU s |")


def test_the_table_says_what_it_lacks():
    held = [
        one_record("now", name, 5) | {"target": target, "devices": num}
        for name in programs.PROGRAMS
        for target in targets.TARGETS
        for num in (1, 8)
        if (name, num) not in (("train", 8), ("loo", 1)) or target != "v5e"
    ]
    *_, last = ahead.table({"records": held}).splitlines()
    assert last == "Not compiled yet: TPU v5e, 1 device: loo."
    assert "Not compiled" not in ahead.table(
        {"records": [*held, one_record("now", "loo", 5) | {"target": "v5e"}]}
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"exported": "folder", "devices": "1,8"}, "of one device"),
        ({"resume": True}, "needs the file"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, said):
    with pytest.raises(FieldError, match=said):
        ahead.Config(**options)


def test_a_file_is_filled_up(tmp_path, monkeypatch):
    asked = []

    def limited(seconds, target, program, num, sizes, folder):
        asked.append((target, program, num))
        if program == "gm":
            raise compile_ahead.Refused("too large")
        return {k: v for k, v in one_record("", program, 5).items() if k != "series"} | {
            "devices": num
        }

    monkeypatch.setattr(targets, "missing", lambda target: None)
    monkeypatch.setattr(command, "limited", limited)
    path = tmp_path / "a.json"
    ahead.run(ahead.Config(program="bptt", json=str(path)))
    both = ahead.Config(program="bptt,gm", devices="1,8", resume=True, json=str(path))
    ahead.run(both)
    ahead.run(both)
    assert asked == [("h100", n, d) for n in ("bptt", "gm") for d in (1, 8)]
    records = json.loads(path.read_text())["records"]
    assert [one.get("refused") for one in records] == [None, None, "too large", "too large"]
    assert records[1]["command"].endswith("--program=bptt --devices=8")


def test_a_program_of_jax_export_is_described_by_its_file(tmp_path):
    program = jax.export.export(jax.jit(lambda x, y: x @ y))(
        jnp.ones((2, 3)), jnp.ones((3, 4))
    )
    path = tmp_path / "product.cuda"
    path.write_bytes(program.serialize())
    described = compile_ahead.described_in(path)
    assert [x.shape for x in described.args] == [(2, 3), (3, 4)]
    assert described.function(jnp.ones((2, 3)), jnp.ones((3, 4))).shape == (2, 4)
    path.write_bytes(b"no program")
    with pytest.raises(InputError, match=r"no program of jax\.export"):
        compile_ahead.described_in(path)


def test_targets_are_stated_by_their_vendors():
    assert targets.TARGETS["v5e"].speed.clock == pytest.approx(1.5e9, rel=0.01)
    assert targets.TARGETS["v6e"].speed.clock == pytest.approx(1.75e9, rel=0.01)
    speeds = [target.speed for target in targets.TARGETS.values()]
    assert all(s.flops["low"] >= s.flops["default"] > s.flops["highest"] for s in speeds)


def test_a_compiler_whose_command_has_ended_is_silent(monkeypatch):
    ours, theirs = multiprocessing.Pipe(duplex=False)
    ours.close()
    monkeypatch.setattr(compile_ahead.resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(compile_ahead, "_outcome", lambda args: ("record", {}))
    compile_ahead._work(theirs, 9, ())
