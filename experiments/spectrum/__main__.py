"""The command `python -m experiments.spectrum`."""

from experiments.lab import start

start.command("spectrum")
