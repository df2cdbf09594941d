"""The committed distilled sets, with their numbers."""
