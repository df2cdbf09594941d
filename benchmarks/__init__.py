"""Benchmarks of speed and memory against alternatives."""
