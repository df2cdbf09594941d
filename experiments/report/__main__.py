"""The command `python -m experiments.report`."""

from experiments.report.run import main

main()
