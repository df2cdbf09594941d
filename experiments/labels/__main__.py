"""The command `python -m experiments.labels`."""

from experiments.lab import start

start.command("labels")
