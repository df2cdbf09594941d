"""See `experiments.distill.run`."""
