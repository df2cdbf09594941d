"""The command `python -m experiments.report`."""

from experiments.lab import start

start.command("report")
