"""See `experiments.agreement.run`."""
