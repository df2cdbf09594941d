"""Parts of distilled sets: whether they are smaller distilled sets."""
