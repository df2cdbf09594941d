"""The command `python -m experiments.cross_architecture`."""

from experiments.cross_architecture.run import main

main()
