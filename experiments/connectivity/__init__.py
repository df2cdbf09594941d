"""Lines between networks: whether those trained on distilled sets are connected."""
