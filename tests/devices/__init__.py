"""Contract of the pure functions over devices; runs in processes with forced devices."""
