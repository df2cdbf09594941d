"""The command `python -m experiments.evaluate`."""

from experiments.lab import start

start.command("evaluate")
