"""The command `python -m experiments.distill`."""

from experiments.lab import start

start.command("distill")
