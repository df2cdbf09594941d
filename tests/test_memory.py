"""What does not fit the machine's memory is refused before it is asked for."""

import os
import subprocess
import sys

import numpy as np
import pytest

from distilljax import data, memory
from distilljax.types import InputError


def test_no_more_than_the_machine_has():
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory.available() <= there


def test_limits_of_the_process_count():
    script = (
        "import resource; from distilljax import memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (7 << 30, 7 << 30))\n"
        "print(memory.available())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) <= 7 << 30


def test_the_boundary(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1000)
    memory.require(1000, "this", "")
    with pytest.raises(InputError, match=r"this needs 1001 B of memory.*1000 B; buy more"):
        memory.require(1001, "this", "buy more")


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(1, "1 B"), (1536, "1.5 KiB"), (169 * 2**30, "169.0 GiB")]
)
def test_sizes_are_spelt(num_bytes, text):
    assert memory.spelt(num_bytes) == text


@pytest.mark.parametrize("kind", ["zca", "zca_normed", "zca_scaled"])
def test_whitening_of_large_images_is_refused(monkeypatch, kind):
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1), dtype=np.uint8)
    covariance = 8 * 256**2
    monkeypatch.setattr(memory, "available", lambda: covariance)
    with pytest.raises(InputError, match="whitening images of 256 values"):
        data.fit(kind, images)
    monkeypatch.setattr(memory, "available", lambda: 4 * covariance)
    data.fit(kind, images)
