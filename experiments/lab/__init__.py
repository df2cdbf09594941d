"""What the experiments share. Imports `distilljax` and itself, never a question."""
