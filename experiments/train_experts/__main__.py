"""The command `python -m experiments.train_experts`."""

from experiments.train_experts.run import main

main()
