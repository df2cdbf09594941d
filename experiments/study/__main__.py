"""The command `python -m experiments.study`."""

from experiments.study.run import main

main()
