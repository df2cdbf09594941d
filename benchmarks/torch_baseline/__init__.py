"""PyTorch implementations on the same weights and data. Needs the extra `torch`."""

TUNED = "tuned."  # before the names of the tuned works
