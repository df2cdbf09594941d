"""What PyTorch does with the same weights and data. Needs the extra `torch`."""
