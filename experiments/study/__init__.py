"""The study: all experiments on the same sets, in order, and one report."""
