"""An artefact, written for another program."""
