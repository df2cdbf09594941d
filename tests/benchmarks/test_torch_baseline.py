"""Our methods and both PyTorch baselines find the same numbers, in double precision."""

import pickle
import shutil

import jax
import numpy as np
import pytest

from benchmarks import cases, side_by_side, start

torch = pytest.importorskip("torch", reason="needs the extra `torch`")

from benchmarks.torch_baseline import TUNED, first, tuned, works  # noqa: E402
from benchmarks.torch_baseline.given import Given  # noqa: E402

# PyTorch's own: its forward derivatives are scripts, and the module of those is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

SIZES = cases.Sizes(
    ipc=2,
    width=4,
    depth=1,
    size=8,
    channels=1,
    unroll=3,
    remat="none",
    real_batch=10,
    steps=4,
    test_images=20,
    networks=2,
)


SHAPES = [(2, 1, 3, 3), (2,), (2,), (2,), (3, 8), (3,)]  # of a network for images of 4x4

# A tenth of a second saved in running these programs is seconds lost in compiling them.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


@pytest.fixture(scope="module")
def made():
    """The cases in double precision."""
    with jax.enable_x64(True):
        return cases.make(cases.CASES, SIZES, np.float64)


@pytest.fixture(scope="module")
def found(made):
    """By work: what is found here, by the plain PyTorch, and by the tuned, not compiled."""
    works = in_torch(made, "eager")

    def ours(case):
        return case.result(jax.jit(case.function, compiler_options=QUICK)(*case.args))

    with jax.enable_x64(True):
        return {
            name: {
                "ours": ours(case),
                "plain": works[name](),
                "tuned": works[TUNED + name](),
            }
            for name, case in made.items()
        }


def in_torch(made, backend):
    return works.make({n: case.given for n, case in made.items()}, "cpu", backend)


@pytest.mark.parametrize("name", cases.CASES)
def test_the_same_numbers(name, found):
    ours, plain, tuned = (found[name][side] for side in ("ours", "plain", "tuned"))
    assert all(np.linalg.norm(value) > 1e-4 for value in ours.values())
    # Real images are normalised in float32, once inside a program and once outside.
    for side in plain, tuned:
        differences = side_by_side.differences(ours, side)
        assert max(differences.values()) < 1e-5, differences
    differences = side_by_side.differences(tuned, plain)
    assert max(differences.values()) < 1e-10, differences


@pytest.mark.slow  # a compiler of C++ builds eight functions
@pytest.mark.parametrize("name", cases.CASES)
def test_the_same_numbers_compiled(name, made, found):
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs g++")
    compiled = in_torch({name: made[name]}, "inductor")[TUNED + name]()
    differences = side_by_side.differences(compiled, found[name]["plain"])
    assert max(differences.values()) < 1e-10, differences


def test_without_an_image_is_not_with_it(found):
    """What loo compares would agree if no side left anything out."""
    for side in found["loo"].values():
        assert cases.difference(side["losses"][0], side["losses"][1]) > 1e-4


@pytest.mark.parametrize("num", [6, 7, 9, 12])
def test_pieces_of_one_shape_hold_every_image_once(num):
    """Pieces are summed, and the places that are left are without weight."""
    of = tuned.Derivatives(range(3, 5), backend="eager")
    torch.manual_seed(0)
    params = [torch.randn(s, dtype=torch.float64) for s in SHAPES]
    images = torch.randn(num, 1, 4, 4, dtype=torch.float64)
    labels = torch.arange(num) % 3
    sizes = [(len(a), len(b)) for a, b in of.pieces(images, labels)]
    assert len(set(sizes)) == 1
    assert len(sizes) > 1
    network = tuned.logits(params, images)
    whole = torch.nn.functional.cross_entropy(network, labels)
    assert torch.allclose(of.gradient(params, images, labels)[1], whole)
    assert torch.equal(of.logits(params, images).argmax(1), network.argmax(1))
    v = [torch.ones_like(p) for p in params]

    def loss(params):
        return torch.nn.functional.cross_entropy(tuned.logits(params, images), labels)

    hv = torch.func.jvp(torch.func.grad(loss), (params,), (v,))[1]
    by_params, by_images = of.pull(params, images, labels, v)
    assert all(torch.allclose(a, b) for a, b in zip(hv, by_params, strict=True))
    assert by_images.shape == images.shape
    assert torch.allclose(of.form(params, images, labels, v), sum(x.sum() for x in hv))


def test_the_distance_of_rows():
    from benchmarks.torch_baseline.steps import row_distance

    a = [torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.ones(2)]
    b = [torch.tensor([[6.0, 8.0], [0.0, 2.0]]), -torch.ones(2)]
    assert row_distance(a, b).item() == pytest.approx(1.0, abs=1e-5)


def test_a_process_of_pytorch_takes_the_outer_step_of_a_case(tmp_path, capsys):
    path = tmp_path / "arrays"
    start.write_arrays("tm", start.Config(width=4), path)
    given = pickle.loads(path.read_bytes())
    first.main(str(path), "tm")
    expected = works.WORKS["tm"](Given(given, "cpu"))()["loss"]
    assert float(capsys.readouterr().out) == pytest.approx(expected, rel=1e-6)
    assert given["images"].shape == (10, 28, 28, 1)
    assert given["num_steps"] == 20
