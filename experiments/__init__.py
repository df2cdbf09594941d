"""Experiments: one module each, run with `python -m experiments.NAME`."""
