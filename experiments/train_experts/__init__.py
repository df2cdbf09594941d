"""See `experiments.train_experts.run`."""
