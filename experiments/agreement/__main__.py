"""The command `python -m experiments.agreement`."""

from experiments.agreement.run import main

main()
