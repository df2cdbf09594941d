"""Energy of sets among the directions of feature space: which they carry."""
