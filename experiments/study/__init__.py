"""See `experiments.study.run`."""
