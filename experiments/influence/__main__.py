"""The command `python -m experiments.influence`."""

from experiments.influence.run import main

main()
