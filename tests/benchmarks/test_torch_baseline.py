"""Our methods and the plain PyTorch ones find the same numbers, in double precision."""

import jax
import numpy as np
import pytest

from benchmarks import cases, side_by_side

pytest.importorskip("torch", reason="needs the extra `torch`")

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


# A tenth of a second saved in running these programs is seconds lost in compiling them.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


@pytest.fixture(scope="module")
def both():
    """By work: what is found here, and what PyTorch finds."""
    with jax.enable_x64(True):
        made = cases.make(cases.CASES, SIZES, np.float64)
        works = side_by_side.in_torch({n: case.given for n, case in made.items()}, "cpu")

        def ours(case):
            return case.result(jax.jit(case.function, compiler_options=QUICK)(*case.args))

        return {name: (ours(case), works[name]()) for name, case in made.items()}


@pytest.mark.parametrize("name", cases.CASES)
def test_the_same_numbers(name, both):
    ours, theirs = both[name]
    found = side_by_side.differences(ours, theirs)
    # Real images are normalised in float32, once inside a program and once outside.
    assert max(found.values()) < 1e-5, found
    assert all(np.linalg.norm(value) > 1e-4 for value in ours.values())


def test_without_an_image_is_not_with_it(both):
    """What loo compares would agree if neither side left anything out."""
    for side in both["loo"]:
        assert cases.difference(side["losses"][0], side["losses"][1]) > 1e-4


def test_the_distance_of_rows():
    import torch

    from benchmarks.torch_baseline.steps import row_distance

    a = [torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.ones(2)]
    b = [torch.tensor([[6.0, 8.0], [0.0, 2.0]]), -torch.ones(2)]
    assert row_distance(a, b).item() == pytest.approx(1.0, abs=1e-5)
