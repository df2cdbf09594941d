"""The command `python -m experiments.dynamics`."""

from experiments.lab import start

start.command("dynamics")
