"""The command `python -m experiments.recognition`."""

from experiments.lab import start

start.command("recognition")
