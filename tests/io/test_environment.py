"""What the numbers of a run depend on: threads, as the machine counts them."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from distilljax.io.environment import arithmetic, peak_memory_bytes
from distilljax.platforms import cpu_threads

COUNT = """
import pathlib
import jax, jax.numpy as jnp
from distilljax.io.environment import environment

x = jnp.ones((300, 300))
(x @ x).block_until_ready()
names = [(task / "comm").read_text() for task in pathlib.Path("/proc/self/task").iterdir()]
print(sum("XLAEigen" in name for name in names), environment()["threads"])
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("asked", ["3", ""])
def test_threads_are_those_that_xla_starts(asked):
    command = [sys.executable, "-c", COUNT]
    cores = os.sched_getaffinity(0)
    if not asked:
        cores = {min(cores)}
        command[:0] = ["taskset", "-c", str(*cores)]
    env = os.environ | {"NPROC": asked}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    started, said = done.stdout.split()
    assert started == said == (asked if asked == "3" else str(len(cores)))


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs /proc")
def test_peak_memory_is_that_of_the_kernel_in_bytes():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    (said,) = (line.split() for line in lines if line.startswith("VmHWM"))
    assert said[2] == "kB"
    assert peak_memory_bytes() == pytest.approx(1024 * int(said[1]), rel=0.05)


def test_the_words_name_compiler_and_threads(monkeypatch):
    import jaxlib

    for threads, words in (("-2", "1 CPU thread"), ("4", "4 CPU threads")):
        monkeypatch.setenv("NPROC", threads)
        assert cpu_threads() == max(1, int(threads))
        assert arithmetic() == f"jaxlib {jaxlib.__version__} on {words}"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    kind = jax.devices()[0].device_kind
    assert arithmetic() == f"jaxlib {jaxlib.__version__} on {kind}"
