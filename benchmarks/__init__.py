"""Benchmarks: speed and memory, measured against the alternative."""
