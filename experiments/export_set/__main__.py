"""The command `python -m experiments.export_set`."""

from experiments.lab import start

start.command("export_set")
