"""See `experiments.influence.run`."""
