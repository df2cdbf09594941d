"""The command `python -m experiments.agreement`."""

from experiments.lab import start

start.command("agreement")
