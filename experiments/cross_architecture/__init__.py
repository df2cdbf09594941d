"""Networks of several architectures trained on distilled sets."""
