"""The command `python -m experiments.compare`."""

from experiments.lab import start

start.command("compare")
