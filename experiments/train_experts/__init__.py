"""Experts: networks trained on real images, whose trajectories are kept."""
