"""See `experiments.dynamics.run`."""
