"""The pure functions give the same numbers wherever they run; on four forced devices."""

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys

import pytest

from tests.devices.cases import CASES, HOST

PACKAGES = ("core", "methods", "training", "analysis", "curvature")
QUICK = ("meta_gradient", "trained")


def public_functions():
    for package in PACKAGES:
        root = importlib.import_module(f"distilljax.{package}")
        for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
            module = importlib.import_module(found.name)
            short = found.name.rpartition(".")[2]
            for name, value in vars(module).items():
                own = getattr(value, "__module__", None) == module.__name__
                made = inspect.isfunction(value) or type(value).__name__ == "custom_jvp"
                if own and made and not name.startswith("_"):
                    yield f"{short}.{name}"


def test_every_public_function_is_held_to_the_contract():
    held = frozenset().union(*(covers for _, covers in CASES.values()))
    assert not held & HOST
    assert held | HOST == set(public_functions())


def run(*args):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-m", "tests.devices.contract", *args],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout


def test_shared_weights_and_data_of_each_device_under_shard_map():
    """Weights that are constants, data that are not: where gradients were summed."""
    assert run("--ways=one_key", *QUICK).strip() == f"{len(QUICK)} cases agree"


@pytest.mark.slow
def test_the_whole_table_in_every_way():
    """Seven CPU minutes, nearly all of it compiling; prints what fails as it comes."""
    assert run().strip() == f"{len(CASES)} cases agree"
