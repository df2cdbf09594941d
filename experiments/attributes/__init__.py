"""See `experiments.attributes.run`."""
