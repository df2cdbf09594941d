"""The command `python -m experiments.dynamics`."""

from experiments.dynamics.run import main

main()
