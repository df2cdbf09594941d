"""The command `python -m experiments.cross_architecture`."""

from experiments.lab import start

start.command("cross_architecture")
