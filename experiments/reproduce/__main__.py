"""The command `python -m experiments.reproduce`."""

from experiments.lab import start

start.command("reproduce")
