"""Measures what probes see on real and distilled sets while a network learns."""
