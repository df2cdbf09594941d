"""The command `python -m experiments.gallery`."""

from experiments.lab import start

start.command("gallery")
