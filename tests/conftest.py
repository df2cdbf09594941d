"""Common ground of the tests: CPU, one tiny problem."""

import importlib.metadata
import os
import shutil
import tempfile
from typing import NamedTuple

os.environ["JAX_PLATFORMS"] = "cpu"
# The tests mostly compile: these flags halve that. A later jaxlib may not know the second
# and the third, and XLA ends the process at a flag it does not know.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    * importlib.metadata.version("jaxlib").startswith("0.10.")
    # Commands in processes of their own find the numbers of this process.
    + " --xla_force_host_platform_device_count=1",
)
# One cache of compiled programs for the workers and subprocesses of this session.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(tempfile.gettempdir(), f"distilljax-tests-{os.getpid()}"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data
from distilljax.core import distilled
from distilljax.models import mlp
from distilljax.types import DistilledSet, Model, RealSet


def pytest_unconfigure(config):
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
    if cache.endswith(f"distilljax-tests-{os.getpid()}"):
        shutil.rmtree(cache, ignore_errors=True)


@pytest.fixture
def float64():
    """Runs a test in double precision."""
    with jax.enable_x64(True):
        yield


class Problem(NamedTuple):
    """Three classes of 8x8 grey images, bright in the top, the middle or the bottom."""

    model: Model
    real: RealSet
    distilled: DistilledSet


def striped_images(num_per_class: int, seed: int = 0) -> data.Split:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3, dtype=np.int32), num_per_class)
    images = rng.integers(0, 120, (len(labels), 8, 8, 1))
    for j in range(3):
        images[labels == j, 3 * j : 3 * j + 2] += 100
    return data.Split(images.astype(np.uint8), labels)


@pytest.fixture(scope="session")
def problem() -> Problem:
    split = striped_images(20)
    transform = data.fit("normalise", split.images)
    model = mlp.make(mlp.Config(width=12, depth=1), (8, 8, 1), 3)
    images = jax.random.normal(jax.random.key(7), (6, 8, 8, 1))
    start = distilled.create(images, jnp.repeat(jnp.arange(3), 2), 3, learning_rate=0.05)
    return Problem(model, data.on_device(split, transform, 3), start)
