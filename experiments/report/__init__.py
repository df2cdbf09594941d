"""See `experiments.report.run`."""
