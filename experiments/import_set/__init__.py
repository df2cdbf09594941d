"""A distilled set of another program, made an artefact."""
