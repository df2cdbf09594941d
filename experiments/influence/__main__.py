"""The command `python -m experiments.influence`."""

from experiments.lab import start

start.command("influence")
