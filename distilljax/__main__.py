"""`python -m distilljax NAME`: the command `distilljax`."""

from distilljax.commands import main

main()
