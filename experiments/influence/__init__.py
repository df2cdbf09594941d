"""Real test images on which each distilled image acts: leave-one-out training."""
