"""Work shared by devices; on four forced devices."""

import os
import subprocess
import sys

import pytest


def run(*args):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-m", "tests.devices.meshes", *args],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    assert done.stdout.strip() == "all agree"


def test_leave_one_out_on_three_and_four_devices():
    run("left_out")


@pytest.mark.slow
def test_all_that_takes_a_mesh_and_a_run_resumed_on_other_devices():
    run()
