"""The command `python -m experiments.mixing`."""

from experiments.mixing.run import main

main()
