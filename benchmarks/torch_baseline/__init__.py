"""PyTorch implementations on the same weights and data. Needs the extra `torch`."""
