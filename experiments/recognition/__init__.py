"""See `experiments.recognition.run`."""
