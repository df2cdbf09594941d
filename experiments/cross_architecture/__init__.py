"""See `experiments.cross_architecture.run`."""
