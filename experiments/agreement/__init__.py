"""Which networks trained on real images predict like those trained on distilled sets."""
