"""The command `python -m experiments.mixing`."""

from experiments.lab import start

start.command("mixing")
