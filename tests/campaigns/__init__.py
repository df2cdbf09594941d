"""Campaigns: many random faults and bad inputs, and what the commands make of them.

    python -m tests.campaigns --kinds=kill,damage --seed=0 --count=20

A trial is reproduced by its kind, seed and number (`--only=NUMBER`).
"""
