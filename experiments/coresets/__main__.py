"""The command `python -m experiments.coresets`."""

from experiments.coresets.run import main

main()
