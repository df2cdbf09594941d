"""See `experiments.coresets.run`."""
