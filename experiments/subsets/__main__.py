"""The command `python -m experiments.subsets`."""

from experiments.lab import start

start.command("subsets")
