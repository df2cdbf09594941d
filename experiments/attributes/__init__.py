"""Asks what the test images that a distilled image acts on have in common."""
