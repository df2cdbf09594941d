"""The command `python -m experiments.recognition`."""

from experiments.recognition.run import main

main()
