"""The command `python -m experiments.attributes`."""

from experiments.lab import start

start.command("attributes")
