"""Real images added to distilled sets: whether they help."""
