"""The command `python -m experiments.coresets`."""

from experiments.lab import start

start.command("coresets")
