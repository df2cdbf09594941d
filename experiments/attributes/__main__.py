"""The command `python -m experiments.attributes`."""

from experiments.attributes.run import main

main()
