"""The command `python -m experiments.import_set`."""

from experiments.lab import start

start.command("import_set")
