"""Work shared by devices; on four forced devices."""

import os
import subprocess
import sys

import pytest

from tests.devices import commands, hosts


def run(module, *args):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-m", f"tests.devices.{module}", *args],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout.strip()


def test_leave_one_out_on_three_and_four_devices():
    assert run("meshes", "left_out") == "all agree"


def test_each_device_computes_a_share_of_the_images_of_an_outer_step():
    assert run("meshes", "bptt", "tm", "kernel") == "all agree"


@pytest.mark.slow
def test_all_that_takes_a_mesh_and_a_run_resumed_on_other_devices():
    assert run("meshes") == "all agree"


@pytest.mark.slow
@pytest.mark.parametrize("case", commands.CASES)
def test_commands_on_four_devices_and_on_one(tmp_path, case):
    """A distillation is also begun on one and resumed on four, and the other way."""
    hosts.make(tmp_path)
    run("commands", str(tmp_path), case)
