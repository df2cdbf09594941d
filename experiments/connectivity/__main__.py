"""The command `python -m experiments.connectivity`."""

from experiments.lab import start

start.command("connectivity")
