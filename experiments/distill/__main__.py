"""The command `python -m experiments.distill`."""

from experiments.distill.run import main

main()
