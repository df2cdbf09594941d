"""The command `python -m experiments.train_experts`."""

from experiments.lab import start

start.command("train_experts")
