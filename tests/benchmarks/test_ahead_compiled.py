"""Small programs compiled for accelerators that are not there, with ceilings.

The ceilings are what was found when they were set, and a tenth more: a change that adds a
pass over memory to an inner step, or keeps more values, fails here.
"""

import pytest

from benchmarks.ahead import compile as ahead_of_time
from benchmarks.ahead import programs, targets
from benchmarks.harness import MIB
from distilljax.core import parameters

pytestmark = pytest.mark.slow
SIZES = programs.Sizes(
    width=32, ipc=1, real=1000, test=500, unroll=4, real_batch=64, steps=4
)


def record_of(target, program, num=1):
    if reason := targets.missing(target):
        pytest.skip(reason)
    found = ahead_of_time.compiled(target, program, num, SIZES)
    return ahead_of_time.record(target, program, num, found), found.text


def kernels(record, trips):
    return sorted(one["kernels"] for one in record["loops"] if one["trips"] == trips)


# Target, program -> kernels of a pass through each loop of four steps, temporary MiB.
CEILINGS = {
    ("h100", "bptt"): ([54, 98], 20),
    ("h100", "tm"): ([75, 136], 8),
    ("h100", "train"): ([46], 3),
}


@pytest.mark.parametrize(("target", "program"), CEILINGS)
def test_kernels_of_an_inner_step_and_memory(target, program):
    record, text = record_of(target, program)
    most, memory = CEILINGS[target, program]
    found = kernels(record, 4)
    assert len(found) == len(most)
    assert all(a <= 1.1 * b for a, b in zip(found, most, strict=True)), found
    assert record["bytes"]["temporaries"] <= 1.1 * memory * MIB
    assert "__cudnn$conv" in text  # the library's convolution, and no product over slices
    assert record["compiled"] == "compiled, not run"


def test_classes_on_eight_devices_exchange_gradients_alone():
    """Targets of gm are gathered, sixteen for ten classes; no image or activation is."""
    record, _ = record_of("h100", "gm", num=8)
    size = 4 * parameters.num_params(programs.network(SIZES))
    moved = sum(one["bytes"] for one in record["collectives"].values())
    assert moved < 17 * size + MIB


def test_a_tpu_program_has_its_loops_counted_and_cycles():
    record, text = record_of("v5e", "train")
    assert [one["trips"] for one in record["loops"]] == [4]
    assert "known_trip_count" not in text
    assert record["estimated_seconds"] > 0
    assert record["flops"] > 0
