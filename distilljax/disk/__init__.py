"""Atomic file writes, JSON, and safe reading of archives made by other programs."""
