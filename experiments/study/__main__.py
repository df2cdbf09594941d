"""The command `python -m experiments.study`."""

from experiments.lab import start

start.command("study")
