"""Asks whether networks trained on real images recognise distilled ones."""
