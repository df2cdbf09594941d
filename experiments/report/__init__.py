"""A page on the findings of the experiments, with a verdict on each claim."""
