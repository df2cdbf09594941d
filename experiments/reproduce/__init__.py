"""Published rows distilled again, beside the published numbers."""
