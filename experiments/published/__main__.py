"""The command `python -m experiments.published`."""

from experiments.lab import start

start.command("published")
