"""See `experiments.mixing.run`."""
