"""The first second of a command."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[3]
DROPPED = """
import gc, os, signal, sys, time, types
from experiments.lab import start

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs

def main():
    def callback(phase, info):
        gc.callbacks.remove(callback)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # the interruption is raised here, and dropped
    gc.callbacks.append(callback)
    gc.collect()
    time.sleep(30)
    print("it went on")

sys.modules["experiments.made_up.run"] = types.SimpleNamespace(main=main)
start.command("made_up")
"""


def test_an_interruption_in_a_callback_of_the_collector_is_not_lost():
    ended = subprocess.run(
        [sys.executable, "-c", DROPPED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 130
    assert ended.stdout == ""
    assert ended.stderr == "interrupted before the run began; run the same command again\n"


def test_a_bad_variable_of_jax_is_one_line():
    ended = subprocess.run(
        [sys.executable, "-m", "experiments.distill"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "JAX_ENABLE_X64": "maybe"},
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: the environment sets JAX wrongly (invalid")
    assert "JAX_ENABLE_X64" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
