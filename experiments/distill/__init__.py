"""A data set distilled into a few images per class, and what networks learn from them."""
